//! What the layers of a task's network take on this machine, in milliseconds at batch 1.

use std::collections::BTreeMap;
use std::time::Instant;

use margay_runtime::{Session, SessionOptions, layer_costs};

use super::PipelineError;
use super::export::pack;
use super::task::Task;
use crate::allocate::Cost;
use crate::recipe::Recipe;
use crate::torch::TorchModel;

/// Sparsities at which layers are timed.
const TIMED: [f64; 8] = [0.0, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99];
/// Timed runs of the dense network.
const RUNS: usize = 7;

/// Milliseconds of each layer by its density, and of the rest of the network.
#[derive(Clone, Debug)]
pub struct Times {
    /// Prunable layers, in order.
    pub layers: Vec<Cost>,
    /// Everything else.
    pub rest: f64,
}

impl Times {
    /// Times single layers, then the whole network. Steps that are timed one by one add up to more than a run takes, the
    /// more so the smaller they are: all are scaled to the run.
    pub fn measure(task: &Task, recipe: &Recipe, dense: &TorchModel) -> Result<Self, PipelineError> {
        let model = pack(task, recipe, dense, &BTreeMap::new())?;
        let options = SessionOptions { threads: task.threads, ..SessionOptions::default() };
        let costs = layer_costs(&model, &options, &TIMED)?;
        let mut session = Session::new(&model, &options)?;
        let image = vec![0.5; session.image_len()];
        session.profile(&image, 1)?;
        let steps = session.profile(&image, RUNS)?.min_ms;
        let scale = fastest_run(&mut session, &image)? / steps;
        let of_layer = |weight: String| {
            let own = costs.iter().filter(|cost| cost.weight == weight);
            Cost::new(own.map(|cost| (1.0 - cost.sparsity, scale * cost.ms)).collect())
        };
        let weights = dense.graph.prunable().map(|id| dense.graph.node(id).weight());
        let layers: Vec<Cost> = weights.map(of_layer).collect();
        let prunable: f64 = layers.iter().map(|cost| cost.at(1.0)).sum();
        Ok(Self { layers, rest: (scale * steps - prunable).max(0.0) })
    }

    /// The dense network.
    pub fn dense(&self) -> f64 {
        self.rest + self.layers.iter().map(|cost| cost.at(1.0)).sum::<f64>()
    }
}

/// Milliseconds of the fastest of some runs.
fn fastest_run(session: &mut Session, image: &[f32]) -> Result<f64, PipelineError> {
    let mut logits = vec![0.0; session.classes()];
    let mut fastest = f64::INFINITY;
    for _ in 0..RUNS {
        let begun = Instant::now();
        session.run(image, &mut logits)?;
        fastest = fastest.min(1e3 * begun.elapsed().as_secs_f64());
    }
    Ok(fastest)
}
