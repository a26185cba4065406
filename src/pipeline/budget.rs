//! What a recipe allows all layers together: weights, multiply-adds or milliseconds on this machine.

use std::collections::BTreeMap;

use margay_core::{Graph, Sparsity};

use super::PipelineError;
use super::export::pack;
use super::task::Task;
use super::times::Times;
use crate::allocate::{Budget, Cost, Failed, LayerProfile, Unreachable, corrected};
use crate::models::ModelError;
use crate::progress::Progress;
use crate::recipe::{Count, PruneSpec, Recipe, Target};
use crate::torch::TorchModel;

/// The budget of a recipe: its target, else the weights that a sparsity leaves.
pub fn budget(
    task: &Task,
    recipe: &Recipe,
    dense: &TorchModel,
    layers: &[LayerProfile],
    progress: &mut dyn Progress,
) -> Result<Budget, PipelineError> {
    let PruneSpec { count, sparsity, target, .. } = recipe.prune;
    let Some(target) = target else {
        return of_weights(&dense.graph, layers, count, sparsity);
    };
    match target {
        Target::Macs(fold) => multiply_adds(dense, fold),
        Target::Speedup(_) | Target::Milliseconds(_) => {
            let times = timed(task, recipe, dense, progress)?;
            let whole = match target {
                Target::Milliseconds(ms) => ms,
                Target::Speedup(fold) | Target::Macs(fold) => times.dense() / fold,
            };
            progress.note(&format!(
                "dense {:.2} ms an image on this machine, {:.2} ms of them outside of the layers that can be pruned; \
                 the target is {whole:.2} ms",
                times.dense(),
                times.rest
            ));
            Ok(Budget::Cost { limit: whole - times.rest, layers: times.layers.clone() })
        }
    }
}

/// What layers take on this machine; measured once, so that all targets of a run go by the same times.
fn timed<'a>(
    task: &'a Task,
    recipe: &Recipe,
    dense: &TorchModel,
    progress: &mut dyn Progress,
) -> Result<&'a Times, PipelineError> {
    if let Some(times) = task.times.get() {
        return Ok(times);
    }
    progress.start("time layers", 0);
    let packed = pack(task, recipe, dense, &BTreeMap::new())?;
    let times = Times::measure(packed, dense, task.threads)?;
    progress.finish();
    Ok(task.times.get_or_init(|| times))
}

/// The weights that a sparsity leaves, of those that count.
pub fn of_weights(
    graph: &Graph,
    layers: &[LayerProfile],
    count: Count,
    sparsity: Sparsity,
) -> Result<Budget, PipelineError> {
    if count == Count::Prunable {
        return Ok(Budget::of_weights(layers, sparsity));
    }
    let all = graph.parameters();
    let rest = all - layers.iter().map(LayerProfile::weights).sum::<usize>();
    // A layer without any weight passes nothing on.
    let least = rest + layers.len();
    match sparsity.kept(all) {
        kept if kept >= least => Ok(Budget::Weights(kept - rest)),
        _ => Err(PipelineError::OutOfWeights {
            asked: sparsity.compression(),
            all,
            rest,
            most: all as f64 / least as f64,
        }),
    }
}

/// What `spread` makes of the recipe's budget. Where that is time, the network is run with what is kept, and the times of layers,
/// which were timed one by one, are corrected.
pub fn within(
    task: &Task,
    recipe: &Recipe,
    budget: Budget,
    layers: &[LayerProfile],
    mut spread: impl FnMut(&Budget) -> Result<Vec<usize>, Failed>,
) -> Result<Vec<usize>, PipelineError> {
    let (Some(Target::Speedup(_) | Target::Milliseconds(_)), Some(times)) =
        (recipe.prune.target, task.times.get())
    else {
        return Ok(spread(&budget)?);
    };
    let run = |kept: &[usize]| {
        let density = |(layer, kept): (&LayerProfile, &usize)| (layer.name.clone(), layer.density(*kept));
        let density = layers.iter().zip(kept).map(density).collect();
        Ok(times.run(&density)? - times.rest)
    };
    corrected(budget, layers, |budget| spread(budget).map_err(|failed| in_time(failed, times.rest)), run)
}

/// What failed, in milliseconds of the whole network if it is the target.
fn in_time(failed: Failed, rest: f64) -> PipelineError {
    match failed.downcast::<Unreachable>() {
        Ok(target) => PipelineError::OutOfTime { asked: target.limit + rest, rest, least: target.least },
        Err(failed) => failed.into(),
    }
}

fn multiply_adds(dense: &TorchModel, fold: f64) -> Result<Budget, PipelineError> {
    let macs = dense.graph.macs().map_err(ModelError::from)?;
    let all: u64 = macs.iter().sum();
    let own: Vec<f64> = dense.graph.prunable().map(|id| macs[id.index()] as f64).collect();
    let rest = all as f64 - own.iter().sum::<f64>();
    Ok(Budget::Cost { limit: all as f64 / fold - rest, layers: own.into_iter().map(Cost::linear).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::profiles;
    use crate::models::{Design, build};

    #[test]
    fn a_compression_of_all_weights_counts_all() {
        let design = |variant: &str| {
            let image = [32, 32];
            build(&Design { variant: variant.to_owned(), width: None, depth: None, classes: 5, image })
                .unwrap()
        };
        for variant in ["resnet18", "vit_tiny_patch16", "convnext_atto"] {
            let graph = design(variant);
            let layers = profiles(&graph);
            let all = graph.parameters();
            let prunable: usize = layers.iter().map(LayerProfile::weights).sum();
            let of = |count, fold: f64| {
                of_weights(&graph, &layers, count, Sparsity::from_compression(fold).unwrap())
            };
            let left = |count| of(count, 10.0).unwrap().limit() as usize;
            assert_eq!(left(Count::Prunable), Sparsity::from_compression(10.0).unwrap().kept(prunable));
            assert_eq!(
                left(Count::All) + all - prunable,
                Sparsity::from_compression(10.0).unwrap().kept(all)
            );
            let Err(PipelineError::OutOfWeights { most, .. }) = of(Count::All, 1000.0) else {
                panic!("{variant}: norms alone are more than a thousandth")
            };
            assert!(of(Count::All, most * 0.999).is_ok() && of(Count::All, most * 1.001).is_err());
        }
    }
}
