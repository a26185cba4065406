use std::io::Write as _;
use std::time::Instant;

use margay_core::{Activation, Conv2d, Csr, Mask};
use margay_kernels::{ConvSpec, DenseConv, Isa, Layout, Margin, Precision, SparseConv, Taps, Tensor};

use crate::kernel::{self, Block, Blocks, LANES};

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
const SPARSITIES: [f64; 3] = [0.8, 0.9, 0.95];
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
        Blocks { row_ptr, blocks, scale, bias, plane: self.plane, vectors: self.vectors }
    }

    fn run(&mut self, layer: &Blocks, width: usize) {
        kernel::run(layer, &self.source, &mut self.output, self.origin, width);
    }

    /// Some outputs against the definition.
    fn check(&mut self, layer: &Blocks) {
        self.run(layer, 4);
        for (row, place) in (0..layer.bias.len()).flat_map(|row| [(row, 0), (row, self.vectors * LANES - 3)])
        {
            let blocks = &layer.blocks[layer.row_ptr[row]..layer.row_ptr[row + 1]];
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
    fn new(shape: [usize; 5]) -> Self {
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
        let layout = |dims| Layout::new(dims, margin, Precision::Bf16).expect("a small layout");
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

/// Kept at random: single weights, or blocks of four channels.
fn mask([from, to, k, ..]: [usize; 5], sparsity: f64, blocks: bool) -> Mask {
    let (taps, columns) = (k * k, from * k * k);
    let scores = noise(to * columns, 4);
    Mask::from_fn(scores.len(), |i| {
        let (row, channel, tap) = (i / columns, i % columns / taps, i % taps);
        let first = if blocks { row * columns + channel / 4 * 4 * taps + tap } else { i };
        f64::from(scores[first]) >= 2.0 * sparsity - 1.0
    })
}

/// Prints a line per layer and sparsity: median ms in turns.
pub fn run() {
    let mut out = std::io::stdout().lock();
    if !kernel::is_available() || !Isa::Avx512.is_available() {
        let _ = writeln!(out, "this processor has no AVX-512 VNNI");
        return;
    }
    let _ =
        writeln!(out, "layer  sparsity  dense bf16  sparse bf16  int8 1x4  int8 unstructured  quantising");
    for shape in LAYERS {
        for sparsity in SPARSITIES {
            let times = measure(shape, sparsity);
            let [from, to, k, height, width] = shape;
            let cells: String = times.iter().map(|ms| format!("  {ms:.4}")).collect();
            let ratio = times[1] / times[2];
            let _ = writeln!(out, "{to}x{from} {k}x{k} {height}x{width}  {sparsity}{cells}  {ratio:.2}");
        }
    }
}

fn measure(shape: [usize; 5], sparsity: f64) -> [f64; 5] {
    let mut layer = Layer::new(shape);
    let loose = mask(shape, sparsity, false);
    let csr = Csr::from_dense(shape[1], layer.taps.columns(), &layer.weight, &loose);
    let dense = DenseConv::new(Isa::Avx512, &layer.spec(), &layer.weight).expect("a sound layer");
    let sparse = SparseConv::new(Isa::Avx512, &layer.spec(), &csr).expect("a sound layer");
    let eighths = |kept: &Mask| -> Vec<i8> {
        layer
            .weight
            .iter()
            .zip(kept.iter())
            .map(|(w, kept)| if kept { (127.0 * w) as i8 } else { 0 })
            .collect()
    };
    let tight = mask(shape, sparsity, true);
    let [blocks, quads] = [&tight, &loose].map(|kept| layer.quads.blocks(shape, &eighths(kept), kept));
    [&blocks, &quads].into_iter().for_each(|blocks| layer.quads.check(blocks));
    let strip = |widths: &[usize], run: &mut dyn FnMut(usize)| {
        let time = |width: usize, run: &mut dyn FnMut(usize)| {
            (0..4).map(|_| clock(|| run(width))).fold(f64::MAX, f64::min)
        };
        let times: Vec<f64> = widths.iter().map(|width| time(*width, run)).collect();
        (0..widths.len()).min_by(|a, b| times[*a].total_cmp(&times[*b])).map_or(4, |i| widths[i])
    };
    let widths = sparse.widths();
    let width = strip(&widths, &mut |width| {
        sparse.clone().with_strip(width).run(&layer.input, None, &mut layer.output, 1)
    });
    let sparse = sparse.with_strip(width);
    let [wide, loose] =
        [&blocks, &quads].map(|blocks| strip(&WIDTHS, &mut |width| layer.quads.run(blocks, width)));
    let planes = vec![vec![0x3f00_u16; layer.quads.vectors * LANES]; shape[0]];
    let mut quads_of = vec![vec![0_u32; layer.quads.vectors * LANES]; shape[0] / 4];
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(clock(|| dense.run(&layer.input, None, &mut layer.output, 1)));
        times[1].push(clock(|| sparse.run(&layer.input, None, &mut layer.output, 1)));
        times[2].push(clock(|| layer.quads.run(&blocks, wide)));
        times[3].push(clock(|| layer.quads.run(&quads, loose)));
        times[4].push(clock(|| {
            for (from, to) in planes.chunks_exact(4).zip(&mut quads_of) {
                kernel::quantise(std::array::from_fn(|i| from[i].as_slice()), 255.0, to);
            }
        }));
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    })
}

fn clock(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    1e3 * start.elapsed().as_secs_f64()
}

/// Reproducible values in −1 .. 1 (xorshift).
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
