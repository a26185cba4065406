//! Attention, norms, and what turns maps into tokens and vectors.

use margay_kernels::{
    Attention, Embedding, Isa, LayerNorm, Layout, Margin, NormSpec, Precision, ResponseNorm, Tensor, concat,
    global_mean, token,
};
use proptest::prelude::*;

use crate::{close, coarse, halved, isas, most, noise, padding_is_zero, rounding, runs, tensor};

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Features at each of `positions`, from planes.
fn features(x: &[f64], positions: usize, position: usize) -> Vec<f64> {
    x.iter().skip(position).step_by(positions).copied().collect()
}

fn layer_norm(x: &[f64], positions: usize, gain: &[f32], shift: &[f32], eps: f64) -> Vec<f64> {
    let statistics = |position: usize| {
        let values = features(x, positions, position);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
    };
    let statistics: Vec<(f64, f64)> = (0..positions).map(statistics).collect();
    let one = |(i, x): (usize, &f64)| {
        let (mean, var) = statistics[i % positions];
        (x - mean) / (var + eps).sqrt() * f64::from(gain[i / positions]) + f64::from(shift[i / positions])
    };
    x.iter().enumerate().map(one).collect()
}

fn response_norm(x: &[f64], positions: usize, gain: &[f32], shift: &[f32], eps: f64) -> Vec<f64> {
    let length = |plane: &[f64]| plane.iter().map(|v| v * v).sum::<f64>().sqrt();
    let lengths: Vec<f64> = x.chunks(positions).map(length).collect();
    let typical = lengths.iter().sum::<f64>() / lengths.len() as f64 + eps;
    let factor = |f: usize| 1.0 + f64::from(gain[f]) * lengths[f] / typical;
    let one = |(i, x): (usize, &f64)| x * factor(i / positions) + f64::from(shift[i / positions]);
    x.iter().enumerate().map(one).collect()
}

/// Softmax attention on planes `[3 · heads · dims][count]`.
fn attend(x: &[f64], heads: usize, dims: usize, count: usize) -> Vec<f64> {
    let mut y = vec![0.0; heads * dims * count];
    for (head, query) in (0..heads).flat_map(|h| (0..count).map(move |q| (h, q))) {
        let plane = |part: usize, d: usize| ((part * heads + head) * dims + d) * count;
        let product = |key: usize| (0..dims).map(|d| x[plane(0, d) + query] * x[plane(1, d) + key]).sum();
        let scores: Vec<f64> = (0..count).map(product).map(|s: f64| s / (dims as f64).sqrt()).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = powers.iter().sum();
        for d in 0..dims {
            let mixed = powers.iter().enumerate().map(|(key, p)| p * x[plane(2, d) + key]);
            y[(head * dims + d) * count + query] = mixed.sum::<f64>() / total;
        }
    }
    y
}

fn check_norms(isa: Isa, input: &Tensor, x: &[f32], positions: usize, eps: f64, seed: u64) {
    let layout = *input.layout();
    let (gain, shift) = (noise(layout.dims()[0], seed + 1), noise(layout.dims()[0], seed + 2));
    let spec = NormSpec { layout, gain: &gain, shift: &shift, eps };
    let mut scratch = Tensor::zeros(Layout::vector(gain.len()).unwrap());
    let (layer, response) = (LayerNorm::new(isa, &spec), ResponseNorm::new(isa, &spec));
    let expected = layer_norm(&wide(x), positions, &gain, &shift, eps);
    let mut y = Tensor::zeros(layout);
    layer.run(input, &mut y, 1);
    close(&y, &expected, &format!("layer norm {isa}"));
    padding_is_zero(&y, "layer norm");
    let mut again = Tensor::zeros(layout);
    layer.run(input, &mut again, 3);
    assert_eq!(again.buffer(), y.buffer(), "layer norm in 3 parts");
    let expected = response_norm(&wide(x), positions, &gain, &shift, eps);
    response.run(input, &mut scratch, &mut y, 1);
    close(&y, &expected, &format!("response norm {isa}"));
    padding_is_zero(&y, "response norm");
    response.run(input, &mut scratch, &mut again, 3);
    assert_eq!(again.buffer(), y.buffer(), "response norm in 3 parts");
}

proptest! {
    #![proptest_config(runs(100))]

    #[test]
    fn norms_match_the_definition(
        channels in 1_usize..most(40), height in 1_usize..9, width in 1_usize..most(30), slack in 0_usize..4,
        offset in 0_usize..8, seed in 0_u64..1 << 40,
        precision in crate::precisions(),
    ) {
        let positions = height * width;
        let margin = Margin { pitch: width + slack, before: 3, after: 5 };
        let x = halved(noise(channels * positions, seed).iter().map(|v| v + offset as f32));
        let input = tensor([channels, height, width], margin, &x, precision);
        isas().for_each(|isa| check_norms(isa, &input, &x, positions, 1e-2, seed));
    }

    #[test]
    fn norms_of_vectors_match_the_definition(n in 1_usize..most(90), seed in 0_u64..1 << 40) {
        let (x, gain, shift) = (noise(n, seed), noise(n, seed + 1), noise(n, seed + 2));
        let input = tensor([1, 1, n], Margin::default(), &x, Precision::F32);
        let spec = NormSpec { layout: *input.layout(), gain: &gain, shift: &shift, eps: 1e-6 };
        let expected = layer_norm(&wide(&x), 1, &gain, &shift, 1e-6);
        let mut y = Tensor::zeros(*input.layout());
        LayerNorm::new(Isa::Portable, &spec).run(&input, &mut y, 2);
        close(&y, &expected, "norm of a vector");
        padding_is_zero(&y, "norm of a vector");
    }

    #[test]
    fn attention_matches_the_definition(
        heads in 1_usize..4, dims in 1_usize..most(20), count in 1_usize..most(120), sharp in 1_usize..most(12),
        seed in 0_u64..1 << 40,
        precision in crate::precisions(),
    ) {
        let x = halved(noise(3 * heads * dims * count, seed).iter().map(|v| v * sharp as f32));
        let expected = attend(&wide(&x), heads, dims, count);
        let margin = Margin { pitch: count, before: 0, after: 3 };
        let input = tensor([3 * heads * dims, 1, count], margin, &x, precision);
        let output = Layout::new([heads * dims, 1, count], Margin::default(), precision).unwrap();
        for isa in isas() {
            let attention = Attention::new(isa, heads, *input.layout(), output);
            let mut scratch = Tensor::zeros(Layout::vector(3 * attention.scratch()).unwrap());
            let mut y = Tensor::zeros(output);
            attention.run(&input, &mut scratch, &mut y, 1);
            // Scores up to 12² · dims / sqrt(dims) are rounded before they are exponents.
            let scale = 1e-5 * (1.0 + (sharp * sharp) as f64);
            for (got, expected) in y.to_dense().iter().zip(&expected) {
                let error = (f64::from(*got) - expected).abs();
                let bound = scale * (sharp as f64 + expected.abs()) + rounding(precision) * expected.abs();
                prop_assert!(error <= bound, "attention {}: {} {}", isa, got, expected);
            }
            padding_is_zero(&y, "attention");
            let mut again = Tensor::zeros(output);
            attention.run(&input, &mut scratch, &mut again, 3);
            prop_assert_eq!(again.buffer(), y.buffer());
        }
    }

    #[test]
    fn embeddings_match_the_definition(
        features in 1_usize..9, height in 1_usize..6, width in 1_usize..most(20), prefix in 0_usize..4,
        seed in 0_u64..1 << 40,
        precision in crate::precisions(),
    ) {
        let count = prefix + height * width;
        let (x, table) = (coarse(features * height * width, seed), noise(count * features, seed + 1));
        let margin = Margin { pitch: width + 1, before: 2, after: 2 };
        let input = tensor([features, height, width], margin, &x, precision);
        let expected: Vec<f64> = (0..features * count).map(|i| {
            let (feature, token) = (i / count, i % count);
            let patch = token.checked_sub(prefix).map_or(0.0, |p| x[feature * height * width + p]);
            f64::from(table[token * features + feature]) + f64::from(patch)
        }).collect();
        let stale = vec![7.0; features * count];
        let mut tokens = tensor([features, 1, count], Margin::default(), &stale, precision);
        Embedding::new(prefix, [features, height, width], &table).run(&input, &mut tokens, 2);
        close(&tokens, &expected, "embedding");
        padding_is_zero(&tokens, "embedding");
        let expected = wide(&tokens.to_dense());
        let mut vector = Tensor::zeros(Layout::vector(features).unwrap());
        token(&tokens, count / 2, &mut vector);
        let chosen = expected.iter().skip(count / 2).step_by(count).copied().collect::<Vec<f64>>();
        close(&vector, &chosen, "token");
        padding_is_zero(&vector, "token");
        let mean = |plane: &[f64]| plane[prefix..].iter().sum::<f64>() / (count - prefix) as f64;
        let means: Vec<f64> = expected.chunks(count).map(mean).collect();
        for isa in isas() {
            global_mean(isa, &tokens, prefix, &mut vector);
            close(&vector, &means, "mean of tokens");
        }
        let mut both = Tensor::zeros(Layout::vector(2 * features).unwrap());
        concat(&vector, &vector, &mut both);
        close(&both, &means.repeat(2), "concat");
    }
}
