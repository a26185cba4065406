//! `margay adapt`: one base, an adapter per region.

use std::path::PathBuf;

use toml::Table;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::limits::LimitArgs;
use crate::cli::settings::{JobFlags, RecipeArgs, check, resolve, unnamed};
use crate::options::{Flags, Opt, Options};
use crate::recipe::{AdaptSpec, Job, Recipe, RecoverySpec};

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
    #[arg(value_name = "MODEL", required_unless_present = "recipe")]
    base: Option<String>,
    #[command(flatten)]
    recipe: RecipeArgs<AdaptFlags>,
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

/// Options of `margay adapt`, which prunes nothing.
#[derive(Clone, Debug, Default)]
struct AdaptFlags;

/// Tables and keys of recipes that an adapter goes by.
const READ: [&str; 15] = [
    "model",
    "labels",
    "data",
    "classes",
    "seed",
    "device",
    "shots.per-class",
    "input.preprocess",
    "input.image-size",
    "input.head",
    "recovery.epochs",
    "recovery.batch",
    "recovery.learning-rate",
    "recovery.label-smoothing",
    "recovery.recompute",
];

impl JobFlags for AdaptFlags {
    type Recipe = Recipe;
    const JOB: Job = Job::Adapt;
}

impl Flags for AdaptFlags {
    fn options() -> Vec<Opt> {
        let read = |option: &Opt| {
            option.table == "adapt" || READ.iter().any(|name| *name == option.table || *name == option.path())
        };
        let named = |mut option: Opt| {
            match option.path().as_str() {
                // An argument, not a flag.
                "model" => option.flag = None,
                "adapt.method" => {
                    (option.flag, option.help) = (Some("method"), "Name of the adapter, see `margay list`");
                }
                "recovery.learning-rate" => {
                    (option.help, option.shown) =
                        ("Peak learning rate of head, norms and biases", Some("0.001"));
                }
                "recovery.epochs" => option.help = "Passes over the shots",
                "recovery.label-smoothing" => option.shown = None,
                _ => {}
            }
            option
        };
        Recipe::options().into_iter().filter(read).map(named).collect()
    }

    /// Without a teacher the labels are all there is to learn from.
    fn defaults() -> Table {
        let mut recipe = unnamed();
        recipe.job = Job::Adapt;
        recipe.shots.holdout = 0.0;
        recipe.adapt = AdaptSpec { method: "rosa".to_owned(), ..recipe.adapt };
        recipe.recovery = RecoverySpec {
            epochs: 20,
            batch: 64,
            label_smoothing: Some(0.1),
            cross_entropy: Some(1.0),
            distillation: 0.0,
            square_head: 0.0,
            crop: 1.0,
            freeze: 0.0,
            fixed_views: 0,
            pilot: false,
            ..RecoverySpec::default()
        };
        recipe.to_table()
    }
}

pub fn run(mut args: AdaptArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(base) = &args.base {
        args.recipe.given.put("model", base.clone().into());
    }
    let recipe = resolve(&args.recipe, context.threads)?;
    check(&recipe)?;
    #[cfg(feature = "torch")]
    return torch::run((&recipe, &args.limits.limits()), &args.out, args.force, args.json, context);
    #[cfg(not(feature = "torch"))]
    {
        drop(recipe);
        Err(super::without_torch::unavailable("adapt"))
    }
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
