//! `margay front`: what each size costs and gives.

use std::io::Write as _;
use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::output::OutputFile;
use crate::cli::settings::{FrontFlags, RecipeArgs, check, resolve};
use crate::front::{Front, plot, table};
use crate::recipe::Recipe;

/// Makes specialists at several targets and compares their accuracy and speed
///
/// Each is made from four fifths of the shots and judged on the fifth that is held out; val is not looked at. A star marks the
/// networks that no other one beats in both time and held-out loss. Nothing is kept: `margay compress --target` makes
/// the one that is wanted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  margay front --model resnet50.pth --labels imagenet.json --data photos/ --targets 5x,10x,20x,4x-speedup \\
      --plot front.svg")]
pub struct FrontArgs {
    #[command(flatten)]
    recipe: RecipeArgs<FrontFlags>,
    /// Targets as --target takes them, separated by commas
    #[arg(
        long, value_name = "TARGETS", value_delimiter = ',', required = true,
        conflicts_with_all = ["target", "sparsity", "compression"]
    )]
    targets: Vec<String>,
    /// Draw held-out top-1 against time into an SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Replace that file if it exists
    #[arg(long, requires = "plot")]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &FrontArgs, context: &Context) -> Result<Exit, Failure> {
    let recipe_at = |target: &String| {
        let mut args = args.recipe.clone();
        let set = args.given.set("target", target);
        set.map_err(|reason| Failure::usage(format!("`{target}` is no target: it {reason}")))?;
        let recipe = resolve(&args, context.threads)?;
        check(&recipe).map(|()| recipe)
    };
    let recipes = args.targets.iter().map(recipe_at).collect::<Result<Vec<Recipe>, Failure>>()?;
    // A plot that cannot be written is told before the work.
    let create = |goal| OutputFile::create(goal, args.force, &context.printer);
    let file = args.plot.as_deref().map(create).transpose()?;
    let front = made(&recipes, context)?;
    if let Some(mut file) = file {
        file.write_all(plot(&front).as_bytes()).or_io("could not write the plot")?;
        file.commit()?;
    }
    context.printer.show(args.json, &front, table)?;
    Ok(Exit::Success)
}

#[cfg(feature = "torch")]
fn made(recipes: &[Recipe], context: &Context) -> Result<Front, Failure> {
    use crate::cli::commands::run::PipelineResult;
    use crate::cli::inputs::check_inputs;
    recipes.iter().try_for_each(check_inputs)?;
    crate::pipeline::front(recipes, &mut context.progress()).or_failure()
}

#[cfg(not(feature = "torch"))]
fn made(_recipes: &[Recipe], _context: &Context) -> Result<Front, Failure> {
    Err(super::without_torch::unavailable("front"))
}
