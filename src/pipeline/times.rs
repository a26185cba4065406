//! What the layers of a task's network take on this machine, in milliseconds at batch 1.

use std::collections::{BTreeMap, BTreeSet};

use margay_core::{Node, SparseModel};
use margay_runtime::{Session, SessionOptions, StepProfile, layer_costs, thinned};

use super::PipelineError;
use super::export::{latency, pack};
use super::task::Task;
use crate::allocate::Cost;
use crate::recipe::Recipe;
use crate::torch::TorchModel;

/// Sparsities at which layers are timed.
const TIMED: [f64; 8] = [0.0, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99];
/// Profiled runs of the dense network.
const RUNS: usize = 7;

/// Milliseconds of each layer by its density, and of the rest of the network.
#[derive(Clone, Debug)]
pub struct Times {
    /// Prunable layers, in order.
    pub layers: Vec<Cost>,
    /// Everything else.
    pub rest: f64,
    /// The dense network.
    model: SparseModel,
    options: SessionOptions,
}

impl Times {
    /// Times single layers, then the whole network. Steps that are timed one by one add up to more than a run takes, the
    /// more so the smaller they are: all are scaled to the run. What is not pruned has its share of the run's own steps,
    /// as a difference of two measured sums would be mostly noise.
    pub fn measure(task: &Task, recipe: &Recipe, dense: &TorchModel) -> Result<Self, PipelineError> {
        let model = pack(task, recipe, dense, &BTreeMap::new())?;
        let options = SessionOptions { threads: task.threads, ..SessionOptions::default() };
        let costs = layer_costs(&model, &options, &TIMED)?;
        let whole = Whole::measure(&model, &options, dense)?;
        let of_layer = |weight: String| {
            let own = costs.iter().filter(|cost| cost.weight == weight);
            Cost::new(own.map(|cost| (1.0 - cost.sparsity, cost.ms)).collect())
        };
        let weights = dense.graph.prunable().map(|id| dense.graph.node(id).weight());
        let single: Vec<Cost> = weights.map(of_layer).collect();
        let scale = (whole.ms - whole.rest) / single.iter().map(|cost| cost.at(1.0)).sum::<f64>();
        let layers = single.into_iter().map(|cost| cost.times(scale)).collect();
        Ok(Self { layers, rest: whole.rest, model, options })
    }

    /// Milliseconds of the network where each prunable layer keeps a share of its weights, whichever these are: as a record has
    /// them, in turns with the dense network.
    pub fn run(&self, density: &BTreeMap<String, f64>) -> Result<f64, PipelineError> {
        let sparsity = |node: &Node| 1.0 - density.get(&node.name).unwrap_or(&1.0);
        Ok(latency(&self.model, &thinned(&self.model, sparsity), &self.options)?.sparse)
    }

    /// The dense network.
    pub fn dense(&self) -> f64 {
        self.rest + self.layers.iter().map(|cost| cost.at(1.0)).sum::<f64>()
    }
}

/// The dense network as it is run.
struct Whole {
    /// Milliseconds of a run.
    ms: f64,
    /// What is spent of them outside of the layers that can be pruned.
    rest: f64,
}

impl Whole {
    fn measure(
        model: &SparseModel,
        options: &SessionOptions,
        dense: &TorchModel,
    ) -> Result<Self, PipelineError> {
        let mut session = Session::new(model, options)?;
        let image = vec![0.5; session.image_len()];
        session.profile(&image, 1)?;
        let steps = session.profile(&image, RUNS)?.steps;
        let prunable: BTreeSet<&str> =
            dense.graph.prunable().map(|id| dense.graph.node(id).name.as_str()).collect();
        let beside = |step: &&StepProfile| !step.nodes.iter().any(|node| prunable.contains(node.as_str()));
        let rest: f64 = steps.iter().filter(beside).map(|step| step.min_ms).sum();
        let all: f64 = steps.iter().map(|step| step.min_ms).sum();
        let ms = latency(model, model, options)?.dense;
        Ok(Self { ms, rest: ms * rest / all })
    }
}
