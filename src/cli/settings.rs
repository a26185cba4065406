//! Every choice of a run from its three sources: flag, then recipe file, then default.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use margay_core::{Granularity, Sparsity, input, nearest_name};
use toml::{Table, Value};

use super::classes::{FolderArgs, HeadArgs};
use super::exit::{Failure, OrFail};
use crate::allocate::ALLOCATORS;
use crate::preprocess::PRESETS;
use crate::recipe::{
    AdaptSpec, AdapterInit, AdapterSchedule, BaseBits, ClassSpec, Count, GradAccMode, InputSpec,
    OptimizerChoice, Policy, PruneSpec, Recalibration, Recipe, RecoverySpec, ResizeChoice, Schedule, Shots,
    Target, Tuned, parse_compression,
};

/// The largest seed: TOML, in which recipes are saved, has signed integers only.
pub const MAX_SEED: u64 = i64::MAX as u64;

/// The largest input side that is accepted, in pixels.
const MAX_IMAGE_SIZE: usize = 1024;
/// Recipes, experiments and documents longer than this are none.
const MAX_TEXT_BYTES: u64 = 16 << 20;

const RESIZES: &[(&str, ResizeChoice)] =
    &[("squash", ResizeChoice::Squash), ("short-side", ResizeChoice::ShortSide), ("pad", ResizeChoice::Pad)];
const COUNTS: &[(&str, Count)] = &[("all", Count::All), ("prunable", Count::Prunable)];
const RECALIBRATIONS: &[(&str, Recalibration)] =
    &[("auto", Recalibration::Auto), ("on", Recalibration::On), ("off", Recalibration::Off)];
/// Optimisers by their names on the command line.
pub const OPTIMIZERS: &[(&str, OptimizerChoice)] =
    &[("auto", OptimizerChoice::Auto), ("sgd", OptimizerChoice::Sgd), ("adamw", OptimizerChoice::Adamw)];
const POLICIES: &[(&str, Policy)] =
    &[("keep", Policy::Keep), ("grow", Policy::Grow), ("branch", Policy::Branch)];
const INITS: &[(&str, AdapterInit)] =
    &[("default", AdapterInit::Default), ("eva", AdapterInit::Eva), ("residual", AdapterInit::Residual)];
const BASE_BITS: &[(&str, BaseBits)] = &[("8", BaseBits::Eight), ("4", BaseBits::Four)];
const GRAD_ACC_MODES: &[(&str, GradAccMode)] =
    &[("mean_squared", GradAccMode::MeanSquared), ("mean", GradAccMode::Mean)];
const SCHEDULES: &[(&str, Schedule)] =
    &[("one-shot", Schedule::OneShot), ("gradual", Schedule::Gradual), ("none", Schedule::None)];

/// Flags that stand for fields of a recipe.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RecipeArgs {
    /// Recipe file (TOML) with any of the values below; flags win over it
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Checkpoint to specialise: .safetensors, .pth, .pt, .bin or .ckpt, or the folder of a repository
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Class names of the checkpoint in the order of its head: text, JSON, CSV or YAML, a Keras class index, a config.json
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Folder with one folder per class, optionally under train/ and val/
    #[arg(short, long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub folders: FolderArgs,
    #[command(flatten)]
    pub new_head: HeadArgs,
    /// Folder of photos of anything, without labels: steadies pruning where shots are few
    #[arg(long, value_name = "FOLDER", help_heading = "Data")]
    pub general: Option<PathBuf>,
    /// Folder of your own photos without labels: more to imitate the dense network on
    #[arg(long, value_name = "FOLDER", help_heading = "Data")]
    pub unlabelled: Option<PathBuf>,
    /// Most photos to take from --general [default: 256]
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub general_images: Option<usize>,
    /// Most photos of --general to look at for those that resemble the task; 0 takes any [default: 2048]
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub general_pool: Option<usize>,
    /// Most photos to take from --unlabelled [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub unlabelled_images: Option<usize>,
    /// Let classes with more shots count more than rare ones
    #[arg(long, help_heading = "Data")]
    pub unbalanced: bool,
    /// Seed of every random choice [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    pub seed: Option<u64>,
    /// auto, cpu, cuda or cuda:n [default: auto]
    #[arg(long, value_name = "DEVICE", env = "MARGAY_DEVICE", hide_env_values = true)]
    pub device: Option<String>,
    /// Images per class, or `all` [default: 16]
    #[arg(long, value_name = "N", value_parser = parse_shots, help_heading = "Data")]
    pub shots: Option<usize>,
    /// Fraction of the shots held out for choices made on the way [default: 0.2]
    #[arg(long, value_name = "FRACTION", help_heading = "Data")]
    pub holdout: Option<f64>,
    /// How photos are prepared, by name, see `margay list` [default: as the checkpoint's files say]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub preprocess: Option<String>,
    /// Side of the square input in pixels [default: as prepared, else that of the images up to 224]
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    pub image_size: Option<usize>,
    /// How a photo is brought to that size [default: as prepared, else short-side at 224, squash elsewhere]
    #[arg(long, value_parser = choice(RESIZES), help_heading = "Data")]
    pub resize: Option<ResizeChoice>,
    /// The layer that is the checkpoint's classifier, or none to fit a new one [default: the only one that can be]
    #[arg(long, value_name = "LAYER", help_heading = "Data")]
    pub head: Option<String>,
    #[command(flatten)]
    pub prune: PruneArgs,
    #[command(flatten)]
    pub recovery: RecoveryArgs,
    /// What recovery trains, see `margay list`: full (all surviving weights), lora, rosa, ... [default: full]
    #[arg(long, value_name = "NAME", help_heading = "Adapters")]
    pub adapt: Option<String>,
    #[command(flatten)]
    pub adapter: AdapterArgs,
}

/// Flags of pruning.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Pruning")]
pub struct PruneArgs {
    /// Name of the solver, see `margay list` [default: alps]
    #[arg(long, value_name = "NAME")]
    pub solver: Option<String>,
    /// How sparsity is spread over layers, see `margay list` [default: erk]
    #[arg(long, value_name = "NAME")]
    pub allocation: Option<String>,
    /// Fraction of zeros over the weights that count, see --count [default: 0.95]
    #[arg(long, value_name = "FRACTION", value_parser = parse_sparsity)]
    pub sparsity: Option<Sparsity>,
    /// The same as a factor, such as 20x
    #[arg(
        long, value_name = "FACTOR", value_parser = parse_compression, conflicts_with = "sparsity",
    )]
    pub compression: Option<Sparsity>,
    /// What the network may cost: 20x (fewer weights), 10x-macs (fewer multiply-adds), 3x-speedup or 8ms (on
    /// this machine)
    #[arg(
        long, value_name = "TARGET", value_parser = parse_target, conflicts_with_all = ["sparsity", "compression"],
    )]
    pub target: Option<Wanted>,
    /// Which weights a compression counts: all, or prunable (without stem, head, norms, biases, positions) [default: all]
    #[arg(long, value_parser = choice(COUNTS))]
    pub count: Option<Count>,
    /// Most that a class's recall may fall, in points, by cross-validation on the shots; beyond it less is pruned
    #[arg(long, value_name = "POINTS")]
    pub max_class_drop: Option<f64>,
    /// What stays or goes as one: unstructured (any weight), 2:4 (N:M), 4x1 (rows x columns of blocks), channels (whole
    /// channels and heads; --allocation erk or uniform) [default: unstructured]
    #[arg(long, value_name = "PATTERN")]
    pub pattern: Option<Granularity>,
    /// Added to the Hessian's diagonal, relative to the diagonal; auto asks the held-out fold [default: 0.1]
    #[arg(long, value_name = "X|auto")]
    pub damping: Option<Tuned>,
    /// Weight of the --general photos beside the shots, 0 to 1; auto asks the held-out fold [default: auto]
    #[arg(long, value_name = "X|auto")]
    pub general_share: Option<Tuned>,
    /// How far layers also make good what pruning changed before them, 0 to 1 [default: 1]
    #[arg(long, value_name = "X")]
    pub correction: Option<f64>,
    /// Whether the last layer of a residual branch makes good what the stream lacks, not its own output only [default: true]
    #[arg(long, value_name = "BOOL")]
    pub stream: Option<bool>,
    /// How far outputs count by what the loss makes of them, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "X")]
    pub fisher: Option<f64>,
    /// How far positions (tokens, pixels of maps) count by what the loss makes of them, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "X")]
    pub positions: Option<f64>,
    /// How often statistics see each shot: once as it is, then in random crops [default: 1]
    #[arg(long, value_name = "N")]
    pub views: Option<usize>,
    /// Images per calibration batch [default: 64]
    #[arg(long, value_name = "N")]
    pub calibration_batch: Option<usize>,
}

/// Flags of recovery.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Recovery")]
pub struct RecoveryArgs {
    /// When the sparse model is finetuned [default: one-shot]
    #[arg(long, value_parser = choice(SCHEDULES))]
    pub recovery: Option<Schedule>,
    /// Whether norms are recalibrated on the shots; auto: not after --correction, else the held-out fold is asked
    /// [default: auto]
    #[arg(long, value_parser = choice(RECALIBRATIONS))]
    pub recalibrate: Option<Recalibration>,
    /// Passes over the shots, per halving when gradual; of several (10,30) the held-out fold chooses [default: 30]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub epochs: Vec<usize>,
    /// Finetune in any case, without a pilot of a quarter of the passes that tells on the held-out fold whether it helps
    #[arg(long)]
    pub no_pilot: bool,
    /// Images per finetuning step [default: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// What takes the steps; auto: sgd for batch-norm networks, adamw for layer-norm ones [default: auto]
    #[arg(long, value_parser = choice(OPTIMIZERS))]
    pub optimizer: Option<OptimizerChoice>,
    /// Peak learning rate [default: 0.003 for sgd, 0.001 for adamw]
    #[arg(long, value_name = "X")]
    pub learning_rate: Option<f64>,
    /// Norm to which gradients of all parameters together are scaled down where they are larger; 0: never [default: 10]
    #[arg(long, value_name = "X")]
    pub max_grad_norm: Option<f64>,
    /// L2 penalty on weights [default: 0.0001]
    #[arg(long, value_name = "X")]
    pub weight_decay: Option<f64>,
    /// Weight of the cross-entropy with the labels [default: 1 where the head is fitted, 0.1 where it is sliced]
    #[arg(long, value_name = "X")]
    pub cross_entropy: Option<f64>,
    /// Label smoothing of the cross-entropy [default: 0 where the head is fitted, 0.1 where it is sliced]
    #[arg(long, value_name = "X")]
    pub label_smoothing: Option<f64>,
    /// Weight of the divergence from the dense teacher [default: 1]
    #[arg(long, value_name = "X")]
    pub distillation: Option<f64>,
    /// Temperature of the distillation [default: 4]
    #[arg(long, value_name = "X")]
    pub temperature: Option<f64>,
    /// Weight of the feature error per block, which asks the teacher at every step [default: 0]
    #[arg(long, value_name = "X")]
    pub square_head: Option<f64>,
    /// Smallest share of a photo's area that random crops show; 1 shows whole photos only [default: 0.5]
    #[arg(long, value_name = "FRACTION")]
    pub crop: Option<f64>,
    /// Share of the network's multiply-adds, from its input, that finetuning leaves as they are: faster; not for adapters
    /// [default: 0.5]
    #[arg(long, value_name = "FRACTION")]
    pub freeze: Option<f64>,
    /// Views that training has of each photo, each answered by the teacher once; 0: a new one whenever the photo is shown
    /// [default: 8]
    #[arg(long, value_name = "N")]
    pub fixed_views: Option<usize>,
    /// Compute activations twice and hold fewer of them: slower, for large networks and little memory
    #[arg(long)]
    pub recompute: bool,
}

/// Flags of adapters, for the commands that train one.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Adapters")]
pub struct AdapterArgs {
    /// Where adapters may change pruned layers: on the mask, anywhere at equal budget, in a branch [default: keep]
    #[arg(long, value_parser = choice(POLICIES))]
    pub policy: Option<Policy>,
    /// Trainable adapter parameters as a fraction of all weights, such as 0.005; sets --r and --d
    #[arg(long, value_name = "FRACTION", conflicts_with_all = ["r", "d"])]
    pub budget: Option<f64>,
    /// Rank of the low-rank part [default: 8]
    #[arg(long, value_name = "RANK")]
    pub r: Option<usize>,
    /// Density of the sparse part [default: 0.003]
    #[arg(long, value_name = "FRACTION")]
    pub d: Option<f64>,
    /// The low-rank part is scaled by this over r [default: 8]
    #[arg(long, value_name = "X")]
    pub lora_alpha: Option<f64>,
    /// How the low-rank part starts: at random, from the inputs, from what pruning took [default: default]
    #[arg(long, value_parser = choice(INITS))]
    pub init: Option<AdapterInit>,
    /// Parts trained when: `default`, `wl64` (warm-up of 64 steps), `spa_only`, `lora_only` [default: wl16]
    #[arg(long, value_name = "SCHEDULE", value_parser = parse_schedule)]
    pub schedule: Option<AdapterSchedule>,
    /// Batches whose gradients choose the sparse part [default: 1]
    #[arg(long, value_name = "N")]
    pub spa_num_grads: Option<usize>,
    /// How these gradients are accumulated [default: `mean_squared`]
    #[arg(long, value_parser = choice(GRAD_ACC_MODES))]
    pub grad_acc_mode: Option<GradAccMode>,
    /// Peak learning rate of the low-rank part [default: 0.003]
    #[arg(long, value_name = "X")]
    pub lora_lr: Option<f64>,
    /// Peak learning rate of the sparse part [default: 0.001]
    #[arg(long, value_name = "X")]
    pub spa_lr: Option<f64>,
    /// Bits of the base's weights while adapters train: 8 or 4, to hold less in memory (QRoSA) [default: 32]
    #[arg(long, value_parser = choice(BASE_BITS))]
    pub base_bits: Option<BaseBits>,
}

/// A target on the command line: one of both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    sparsity: Option<Sparsity>,
    cost: Option<Target>,
}

impl Wanted {
    /// A number of weights on the command line is meant instead of the file's target.
    fn cost(self, stored: Option<Target>) -> Option<Target> {
        self.cost.or(stored.filter(|_| self.sparsity.is_none()))
    }
}

/// Reads `20x` as a sparsity, everything else as a cost.
pub fn parse_target(text: &str) -> Result<Wanted, String> {
    if let Ok(sparsity) = parse_compression(text) {
        return Ok(Wanted { sparsity: Some(sparsity), cost: None });
    }
    match Target::try_from(text.to_owned()) {
        Ok(cost) => Ok(Wanted { sparsity: None, cost: Some(cost) }),
        Err(_) => Err("must be such as 20x, 10x-macs, 3x-speedup or 8ms".to_owned()),
    }
}

/// Resolved choices.
#[derive(Debug)]
pub struct Settings;

impl Settings {
    /// Flag > recipe file > default, every value checked.
    pub fn resolve(args: RecipeArgs, threads: Option<usize>) -> Result<Recipe, Failure> {
        let file = read_recipe(&args)?;
        let recipe = merge(args, threads, file);
        check(&recipe)?;
        Ok(recipe)
    }
}

/// Text that the user names. A path that is wrong is wrong usage; what is there and cannot be used is bad input.
pub fn read_text(path: &Path, context: &str) -> Result<String, Failure> {
    let text = input::read_to_string(path, MAX_TEXT_BYTES);
    match &text {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) => {
            text.or_bad_input(context)
        }
        _ => text.or_usage(context),
    }
}

/// The recipe file as a whole recipe; `model` and `data` may come from flags instead.
fn read_recipe(args: &RecipeArgs) -> Result<Recipe, Failure> {
    let mut table = Table::new();
    let mut context = "the recipe is incomplete".to_owned();
    if let Some(path) = &args.recipe {
        let text = read_text(path, "could not read the recipe")?;
        context = format!("{} is no recipe", path.display());
        table = text.parse().or_usage(&context)?;
    }
    for (key, given) in [("model", &args.model), ("data", &args.data)] {
        match given {
            // The real path, which need not be UTF-8, is put in by `merge`.
            Some(_) => drop(table.insert(key.to_owned(), Value::String(String::new()))),
            None if !table.contains_key(key) => return Err(missing(key)),
            None => {}
        }
    }
    Recipe::deserialize_from(table).map_err(|error| {
        let hint = suggestion(error.message());
        let failure = Err::<(), _>(error).or_usage(&context).unwrap_err();
        Failure { hint, ..failure }
    })
}

trait FromTable: Sized {
    fn deserialize_from(table: Table) -> Result<Self, toml::de::Error>;
}

impl FromTable for Recipe {
    fn deserialize_from(table: Table) -> Result<Self, toml::de::Error> {
        table.try_into()
    }
}

fn missing(key: &str) -> Failure {
    Failure::usage(format!("no {key} is given"))
        .hint(format!("pass --{key}, or a --recipe that names its `{key}`"))
}

/// serde's message names the unknown word and the known ones in backticks: the nearest is the hint.
pub fn suggestion(message: &str) -> Option<String> {
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    nearest_name(unknown, words).map(|near| format!("did you mean `{near}`?"))
}

fn merge(args: RecipeArgs, given_threads: Option<usize>, file: Recipe) -> Recipe {
    let RecipeArgs {
        recipe: _,
        model,
        labels,
        data,
        folders,
        new_head,
        general,
        unlabelled,
        general_images,
        general_pool,
        unlabelled_images,
        unbalanced,
        seed,
        device,
        shots,
        holdout,
        preprocess,
        image_size,
        resize,
        head,
        prune,
        recovery,
        adapt,
        adapter,
    } = args;
    let from = file;
    Recipe {
        model: model.unwrap_or(from.model),
        labels: labels.or(from.labels),
        data: data.unwrap_or(from.data),
        classes: folders.over(new_head, from.classes),
        general: general.or(from.general),
        unlabelled: unlabelled.or(from.unlabelled),
        seed: seed.unwrap_or(from.seed),
        device: device.unwrap_or(from.device),
        threads: given_threads.unwrap_or(from.threads),
        shots: Shots {
            per_class: shots.unwrap_or(from.shots.per_class),
            holdout: holdout.unwrap_or(from.shots.holdout),
            balance: from.shots.balance && !unbalanced,
            general: general_images.unwrap_or(from.shots.general),
            general_pool: general_pool.unwrap_or(from.shots.general_pool),
            unlabelled: unlabelled_images.unwrap_or(from.shots.unlabelled),
        },
        input: InputSpec {
            preprocess: preprocess.or(from.input.preprocess),
            image_size: image_size.or(from.input.image_size),
            resize: resize.or(from.input.resize),
            head: head.or(from.input.head),
        },
        prune: merge_prune(prune, from.prune),
        recovery: merge_recovery(recovery, from.recovery),
        adapt: merge_adapt(adapt, adapter, from.adapt),
    }
}

fn merge_prune(args: PruneArgs, from: PruneSpec) -> PruneSpec {
    let PruneArgs {
        solver,
        allocation,
        sparsity,
        compression,
        target,
        count,
        max_class_drop,
        pattern,
        damping,
        general_share,
        correction,
        stream,
        fisher,
        positions,
        views,
        calibration_batch,
    } = args;
    let wanted = target.unwrap_or(Wanted { sparsity: sparsity.or(compression), cost: None });
    PruneSpec {
        solver: solver.unwrap_or(from.solver),
        allocation: allocation.unwrap_or(from.allocation),
        sparsity: wanted.sparsity.unwrap_or(from.sparsity),
        count: count.unwrap_or(from.count),
        target: wanted.cost(from.target),
        max_drop: from.max_drop,
        max_class_drop: max_class_drop.map(|points| points / 100.0).or(from.max_class_drop),
        pattern: pattern.unwrap_or(from.pattern),
        damping: damping.unwrap_or(from.damping),
        general_share: general_share.unwrap_or(from.general_share),
        correction: correction.unwrap_or(from.correction),
        stream: stream.unwrap_or(from.stream),
        fisher: fisher.unwrap_or(from.fisher),
        positions: positions.unwrap_or(from.positions),
        views: views.unwrap_or(from.views),
        batch: calibration_batch.unwrap_or(from.batch),
    }
}

fn merge_recovery(args: RecoveryArgs, from: RecoverySpec) -> RecoverySpec {
    let RecoveryArgs {
        recovery,
        recalibrate,
        epochs,
        no_pilot,
        batch,
        optimizer,
        learning_rate,
        max_grad_norm,
        weight_decay,
        cross_entropy,
        label_smoothing,
        distillation,
        temperature,
        square_head,
        crop,
        freeze,
        fixed_views,
        recompute,
    } = args;
    RecoverySpec {
        recalibrate: recalibrate.unwrap_or(from.recalibrate),
        schedule: recovery.unwrap_or(from.schedule),
        epochs: epochs.first().copied().unwrap_or(from.epochs),
        try_epochs: match epochs.len() {
            0 => from.try_epochs,
            1 => Vec::new(),
            _ => epochs,
        },
        pilot: from.pilot && !no_pilot,
        batch: batch.unwrap_or(from.batch),
        learning_rate: learning_rate.or(from.learning_rate),
        max_grad_norm: max_grad_norm.unwrap_or(from.max_grad_norm),
        optimizer: optimizer.unwrap_or(from.optimizer),
        weight_decay: weight_decay.unwrap_or(from.weight_decay),
        cross_entropy: cross_entropy.or(from.cross_entropy),
        label_smoothing: label_smoothing.or(from.label_smoothing),
        distillation: distillation.unwrap_or(from.distillation),
        temperature: temperature.unwrap_or(from.temperature),
        square_head: square_head.unwrap_or(from.square_head),
        crop: crop.unwrap_or(from.crop),
        freeze: freeze.unwrap_or(from.freeze),
        fixed_views: fixed_views.unwrap_or(from.fixed_views),
        recompute: recompute || from.recompute,
    }
}

/// Adapter flags over what the recipe file says.
pub fn merge_adapt(method: Option<String>, args: AdapterArgs, from: AdaptSpec) -> AdaptSpec {
    let AdapterArgs {
        policy,
        budget,
        r,
        d,
        lora_alpha,
        init,
        schedule,
        spa_num_grads,
        grad_acc_mode,
        lora_lr,
        spa_lr,
        base_bits,
    } = args;
    // A rank or density on the command line is meant instead of the file's budget.
    let stored = from.budget.filter(|_| r.is_none() && d.is_none());
    AdaptSpec {
        method: method.unwrap_or(from.method),
        policy: policy.unwrap_or(from.policy),
        budget: budget.or(stored),
        r: r.unwrap_or(from.r),
        d: d.unwrap_or(from.d),
        lora_alpha: lora_alpha.unwrap_or(from.lora_alpha),
        init: init.unwrap_or(from.init),
        schedule: schedule.unwrap_or(from.schedule),
        spa_num_grads: spa_num_grads.unwrap_or(from.spa_num_grads),
        grad_acc_mode: grad_acc_mode.unwrap_or(from.grad_acc_mode),
        lora_lr: lora_lr.unwrap_or(from.lora_lr),
        spa_lr: spa_lr.unwrap_or(from.spa_lr),
        base_bits: base_bits.or(from.base_bits),
    }
}

/// Checks every value, wherever it came from.
pub fn check(recipe: &Recipe) -> Result<(), Failure> {
    let Recipe { classes, shots, input, prune, recovery, device, adapt, .. } = recipe;
    check_device(device)?;
    check_classes(classes)?;
    let [labels, general, unlabelled] =
        [&recipe.labels, &recipe.general, &recipe.unlabelled].map(Option::as_ref);
    let paths = [Some(&recipe.model), Some(&recipe.data), labels, general, unlabelled];
    if let Some(path) = paths.into_iter().flatten().find(|path| path.to_str().is_none()) {
        let message = format!("`{}` is not UTF-8, so that no recipe can name it", path.display());
        return Err(Failure::usage(message).hint("rename it, or reach it through a link"));
    }
    known("solver", &prune.solver, solver_names())?;
    known("allocation", &prune.allocation, Some(ALLOCATORS.iter().map(|a| a.name()).collect()))?;
    check_input(input)?;
    within("holdout", shots.holdout, 0.0..=0.9)?;
    within_or_auto("damping", prune.damping, 0.0..=1e3)?;
    within_or_auto("general-share", prune.general_share, 0.0..=1.0)?;
    if let Some(drop) = prune.max_drop {
        within("max-drop", 100.0 * drop, 0.0..=100.0)?;
    }
    if let Some(drop) = prune.max_class_drop {
        within("max-class-drop", 100.0 * drop, 0.0..=100.0)?;
    }
    within("correction", prune.correction, 0.0..=1.0)?;
    within("views", prune.views as f64, 1.0..=1024.0)?;
    within("fisher", prune.fisher, 0.0..=1.0)?;
    within("positions", prune.positions, 0.0..=1.0)?;
    if recovery.schedule == Schedule::Gradual && prune.target.is_some() {
        let message = "a gradual schedule halves weights, so that its target must be a number of weights";
        return Err(Failure::usage(message.to_owned()).hint("use --target 20x, or another --recovery"));
    }
    within("calibration-batch", prune.batch as f64, 1.0..=65536.0)?;
    within("batch", recovery.batch as f64, 1.0..=65536.0)?;
    for epochs in recovery.try_epochs.iter().chain([&recovery.epochs]) {
        within("epochs", *epochs as f64, 0.0..=1e6)?;
    }
    if let Some(rate) = recovery.learning_rate {
        within("learning-rate", rate, 1e-12..=1e3)?;
    }
    within("max-grad-norm", recovery.max_grad_norm, 0.0..=1e9)?;
    within("weight-decay", recovery.weight_decay, 0.0..=1e3)?;
    let (weight, smoothing) = recovery.labels();
    within("cross-entropy", weight, 0.0..=1e6)?;
    within("label-smoothing", smoothing, 0.0..=0.99)?;
    within("distillation", recovery.distillation, 0.0..=1e6)?;
    within("temperature", recovery.temperature, 1e-3..=1e3)?;
    within("square-head", recovery.square_head, 0.0..=1e6)?;
    within("crop", recovery.crop, 0.01..=1.0)?;
    within("freeze", recovery.freeze, 0.0..=0.9)?;
    within("fixed-views", recovery.fixed_views as f64, 0.0..=65536.0)?;
    check_adapt(adapt)
}

/// Checks where classes are, and that a mapping has a head to map to.
pub fn check_classes(classes: &ClassSpec) -> Result<(), Failure> {
    if let Some(level) = classes.level {
        within("class-level", level as f64, 1.0..=32.0)?;
    }
    if let Some((class, _)) = classes.map.iter().find(|(_, labels)| labels.is_empty()) {
        return Err(Failure::usage(format!("classes.map names no label for `{class}`")));
    }
    if classes.fit_head && !classes.map.is_empty() {
        return Err(Failure::usage("a class cannot be mapped to labels of a head that is thrown away")
            .hint("leave out either fit-head or map"));
    }
    Ok(())
}

/// Checks the options of an adapter.
pub fn check_adapt(adapt: &AdaptSpec) -> Result<(), Failure> {
    known("adapter", &adapt.method, adapter_names())?;
    if let Some(budget) = adapt.budget {
        within("budget", budget, 1e-6..=1.0)?;
    }
    within("r", adapt.r as f64, 1.0..=65536.0)?;
    within("d", adapt.d, 0.0..=1.0)?;
    within("lora-alpha", adapt.lora_alpha, 1e-6..=1e6)?;
    within("spa-num-grads", adapt.spa_num_grads as f64, 1.0..=65536.0)?;
    within("lora-lr", adapt.lora_lr, 1e-12..=1e3)?;
    within("spa-lr", adapt.spa_lr, 1e-12..=1e3)
}

/// The preset exists, the size is sensible.
pub fn check_input(input: &InputSpec) -> Result<(), Failure> {
    if let Some(name) = &input.preprocess {
        known("preprocessing", name, Some(PRESETS.iter().map(|preset| preset.name).collect()))?;
    }
    match input.image_size {
        Some(size) => within("image-size", size as f64, 8.0..=MAX_IMAGE_SIZE as f64),
        None => Ok(()),
    }
}

/// `auto`, `cpu`, `cuda` or `cuda:n`; whether the device exists is found out when it is used.
pub fn check_device(name: &str) -> Result<(), Failure> {
    let numbered = name.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok());
    if numbered || ["auto", "cpu", "cuda"].contains(&name) {
        return Ok(());
    }
    Err(Failure::usage(format!("`{name}` is no device")).hint("use auto, cpu, cuda or cuda:n"))
}

/// Checks that a number is in a range; NaN never is.
pub fn within(name: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<(), Failure> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Failure::usage(format!("{name} is {value}, but must be in {} ..= {}", range.start(), range.end())))
}

fn within_or_auto(name: &str, value: Tuned, range: std::ops::RangeInclusive<f64>) -> Result<(), Failure> {
    match value {
        Tuned::Value(value) => within(name, value, range),
        Tuned::Auto => Ok(()),
    }
}

fn known(what: &str, name: &str, table: Option<Vec<&str>>) -> Result<(), Failure> {
    let Some(table) = table.filter(|table| !table.contains(&name)) else { return Ok(()) };
    let near = nearest_name(name, table.iter().copied());
    let hint = match near {
        Some(near) => format!("did you mean `{near}`? Known: {}", table.join(", ")),
        None => format!("known: {}", table.join(", ")),
    };
    Err(Failure::usage(format!("there is no {what} `{name}`")).hint(hint))
}

/// Names of the solvers; unknown in a build without libtorch, which cannot prune.
#[cfg_attr(feature = "torch", expect(clippy::unnecessary_wraps, reason = "absent without libtorch"))]
fn solver_names() -> Option<Vec<&'static str>> {
    #[cfg(feature = "torch")]
    return Some(crate::prune::SOLVERS.iter().map(|s| s.name()).collect());
    #[cfg(not(feature = "torch"))]
    None
}

/// Names of the adapters; unknown in a build without libtorch, which cannot train.
#[cfg_attr(feature = "torch", expect(clippy::unnecessary_wraps, reason = "absent without libtorch"))]
pub fn adapter_names() -> Option<Vec<&'static str>> {
    #[cfg(feature = "torch")]
    return Some(crate::adapt::ADAPTERS.iter().map(|a| a.name()).collect());
    #[cfg(not(feature = "torch"))]
    None
}

pub fn choice<T: Copy + Send + Sync + 'static>(
    table: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(table.iter().map(|(name, _)| *name)).try_map(move |given| {
        let found = table.iter().find(|(name, _)| *name == given);
        found.map(|(_, value)| *value).ok_or(UnknownChoice)
    })
}

#[derive(Debug, thiserror::Error)]
#[error("unknown choice")]
struct UnknownChoice;

pub fn parse_shots(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(0);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number above 0, or `all`".into()),
        Ok(shots) => Ok(shots),
    }
}

fn parse_schedule(text: &str) -> Result<AdapterSchedule, String> {
    text.to_owned().try_into()
}

fn parse_sparsity(text: &str) -> Result<Sparsity, String> {
    let fraction: f64 = text.parse().map_err(|_| "must be a fraction such as 0.95".to_owned())?;
    Sparsity::new(fraction).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
