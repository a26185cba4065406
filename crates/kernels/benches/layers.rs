//! Sparse and dense convolution on every layer shape of a ResNet-50 at 224², on every instruction set and in
//! every precision.
//!
//! `taskset -c 1 cargo bench -p margay-kernels -- avx512/bf16/28x28` measures some of them.

#[path = "../tests/oracle/noise.rs"]
mod noise;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use margay_core::{Conv2d, Csr, Mask};
use margay_kernels::{ConvSpec, DenseConv, Isa, Layout, Margin, Precision, SparseConv, Taps, Tensor};
use noise::noise;

/// `[in, out, kernel, side]`, stride 1; what strided layers read is split into planes before.
const LAYERS: [[usize; 4]; 15] = [
    [64, 64, 1, 56],
    [64, 64, 3, 56],
    [64, 256, 1, 56],
    [256, 64, 1, 56],
    [256, 128, 1, 56],
    [128, 128, 3, 28],
    [128, 512, 1, 28],
    [512, 128, 1, 28],
    [512, 256, 1, 28],
    [256, 256, 3, 14],
    [256, 1024, 1, 14],
    [1024, 256, 1, 14],
    [512, 512, 3, 7],
    [512, 2048, 1, 7],
    [2048, 512, 1, 7],
];

const DENSITIES: [f64; 3] = [0.2, 0.1, 0.05];

struct Layer {
    taps: Taps,
    input: Tensor,
    output: Tensor,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    fn new([from, to, k, side]: [usize; 4], precision: Precision) -> Option<Self> {
        let conv = Conv2d {
            in_channels: from,
            out_channels: to,
            kernel: [k, k],
            stride: [1, 1],
            padding: [k / 2, k / 2],
            groups: 1,
            bias: true,
        };
        let taps = Taps::new(&conv, [side, side])?;
        // Every map of a network that has 3 × 3 windows somewhere has their margin.
        let margin =
            taps.margin(side + 1).union(Margin { pitch: side + 1, before: side + 2, after: side + 2 });
        let mut input = Tensor::zeros(Layout::new(taps.source(), margin, precision)?);
        input.fill(&noise(from * side * side, 1));
        let output = Tensor::zeros(Layout::new(taps.output(), margin, precision)?);
        let (weight, bias) = (noise(to * taps.columns(), 2), noise(to, 3));
        Some(Self { taps, input, output, weight, bias })
    }

    fn spec(&self) -> ConvSpec<'_> {
        let (source, output) = (*self.input.layout(), *self.output.layout());
        ConvSpec {
            taps: &self.taps,
            source,
            output,
            bias: &self.bias,
            activation: Some(margay_core::Activation::Relu),
        }
    }

    fn csr(&self, density: f64) -> Csr {
        let scores = noise(self.weight.len(), 4);
        let mask = Mask::top_k(&scores, (density * scores.len() as f64) as usize);
        Csr::from_dense(self.bias.len(), self.taps.columns(), &self.weight, &mask)
    }
}

fn bench_isa(c: &mut Criterion, isa: Isa, precision: Precision) {
    for shape in LAYERS {
        let [from, to, k, side] = shape;
        let Some(mut layer) = Layer::new(shape, precision) else { continue };
        let mut group = c.benchmark_group(format!("{isa}/{precision}/{side}x{side} {from}-{to} {k}x{k}"));
        group.throughput(Throughput::Elements((layer.weight.len() * side * side) as u64));
        let mut output = layer.output.clone();
        for density in DENSITIES {
            let Ok(conv) = SparseConv::new(isa, &layer.spec(), &layer.csr(density)) else { continue };
            group.bench_function(BenchmarkId::new("sparse", density), |b| {
                b.iter(|| conv.run(&layer.input, None, &mut output, 1));
            });
        }
        if let Ok(conv) = DenseConv::new(isa, &layer.spec(), &layer.weight) {
            group.bench_function("dense", |b| {
                b.iter(|| conv.run(&layer.input, None, &mut layer.output, 1));
            });
        }
        group.finish();
    }
}

fn layers(c: &mut Criterion) {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let targets = isas.flat_map(|isa| Precision::ALL.map(|precision| (isa, precision)));
    targets.for_each(|(isa, precision)| bench_isa(c, isa, precision));
}

criterion_group!(benches, layers);
criterion_main!(benches);
