//! `margay bench`: time per image of a model file against its dense twin and other engines.

mod bars;
mod contest;
mod rivals;
mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use margay_core::{SparseModel, Weight};
use margay_runtime::{KernelChoice, Precision, Profile, Session, SessionOptions, check_logits, layer_costs};
use serde::Serialize;

use super::engine::{EngineArgs, check_dense, more_memory, read_adapted};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::output::OutputFile;
use contest::{Contestant, Spread, rounds};
use rivals::{Ours, Rivals, Standing, Wanted};

/// Largest difference over the largest logit that bf16 between layers makes.
const BF16: f64 = 0.1;
/// Values of all inputs together: 2 GiB.
const MAX_VALUES: usize = 1 << 29;

/// Measures how fast a specialist runs here
///
/// Sparse model and dense twin (the same weights with every zero stored, on dense kernels) take turns,
/// so that both see the same machine. Engines of `--against` take turns with them: onnxruntime, openvino,
/// deepsparse and their variants (`margay list`) from a Python that has them, libtorch from this build.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  margay bench out/specialist.margay --threads 1 --profile
  taskset -c 0 margay bench out/specialist.margay --threads 1 --against openvino,openvino-bf16,onnxruntime
  margay bench out/specialist.margay --against deepsparse=venv/bin/python,libtorch --plot bench.svg")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct BenchArgs {
    /// Model file written by `margay compress`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder of an adapter that `margay adapt` made for this model
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Images per run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Timed runs of each model, after two untimed ones
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Show the time of each layer, and of the next best way to run it
    #[arg(long)]
    profile: bool,
    /// Other engines, as NAME or NAME=PYTHON where the package is in a virtual environment
    #[arg(long, value_name = "ENGINE,...", value_delimiter = ',', value_parser = rivals::parse)]
    against: Vec<Wanted>,
    /// Draw the times as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Replace that file if it exists
    #[arg(long, requires = "plot")]
    force: bool,
    /// Print what every prunable layer costs here at a range of sparsities, and nothing else
    #[arg(long, conflicts_with_all = ["profile", "no_dense", "batch", "against", "plot"])]
    layers: bool,
    /// Leave out the dense twin
    #[arg(long)]
    no_dense: bool,
    /// Print the measurement as JSON
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "torch")]
impl BenchArgs {
    /// Whether libtorch takes part.
    pub fn is_against_libtorch(&self) -> bool {
        self.against.iter().any(Wanted::is_libtorch)
    }
}

/// Sparsities of `--layers`.
const SPARSITIES: [f64; 9] = [0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98];

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    isa: String,
    precision: String,
    threads: usize,
    batch: usize,
    runs: usize,
    latency_ms: Latencies,
    speedup: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    against: Vec<Standing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

/// Milliseconds per image.
#[derive(Debug, Serialize)]
struct Latencies {
    sparse: Spread,
    dense: Option<Spread>,
}

pub fn run(args: &BenchArgs, context: &Context) -> Result<Exit, Failure> {
    let model = read_adapted(&args.model, args.adapter.as_deref(), &args.engine.limits())?;
    let options = args.engine.options(context);
    if args.layers || args.profile || !args.no_dense || !args.against.is_empty() {
        check_dense(&model, &options.limits)?;
    }
    if args.layers {
        let costs = layer_costs(&model, &options, &SPARSITIES).or_bad_input("could not time the layers")?;
        context.printer.show(args.json, &costs, |costs| table::layers(costs))?;
        return Ok(Exit::Success);
    }
    let sparse = Session::new(&model, &options).or_bad_input("could not prepare the model");
    let mut sparse = sparse.map_err(more_memory)?;
    let mut dense = if args.no_dense { None } else { Some(dense_session(&model, &options)?) };
    let batch = usize::from(args.batch);
    if batch * sparse.image_len() > MAX_VALUES {
        let most = MAX_VALUES / sparse.image_len().max(1);
        return Err(Failure::usage(format!("--batch {batch} is too large: this model takes {most} at most")));
    }
    // A plot that cannot be written is told before the work.
    let create = |goal| OutputFile::create(goal, args.force, &context.printer);
    let file = args.plot.as_deref().map(create).transpose()?;
    let images = noise(batch * sparse.image_len());
    let measured = measure(args, context, &model, (&mut sparse, dense.as_mut()), &images)?;
    if let Some(mut file) = file {
        file.write_all(bars::draw(&measured).as_bytes()).or_io("could not write the plot")?;
        file.commit()?;
    }
    context.printer.show(args.json, &measured, table::table)?;
    Ok(Exit::Success)
}

/// Times the session, its dense twin and other engines in turns.
fn measure(
    args: &BenchArgs,
    context: &Context,
    model: &SparseModel,
    (sparse, dense): (&mut Session, Option<&mut Session>),
    images: &[f32],
) -> Result<Measured, Failure> {
    let batch = usize::from(args.batch);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if context.threads() == 0 { cores } else { context.threads() };
    let progress = &mut context.progress();
    let mut rivals = Rivals::start(&args.against, model, images, threads, context)?;
    let mut logits = vec![0.0; batch * sparse.classes()];
    let mut twin_logits = logits.clone();
    let mut contestants = vec![ours(sparse, images, &mut logits)];
    contestants.extend(dense.map(|dense| ours(dense, images, &mut twin_logits)));
    let own = contestants.len();
    contestants.extend(rivals.contestants());
    let times = rounds(&mut contestants, args.runs, progress)?;
    drop(contestants);
    check_logits(&logits).or_bad_input("could not use the model on numbers from -2 to 2")?;
    let spread = |times: &Vec<f64>| Spread::per_image(times, batch);
    let latency_ms = Latencies { sparse: spread(&times[0]), dense: times[..own].get(1).map(spread) };
    let tolerance = if args.engine.precision == Precision::Bf16 { BF16 } else { 0.0 };
    let ours = Ours { times: &times[0], logits: &logits, tolerance, batch };
    let against = rivals.standings(&times[own..], &ours);
    let profile = args.profile.then(|| sparse.profile_with_rivals(model, images, args.runs as usize));
    let profile = profile.transpose().or_bad_input("could not profile")?;
    Ok(Measured {
        model: args.model.to_string_lossy().into_owned(),
        isa: sparse.isa().to_string(),
        precision: args.engine.precision.to_string(),
        threads,
        batch,
        runs: args.runs as usize,
        speedup: latency_ms.dense.map(|dense| dense.median / latency_ms.sparse.median),
        latency_ms,
        against,
        profile,
    })
}

/// The same weights with every zero stored, on dense kernels.
fn dense_session(model: &SparseModel, options: &SessionOptions) -> Result<Session, Failure> {
    let params = model.to_params();
    let weights = params.iter().map(|(name, value)| (name.to_owned(), Weight::Dense(value.clone())));
    let twin = SparseModel { weights: weights.collect(), ..model.clone() };
    let options = SessionOptions { kernel: KernelChoice::Dense, ..options.clone() };
    Session::new(&twin, &options).or_bad_input("could not prepare the dense twin").map_err(more_memory)
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

/// A session that is timed.
fn ours<'a>(session: &'a mut Session, images: &'a [f32], logits: &'a mut [f32]) -> Contestant<'a> {
    Box::new(move || {
        let start = Instant::now();
        session.run(images, logits).or_bad_input("could not run the model")?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_repeats_and_is_centred() {
        let values = noise(10_000);
        assert_eq!(values, noise(10_000));
        let mean: f32 = values.iter().sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.1 && values.iter().all(|v| (-2.0..=2.0).contains(v)), "{mean}");
    }
}
