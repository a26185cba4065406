//! Convolutions and linear layers.

use margay_core::{Activation, Conv2d, Csr, Mask};
use margay_kernels::{
    BlockConv, ConvError, ConvSpec, DenseConv, DenseLinear, Isa, Layout, Margin, Precision, SparseConv,
    SparseLinear, Taps, Tensor, split_phases,
};
use proptest::prelude::*;

use crate::{
    ACTIVATIONS, activated, close, close_after, coarse, isas, most, noise, padding_is_zero, runs, tensor,
};

/// One convolution with everything around it.
#[derive(Clone, Debug)]
struct Case {
    conv: Conv2d,
    size: [usize; 2],
    density: f64,
    /// Rows that are kept or pruned together.
    block: usize,
    residual: bool,
    activation: Option<Activation>,
    slack: usize,
    seed: u64,
}

struct Data {
    x: Vec<f32>,
    w: Vec<f32>,
    mask: Mask,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

fn data(case: &Case, taps: &Taps) -> Data {
    let [rows, columns] = [case.conv.out_channels, taps.columns()];
    let scores = noise(rows * columns, case.seed + 1);
    // A block goes by the score of its first row.
    let score = |i: usize| scores[i / columns / case.block * case.block * columns + i % columns];
    let mask = Mask::from_fn(scores.len(), |i| f64::from(score(i)) < 2.0 * case.density - 1.0);
    let mut w = noise(rows * columns, case.seed + 2);
    for (i, w) in w.iter_mut().enumerate() {
        *w = if mask.get(i) { *w } else { 0.0 };
    }
    let x = coarse(case.conv.in_channels * case.size[0] * case.size[1], case.seed + 3);
    let residual = coarse(taps.output().iter().product(), case.seed + 4);
    Data { x, w, mask, bias: noise(rows, case.seed + 5), residual }
}

/// The definition, in f64.
fn naive(case: &Case, taps: &Taps, data: &Data) -> Vec<f64> {
    let (conv, [height, width]) = (&case.conv, case.size);
    let [rows, out_height, out_width] = taps.output();
    let (group_in, group_out) = (conv.in_channels / conv.groups, rows / conv.groups);
    let mut y = Vec::new();
    for row in 0..rows {
        for oy in 0..out_height {
            for ox in 0..out_width {
                let mut sum = f64::from(data.bias[row]);
                for c in 0..group_in {
                    for i in 0..conv.kernel[0] {
                        for j in 0..conv.kernel[1] {
                            let (iy, ix) = (oy * conv.stride[0] + i, ox * conv.stride[1] + j);
                            let inside = (conv.padding[0]..height + conv.padding[0]).contains(&iy)
                                && (conv.padding[1]..width + conv.padding[1]).contains(&ix);
                            if inside {
                                let channel = row / group_out * group_in + c;
                                let place = (channel * height + iy - conv.padding[0]) * width + ix;
                                let k = (c * conv.kernel[0] + i) * conv.kernel[1] + j;
                                let w = data.w[row * taps.columns() + k];
                                sum += f64::from(w) * f64::from(data.x[place - conv.padding[1]]);
                            }
                        }
                    }
                }
                sum += if case.residual { f64::from(data.residual[y.len()]) } else { 0.0 };
                y.push(activated(case.activation, sum));
            }
        }
    }
    y
}

fn check(case: &Case, precision: Precision) {
    let taps = Taps::new(&case.conv, case.size).unwrap();
    let data = data(case, &taps);
    let expected = naive(case, &taps, &data);
    let pitch = taps.pitch() + case.slack;
    let margin = taps.margin(pitch);
    let mut input = tensor(taps.input(), margin, &data.x, precision);
    let output = Layout::new(taps.output(), Margin { pitch, ..Margin::default() }, precision).unwrap();
    let residual = tensor(taps.output(), Margin { pitch, ..Margin::default() }, &data.residual, precision);
    let residual = case.residual.then_some(&residual);
    let csr = Csr::from_dense(case.conv.out_channels, taps.columns(), &data.w, &data.mask);
    for isa in isas() {
        if taps.is_strided() {
            let flat = tensor(taps.input(), Margin::default(), &data.x, precision);
            // Buffers are reused: what an earlier image left must not show.
            let stale = vec![7.0; taps.source().iter().product()];
            input = tensor(taps.source(), margin, &stale, precision);
            split_phases(isa, &taps, &flat, &mut input, 1);
            padding_is_zero(&input, "phases");
        }
        let source = *input.layout();
        let spec = ConvSpec { taps: &taps, source, output, bias: &data.bias, activation: case.activation };
        let sparse = SparseConv::new(isa, &spec, &csr).unwrap();
        let mut y = Tensor::zeros(output);
        sparse.run(&input, residual, &mut y, 1);
        close_after(case.activation, &y, &expected, &format!("sparse {isa} {case:?}"));
        padding_is_zero(&y, "sparse");
        for (strip, parts) in [(1, 1), (3, 2), (14, 3)] {
            let mut again = Tensor::zeros(output);
            sparse.clone().with_strip(strip).run(&input, residual, &mut again, parts);
            assert_eq!(again.buffer(), y.buffer(), "strip {strip}, {parts} parts, {isa}");
        }
        if case.block == 4 && (case.conv.out_channels / case.conv.groups).is_multiple_of(4) {
            let blocks = BlockConv::new(isa, &spec, &csr).unwrap();
            for (strip, parts) in [(6, 1), (1, 1), (2, 2), (4, 3)] {
                let mut again = Tensor::zeros(output);
                blocks.clone().with_strip(strip).run(&input, residual, &mut again, parts);
                assert_eq!(again.buffer(), y.buffer(), "blocks, strip {strip}, {parts} parts, {isa}");
            }
        }
        let dense = DenseConv::new(isa, &spec, &data.w).unwrap();
        let mut again = Tensor::zeros(output);
        dense.run(&input, residual, &mut again, 1);
        assert_eq!(again.to_dense(), y.to_dense(), "both kernels sum in one order, {isa}");
        dense.run(&input, residual, &mut y, 1);
        close_after(case.activation, &y, &expected, &format!("dense {isa} {case:?}"));
        padding_is_zero(&y, "dense");
        let mut again = Tensor::zeros(output);
        dense.run(&input, residual, &mut again, 3);
        assert_eq!(again.buffer(), y.buffer(), "dense in 3 parts, {isa}");
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let kernel = (1_usize..=5, 1_usize..=5, 1_usize..=3, 1_usize..=3, 0_usize..=3, 0_usize..=3);
    let channels = (1_usize..=3, 1_usize..=most(12), 1_usize..=3);
    let size = (1_usize..=most(19), 1_usize..=most(37));
    let rest = (0_usize..=4, any::<bool>(), 0_usize..5, 0_usize..=9, 0_u64..1 << 40, any::<bool>());
    (kernel, channels, size, rest).prop_filter_map("no window fits", |(kernel, channels, size, rest)| {
        let (kh, kw, sh, sw, ph, pw) = kernel;
        let (per_group_in, per_group_out, groups) = channels;
        let (density, residual, activation, slack, seed, blocks) = rest;
        let (per_group_out, block) =
            if blocks { (per_group_out.next_multiple_of(4), 4) } else { (per_group_out, 1) };
        let activation = ACTIVATIONS[activation];
        let conv = Conv2d {
            in_channels: per_group_in * groups,
            out_channels: per_group_out * groups,
            kernel: [kh, kw],
            stride: [sh, sw],
            padding: [ph, pw],
            groups,
            bias: true,
        };
        let size = [size.0, size.1];
        Taps::new(&conv, size)?;
        Some(Case { conv, size, density: density as f64 / 4.0, block, residual, activation, slack, seed })
    })
}

proptest! {
    #![proptest_config(runs(200))]

    #[test]
    fn convolutions_match_the_definition(case in cases()) {
        for precision in Precision::ALL {
            check(&case, precision);
        }
    }

    #[test]
    fn linear_layers_match_the_definition(
        rows in 1_usize..most(150), columns in 1_usize..most(70), activation in 0_usize..ACTIVATIONS.len(), seed in 0_u64..1 << 40,
    ) {
        let (x, w, bias) = (noise(columns, seed), noise(rows * columns, seed + 1), noise(rows, seed + 2));
        let expected: Vec<f64> = (0..rows).map(|r| {
            let products = (0..columns).map(|k| f64::from(w[r * columns + k]) * f64::from(x[k]));
            let sum = f64::from(bias[r]) + products.sum::<f64>();
            activated(ACTIVATIONS[activation], sum)
        }).collect();
        let input = tensor([1, 1, columns], Margin::default(), &x, Precision::F32);
        let mut y = Tensor::zeros(Layout::vector(rows).unwrap());
        let csr = Csr::from_dense(rows, columns, &w, &Mask::ones(w.len()));
        for isa in isas() {
            SparseLinear::new(isa, &csr, &bias, ACTIVATIONS[activation]).run(&input, &mut y);
            close(&y, &expected, &format!("sparse linear {isa}"));
            padding_is_zero(&y, "sparse linear");
            for parts in [1, 3] {
                DenseLinear::new(isa, &w, &bias, ACTIVATIONS[activation]).run(&input, &mut y, parts);
                close(&y, &expected, &format!("dense linear {isa}"));
                padding_is_zero(&y, "dense linear");
            }
        }
    }

}

#[test]
fn rows_of_a_block_with_columns_of_their_own_are_refused() {
    let [kernel, stride, padding] = [[1, 1], [1, 1], [0, 0]];
    let conv = Conv2d { in_channels: 6, out_channels: 8, kernel, stride, padding, groups: 1, bias: true };
    let taps = Taps::new(&conv, [3, 5]).unwrap();
    let [source, output] =
        [taps.source(), taps.output()].map(|dims| Layout::new(dims, taps.margin(5), Precision::F32).unwrap());
    let spec = ConvSpec { taps: &taps, source, output, bias: &[0.0; 8], activation: None };
    for row in [1, 3, 6] {
        let mask = Mask::from_fn(48, |i| i % 6 == 2 || i == 6 * row + 4);
        let csr = Csr::from_dense(8, 6, &[1.0; 48], &mask);
        assert_eq!(BlockConv::new(Isa::Portable, &spec, &csr).err(), Some(ConvError::Blocks { row }));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let [kernel, stride, padding] = [[3, 3], [1, 1], [1, 1]];
    let conv = Conv2d { in_channels: 2, out_channels: 3, kernel, stride, padding, groups: 1, bias: true };
    let taps = Taps::new(&conv, [5, 5]).unwrap();
    let good = Layout::new(taps.source(), taps.margin(6), Precision::F32).unwrap();
    let output =
        Layout::new(taps.output(), Margin { pitch: 6, ..Margin::default() }, Precision::F32).unwrap();
    let plan = |source: Layout, bias: &[f32], weight: usize| {
        let spec = ConvSpec { taps: &taps, source, output, bias, activation: None };
        DenseConv::new(Isa::Portable, &spec, &vec![0.0; weight]).map(drop)
    };
    assert_eq!(plan(good, &[0.0; 3], 3 * 18), Ok(()));
    assert_eq!(plan(good, &[0.0; 2], 3 * 18), Err(ConvError::Bias { expected: 3, got: 2 }));
    assert!(matches!(plan(good, &[0.0; 3], 2 * 18), Err(ConvError::Weight { got: [2, 18], .. })));
    for margin in [Margin { pitch: 5, ..taps.margin(5) }, Margin { pitch: 6, ..Margin::default() }] {
        let narrow = Layout::new(taps.source(), margin, Precision::F32).unwrap();
        assert_eq!(plan(narrow, &[0.0; 3], 3 * 18), Err(ConvError::Layout), "{margin:?}");
    }
    let spec = ConvSpec { taps: &taps, source: good, output, bias: &[0.0; 3], activation: None };
    let csr = Csr::from_dense(3, 18, &[0.0; 54], &Mask::ones(54));
    assert_eq!(BlockConv::new(Isa::Portable, &spec, &csr).err(), Some(ConvError::Blocks { row: 3 }));
    let halves = Layout::new(taps.source(), taps.margin(6), Precision::Bf16).unwrap();
    assert_eq!(plan(halves, &[0.0; 3], 3 * 18), Err(ConvError::Layout), "another precision");
}
