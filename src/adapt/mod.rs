//! Adapters: a small trainable change of each layer, on a base that may itself be sparse.
//!
//! Every adapted weight is seen as a matrix `W0[m, n]`, `n = in / groups · kh · kw`, so that convolutions and
//! linear layers are one case. A [`Delta`] is a trainable `ΔW[m, n]`; with the mask `M` of a pruned layer the
//! weight in force is `M ⊙ (W0 + ΔW)`. The mask is part of the forward pass and therefore of the gradient:
//! masking only when merging keeps about the density of an update's energy, 5 % at 20×.
//!
//! RoSA (arXiv 2401.04679) is the sum of a low-rank and a sparse delta. Head, norms and biases are always
//! trained as well.

mod adapted;
mod budget;
mod delta;
mod gradients;
mod hydra;
mod lora;
mod merge;
mod nola;
mod plain;
mod rosa;
mod scalelora;
mod sltrain;
mod snell;
mod sora;
mod sparse;
mod splora;
mod spp;
mod statistics;
mod train;

use margay_core::nearest_name;
use tch::Tensor;
use tch::nn::Path;

pub use adapted::Adapted;
pub use budget::{Cost, Size, sizes};
pub use delta::{Delta, Sum};
pub use gradients::gradients;
pub use hydra::Hydra;
pub use lora::{Lora, LowRank};
pub use merge::{Change, Merged, Saved};
pub use nola::Nola;
pub use plain::{FULL, HEAD, Plain};
pub use rosa::Rosa;
pub use scalelora::ScaleLora;
pub use sltrain::SlTrain;
pub use snell::Snell;
pub use sora::Sora;
pub use sparse::{Sparse, SparseOnly};
pub use splora::SpLora;
pub use spp::Spp;
pub use statistics::Statistics;
pub use train::{AdaptError, Problem, adapt};

use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// Every adapter; a new one is a file and a line here.
pub static ADAPTERS: &[&dyn Adapter] = &[
    &FULL,
    &HEAD,
    &Lora,
    &SparseOnly,
    &Rosa,
    &SlTrain,
    &ScaleLora,
    &Spp,
    &Hydra,
    &Snell,
    &Nola,
    &Sora,
    &SpLora,
];

/// The group of an optimiser that trains low-rank factors.
pub const LOW_RANK: usize = 2;
/// The group of an optimiser that trains values on a sparse support.
pub const SPARSE: usize = 3;

/// A layer that gets an adapter.
#[derive(Debug)]
pub struct Site<'a> {
    /// Base weight `[m, n]`, zero off the mask.
    pub weight: &'a Tensor,
    /// Where a sparse part may lie, boolean `[m, n]`; absent: anywhere.
    pub allowed: Option<&'a Tensor>,
    /// How large the adapter may be.
    pub size: Size,
    /// What was collected for this layer.
    pub statistics: &'a Statistics,
    /// Seed of what is drawn for this layer and never trained.
    pub seed: u64,
}

/// Which parts an adapter has, as shares of its budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Share of the low-rank part.
    pub low_rank: f64,
    /// Share of the sparse part.
    pub sparse: f64,
}

/// A way to change layers.
pub trait Adapter: Sync {
    /// Name on the command line and in recipes.
    fn name(&self) -> &'static str;
    /// One line for `margay list`.
    fn about(&self) -> &'static str;
    /// How its budget is spent; both zero where it adds nothing to layers.
    fn split(&self, spec: &AdaptSpec) -> Split;
    /// Parameters of its low-rank part on a layer `[m, n]`.
    fn cost(&self, [m, n]: [usize; 2]) -> Cost {
        Cost { fixed: 0, per_rank: m + n }
    }
    /// The largest size that makes sense on a layer `[m, n]`.
    fn room(&self, [m, n]: [usize; 2]) -> Size {
        Size { rank: m.min(n), count: m * n }
    }
    /// Whether the sparse part needs the gradient of the layer to be placed.
    fn needs_gradient(&self) -> bool {
        false
    }
    /// Whether the base's own weights are trained, too.
    fn trains_weights(&self) -> bool {
        false
    }
    /// The delta of one layer, its variables in `path`; it must not change the layer before the first step.
    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError>;
}

/// The adapter of this name.
pub fn find(name: &str) -> Option<&'static dyn Adapter> {
    ADAPTERS.iter().copied().find(|a| a.name() == name)
}

/// The adapter's name that looks most like this one.
pub fn nearest(name: &str) -> Option<String> {
    nearest_name(name, ADAPTERS.iter().map(|a| a.name()))
}

#[cfg(test)]
mod tests;
