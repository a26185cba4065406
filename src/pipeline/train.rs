use std::collections::BTreeMap;
use std::path::Path;

use margay_core::{Graph, Op, ParamRole, Params};
use ndarray::{ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::PipelineError;
use super::evaluate::on_torch;
use super::task::{examples, preprocess};
use crate::checkpoint::{Checkpoint, load_model, write_safetensors};
use crate::data::{Dataset, FewShot, HeadPlan, load, match_classes, read_labels};
use crate::distill::{Training, train as train_loop};
use crate::head;
use crate::models::{Design, NameMap, build};
use crate::progress::Progress;
use crate::recipe::{InputSpec, RecoverySpec, Start, TrainSpec};
use crate::record::Evaluation;
use crate::torch::{Norms, TorchModel, parse_device, seed_everything, set_threads};

/// Trains a dense model, writes it as safetensors with its class names, and evaluates it on val.
pub fn train(spec: &TrainSpec, out: &Path, progress: &mut dyn Progress) -> Result<Evaluation, PipelineError> {
    let device = parse_device(&spec.device)?;
    set_threads(spec.threads);
    seed_everything(spec.seed);
    let dataset = Dataset::scan(&spec.data, spec.seed)?;
    dataset.tell(progress);
    let input = InputSpec { image_size: spec.image_size, resize: None };
    let checkpoint = match &spec.start {
        Start::Scratch { .. } => None,
        Start::Checkpoint { model, .. } => Some(Checkpoint::open(model)?),
    };
    let stored = checkpoint.as_ref().and_then(Checkpoint::preprocess);
    let preprocess = preprocess(&input, stored, &dataset.train, progress);
    let preprocessor = margay_runtime::Preprocessor::new(&preprocess);
    let shots = FewShot::draw(&dataset, spec.shots, 0.0, spec.seed)?;
    shots.tell(progress);
    let loaded = load(&shots.calibration, &preprocessor, progress)?;
    loaded.check_classes(&shots.calibration, &dataset.classes)?;
    let shots = examples(&loaded, device)?;
    let (graph, params, names) = match &spec.start {
        Start::Scratch { arch, width } => {
            let classes = dataset.classes.len();
            let design = Design { variant: arch.clone(), width: *width, classes, image: preprocess.size };
            let graph = build(&design)?;
            let params = random_params(&graph, spec.seed);
            (graph, params, NameMap::identity())
        }
        Start::Checkpoint { model, labels } => {
            let pretrained = load_model(model, preprocess.size)?;
            let labels = labels.as_deref().map(read_labels).transpose()?.or(pretrained.labels);
            let (mut graph, mut params) = (pretrained.graph, pretrained.params);
            match labels.map(|labels| match_classes(&dataset.classes, &labels)) {
                Some(HeadPlan::Slice(rows)) => head::slice(&mut graph, &mut params, &rows)?,
                _ => head::probe(&mut graph, &mut params, &shots, dataset.classes.len())?,
            }
            (graph, params, pretrained.names)
        }
    };
    let mut model = TorchModel::new(graph, &params, device)?;
    let recovery = recovery(spec);
    let training = Training {
        spec: &recovery,
        masks: &BTreeMap::new(),
        teacher: None,
        norms: norms(&spec.start),
        seed: spec.seed,
        stage: "train",
    };
    train_loop(&mut model, &shots, &training, progress)?;
    write_safetensors(out, &model.graph, &model.to_params()?, &names, &dataset.classes, Some(&preprocess))?;
    let val = load(&dataset.val, &preprocessor, progress)?;
    if val.is_empty() {
        progress.warn("no photo of val can be read: the model is written, but not evaluated");
        return Ok(Evaluation::default());
    }
    Ok(on_torch(&model, &examples(&val, device)?)?.evaluate(&dataset.classes, &val.classes))
}

/// A pretrained network keeps its statistics: few photos would only blur them.
fn norms(start: &Start) -> Norms {
    match start {
        Start::Scratch { .. } => Norms::Batch,
        Start::Checkpoint { .. } => Norms::Stored,
    }
}

fn recovery(spec: &TrainSpec) -> RecoverySpec {
    RecoverySpec {
        epochs: spec.epochs,
        batch: spec.batch,
        learning_rate: spec.learning_rate,
        weight_decay: spec.weight_decay,
        cross_entropy: 1.0,
        label_smoothing: spec.label_smoothing,
        ..RecoverySpec::default()
    }
}

/// Kaiming-normal weights (fan out, gain √2), a small normal head, unit norms: as torchvision starts.
pub fn random_params(graph: &Graph, seed: u64) -> Params {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut params = Params::new();
    for node in graph.nodes() {
        for spec in node.params() {
            let std = match (&node.op, spec.role) {
                (Op::Conv2d(c), ParamRole::Weight) => {
                    (2.0 / (c.out_channels / c.groups * c.kernel[0] * c.kernel[1]) as f64).sqrt()
                }
                (_, ParamRole::Weight) => 0.01,
                _ => 0.0,
            };
            let fill = f32::from(u8::from(
                matches!(spec.role, ParamRole::Norm | ParamRole::Statistic)
                    && (spec.name.ends_with("weight") || spec.name.ends_with("var")),
            ));
            let normal = Normal::new(0.0, std).unwrap_or_else(|_| unreachable!("a finite deviation"));
            let draw = || if std > 0.0 { normal.sample(&mut rng) as f32 } else { fill };
            params.insert(spec.name, ArrayD::from_shape_simple_fn(IxDyn(&spec.shape), draw));
        }
    }
    params
}
