//! `margay adapt`: one base, an adapter per region.

use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::classes::{FolderArgs, HeadArgs};
use crate::cli::exit::{Exit, Failure};
use crate::cli::limits::LimitArgs;
use crate::cli::settings::{AdapterArgs, MAX_SEED, check, merge_adapt, parse_shots};
use crate::recipe::{InputSpec, Recipe, RecoverySpec, Shots};

/// Trains a small adapter on a sparse or dense model and saves it alone and merged
///
/// MODEL is a .margay file, whose sparsity is kept, or a checkpoint. OUT gets `adapter/`, which `margay predict
/// MODEL --adapter OUT/adapter` applies to the same .margay file, and `specialist.margay` with the adapter in it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  margay adapt specialist.margay --data north/ --method rosa --budget 0.005 --out north-adapter"
)]
pub struct AdaptArgs {
    /// A .margay file, a checkpoint, or the folder of a repository
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder with one folder per class, optionally under train/ and val/
    #[arg(short, long, value_name = "FOLDER")]
    data: PathBuf,
    #[command(flatten)]
    folders: FolderArgs,
    #[command(flatten)]
    new_head: HeadArgs,
    /// Class names of a checkpoint: text, JSON, CSV or YAML
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Name of the adapter, see `margay list`
    #[arg(long, value_name = "NAME", default_value = "rosa")]
    method: String,
    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    seed: u64,
    /// auto, cpu, cuda or cuda:n
    #[arg(
        long,
        value_name = "DEVICE",
        env = "MARGAY_DEVICE",
        hide_env_values = true,
        default_value = "auto"
    )]
    device: String,
    /// Images per class, or `all`
    #[arg(long, value_name = "N", value_parser = parse_shots, default_value = "16")]
    shots: usize,
    /// How photos are prepared for a checkpoint, by name, see `margay list`
    #[arg(long, value_name = "NAME")]
    preprocess: Option<String>,
    /// Side of the square input of a checkpoint in pixels
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// The layer that is the checkpoint's classifier, or none to fit a new one [default: the only one that can be]
    #[arg(long, value_name = "LAYER")]
    head: Option<String>,
    /// Passes over the shots
    #[arg(long, value_name = "N", default_value_t = 20)]
    epochs: usize,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Peak learning rate of head, norms and biases [default: 0.001]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Label smoothing
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    label_smoothing: f64,
    /// Compute activations twice and hold fewer of them: slower, for large networks and little memory
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// Output folder; must be empty or not exist
    #[arg(short, long, value_name = "FOLDER", default_value = "out")]
    out: PathBuf,
    /// Replace the output folder if it is an earlier output
    #[arg(long)]
    force: bool,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: AdaptArgs, context: &Context) -> Result<Exit, Failure> {
    let (out, force, json) = (args.out.clone(), args.force, args.json);
    let limits = args.limits.limits();
    let recipe = recipe(args, context);
    check(&recipe)?;
    #[cfg(feature = "torch")]
    return torch::run((&recipe, &limits), &out, force, json, context);
    #[cfg(not(feature = "torch"))]
    {
        drop((recipe, limits, out, force, json));
        Err(super::without_torch::unavailable("adapt"))
    }
}

/// Without a teacher the labels are all there is to learn from.
fn recipe(args: AdaptArgs, context: &Context) -> Recipe {
    let mut recipe = Recipe::new(args.model, args.data);
    recipe.labels = args.labels;
    recipe.classes = args.folders.over(args.new_head, recipe.classes);
    recipe.seed = args.seed;
    recipe.device = args.device;
    recipe.threads = context.threads();
    recipe.shots = Shots { per_class: args.shots, holdout: 0.0, ..Shots::default() };
    recipe.input =
        InputSpec { preprocess: args.preprocess, image_size: args.image_size, resize: None, head: args.head };
    recipe.recovery = RecoverySpec {
        epochs: args.epochs,
        batch: args.batch,
        learning_rate: args.learning_rate,
        label_smoothing: Some(args.label_smoothing),
        cross_entropy: Some(1.0),
        distillation: 0.0,
        square_head: 0.0,
        crop: 1.0,
        freeze: 0.0,
        fixed_views: 0,
        pilot: false,
        recompute: args.recompute,
        ..RecoverySpec::default()
    };
    recipe.adapt = merge_adapt(Some(args.method), args.adapter, recipe.adapt);
    recipe
}

#[cfg(feature = "torch")]
mod torch {
    use std::fmt::Write as _;
    use std::path::Path;

    use margay_core::Limits;

    use super::{Context, Exit, Failure};
    use crate::cli::commands::run::{PipelineResult, tell_photos};
    use crate::cli::inputs::check_inputs;
    use crate::cli::output::{OutputDir, RECORD};
    use crate::pipeline;
    use crate::recipe::Recipe;
    use crate::record::{AdaptRecord, ClassRecall};

    pub fn run(
        (recipe, limits): (&Recipe, &Limits),
        out: &Path,
        force: bool,
        json: bool,
        context: &Context,
    ) -> Result<Exit, Failure> {
        check_inputs(recipe)?;
        let out = OutputDir::create(out, force, RECORD, &context.printer)?;
        let record = pipeline::adapt(recipe, limits, out.path(), &mut context.progress()).or_failure()?;
        let folder = out.commit()?;
        context.printer.show(json, &record, table)?;
        context.printer.note(&format!("adapter  {}", folder.join("adapter").display()));
        context.printer.note(&format!("merged   {}", folder.join("specialist.margay").display()));
        tell_photos(record.bad_photos.len(), record.noted_photos.len(), context);
        Ok(Exit::Success)
    }

    /// Recall per class first: what a rare class loses must be seen.
    fn table(record: &AdaptRecord) -> String {
        let mut text = format!("{:<24} {:>8} {:>8} {:>8}\n", "recall on val", "base", "adapted", "photos");
        let cell = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{:.1} %", 100.0 * v));
        let classes = record.base.classes.iter().zip(&record.adapted.classes);
        for (base, adapted) in classes {
            let ClassRecall { label, recall, total, .. } = adapted;
            let _ = writeln!(text, "{label:<24} {:>8} {:>8} {total:>8}", cell(base.recall), cell(*recall));
        }
        let (base, adapted) = (cell(record.base.top1), cell(record.adapted.top1));
        let _ = writeln!(text, "{:<24} {base:>8} {adapted:>8} {:>8}", "all", record.adapted.total);
        let trained = &record.trained;
        let share = 100.0 * trained.share;
        let _ = writeln!(
            text,
            "trained   {} in the adapter ({share:.2} % of all weights), {} in head, norms and biases",
            trained.adapter, trained.beside
        );
        let [before, after] = record.nonzeros;
        let support = if record.support_unchanged { "same support" } else { "other support" };
        let _ = writeln!(text, "non-zero  {before} before, {after} after, {support}");
        let [base, merged, adapter] = record.bytes;
        let _ = writeln!(text, "bytes     base {base}, merged {merged}, adapter {adapter}");
        let latency = &record.latency_ms;
        let _ = writeln!(text, "ms        base {:.2}, adapted {:.2}", latency.dense, latency.sparse);
        text
    }
}
