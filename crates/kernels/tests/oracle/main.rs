//! Every kernel on every instruction set of this machine against naive arithmetic in f64.

mod layers;
mod planes;
mod tokens;

use margay_core::Activation;
use margay_kernels::{Isa, Layout, Margin, Tensor};

pub(crate) fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// Reproducible values in −1 .. 1.
pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub(crate) fn tensor(dims: [usize; 3], margin: Margin, values: &[f32]) -> Tensor {
    let mut tensor = Tensor::zeros(Layout::new(dims, margin).unwrap());
    tensor.fill(values);
    tensor
}

pub(crate) fn close(got: &[f32], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        assert!(error <= 1e-5 * (1.0 + expected.abs()), "{what}: value {i} is {got}, expected {expected}");
    }
}

/// Padding must stay zero: later layers read it.
pub(crate) fn padding_is_zero(tensor: &Tensor, what: &str) {
    let sum = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    let (all, inside) = (sum(tensor.as_slice()), sum(&tensor.to_dense()));
    assert!((all - inside).abs() <= 1e-9 * all, "{what}: padding holds {}", all - inside);
}

/// `act(x)`, in f64.
pub(crate) fn activated(function: Option<Activation>, x: f64) -> f64 {
    match function {
        None => x,
        Some(Activation::Relu) => x.max(0.0),
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

pub(crate) const ACTIVATIONS: [Option<Activation>; 5] =
    [None, Some(Activation::Relu), Some(Activation::Gelu), Some(Activation::Silu), Some(Activation::Sigmoid)];
