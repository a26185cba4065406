//! `margay compress`: the main job.

use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::settings::{CompressFlags, RecipeArgs, check, resolve, within};

/// Compresses a checkpoint into a sparse specialist for your classes
///
/// Writes OUT/specialist.margay, model.safetensors, recipe.toml, run.json and report.html. A run with
/// the saved recipe gives the same model, bit for bit.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = "Example:
  margay compress --model resnet50.pth --labels imagenet.json --data photos/ --shots 16 \\
      --compression 20x --out fox-hare-lynx/")]
pub struct CompressArgs {
    #[command(flatten)]
    recipe: RecipeArgs<CompressFlags>,
    /// Folder to write; must be empty or not exist
    #[arg(short, long, value_name = "FOLDER", default_value = "out")]
    out: PathBuf,
    /// Replace the output folder if it is an earlier output
    #[arg(long)]
    force: bool,
    /// Print what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// End with exit code 1 if the specialist gets fewer than this fraction of val right
    #[arg(long, value_name = "FRACTION")]
    min_top1: Option<f64>,
    /// End with exit code 4 if a photo could not be read
    #[arg(long)]
    strict: bool,
    /// Print the run record (or the plan of a dry run) as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CompressArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(least) = args.min_top1 {
        within("min-top1", least, 0.0..=1.0)?;
    }
    let recipe = resolve(&args.recipe, context.threads)?;
    check(&recipe)?;
    recipe.unused(args.recipe.given.table()).iter().for_each(|told| context.printer.warn(told));
    #[cfg(feature = "torch")]
    return torch::run(args, &recipe, context);
    #[cfg(not(feature = "torch"))]
    {
        drop(recipe);
        Err(super::without_torch::unavailable("compress"))
    }
}

#[cfg(feature = "torch")]
mod torch {
    use super::{CompressArgs, Context, Exit, Failure};
    use crate::cli::commands::plan;
    use crate::cli::commands::run::{Bar, PipelineResult, finish};
    use crate::cli::inputs::check_inputs;
    use crate::cli::output::{OutputDir, RECORD};
    use crate::pipeline::{self, CompressOptions};
    use crate::recipe::Recipe;

    pub fn run(args: &CompressArgs, recipe: &Recipe, context: &Context) -> Result<Exit, Failure> {
        check_inputs(recipe)?;
        let mut progress = context.progress();
        if args.dry_run {
            let plan = pipeline::plan(recipe, &mut progress).or_failure()?;
            return plan::show(&plan, args.json, args.strict, context);
        }
        let out = OutputDir::create(&args.out, args.force, RECORD, &context.printer)?;
        let options = CompressOptions::default();
        let record = pipeline::compress(recipe, out.path(), &options, &mut progress).or_failure()?;
        let folder = out.commit()?;
        let bar = Bar { min_top1: args.min_top1, strict: args.strict };
        finish(&record, &folder, &bar, args.json, context)
    }
}
