//! What a recipe allows all layers together: weights, multiply-adds or milliseconds on this machine.

use std::collections::BTreeMap;

use margay_core::Sparsity;
use margay_runtime::{Session, SessionOptions, layer_costs};

use super::PipelineError;
use super::export::pack;
use super::task::Task;
use crate::allocate::{Budget, Cost, LayerProfile};
use crate::models::ModelError;
use crate::progress::Progress;
use crate::recipe::{Recipe, Target};
use crate::torch::TorchModel;

/// Sparsities at which layers are timed.
const TIMED: [f64; 8] = [0.0, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99];
/// Timed runs of the dense network.
const RUNS: usize = 5;

/// The budget of a recipe: its target, else the weights that a sparsity leaves.
pub fn budget(
    task: &Task,
    recipe: &Recipe,
    dense: &TorchModel,
    layers: &[LayerProfile],
    sparsity: Sparsity,
    progress: &mut dyn Progress,
) -> Result<Budget, PipelineError> {
    let Some(target) = recipe.prune.target else { return Ok(Budget::of_weights(layers, sparsity)) };
    match target {
        Target::Macs(fold) => multiply_adds(dense, fold),
        Target::Speedup(_) | Target::Milliseconds(_) => {
            progress.start("time layers", 0);
            let times = Times::measure(task, recipe, dense, layers)?;
            progress.finish();
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
            Ok(Budget::Cost { limit: whole - times.rest, layers: times.layers })
        }
    }
}

fn multiply_adds(dense: &TorchModel, fold: f64) -> Result<Budget, PipelineError> {
    let macs = dense.graph.macs().map_err(ModelError::from)?;
    let all: u64 = macs.iter().sum();
    let own: Vec<f64> = dense.graph.prunable().map(|id| macs[id.index()] as f64).collect();
    let rest = all as f64 - own.iter().sum::<f64>();
    Ok(Budget::Cost { limit: all as f64 / fold - rest, layers: own.into_iter().map(Cost::linear).collect() })
}

/// Milliseconds at batch 1.
struct Times {
    layers: Vec<Cost>,
    rest: f64,
}

impl Times {
    fn measure(
        task: &Task,
        recipe: &Recipe,
        dense: &TorchModel,
        layers: &[LayerProfile],
    ) -> Result<Self, PipelineError> {
        let model = pack(task, recipe, dense, &BTreeMap::new())?;
        let options = SessionOptions { threads: task.threads, ..SessionOptions::default() };
        let costs = layer_costs(&model, &options, &TIMED)?;
        let of_layer = |layer: &LayerProfile| {
            let weight = format!("{}.weight", layer.name);
            let own = costs.iter().filter(|cost| cost.weight == weight);
            Cost::new(own.map(|cost| (1.0 - cost.sparsity, cost.ms)).collect())
        };
        let layers: Vec<Cost> = layers.iter().map(of_layer).collect();
        let mut session = Session::new(&model, &options)?;
        let image = vec![0.5; session.image_len()];
        session.profile(&image, 1)?;
        let whole = session.profile(&image, RUNS)?.min_ms;
        let rest = (whole - layers.iter().map(|cost| cost.at(1.0)).sum::<f64>()).max(0.0);
        Ok(Self { layers, rest })
    }

    fn dense(&self) -> f64 {
        self.rest + self.layers.iter().map(|cost| cost.at(1.0)).sum::<f64>()
    }
}
