use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use margay_core::{Graph, Op, ParamRole, ParamSpec, Params, Preprocess, Role};
use margay_runtime::Preprocessor;
use ndarray::{ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tch::Device;

use super::PipelineError;
use super::evaluate::on_torch;
use super::images::examples;
use super::opening::{head_plan, opened, set_head};
use super::preprocess::{check_constants, prepared};
use super::recover::steady;
use crate::checkpoint::{Checkpoint, Pretrained, to_safetensors};
use crate::data::{Dataset, FewShot, load};
use crate::distill::{Examples, Training, optimizer_of, train as train_loop};
use crate::labels::HeadPlan;
use crate::models::{Design, NameMap, build, timm_names};
use crate::preprocess::{Origin, Resolved};
use crate::progress::Progress;
use crate::recipe::{InputSpec, OptimizerChoice, RecoverySpec, Start, TrainSpec};
use crate::record::Evaluation;
use crate::torch::{Norms, TorchError, TorchModel, parse_device, seed_everything, set_threads};

/// Trains a dense model, writes it into `out` as safetensors with its class names, and evaluates it on val.
pub fn train(
    spec: &TrainSpec,
    out: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<Evaluation, PipelineError> {
    let start = &spec.start().ok_or(PipelineError::NoStart)?;
    let device = parse_device(&spec.device)?;
    set_threads(spec.threads);
    seed_everything(spec.seed);
    let dataset = Dataset::scan(&spec.data, spec.seed, &spec.classes)?;
    dataset.tell(progress);
    let checkpoint = match start {
        Start::Scratch { .. } => {
            dataset.check_classes(&[])?;
            None
        }
        Start::Checkpoint { model, labels } => {
            Some(opened(model, labels.as_deref(), spec.input.head.as_deref(), progress)?)
        }
    };
    let input = prepared(&spec.input, checkpoint.as_ref(), &dataset.train, progress)?;
    let own = &input.spec;
    let teacher =
        spec.teacher.as_ref().map(|model| Teaching::open(model, spec, &dataset, progress)).transpose()?;
    let side = |p: &Preprocess| p.size[0].max(p.size[1]);
    // The larger of both sizes is loaded; the loop shows each network its own.
    let seen = teacher.as_ref().map(|t| &t.preprocess).filter(|p| side(p) > side(own)).unwrap_or(own);
    let shots = FewShot::draw(&dataset, spec.shots, 0.0, spec.seed)?;
    shots.tell(progress);
    let loaded = load(&shots.calibration, &Preprocessor::new(seen), progress)?;
    loaded.check_classes(&shots.calibration, &dataset.classes)?;
    let shots = examples(&loaded, device)?;
    drop(loaded);
    let Begun { graph, params, names, outputs } =
        begin(spec, start, checkpoint, &input, &dataset, &shots, progress)?;
    let model = TorchModel::new(graph, &params, device)?;
    let teacher = teacher.map(|t| t.model(&dataset, &shots, device)).transpose()?;
    let recovery = recovery(spec, start, &model.graph);
    let training = Training {
        spec: &recovery,
        teacher: teacher.as_ref(),
        norms: norms(start),
        seed: spec.seed,
        stage: "train",
        pace: 1.0,
    };
    let trained = steady(1.0, progress, |pace, progress| {
        let (mut model, training) = (model.deep_clone()?, Training { pace, ..training });
        train_loop(&mut model, &BTreeMap::new(), &shots, &training, progress)?;
        Ok(model)
    })?;
    let model = match (trained, start) {
        (Some(model), _) => model,
        (None, Start::Checkpoint { .. }) => model,
        // There is nothing to keep.
        (None, Start::Scratch { .. }) => {
            return Err(TorchError::Diverged { stage: "train".to_owned() }.into());
        }
    };
    let params = model.to_params()?;
    let path = Path::new("the new checkpoint");
    out.write_all(&to_safetensors(path, &model.graph, &params, &names, &outputs, Some(own))?)?;
    let val = load(&dataset.val, &Preprocessor::new(own), progress)?;
    dataset.left_out.tell(progress);
    if val.is_empty() {
        progress.warn("no photo of val can be read: the model is written, but not evaluated");
        return Ok(Evaluation::default());
    }
    Ok(on_torch(&model, &examples(&val, device)?)?.evaluate(&dataset.classes, &val.classes))
}

/// A network to train, its names in the checkpoint, and those of its outputs.
struct Begun {
    graph: Graph,
    params: Params,
    names: NameMap,
    outputs: Vec<String>,
}

/// The network to train, with a head for the dataset's classes.
fn begin(
    spec: &TrainSpec,
    start: &Start,
    checkpoint: Option<Checkpoint>,
    input: &Resolved,
    dataset: &Dataset,
    shots: &Examples,
    progress: &mut dyn Progress,
) -> Result<Begun, PipelineError> {
    let (classes, image) = (dataset.classes.len(), input.spec.size);
    match (start, checkpoint) {
        (Start::Checkpoint { labels, .. }, Some(checkpoint)) => {
            let pretrained = checkpoint.into_model(image)?;
            let plan = head_plan(labels.as_deref(), &pretrained, dataset, &spec.classes, progress)?;
            // Shots of another size are those of a teacher, prepared as it wants them.
            if input.origin == Origin::Assumed && shots.images.size()[2..] == image.map(|side| side as i64) {
                check_constants(&pretrained, &plan, shots, classes, &input.spec, progress)?;
            }
            let (mut graph, mut params) = (pretrained.graph, pretrained.params);
            set_head(&mut graph, &mut params, &plan, shots, classes)?;
            let outputs = plan.output_names(&dataset.classes);
            Ok(Begun { graph, params, names: pretrained.names, outputs })
        }
        (Start::Scratch { arch, width, depth }, _) => {
            let design = Design { variant: arch.clone(), width: *width, depth: *depth, classes, image };
            let graph = build(&design)?;
            let params = random_params(&graph, spec.seed);
            let names = timm_names(&design, &graph)?;
            Ok(Begun { graph, params, names, outputs: dataset.classes.clone() })
        }
        (Start::Checkpoint { .. }, None) => unreachable!("a checkpoint was opened for this start"),
    }
}

/// A teacher whose file is open, and how it sees photos.
struct Teaching {
    pretrained: Pretrained,
    plan: HeadPlan,
    preprocess: Preprocess,
}

impl Teaching {
    fn open(
        model: &Path,
        spec: &TrainSpec,
        dataset: &Dataset,
        progress: &mut dyn Progress,
    ) -> Result<Self, PipelineError> {
        let checkpoint = opened(model, spec.teacher_labels.as_deref(), None, progress)?;
        let preprocess = prepared(&InputSpec::default(), Some(&checkpoint), &dataset.train, progress)?.spec;
        let pretrained = checkpoint.into_model(preprocess.size)?;
        let plan = head_plan(spec.teacher_labels.as_deref(), &pretrained, dataset, &spec.classes, progress)?;
        Ok(Self { pretrained, plan, preprocess })
    }

    fn model(self, dataset: &Dataset, shots: &Examples, device: Device) -> Result<TorchModel, PipelineError> {
        let (mut graph, mut params) = (self.pretrained.graph, self.pretrained.params);
        set_head(&mut graph, &mut params, &self.plan, shots, dataset.classes.len())?;
        Ok(TorchModel::new(graph, &params, device)?)
    }
}

/// Views of each photo that a teacher is asked about.
const VIEWS: usize = 16;

/// A pretrained network keeps its statistics: few photos would only blur them.
fn norms(start: &Start) -> Norms {
    match start {
        Start::Scratch { .. } => Norms::Batch,
        Start::Checkpoint { .. } => Norms::Stored,
    }
}

fn recovery(spec: &TrainSpec, start: &Start, graph: &Graph) -> RecoverySpec {
    let unset = RecoverySpec { optimizer: spec.optimizer, ..RecoverySpec::default() };
    let optimizer = optimizer_of(&unset, graph);
    RecoverySpec {
        epochs: spec.epochs,
        batch: spec.batch,
        optimizer,
        learning_rate: Some(spec.learning_rate.unwrap_or(usual_rate(start, optimizer))),
        weight_decay: spec.weight_decay,
        cross_entropy: Some(1.0),
        label_smoothing: Some(spec.label_smoothing),
        distillation: if spec.teacher.is_some() { spec.distillation } else { 0.0 },
        temperature: spec.temperature,
        square_head: 0.0,
        crop: 1.0,
        freeze: 0.0,
        fixed_views: if spec.teacher.is_some() { VIEWS } else { 0 },
        max_grad_norm: 0.0,
        ..unset
    }
}

/// Peak learning rates: those of the papers from scratch, far smaller ones where there is something to lose (SGD as in
/// arXiv 1912.11370).
fn usual_rate(start: &Start, optimizer: OptimizerChoice) -> f64 {
    match (start, optimizer == OptimizerChoice::Adamw) {
        (Start::Scratch { .. }, true) => 1e-3,
        (Start::Scratch { .. }, false) => 0.1,
        (Start::Checkpoint { .. }, true) => 1e-4,
        (Start::Checkpoint { .. }, false) => 0.003,
    }
}

/// Random weights as the papers start: Kaiming-normal convolutions (fan out, gain √2), normal linear layers
/// and embeddings (deviation 0.02, the head's 0.01), unit norms, zero biases.
pub fn random_params(graph: &Graph, seed: u64) -> Params {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut params = Params::new();
    for node in graph.nodes() {
        for spec in node.params() {
            let std = match (&node.op, spec.role) {
                (Op::Conv2d(c), ParamRole::Weight) => {
                    (2.0 / (c.out_channels / c.groups * c.kernel[0] * c.kernel[1]) as f64).sqrt()
                }
                (_, ParamRole::Weight) if node.role == Role::Head => 0.01,
                (_, ParamRole::Weight | ParamRole::Embedding) => 0.02,
                _ => 0.0,
            };
            let fill = constant(&node.op, &spec);
            let normal = Normal::new(0.0, std).unwrap_or_else(|_| unreachable!("a finite deviation"));
            let draw = || if std > 0.0 { normal.sample(&mut rng) as f32 } else { fill };
            params.insert(spec.name, ArrayD::from_shape_simple_fn(IxDyn(&spec.shape), draw));
        }
    }
    params
}

/// What a parameter that is not random starts as.
fn constant(op: &Op, spec: &ParamSpec) -> f32 {
    let unit = spec.name.ends_with("weight") || spec.name.ends_with("running_var");
    match (op, spec.role) {
        // Response norms start as the identity.
        (Op::ResponseNorm(_), _) => 0.0,
        // ConvNeXt's and DINOv2's factors start near zero; 0.1 suits the few blocks of small networks.
        (Op::Scale(_), _) => 0.1,
        (_, ParamRole::Norm | ParamRole::Statistic) if unit => 1.0,
        _ => 0.0,
    }
}
