//! `margay bench`: time per image of a model file against its dense twin, in one process.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use margay_core::{SparseModel, Weight};
use margay_runtime::{KernelChoice, LayerCost, Precision, Profile, Session, SessionOptions, layer_costs};
use serde::Serialize;

use super::engine::read_adapted;
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};

/// Values of all inputs together: 2 GiB.
const MAX_VALUES: usize = 1 << 29;

/// Measures how fast a specialist runs here
///
/// Sparse model and dense twin (the same weights with every zero stored, on dense kernels) take turns,
/// so that both see the same machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  margay bench out/specialist.margay --threads 1 --profile")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct BenchArgs {
    /// Model file written by `margay compress`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder of an adapter that `margay adapt` made for this model
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// How values are stored between layers: bf16 is faster, f32 exact
    #[arg(long, value_name = "f32|bf16", default_value_t)]
    precision: Precision,
    /// Images per run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Timed runs of each model, after two untimed ones
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Show the time of each layer
    #[arg(long)]
    profile: bool,
    /// Print what every prunable layer costs here at a range of sparsities, and nothing else
    #[arg(long, conflicts_with_all = ["profile", "no_dense", "batch"])]
    layers: bool,
    /// Leave out the dense twin
    #[arg(long)]
    no_dense: bool,
    /// Print the measurement as JSON
    #[arg(long)]
    json: bool,
}

/// Sparsities of `--layers`.
const SPARSITIES: [f64; 9] = [0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98];

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    isa: String,
    threads: usize,
    batch: usize,
    runs: usize,
    latency_ms: Latencies,
    speedup: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

/// Milliseconds per image.
#[derive(Debug, Serialize)]
struct Latencies {
    sparse: Spread,
    dense: Option<Spread>,
}

/// Milliseconds per image over the timed runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

pub fn run(args: &BenchArgs, context: &Context) -> Result<Exit, Failure> {
    let model = read_adapted(&args.model, args.adapter.as_deref())?;
    let options =
        SessionOptions { threads: context.threads(), precision: args.precision, ..SessionOptions::default() };
    if args.layers {
        let costs = layer_costs(&model, &options, &SPARSITIES).or_bad_input("could not time the layers")?;
        context.printer.show(args.json, &costs, |costs| layers(costs))?;
        return Ok(Exit::Success);
    }
    let mut sparse = Session::new(&model, &options).or_bad_input("could not prepare the model")?;
    let mut dense = if args.no_dense { None } else { Some(dense_session(&model, &options)?) };
    let batch = usize::from(args.batch);
    if batch * sparse.image_len() > MAX_VALUES {
        let most = MAX_VALUES / sparse.image_len().max(1);
        return Err(Failure::usage(format!("--batch {batch} is too large: this model takes {most} at most")));
    }
    let images = noise(batch * sparse.image_len());
    let latency_ms = time(args, &mut sparse, dense.as_mut(), &images)?;
    let profile = args.profile.then(|| sparse.profile(&images, args.runs as usize));
    let profile = profile.transpose().or_bad_input("could not profile")?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let measured = Measured {
        model: args.model.to_string_lossy().into_owned(),
        isa: sparse.isa().to_string(),
        threads: if context.threads() == 0 { cores } else { context.threads() },
        batch,
        runs: args.runs as usize,
        speedup: latency_ms.dense.map(|dense| dense.median / latency_ms.sparse.median),
        latency_ms,
        profile,
    };
    context.printer.show(args.json, &measured, table)?;
    Ok(Exit::Success)
}

/// The same weights with every zero stored, on dense kernels.
fn dense_session(model: &SparseModel, options: &SessionOptions) -> Result<Session, Failure> {
    let params = model.to_params();
    let weights = params.iter().map(|(name, value)| (name.to_owned(), Weight::Dense(value.clone())));
    let twin = SparseModel { weights: weights.collect(), ..model.clone() };
    let options = SessionOptions { kernel: KernelChoice::Dense, ..options.clone() };
    Session::new(&twin, &options).or_bad_input("could not prepare the dense twin")
}

/// Inputs of plausible size that are the same in every run (a linear congruential generator).
fn noise(length: usize) -> Vec<f32> {
    let mut state: u32 = 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn time(
    args: &BenchArgs,
    sparse: &mut Session,
    mut dense: Option<&mut Session>,
    images: &[f32],
) -> Result<Latencies, Failure> {
    const WARM_UP: u32 = 2;
    let batch = usize::from(args.batch);
    let mut logits = vec![0.0; batch * sparse.classes()];
    let mut milliseconds = |session: &mut Session| -> Result<f64, Failure> {
        let start = Instant::now();
        session.run(images, &mut logits).or_bad_input("could not run the model")?;
        Ok(start.elapsed().as_secs_f64() * 1e3 / batch as f64)
    };
    let (mut sparse_ms, mut dense_ms) = (Vec::new(), Vec::new());
    for round in 0..args.runs + WARM_UP {
        let first = milliseconds(sparse)?;
        let second = dense.as_deref_mut().map(&mut milliseconds).transpose()?;
        if round >= WARM_UP {
            sparse_ms.push(first);
            dense_ms.extend(second);
        }
    }
    Ok(Latencies { sparse: spread(sparse_ms), dense: dense.map(|_| spread(dense_ms)) })
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    };
    Spread { median, min: values[0], max: values[values.len() - 1] }
}

fn table(measured: &Measured) -> String {
    let Measured { isa, threads, batch, runs, .. } = measured;
    let mut text = format!("{isa}, {threads} threads, batch {batch}, {runs} runs; ms per image\n\n");
    text += "          median       min       max\n";
    let rows = [("sparse", Some(measured.latency_ms.sparse)), ("dense", measured.latency_ms.dense)];
    for (name, Spread { median, min, max }) in rows.iter().filter_map(|(n, s)| Some((n, (*s)?))) {
        let _ = writeln!(text, "{name:<6}  {median:>8.3}  {min:>8.3}  {max:>8.3}");
    }
    if let Some(speedup) = measured.speedup {
        let _ = writeln!(text, "\nsparse is {speedup:.2} times as fast as dense");
    }
    if let Some(profile) = &measured.profile {
        text += &steps(profile);
    }
    text
}

/// Comma-separated values, a line per layer and sparsity.
fn layers(costs: &[LayerCost]) -> String {
    let mut text = "weight,rows,columns,positions,sparsity,kernel,ms\n".to_owned();
    for LayerCost { weight, matrix: [rows, columns], shape, sparsity, kernel, ms } in costs {
        let positions: usize = shape.iter().product::<usize>() / rows.max(&1);
        let _ = writeln!(text, "{weight},{rows},{columns},{positions},{sparsity},{kernel},{ms:.4}");
    }
    text
}

/// One line per step of the plan, with its share of the time.
fn steps(profile: &Profile) -> String {
    let sum: f64 = profile.steps.iter().map(|step| step.median_ms).sum();
    let names: Vec<String> = profile.steps.iter().map(|step| step.nodes.join("+")).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).clamp(5, 40);
    let (gflops, gbytes) = (profile.peak_gflops, profile.peak_gbytes);
    let mut text = format!("\npeak of one core: {gflops:.1} GFLOP/s, {gbytes:.1} GB/s from memory\n");
    let _ = writeln!(
        text,
        "\n{:<width$}  {:<15} {:<16} {:>8} {:>9}   time  FLOP/s  bandwidth",
        "step", "shape", "kernel", "density", "ms"
    );
    for (step, name) in profile.steps.iter().zip(&names) {
        let density = step.density.map_or_else(String::new, |d| format!("{:.1} %", 100.0 * d));
        let share = 100.0 * step.median_ms / sum.max(f64::MIN_POSITIVE);
        let kernel =
            step.strip.map_or_else(|| step.kernel.clone(), |strip| format!("{} × {strip}", step.kernel));
        let (ms, shape) = (step.median_ms, format!("{:?}", step.shape));
        let [compute, memory] = [profile.compute_share(step), profile.memory_share(step)].map(|s| 100.0 * s);
        let _ = writeln!(
            text,
            "{name:<width$}  {shape:<15} {kernel:<16} {density:>8} {ms:>9.3} {share:>4.1} % {compute:>5.1} % {memory:>8.1} %"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn noise_repeats_and_is_centred() {
        let values = noise(10_000);
        assert_eq!(values, noise(10_000));
        let mean: f32 = values.iter().sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.1 && values.iter().all(|v| (-2.0..=2.0).contains(v)), "{mean}");
    }
}
