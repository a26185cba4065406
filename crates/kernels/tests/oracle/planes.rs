//! Kernels that go plane by plane.

use margay_core::{AvgPool2d, MaxPool2d};
use margay_kernels::{
    Layout, Margin, Pointwise, Precision, Tensor, avg_pool, gate, global_mean, max_pool, pad, scale,
};
use proptest::prelude::*;

use crate::{
    ACTIVATIONS, activated, close, close_after, coarse, halved, isas, most, noise, padding_is_zero, runs,
    tensor,
};

proptest! {
    #![proptest_config(runs(200))]

    #[test]
    fn pooling_matches_the_definition(
        channels in 1_usize..4, height in 1_usize..most(20), width in 1_usize..most(40), k in 1_usize..5,
        s in 1_usize..4, p in 0_usize..3, slack in 0_usize..4, seed in 0_u64..1 << 40,
        precision in crate::precisions(),
    ) {
        prop_assume!(p < k && height + 2 * p >= k && width + 2 * p >= k);
        let pool = MaxPool2d { kernel: [k, k], stride: [s, s], padding: [p, p] };
        let out = [height, width].map(|n| (n + 2 * p - k) / s + 1);
        let x = coarse(channels * height * width, seed);
        let margin = Margin { pitch: width + slack, before: 3, after: 5 };
        let input = tensor([channels, height, width], margin, &x, precision);
        let at = |c: usize, y: usize, x_: usize| f64::from(x[(c * height + y) * width + x_]);
        let mut expected = Vec::new();
        for c in 0..channels {
            for oy in 0..out[0] {
                for ox in 0..out[1] {
                    let rows = (oy * s).saturating_sub(p)..(oy * s + k - p).min(height);
                    let columns = (ox * s).saturating_sub(p)..(ox * s + k - p).min(width);
                    let window = rows.flat_map(|y| columns.clone().map(move |x| (y, x)));
                    expected.push(window.map(|(y, x)| at(c, y, x)).fold(f64::NEG_INFINITY, f64::max));
                }
            }
        }
        for isa in isas() {
            let layout = Layout::new([channels, out[0], out[1]], Margin { pitch: out[1] + slack, ..margin }, precision);
            let mut y = Tensor::zeros(layout.unwrap());
            max_pool(isa, &pool, &input, &mut y, 2);
            close(&y, &expected, &format!("max pool {isa}"));
            padding_is_zero(&y, "max pool");
            let mut means = Tensor::zeros(Layout::vector(channels).unwrap());
            global_mean(isa, &input, 0, &mut means);
            let mean = |plane: &[f32]| plane.iter().map(|v| f64::from(*v)).sum::<f64>() / plane.len() as f64;
            let expected: Vec<f64> = x.chunks(height * width).map(mean).collect();
            close(&means, &expected, &format!("mean {isa}"));
        }
    }

    #[test]
    fn means_of_windows_match_the_definition(
        channels in 1_usize..4, height in 1_usize..most(20), width in 1_usize..most(40), kh in 1_usize..5,
        kw in 1_usize..5, slack in 0_usize..4, seed in 0_u64..1 << 40,
        precision in crate::precisions(),
    ) {
        let x = coarse(channels * height * width, seed);
        let margin = Margin { pitch: width + slack, before: 3, after: 5 };
        let input = tensor([channels, height, width], margin, &x, precision);
        let out = [height.div_ceil(kh), width.div_ceil(kw)];
        let mut expected = Vec::new();
        for (c, oy) in (0..channels).flat_map(|c| (0..out[0]).map(move |y| (c, y))) {
            for ox in 0..out[1] {
                let rows = oy * kh..((oy + 1) * kh).min(height);
                let columns = ox * kw..((ox + 1) * kw).min(width);
                let n = rows.len() * columns.len();
                let window = rows.flat_map(|y| columns.clone().map(move |x| (c * height + y) * width + x));
                expected.push(window.map(|i| f64::from(x[i])).sum::<f64>() / n as f64);
            }
        }
        let layout = Layout::new([channels, out[0], out[1]], Margin { pitch: out[1] + slack, ..margin }, precision);
        let mut y = Tensor::zeros(layout.unwrap());
        avg_pool(&AvgPool2d { kernel: [kh, kw] }, &input, &mut y, 2);
        close(&y, &expected, "average pool");
        padding_is_zero(&y, "average pool");
    }

    #[test]
    fn padded_and_multiplied_planes_match_the_definition(
        channels in 1_usize..4, height in 1_usize..9, width in 1_usize..most(20), top in 0_usize..3,
        left in 0_usize..3, below in 0_usize..3, seed in 0_u64..1 << 40,
        precision in crate::precisions(),
    ) {
        let (x, factors) = (coarse(channels * height * width, seed), noise(channels, seed + 1));
        let margin = Margin { pitch: width + 2, before: 3, after: 5 };
        let input = tensor([channels, height, width], margin, &x, precision);
        let [h, w] = [top + height + below, left + width + below];
        // Buffers are reused: what an earlier image left must not show.
        let stale = vec![7.0; channels * h * w];
        let mut y = tensor([channels, h, w], Margin { pitch: w + 1, ..margin }, &stale, precision);
        pad(&input, [top, left], &mut y, 2);
        let mut expected = vec![0.0; channels * h * w];
        for (i, x) in x.iter().enumerate() {
            let (c, row, column) = (i / width / height, i / width % height, i % width);
            expected[(c * h + top + row) * w + left + column] = f64::from(*x);
        }
        close(&y, &expected, "pad");
        padding_is_zero(&y, "pad");
        let product = |(i, x): (usize, &f32)| f64::from(*x) * f64::from(factors[i / width / height]);
        let expected: Vec<f64> = x.iter().enumerate().map(product).collect();
        let vector = tensor([1, 1, channels], Margin::default(), &factors, Precision::F32);
        for isa in isas() {
            let mut y = Tensor::zeros(*input.layout());
            scale(isa, &input, &factors, &mut y, 2);
            close(&y, &expected, "scale");
            padding_is_zero(&y, "scale");
            let mut again = Tensor::zeros(*input.layout());
            gate(isa, &input, &vector, &mut again, 3);
            prop_assert_eq!(again.buffer(), y.buffer());
        }
    }
}

#[test]
fn sums_and_functions_go_value_by_value() {
    let margin = Margin { pitch: 9, before: 4, after: 2 };
    let [a, b] = [1, 2].map(|seed| halved(noise(2 * 3 * 7, seed).into_iter().map(|v| 9.0 * v)));
    for (isa, precision) in isas().flat_map(|isa| Precision::ALL.map(|precision| (isa, precision))) {
        let [ta, tb] = [&a, &b].map(|v| tensor([2, 3, 7], margin, v, precision));
        for (activation, other) in ACTIVATIONS.into_iter().flat_map(|a| [(a, true), (a, false)]) {
            let mut y = tensor([2, 3, 7], margin, &[7.0; 42], precision);
            let pointwise = Pointwise::new(isa, *ta.layout(), 0.5, activation);
            pointwise.run(&ta, other.then_some(&tb), &mut y, 2);
            let sum = |(a, b): (&f32, &f32)| f64::from(*a) + if other { f64::from(*b) } else { 0.0 };
            let expected = a.iter().zip(&b).map(sum).map(|v| activated(activation, 0.5 * v));
            close_after(activation, &y, &expected.collect::<Vec<f64>>(), &format!("{activation:?} {isa}"));
            padding_is_zero(&y, "pointwise");
        }
    }
}

#[test]
fn functions_are_exact_to_a_millionth_everywhere() {
    let x: Vec<f32> = (-40_000..=40_000)
        .step_by(if cfg!(miri) { 997 } else { 1 })
        .map(|i| i as f32 / 1000.0)
        .chain([-1e4, -100.0, 100.0, 1e4])
        .collect();
    let input = tensor([1, 1, x.len()], Margin::default(), &x, Precision::F32);
    for (isa, activation) in isas().flat_map(|isa| ACTIVATIONS.map(|activation| (isa, activation))) {
        let mut y = Tensor::zeros(*input.layout());
        Pointwise::new(isa, *input.layout(), 1.0, activation).run(&input, None, &mut y, 1);
        for (x, y) in x.iter().zip(y.to_dense()) {
            let error = (f64::from(y) - activated(activation, f64::from(*x))).abs();
            assert!(error <= 5e-7 * f64::from(x.abs().max(1.0)), "{activation:?}({x}) is {y} on {isa}");
        }
    }
}

#[test]
fn functions_of_halves_are_as_exact_as_their_storage() {
    let halves = (0..=u16::MAX).step_by(if cfg!(miri) { 77 } else { 1 }).map(half::bf16::from_bits);
    let x: Vec<f32> = halves.map(half::bf16::to_f32).filter(|x| x.abs() <= 40.0).collect();
    let input = tensor([1, 1, x.len()], Margin::default(), &x, Precision::Bf16);
    for (isa, activation) in isas().flat_map(|isa| ACTIVATIONS.map(|activation| (isa, activation))) {
        let mut y = Tensor::zeros(*input.layout());
        Pointwise::new(isa, *input.layout(), 1.0, activation).run(&input, None, &mut y, 1);
        let expected: Vec<f64> = x.iter().map(|x| activated(activation, f64::from(*x))).collect();
        close_after(activation, &y, &expected, &format!("{activation:?} {isa}"));
    }
}

#[test]
fn what_is_no_number_stays_so() {
    for precision in Precision::ALL {
        numbers_stay(precision);
    }
}

fn numbers_stay(precision: Precision) {
    let input =
        tensor([1, 1, 3], Margin::default(), &[f32::NAN, -f32::NAN, f32::from_bits(0x7fff_ffff)], precision);
    for (isa, activation) in isas().flat_map(|isa| ACTIVATIONS.map(|activation| (isa, activation))) {
        let mut y = Tensor::zeros(*input.layout());
        Pointwise::new(isa, *input.layout(), 1.0, activation).run(&input, None, &mut y, 1);
        assert!(y.to_dense().iter().all(|v| v.is_nan()), "{activation:?} {isa}");
    }
}

#[test]
fn halves_are_rounded_to_the_nearest_even() {
    // The product has 16 significant bits, of which 8 are stored: every eighth or so is a tie.
    let factor = 1.0 + 1.0 / 128.0 + 1.0 / 256.0;
    let numbers = (0..=u16::MAX)
        .step_by(if cfg!(miri) { 77 } else { 7 })
        .map(half::bf16::from_bits)
        .map(half::bf16::to_f32);
    let x: Vec<f32> = numbers.filter(|x| x.is_finite() && (x * factor).is_finite()).collect();
    let expected = halved(x.iter().map(|x| factor * x));
    let input = tensor([1, 1, x.len()], Margin::default(), &x, Precision::Bf16);
    for isa in isas() {
        let mut y = Tensor::zeros(*input.layout());
        Pointwise::new(isa, *input.layout(), factor, None).run(&input, None, &mut y, 1);
        assert_eq!(y.to_dense(), expected, "{isa}");
    }
}
