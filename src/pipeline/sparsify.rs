//! From a task to its pruned network: down to the target in one step or in several.

use std::collections::BTreeMap;

use margay_core::{Mask, Node, Op};

use super::PipelineError;
use super::host::timed;
use super::networks::{Base, Chosen, Sparse};
use super::pruning::Pruner;
use super::recalibrate::recalibrate;
use super::recover::{before, finetuned_on_the_way};
use crate::distill::Examples;
use crate::progress::Progress;
use crate::record::Stages;

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
