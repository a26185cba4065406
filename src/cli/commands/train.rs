//! `margay train`: a dense model, from scratch or from a checkpoint.

use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::classes::{FolderArgs, HeadArgs};
use crate::cli::exit::{Exit, Failure};
use crate::cli::settings::{
    MAX_SEED, OPTIMIZERS, check_classes, check_device, check_input, choice, parse_shots, within,
};
use crate::recipe::{ClassSpec, InputSpec, OptimizerChoice, Start, Teacher, TrainSpec};

/// Trains or finetunes a dense model
///
/// Give --arch to start from random weights or --model to go on from a checkpoint. Writes a
/// .safetensors checkpoint that `margay compress` reads, with the class names in it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  margay train --arch resnet18 --width 16 --data photos/ --epochs 30 --out dense.safetensors"
)]
#[command(group = clap::ArgGroup::new("start").required(true).args(["arch", "model"]))]
pub struct TrainArgs {
    /// Architecture to train from scratch, see `margay list`
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Channels after the stem [default: the architecture's own]
    #[arg(long, value_name = "N", conflicts_with = "model", value_parser = clap::value_parser!(u16).range(1..))]
    width: Option<u16>,
    /// Number of transformer blocks [default: the architecture's own]
    #[arg(long, value_name = "N", conflicts_with = "model", value_parser = clap::value_parser!(u16).range(1..=1000))]
    depth: Option<u16>,
    /// Checkpoint to finetune, or the folder of a repository
    #[arg(short, long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Class names of the checkpoint: text, JSON, CSV or YAML
    #[arg(long, value_name = "FILE", requires = "model")]
    labels: Option<PathBuf>,
    /// Folder with one folder per class, optionally under train/ and val/
    #[arg(short, long, value_name = "FOLDER")]
    data: PathBuf,
    #[command(flatten)]
    folders: FolderArgs,
    #[command(flatten)]
    new_head: HeadArgs,
    /// Checkpoint to write (.safetensors)
    #[arg(short, long, value_name = "FILE", default_value = "model.safetensors")]
    out: PathBuf,
    /// Replace that file if it exists
    #[arg(long)]
    force: bool,
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
    /// How photos are prepared, by name, see `margay list` [default: as the checkpoint's files say]
    #[arg(long, value_name = "NAME")]
    preprocess: Option<String>,
    /// Side of the square input in pixels [default: as prepared, else that of the images up to 224]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// The layer that is the checkpoint's classifier, or none to fit a new one [default: the only one that can be]
    #[arg(long, value_name = "LAYER")]
    head: Option<String>,
    /// Photos per class to learn from, or `all`
    #[arg(long, value_name = "N", value_parser = parse_shots, default_value = "all")]
    shots: usize,
    /// Passes over the photos
    #[arg(long, value_name = "N", default_value_t = 30)]
    epochs: usize,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// What takes the steps
    #[arg(long, value_parser = choice(OPTIMIZERS), default_value = "auto")]
    optimizer: OptimizerChoice,
    /// Peak learning rate [default: 0.1 for sgd, 0.001 for adamw; from a checkpoint 0.003 and 0.0001]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// L2 penalty on weights
    #[arg(long, value_name = "X", default_value_t = 5e-4)]
    weight_decay: f64,
    /// Label smoothing
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    label_smoothing: f64,
    /// Checkpoint whose answers are imitated beside the labels (knowledge distillation)
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Class names of the teacher: text, JSON, CSV or YAML
    #[arg(long, value_name = "FILE", requires = "teacher")]
    teacher_labels: Option<PathBuf>,
    /// Weight of the teacher's answers; that of the labels is 1
    #[arg(long, value_name = "X", requires = "teacher", default_value_t = 1.0)]
    distillation: f64,
    /// Temperature of the teacher's answers
    #[arg(long, value_name = "X", requires = "teacher", default_value_t = 2.0)]
    temperature: f64,
    /// Print the evaluation on val as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: TrainArgs, context: &Context) -> Result<Exit, Failure> {
    let (json, force, out) = (args.json, args.force, args.out.clone());
    let spec = spec(args, context)?;
    if out.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Failure::usage(format!("--out {} does not end in .safetensors", out.display()))
            .hint("margay writes safetensors only"));
    }
    #[cfg(feature = "torch")]
    return torch::run(&spec, &out, force, json, context);
    #[cfg(not(feature = "torch"))]
    {
        drop((spec, force, json));
        Err(super::without_torch::unavailable("train"))
    }
}

fn spec(args: TrainArgs, context: &Context) -> Result<TrainSpec, Failure> {
    check_device(&args.device)?;
    let classes = args.folders.over(args.new_head, ClassSpec::default());
    check_classes(&classes)?;
    let input =
        InputSpec { preprocess: args.preprocess, image_size: args.image_size, resize: None, head: args.head };
    check_input(&input)?;
    within("batch", args.batch as f64, 1.0..=65536.0)?;
    if let Some(rate) = args.learning_rate {
        within("learning-rate", rate, 1e-12..=1e3)?;
    }
    within("distillation", args.distillation, 0.0..=1e6)?;
    within("temperature", args.temperature, 0.01..=1e3)?;
    within("weight-decay", args.weight_decay, 0.0..=1e3)?;
    within("label-smoothing", args.label_smoothing, 0.0..=0.99)?;
    let start = match (args.arch, args.model) {
        (Some(arch), _) => {
            Start::Scratch { arch, width: args.width.map(usize::from), depth: args.depth.map(usize::from) }
        }
        (None, Some(model)) => Start::Checkpoint { model, labels: args.labels },
        (None, None) => return Err(Failure::usage("give --arch or --model")),
    };
    let teacher = args.teacher.map(|model| Teacher {
        model,
        labels: args.teacher_labels,
        weight: args.distillation,
        temperature: args.temperature,
    });
    Ok(TrainSpec {
        start,
        data: args.data,
        classes,
        seed: args.seed,
        device: args.device,
        threads: context.threads(),
        input,
        shots: args.shots,
        epochs: args.epochs,
        batch: args.batch,
        learning_rate: args.learning_rate,
        weight_decay: args.weight_decay,
        label_smoothing: args.label_smoothing,
        optimizer: args.optimizer,
        teacher,
    })
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
