//! How many weights each layer keeps, so that the whole meets one budget.
//!
//! ```text
//! uniform, erk     densities by shape, up to a common factor
//! dp, evo          densities by the damage that pruning was measured to do, layer by layer or as a whole
//!                              └─ a Judge measures it; this module runs no network
//! ```

mod budget;
mod channels;
mod dp;
mod erk;
mod evo;
mod uniform;

use margay_core::{Graph, Node, Op};

pub use budget::{Budget, Cost, Unreachable, corrected};
pub use channels::{Slim, slim};
pub use dp::Dp;
pub use erk::Erk;
pub use evo::Evo;
pub use uniform::Uniform;

use crate::recipe::PruneSpec;

/// Every allocator; a new one is a file and a line here.
pub static ALLOCATORS: &[&dyn Allocator] = &[&Erk, &Uniform, &Dp, &Evo];

/// Densities at which the damage to a layer is measured, dense first: four to a power of ten.
pub const LEVELS: [f64; 9] = [1.0, 0.56, 0.32, 0.18, 0.1, 0.056, 0.032, 0.018, 0.01];

/// What an allocator may know of a prunable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProfile {
    /// Node name.
    pub name: String,
    /// Rows of the weight matrix.
    pub out: usize,
    /// Input channels per group.
    pub inner: usize,
    /// Kernel height and width; `[1, 1]` for a linear layer.
    pub kernel: [usize; 2],
    /// Whether no shortcut leads around it: [`Graph::trunk`].
    pub trunk: bool,
}

/// Measures what pruning does to a network.
pub trait Judge {
    /// The damage of pruning one layer to [`LEVELS`]`[level]` and no other.
    fn single(&mut self, layer: usize, level: usize) -> Result<f64, Failed>;
    /// The damage of pruning every layer, each to its level.
    fn whole(&mut self, levels: &[usize]) -> Result<f64, Failed>;
}

/// Why a judge could not measure.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Spreads a budget over layers.
pub trait Allocator: Sync {
    /// Name on the command line and in recipes.
    fn name(&self) -> &'static str;
    /// One line for `margay list`.
    fn about(&self) -> &'static str;
    /// Whether it asks the judge.
    fn measures(&self) -> bool {
        false
    }
    /// A preferred density per layer, up to a common factor that meets the budget.
    fn densities(
        &self,
        layers: &[LayerProfile],
        budget: &Budget,
        spec: &PruneSpec,
        judge: &mut dyn Judge,
    ) -> Result<Vec<f64>, Failed>;
}

/// Nobody measures: for allocators that go by shape.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Judge for Nobody {
    fn single(&mut self, _layer: usize, _level: usize) -> Result<f64, Failed> {
        Err("nothing is measured here".into())
    }

    fn whole(&mut self, _levels: &[usize]) -> Result<f64, Failed> {
        Err("nothing is measured here".into())
    }
}

impl LayerProfile {
    /// Profile of a node that has a weight matrix.
    fn of(node: &Node, trunk: bool) -> Option<Self> {
        let [out, columns] = node.matrix()?;
        let kernel = match &node.op {
            Op::Conv2d(conv) => conv.kernel,
            _ => [1, 1],
        };
        Some(Self { name: node.name.clone(), out, inner: columns / (kernel[0] * kernel[1]), kernel, trunk })
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.out * self.inner * self.kernel[0] * self.kernel[1]
    }

    /// The share of them that `kept` is.
    pub fn density(&self, kept: usize) -> f64 {
        kept as f64 / self.weights().max(1) as f64
    }

    /// Weights kept at a level.
    pub fn kept(&self, level: usize) -> usize {
        ((self.weights() as f64 * LEVELS[level]).round() as usize).max(1)
    }
}

/// Profiles of every prunable layer of a graph, in execution order.
pub fn profiles(graph: &Graph) -> Vec<LayerProfile> {
    let trunk = graph.trunk();
    graph.prunable().filter_map(|id| LayerProfile::of(graph.node(id), trunk[id.index()])).collect()
}

/// The allocator of this name.
pub fn find(name: &str) -> Option<&'static dyn Allocator> {
    ALLOCATORS.iter().copied().find(|a| a.name() == name)
}

/// Weights each layer keeps: the allocator's densities times the factor that meets the budget.
pub fn allocate(
    allocator: &dyn Allocator,
    layers: &[LayerProfile],
    budget: &Budget,
    spec: &PruneSpec,
    judge: &mut dyn Judge,
) -> Result<Vec<usize>, Failed> {
    let densities = allocator.densities(layers, budget, spec, judge)?;
    Ok(budget.fill(&densities, layers)?)
}

#[cfg(test)]
mod tests;
