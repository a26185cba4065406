//! What single solvers, allocators and adapters leave to choose: keys of recipes and axes of experiments, without flags.

use serde::{Deserialize, Serialize};

use crate::options::Options;

/// Options of the solver `alps` (arXiv 2406.07831).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AlpsSpec {
    /// Most rounds of ADMM.
    #[option(default = 300, hidden, range = 1..=100_000)]
    pub rounds: usize,
    /// Rounds before the support may count as settled.
    #[option(default = 20, hidden, range = 0..=100_000)]
    pub least_rounds: usize,
    /// The support has settled when less than this share of it changes in five rounds.
    #[option(default = 1e-3, hidden, range = 0.0..=1.0)]
    pub settled: f64,
    /// Penalty of the first rounds, relative to the scaled Hessian's diagonal of 1.
    #[option(default = 0.1, hidden, range = 1e-6..=1e6)]
    pub penalty: f64,
}

/// Options of the solver `obc` (arXiv 2208.11580).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ObcSpec {
    /// Weights per row, on average, from which weights are dropped; `alps` chooses them where there are more.
    #[option(default = 384, hidden, range = 1..=65536)]
    pub start: usize,
    /// Share of the weights that goes in a round.
    #[option(default = 0.1, hidden, range = 1e-4..=1.0)]
    pub step: f64,
}

/// Options of the allocator `erk` (arXiv 1911.11134).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ErkSpec {
    /// Factor on the density of a layer without a residual connection, such as the downsampling of ConvNeXt.
    #[option(default = 4.0, hidden, range = 1.0..=1e3)]
    pub trunk: f64,
}

/// Options of the allocator `evo` (arXiv 2410.14649).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EvoSpec {
    /// Generations of the search.
    #[option(default = 30, hidden, range = 0..=100_000)]
    pub generations: usize,
    /// Allocations tried in a generation.
    #[option(default = 8, hidden, range = 1..=100_000)]
    pub offspring: usize,
    /// Most exchanges between layers by which an allocation differs from its parent.
    #[option(default = 3, hidden, range = 1..=1000)]
    pub exchanges: usize,
}

/// Options of the adapter `sora` (arXiv 2311.11696).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SoraSpec {
    /// Value of every gate at the start: near enough to zero that a gate which the loss does not hold closes in a short run.
    #[option(default = 0.0625, hidden, range = 1e-6..=1e3)]
    pub open: f64,
    /// Pull of gates towards zero, in steps of AdamW: less than 1, so that a gate which the loss holds stays open.
    #[option(default = 0.5, hidden, range = 0.0..=1e3)]
    pub pull: f64,
}

/// Options of the adapter `snell` (arXiv 2411.01800).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SnellSpec {
    /// Share of a layer's kept weights that may change.
    #[option(default = 0.5, hidden, range = 0.0..=1.0)]
    pub changed: f64,
}

/// Whether a table says nothing that is not the default: recipes leave it out.
pub(super) fn is_default<T: Default + PartialEq>(spec: &T) -> bool {
    *spec == T::default()
}
