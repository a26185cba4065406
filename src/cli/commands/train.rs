//! `margay train`: a dense model, from scratch or from a checkpoint.

use std::path::PathBuf;

use toml::Table;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::settings::{
    JobFlags, RecipeArgs, check_classes, check_device, check_input, in_range, resolve,
};
use crate::options::{Flags, Opt, Options};
use crate::recipe::{Job, TrainSpec};

/// Trains or finetunes a dense model
///
/// Give --arch to start from random weights or --model to go on from a checkpoint. Writes a
/// .safetensors checkpoint that `margay compress` reads, with the class names in it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  margay train --arch resnet18 --width 16 --data photos/ --epochs 30 --out dense.safetensors"
)]
pub struct TrainArgs {
    #[command(flatten)]
    recipe: RecipeArgs<TrainFlags>,
    /// Checkpoint to write (.safetensors)
    #[arg(short, long, value_name = "FILE", default_value = "model.safetensors")]
    out: PathBuf,
    /// Replace that file if it exists
    #[arg(long)]
    force: bool,
    /// Print the evaluation on val as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `margay train`.
#[derive(Clone, Debug, Default)]
struct TrainFlags;

impl JobFlags for TrainFlags {
    type Recipe = TrainSpec;
    const JOB: Job = Job::Train;
}

impl Flags for TrainFlags {
    fn options() -> Vec<Opt> {
        TrainSpec::options().into_iter().filter(|option| option.path() != "input.resize").collect()
    }

    fn defaults() -> Table {
        Table::try_from(TrainSpec::default()).expect("options have a place in TOML")
    }
}

pub fn run(args: &TrainArgs, context: &Context) -> Result<Exit, Failure> {
    let spec = resolve(&args.recipe, context.threads)?;
    check_train(&spec)?;
    if args.out.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Failure::usage(format!("--out {} does not end in .safetensors", args.out.display()))
            .hint("margay writes safetensors only"));
    }
    #[cfg(feature = "torch")]
    return torch::run(&spec, &args.out, args.force, args.json, context);
    #[cfg(not(feature = "torch"))]
    {
        drop(spec);
        Err(super::without_torch::unavailable("train"))
    }
}

fn check_train(spec: &TrainSpec) -> Result<(), Failure> {
    check_device(&spec.device)?;
    check_classes(&spec.classes)?;
    check_input(&spec.input)?;
    in_range(spec)?;
    if spec.start().is_none() {
        return Err(Failure::usage("training starts from an architecture or from a checkpoint")
            .hint("give --arch, such as resnet18, or --model; see `margay list`"));
    }
    if spec.labels.is_some() && spec.model.is_none() {
        return Err(Failure::usage("there is no checkpoint that --labels could be of").hint("give --model"));
    }
    if spec.teacher_labels.is_some() && spec.teacher.is_none() {
        return Err(
            Failure::usage("there is no teacher that --teacher-labels could be of").hint("give --teacher")
        );
    }
    Ok(())
}

#[cfg(feature = "torch")]
mod torch {
    use std::path::Path;

    use super::{Context, Exit, Failure, TrainSpec};
    use crate::cli::commands::run::PipelineResult;
    use crate::cli::output::OutputFile;
    use crate::pipeline;
    use crate::record::Evaluation;

    pub fn run(
        spec: &TrainSpec,
        out: &Path,
        force: bool,
        json: bool,
        context: &Context,
    ) -> Result<Exit, Failure> {
        let mut file = OutputFile::create(out, force, &context.printer)?;
        let evaluation = pipeline::train(spec, &mut file, &mut context.progress()).or_failure()?;
        file.commit()?;
        context.printer.show(json, &evaluation, line)?;
        context.printer.note(&format!("model   {}", out.display()));
        Ok(Exit::Success)
    }

    fn line(evaluation: &Evaluation) -> String {
        let Some(top1) = evaluation.top1 else { return "no photos in val to evaluate on\n".to_owned() };
        let [low, high] = evaluation.top1_interval.map(|x| 100.0 * x);
        format!("top-1 on val {:.1} % (95 % interval {low:.1} to {high:.1})\n", 100.0 * top1)
    }
}
