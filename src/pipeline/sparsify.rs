use std::collections::BTreeMap;

use margay_core::{Graph, Mask, Node, Op, Sparsity};
use tch::Tensor;

use super::PipelineError;
use super::choose::Chosen;
use super::pruning::{Pruner, Sparse};
use super::recalibrate::recalibrate;
use super::recover::finetuned_on_the_way;
use crate::adapt::Saved;
use crate::distill::Examples;
use crate::progress::Progress;
use crate::prune::LayerOutcome;
use crate::recipe::{BaseBits, Recipe, Schedule};
use crate::record::{Choice, Stages, Trained};
use crate::torch::{Bits, Effective, Norms, TorchError, TorchModel, forward};

/// A sparse network before its last finetuning, and the dense one it imitates.
pub struct Base {
    /// The task's dense network.
    pub dense: TorchModel,
    /// Pruned, norms settled, not finetuned since.
    pub oneshot: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// What became of each layer at the final sparsity.
    pub layers: Vec<LayerOutcome>,
    /// What was decided on the held-out fold.
    pub chosen: Chosen,
    /// What it was pruned on.
    pub shots: Examples,
    /// What it is finetuned on: the shots, and unlabelled photos if there are any.
    pub examples: Examples,
    /// The same made without the held-out fold, on the same masks, if the fold is asked what becomes of it.
    pub trial: Option<Box<Base>>,
}

/// A finished sparse network.
pub struct Specialist {
    /// The network.
    pub model: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// The adapter that was merged, if one was trained.
    pub adapter: Option<Saved>,
    /// Whether anything was trained since it was pruned.
    pub trained: bool,
    /// What was decided on the held-out fold.
    pub choices: Vec<Choice>,
}

impl Specialist {
    /// A network whose surviving weights were trained.
    pub fn of(model: TorchModel, masks: &BTreeMap<String, Mask>) -> Self {
        Self { model, masks: masks.clone(), adapter: None, trained: true, choices: Vec::new() }
    }
}

/// What an adapter trained, as a share of a network's parameters.
pub fn trained(saved: &Saved, graph: &Graph) -> Trained {
    let all: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let (adapter, beside) = (saved.trained as u64, saved.beside as u64);
    Trained { adapter, beside, share: saved.trained as f64 / all.max(1) as f64 }
}

/// What is known of a base before it is made.
#[derive(Clone, Copy)]
enum Known<'a> {
    /// Nothing.
    Nothing,
    /// All of it: the network that the same shots made.
    Pruned(&'a Sparse),
    /// Its masks, by weight name.
    Masks(&'a BTreeMap<String, Mask>),
}

/// Prunes some shots' network down to the target, with nothing left to choose. A gradual schedule finetunes on the
/// way, and takes only the last masks over from what is known.
fn base(
    pruner: &Pruner,
    chosen: Chosen,
    shots: Examples,
    known: Known,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Base, PipelineError> {
    let Pruner { task, recipe, .. } = *pruner;
    let settled = chosen.settled;
    let dense = task.dense(&shots)?;
    let examples = match &task.unlabelled {
        Some(images) => shots.with_unlabelled(images)?,
        None => shots.shallow_clone(),
    };
    let mut base = Base {
        oneshot: dense.deep_clone()?,
        dense,
        masks: BTreeMap::new(),
        layers: Vec::new(),
        shots,
        examples,
        chosen,
        trial: None,
    };
    for (index, level) in before(recipe).into_iter().map(Some).chain([None]).enumerate() {
        if index > 0 {
            base.oneshot = finetuned_on_the_way(&base, recipe, index - 1, seconds, progress)?;
        }
        let keep = match level {
            Some(level) => pruner.keep_before(&base.dense, &base.chosen.keep, level)?,
            None => base.chosen.keep.clone(),
        };
        let masks = match known {
            Known::Masks(masks) if level.is_none() => Some(masks),
            _ => None,
        };
        let sparse = match known {
            Known::Pruned(pruned) if index == 0 && level.is_none() => pruned.deep_clone()?,
            _ => timed(seconds, "prune", || {
                pruner.sparse(base.oneshot.deep_clone()?, &base.shots, &keep, &settled, masks, progress)
            })?,
        };
        (base.oneshot, base.masks, base.layers) = (sparse.model, sparse.masks, sparse.layers);
        if settled.recalibrated > 0.0 {
            let batches = base.shots.batches(recipe.prune.batch)?;
            let share = settled.recalibrated;
            timed(seconds, "recalibrate", || {
                Ok(recalibrate(&mut base.oneshot, &base.dense, &batches, share)?)
            })?;
        }
    }
    Ok(base)
}

/// A base made without the held-out fold, so that the fold can be asked what becomes of it.
pub fn trial(pruner: &Pruner, chosen: Chosen, progress: &mut dyn Progress) -> Result<Base, PipelineError> {
    let (shots, pruned) = (pruner.task.calibration.shallow_clone(), chosen.pruned.clone());
    let known = pruned.as_deref().map_or(Known::Nothing, Known::Pruned);
    base(pruner, chosen, shots, known, &mut Stages::default(), progress)
}

/// The base of all the shots: on the masks of its trial if there is one, which spares the search for others. Transformers lose by
/// masks that have not seen all shots (docs/results.md).
pub fn of_all_shots(
    pruner: &Pruner,
    chosen: Chosen,
    trial: Option<Base>,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Base, PipelineError> {
    let attends = |node: &Node| matches!(node.op, Op::Attention(_));
    let transformer = pruner.task.pretrained.graph.nodes().iter().any(attends);
    let trusted = trial.as_ref().filter(|_| !transformer);
    let known = trusted.map_or(Known::Nothing, |trial| Known::Masks(&trial.masks));
    let base = base(pruner, chosen, pruner.task.all_shots()?, known, seconds, progress)?;
    Ok(Base { trial: trial.map(Box::new), ..base })
}

impl Base {
    /// The pruned network with weights in few bits, if asked for.
    pub fn packed(&self, bits: Option<BaseBits>) -> Result<Option<TorchModel>, PipelineError> {
        let Some(bits) = bits else { return Ok(None) };
        let mut packed = self.oneshot.share()?;
        packed.pack(&self.masks, bits.into())?;
        Ok(Some(packed))
    }
}

impl From<BaseBits> for Bits {
    fn from(bits: BaseBits) -> Self {
        match bits {
            BaseBits::Eight => Self::Eight,
            BaseBits::Four => Self::Four,
        }
    }
}

/// Sparsities to pass through before the target: halvings of what remains when gradual.
pub fn before(recipe: &Recipe) -> Vec<Sparsity> {
    if recipe.recovery.schedule != Schedule::Gradual {
        return Vec::new();
    }
    let target = recipe.prune.sparsity;
    let halvings = (1..).map_while(|n| Sparsity::new(1.0 - 0.5_f64.powi(n)).ok());
    halvings.take_while(|level| level.density() > target.density() * 1.05).collect()
}

/// Adds the time of `work` to a stage.
pub fn timed<T>(
    seconds: &mut Stages,
    stage: &str,
    work: impl FnOnce() -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    let started = std::time::Instant::now();
    let result = work();
    seconds.add(stage, started.elapsed().as_secs_f64());
    result
}

/// Logits of a batch list, joined.
pub fn logits(model: &TorchModel, batches: &[Tensor]) -> Result<Tensor, PipelineError> {
    Ok(logits_of(&model.graph, model, batches)?)
}

/// Logits of a batch list, joined, of a graph with the weights that somebody has for it.
pub fn logits_of(graph: &Graph, weights: &dyn Effective, batches: &[Tensor]) -> Result<Tensor, TorchError> {
    let _no_grad = tch::no_grad_guard();
    let run = |batch: &Tensor| Ok(forward(graph, weights, Norms::Stored, batch, &[])?.logits);
    let parts = batches.iter().map(run).collect::<Result<Vec<_>, TorchError>>()?;
    Ok(Tensor::f_cat(&parts, 0)?)
}
