use std::io::Write as _;
use std::time::Instant;

use margay_core::{Activation, Conv2d, Csr, Mask};
use margay_kernels::{
    BlockConv, ConvSpec, DenseConv, Isa, Layout, Margin, Precision, SparseConv, Taps, Tensor,
};

use crate::kernel::{self, Block, Blocks, LANES};
use crate::noise::noise;

/// `[in, out, kernel, height, width]`, stride 1: ResNet-50's, then DeiT-S's.
const LAYERS: [[usize; 5]; 12] = [
    [64, 256, 1, 56, 56],
    [256, 64, 1, 56, 56],
    [512, 128, 1, 28, 28],
    [128, 128, 3, 28, 28],
    [256, 1024, 1, 14, 14],
    [1024, 256, 1, 14, 14],
    [256, 256, 3, 14, 14],
    [512, 2048, 1, 7, 7],
    [512, 512, 3, 7, 7],
    [384, 1152, 1, 1, 197],
    [384, 1536, 1, 1, 197],
    [1536, 384, 1, 1, 197],
];
const SPARSITIES: [f64; 5] = [0.5, 0.75, 0.8, 0.9, 0.95];
const ROUNDS: usize = 15;
/// Strips that are tried, in vectors; the best counts, as in the runtime.
const WIDTHS: [usize; 4] = [2, 4, 5, 7];

/// One layer in both forms.
struct Layer {
    taps: Taps,
    input: Tensor,
    output: Tensor,
    weight: Vec<f32>,
    bias: Vec<f32>,
    quads: Quads,
}

/// A map in quads: planes of `plane` places from `origin` on.
struct Quads {
    pitch: usize,
    origin: usize,
    plane: usize,
    vectors: usize,
    source: Vec<u32>,
    output: Vec<u32>,
}

impl Quads {
    fn new([from, to, k, height, width]: [usize; 5]) -> Self {
        let pitch = width + k / 2;
        let (body, margin) = (height * pitch, (k / 2) * (pitch + 1));
        let origin = margin.next_multiple_of(LANES);
        let plane = ((body + margin).div_ceil(LANES) | 1) * LANES;
        let len = |channels: usize| origin + (channels / 4 + 1) * plane + margin + 8 * LANES;
        let bytes =
            noise(len(from), 9).into_iter().map(|v| ((v + 1.0) * f32::from(u16::MAX)) as u32 * 32_749);
        let (source, output) = (bytes.collect(), vec![0; len(to)]);
        Self { pitch, origin, plane, vectors: body.div_ceil(LANES), source, output }
    }

    /// The quads of `weight` that hold a kept value, with all four.
    fn blocks(&self, [from, to, k, ..]: [usize; 5], weight: &[i8], kept: &Mask) -> Blocks {
        let (taps, columns) = (k * k, from * k * k);
        let (mut row_ptr, mut blocks) = (vec![0], Vec::new());
        for row in 0..to {
            for quad in 0..from / 4 {
                for tap in 0..taps {
                    let index = |i: usize| row * columns + (4 * quad + i) * taps + tap;
                    if (0..4).any(|i| kept.get(index(i))) {
                        let weights = i32::from_le_bytes(std::array::from_fn(|i| weight[index(i)] as u8));
                        let place = self.origin + quad * self.plane + tap / k * self.pitch + tap % k;
                        let offset = (place - k / 2 * (self.pitch + 1)) as u32;
                        blocks.push(Block { offset, weights });
                    }
                }
            }
            row_ptr.push(blocks.len());
        }
        let (scale, bias) = (vec![1e-3; to], noise(to, 5).into_iter().map(|v| 64.0 * v + 64.0).collect());
        Blocks { row_ptr, stored: blocks, scale, bias, plane: self.plane, vectors: self.vectors }
    }

    fn run(&mut self, layer: &Blocks, width: usize) {
        kernel::run(layer, &self.source, &mut self.output, self.origin, width);
    }

    /// Some outputs against the definition.
    fn check(&mut self, layer: &Blocks) {
        self.run(layer, 4);
        for (row, place) in (0..layer.bias.len()).flat_map(|row| [(row, 0), (row, self.vectors * LANES - 3)])
        {
            let blocks = &layer.stored[layer.row_ptr[row]..layer.row_ptr[row + 1]];
            let sum: i32 = blocks
                .iter()
                .map(|block| {
                    let (x, w) = (
                        self.source[block.offset as usize + place].to_le_bytes(),
                        block.weights.to_le_bytes(),
                    );
                    x.iter().zip(w).map(|(x, w)| i32::from(*x) * i32::from(w as i8)).sum::<i32>()
                })
                .sum();
            let expected =
                (sum as f32 * layer.scale[row] + layer.bias[row]).round_ties_even().clamp(0.0, 255.0);
            let got = self.output[self.origin + row / 4 * self.plane + place].to_le_bytes()[row % 4];
            assert!(
                (f32::from(got) - expected).abs() <= 1.0,
                "row {row}, place {place}: {got}, not {expected}"
            );
        }
    }
}

impl Layer {
    fn new(shape: [usize; 5], precision: Precision) -> Self {
        let [from, to, k, height, width] = shape;
        let conv = Conv2d {
            in_channels: from,
            out_channels: to,
            kernel: [k, k],
            stride: [1, 1],
            padding: [k / 2, k / 2],
            groups: 1,
            bias: true,
        };
        let taps = Taps::new(&conv, [height, width]).expect("windows fit");
        let pitch = if height > 1 { width + 1 } else { width };
        let margin = taps.margin(pitch).union(Margin { pitch, before: pitch + 1, after: pitch + 1 });
        let layout = |dims| Layout::new(dims, margin, precision).expect("a small layout");
        let mut input = Tensor::zeros(layout(taps.source()));
        input.fill(&noise(from * height * width, 1));
        let output = Tensor::zeros(layout(taps.output()));
        let (weight, bias) = (noise(to * taps.columns(), 2), noise(to, 3));
        Self { taps, input, output, weight, bias, quads: Quads::new(shape) }
    }

    fn spec(&self) -> ConvSpec<'_> {
        let (source, output) = (*self.input.layout(), *self.output.layout());
        let activation = Some(Activation::Relu);
        ConvSpec { taps: &self.taps, source, output, bias: &self.bias, activation }
    }
}

/// Kept at random in blocks of `rows` outputs and `channels` inputs at one tap.
fn mask([from, to, k, ..]: [usize; 5], sparsity: f64, [rows, channels]: [usize; 2]) -> Mask {
    let (taps, columns) = (k * k, from * k * k);
    let scores = noise(to * columns, 4);
    Mask::from_fn(scores.len(), |i| {
        let (row, channel, tap) = (i / columns, i % columns / taps, i % taps);
        let first = row / rows * rows * columns + channel / channels * channels * taps + tap;
        f64::from(scores[first]) >= 2.0 * sparsity - 1.0
    })
}

/// Prints a line per layer and sparsity: median ms in turns, in bf16 or f32 beside int8.
pub fn run() {
    let mut out = std::io::stdout().lock();
    if !kernel::is_available() || !Isa::Avx512.is_available() {
        let _ = writeln!(out, "this processor has no AVX-512 VNNI");
        return;
    }
    for precision in [Precision::Bf16, Precision::F32] {
        let _ = writeln!(out, "{precision}: dense, any, 1x4, 4x1; int8: 1x4, any, quantising the input");
        for (shape, sparsity) in LAYERS.into_iter().flat_map(|shape| SPARSITIES.map(|s| (shape, s))) {
            let [from, to, k, height, width] = shape;
            let times = measure(shape, sparsity, precision);
            let _ = write!(out, "{to:4} x {from:4} {k}x{k} {height:2}x{width:<3} {sparsity:4}");
            for ms in times {
                let _ = write!(out, " {ms:7.4}");
            }
            let _ = writeln!(out);
        }
    }
}

fn measure(shape: [usize; 5], sparsity: f64, precision: Precision) -> [f64; 7] {
    let mut layer = Layer::new(shape, precision);
    let masks = [[1, 1], [1, 4], [4, 1]].map(|block| mask(shape, sparsity, block));
    let csrs =
        masks.each_ref().map(|kept| Csr::from_dense(shape[1], layer.taps.columns(), &layer.weight, kept));
    let dense = DenseConv::new(Isa::Avx512, &layer.spec(), &layer.weight).expect("a sound layer");
    let [any, wide, _] =
        csrs.each_ref().map(|csr| SparseConv::new(Isa::Avx512, &layer.spec(), csr).expect("a sound layer"));
    let tall = BlockConv::new(Isa::Avx512, &layer.spec(), &csrs[2]).expect("a sound layer");
    let Layer { input, output, quads, weight, .. } = &mut layer;
    let [any, wide] = [any, wide].map(|conv| {
        let width =
            fastest(&conv.widths(), |width| conv.clone().with_strip(width).run(input, None, output, 1));
        conv.with_strip(width)
    });
    let width = fastest(&tall.widths(), |width| tall.clone().with_strip(width).run(input, None, output, 1));
    let tall = tall.with_strip(width);
    let eighths = |kept: &Mask| -> Vec<i8> {
        weight.iter().zip(kept.iter()).map(|(w, kept)| if kept { (127.0 * w) as i8 } else { 0 }).collect()
    };
    let [tight, loose] = [&masks[1], &masks[0]].map(|kept| quads.blocks(shape, &eighths(kept), kept));
    let [tight_width, loose_width] = [&tight, &loose].map(|blocks| {
        quads.check(blocks);
        fastest(&WIDTHS, |width| quads.run(blocks, width))
    });
    let planes = vec![vec![0x3f00_u16; quads.vectors * LANES]; shape[0]];
    let mut quantised = vec![vec![0_u32; quads.vectors * LANES]; shape[0] / 4];
    let mut times: [Vec<f64>; 7] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(clock(|| dense.run(input, None, output, 1)));
        times[1].push(clock(|| any.run(input, None, output, 1)));
        times[2].push(clock(|| wide.run(input, None, output, 1)));
        times[3].push(clock(|| tall.run(input, None, output, 1)));
        times[4].push(clock(|| quads.run(&tight, tight_width)));
        times[5].push(clock(|| quads.run(&loose, loose_width)));
        times[6].push(clock(|| {
            for (from, to) in planes.chunks_exact(4).zip(&mut quantised) {
                kernel::quantise(std::array::from_fn(|i| from[i].as_slice()), 255.0, to);
            }
        }));
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    })
}

/// The width that takes least time.
fn fastest(widths: &[usize], mut run: impl FnMut(usize)) -> usize {
    let mut least = |width: usize| (0..4).map(|_| clock(|| run(width))).fold(f64::MAX, f64::min);
    let times: Vec<f64> = widths.iter().map(|width| least(*width)).collect();
    (0..widths.len()).min_by(|a, b| times[*a].total_cmp(&times[*b])).map_or(4, |i| widths[i])
}

fn clock(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    1e3 * start.elapsed().as_secs_f64()
}
