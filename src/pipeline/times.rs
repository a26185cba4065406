//! What the layers of a task's network take on this machine, in milliseconds at batch 1.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use margay_core::{Node, SparseModel};
use margay_runtime::{Session, SessionOptions, StepProfile, layer_costs, thinned};

use super::PipelineError;
use super::latency::{latency, own_session};
use crate::allocate::Cost;
use crate::record::Latency;
use crate::torch::TorchModel;

/// Sparsities at which layers are timed.
const TIMED: [f64; 8] = [0.0, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99];
/// Profiled runs of the dense network.
const RUNS: usize = 7;
/// A measurement is quiet where the dense network took at most this many times the shortest that it ever did.
const QUIET: f64 = 1.04;
/// Measurements until one is quiet, at most.
const ATTEMPTS: usize = 5;
/// No other measurement begins after this long.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// Times single layers of the dense network, packed to `model`, then the whole. Steps that are timed one by one add up to more than a run takes, the
    /// more so the smaller they are: all are scaled to the run. What is not pruned has its share of the run's own steps,
    /// as a difference of two measured sums would be mostly noise.
    pub fn measure(model: SparseModel, dense: &TorchModel, threads: usize) -> Result<Self, PipelineError> {
        let options = own_session(threads);
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

    /// Milliseconds of the network where each prunable layer keeps a share of its weights, whichever these are. It runs in turns
    /// with the dense network: what else the machine does slows both, and only how they compare is taken.
    pub fn run(&self, density: &BTreeMap<String, f64>) -> Result<f64, PipelineError> {
        let sparsity = |node: &Node| 1.0 - density.get(&node.name).unwrap_or(&1.0);
        let thin = thinned(&self.model, sparsity);
        let dense = self.dense();
        let quiet = |times: &Latency| times.dense <= QUIET * dense;
        let times = quietest(|| latency(&self.model, &thin, &self.options), quiet)?;
        Ok(dense * times.sparse / times.dense)
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
        let ms = quietest(|| latency(model, model, options), |_| false)?.dense;
        Ok(Self { ms, rest: ms * rest / all })
    }
}

/// Of repeated measurements the one in which the dense network took least; the first that is `enough` ends them.
fn quietest<E>(
    mut measure: impl FnMut() -> Result<Latency, E>,
    enough: impl Fn(&Latency) -> bool,
) -> Result<Latency, E> {
    let started = Instant::now();
    let mut best = measure()?;
    for _ in 1..ATTEMPTS {
        if enough(&best) || started.elapsed() > PATIENCE {
            break;
        }
        let again = measure()?;
        if again.dense < best.dense {
            best = again;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken of measurements, and how many were made, where a dense network of less than 3 ms is quiet.
    fn taken(dense: &[f64]) -> (f64, usize) {
        let mut made = 0;
        let measure = || {
            made += 1;
            Ok::<_, PipelineError>(Latency { dense: dense[made - 1], ..Latency::default() })
        };
        let best = quietest(measure, |times| times.dense < 3.0).unwrap();
        (best.dense, made)
    }

    #[test]
    fn the_quietest_measurement_counts() {
        assert_eq!(taken(&[2.9]), (2.9, 1), "quiet at once");
        assert_eq!(taken(&[4.0, 3.5, 2.8, 9.0]), (2.8, 3));
        assert_eq!(taken(&[4.0, 3.5, 3.1, 3.6, 5.0]), (3.1, ATTEMPTS), "never quiet");
    }
}
