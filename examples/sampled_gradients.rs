//! Gradient of a layer's weight: the whole matrix by autograd against the few entries that are kept.
//!
//! `taskset -c 0 cargo run --release --example sampled_gradients -- [batch]`: layers of ResNet-50 and ViT-B at 224².

use std::io::Write as _;
use std::time::Instant;

use margay::torch::{Sampled, set_threads};
use margay_core::{Conv2d, Linear, Op};
use tch::{Device, Kind, Tensor};

type Error = Box<dyn std::error::Error>;

const REPEATS: usize = 5;

fn main() -> Result<(), Error> {
    let batch: i64 = std::env::args().nth(1).as_deref().unwrap_or("8").parse()?;
    set_threads(0);
    tch::manual_seed(0);
    let conv = |channels, kernel, stride| Op::Conv2d(Conv2d::square(channels, kernel, stride));
    let linear = |from, to| Op::Linear(Linear { in_features: from, out_features: to, bias: false });
    let layers = [
        ("64 -> 256, 1x1, 56x56", conv([64, 256], 1, 1), vec![batch, 64, 56, 56]),
        ("512 -> 128, 1x1, 28x28", conv([512, 128], 1, 1), vec![batch, 512, 28, 28]),
        ("512 -> 1024, 1x1 / 2, 28x28", conv([512, 1024], 1, 2), vec![batch, 512, 28, 28]),
        ("64 -> 64, 3x3, 56x56", conv([64, 64], 3, 1), vec![batch, 64, 56, 56]),
        ("256 -> 256, 3x3, 14x14", conv([256, 256], 3, 1), vec![batch, 256, 14, 14]),
        ("512 -> 512, 3x3, 7x7", conv([512, 512], 3, 1), vec![batch, 512, 7, 7]),
        ("768 -> 2304, 197 tokens", linear(768, 2304), vec![batch, 197, 768]),
        ("768 -> 3072, 197 tokens", linear(768, 3072), vec![batch, 197, 768]),
    ];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:28} {:>8} {:>8} {:>8} {:>8} {:>8} ms", "layer", "all", "20 %", "10 %", "5 %", "0.6 %")?;
    for (name, op, size) in layers {
        let input = Tensor::f_randn(&size, (Kind::Float, Device::Cpu))?;
        let shape = weight_shape(&op);
        let weight = Tensor::f_randn(&shape, (Kind::Float, Device::Cpu))?.f_set_requires_grad(true)?;
        let output = run(&op, &input, &weight)?;
        let gradient = output.f_rand_like()?;
        let product = output.f_mul(&gradient)?.f_sum(Kind::Float)?;
        let whole = median(|| Ok(Tensor::f_run_backward(&[&product], &[&weight], true, false)?))?;
        write!(out, "{name:28} {whole:8.2}")?;
        for density in [0.2, 0.1, 0.05, 0.006] {
            let kept =
                weight.f_rand_like()?.f_lt(density)?.f_flatten(0, -1)?.f_nonzero()?.f_squeeze_dim(1)?;
            let sampled = Sampled::new(&op, &kept)?.ok_or("no such layer")?;
            let few = median(|| Ok(sampled.gradient(&op, &input, &gradient)?))?;
            write!(out, " {few:8.2}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn weight_shape(op: &Op) -> Vec<i64> {
    let sizes = match op {
        Op::Conv2d(c) => vec![c.out_channels, c.in_channels, c.kernel[0], c.kernel[1]],
        _ => op.matrix().unwrap_or_default().to_vec(),
    };
    sizes.into_iter().map(|n| n as i64).collect()
}

fn run(op: &Op, input: &Tensor, weight: &Tensor) -> Result<Tensor, Error> {
    let pair = |of: [usize; 2]| of.map(|n| n as i64);
    Ok(match op {
        Op::Conv2d(c) => {
            input.f_conv2d(weight, None::<&Tensor>, pair(c.stride), pair(c.padding), [1, 1], 1)?
        }
        _ => input.f_linear(weight, None::<&Tensor>)?,
    })
}

/// Milliseconds.
fn median<T>(mut work: impl FnMut() -> Result<T, Error>) -> Result<f64, Error> {
    work()?;
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}
