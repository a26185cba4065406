//! Every kernel on every instruction set of this machine and in every precision against naive arithmetic in f64.

mod layers;
mod noise;
mod planes;
mod tokens;

pub(crate) use noise::noise;

use margay_core::Activation;
use margay_kernels::{Isa, Layout, Margin, Precision, Tensor};
use proptest::prelude::{ProptestConfig, Strategy};

pub(crate) fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// A run of so many cases; of a few under miri, which takes a thousand times as long and looks at the memory.
pub(crate) fn runs(cases: u32) -> ProptestConfig {
    let few = ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() };
    if cfg!(miri) { few } else { ProptestConfig::with_cases(cases) }
}

/// An extent, smaller under miri but still of several of its short vectors.
pub(crate) const fn most(extent: usize) -> usize {
    if cfg!(miri) && extent > 9 { 9 + extent % 4 } else { extent }
}

pub(crate) fn precisions() -> impl Strategy<Value = Precision> {
    proptest::sample::select(Precision::ALL.to_vec())
}

/// The nearest values that every precision stores exactly: inputs are made of them.
pub(crate) fn halved(values: impl IntoIterator<Item = f32>) -> Vec<f32> {
    values.into_iter().map(|v| half::bf16::from_f32(v).to_f32()).collect()
}

/// [`noise`] that every precision stores exactly.
pub(crate) fn coarse(n: usize, seed: u64) -> Vec<f32> {
    halved(noise(n, seed))
}

pub(crate) fn tensor(dims: [usize; 3], margin: Margin, values: &[f32], precision: Precision) -> Tensor {
    let mut tensor = Tensor::zeros(Layout::new(dims, margin, precision).unwrap());
    tensor.fill(values);
    tensor
}

/// What rounding to the nearest stored value may add to an error, relatively.
pub(crate) fn rounding(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.0,
        Precision::Bf16 => 2.0_f64.powi(-8),
    }
}

/// What a function may be off by beyond the sums before it: GELU has fewer terms where values are stored in bf16.
const fn inexactness(function: Option<Activation>, precision: Precision) -> f64 {
    match (function, precision) {
        (Some(Activation::Gelu), Precision::Bf16) => 6.2e-5,
        _ => 0.0,
    }
}

pub(crate) fn close(got: &Tensor, expected: &[f64], what: &str) {
    close_after(None, got, expected, what);
}

/// What a function made of sums.
pub(crate) fn close_after(function: Option<Activation>, got: &Tensor, expected: &[f64], what: &str) {
    let precision = got.layout().precision();
    let got = got.to_dense();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        let sums = 1e-5 * (1.0 + expected.abs()) + rounding(precision) * expected.abs();
        let bound = sums + inexactness(function, precision);
        assert!(error <= bound, "{what} in {precision}: value {i} is {got}, expected {expected}");
    }
}

/// Padding must stay zero: later layers read it.
pub(crate) fn padding_is_zero(tensor: &Tensor, what: &str) {
    let sum = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    let (all, inside) = (sum(&tensor.buffer()), sum(&tensor.to_dense()));
    assert!((all - inside).abs() <= 1e-9 * all, "{what}: padding holds {}", all - inside);
}

/// `act(x)`, in f64.
pub(crate) fn activated(function: Option<Activation>, x: f64) -> f64 {
    match function {
        None => x,
        Some(Activation::Relu) => x.max(0.0),
        Some(Activation::Relu6) => x.clamp(0.0, 6.0),
        Some(Activation::Gelu) => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Some(Activation::Silu) => x / (1.0 + (-x).exp()),
        Some(Activation::Sigmoid) => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The error function: its Maclaurin series is exact to 1e-11 up to 5, and it is 1 beyond.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

pub(crate) const ACTIVATIONS: [Option<Activation>; 6] = [
    None,
    Some(Activation::Relu),
    Some(Activation::Relu6),
    Some(Activation::Gelu),
    Some(Activation::Silu),
    Some(Activation::Sigmoid),
];
