//! Layer-wise pruning: each solver sees one weight matrix and the Hessian of its inputs.
//!
//! Given `W[r, d]`, `H[d, d]` and a number of weights to keep, a solver returns a mask and new values
//! that keep `tr((W − W') H (W − W')ᵀ)` small. [`sequential`] walks a network, so that each layer sees
//! the inputs that its pruned predecessors produce.

mod alps;
mod branch;
mod correct;
mod magnitude;
mod obc;
mod refit;
mod sequential;
mod sparsegpt;
mod support;
mod wanda;

use margay_core::Pattern;
use tch::Tensor;

pub use alps::Alps;
pub use magnitude::Magnitude;
pub use obc::Obc;
pub use refit::{refit, refit_exact};
pub use sequential::{LayerOutcome, Pruned, Pruning, Quota, sequential, solve_layer};
pub use sparsegpt::SparseGpt;
pub use wanda::Wanda;

use crate::calibrate::Hessian;
use crate::recipe::PruneSpec;
use crate::torch::TorchError;
use correct::corrected;

/// Every solver; a new one is a file and a line here.
pub static SOLVERS: &[&dyn Solver] = &[&Alps, &Obc, &SparseGpt, &Wanda, &Magnitude];

/// One layer to prune.
#[derive(Clone, Copy, Debug)]
pub struct LayerProblem<'a> {
    /// Weight `[r, d]`.
    pub weight: &'a Tensor,
    /// Second moments of the layer's inputs.
    pub hessian: &'a Hessian,
    /// Number of weights that stay, as near as the pattern allows.
    pub keep: usize,
    /// Which supports may be chosen.
    pub pattern: Pattern,
    /// Added to the diagonal of `H`, relative to its mean; `alps` scales the diagonal to 1 first.
    pub damping: f64,
    /// Options of the solvers.
    pub spec: &'a PruneSpec,
}

/// One layer pruned.
#[derive(Debug)]
pub struct LayerSolution {
    /// New weight `[r, d]`, zero off the mask.
    pub weight: Tensor,
    /// Kept weights, boolean `[r, d]`; exactly as many as asked for unless a pattern forbids it.
    pub mask: Tensor,
}

/// Why a layer could not be pruned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SolveError {
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The damped Hessian is not positive definite.
    #[error("the Hessian is not positive definite; raise the damping above {damping}")]
    NotPositiveDefinite {
        /// Damping in force.
        damping: f64,
    },
    /// The Hessian of a support is not positive definite.
    #[error("the least-squares refit is singular; raise the damping")]
    Singular,
}

impl From<tch::TchError> for SolveError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// Prunes one layer; reads no files and knows no network.
pub trait Solver: Sync + std::fmt::Debug {
    /// Name on the command line and in recipes.
    fn name(&self) -> &'static str;
    /// One line for `margay list`.
    fn about(&self) -> &'static str;
    /// Chooses the mask and the values on it.
    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError>;
    /// The values alone, on a mask `[r, d]` chosen before; nothing where it does not find them apart from the mask.
    fn on_mask(&self, _problem: &LayerProblem, _mask: &Tensor) -> Result<Option<LayerSolution>, SolveError> {
        Ok(None)
    }
}

/// The solver of this name.
pub fn find(name: &str) -> Option<&'static dyn Solver> {
    SOLVERS.iter().copied().find(|s| s.name() == name)
}

/// `tr((W − W') H (W − W')ᵀ) / tr(W H Wᵀ)`: the share of the layer's output energy that is lost.
pub fn relative_error(before: &Tensor, after: &Tensor, hessian: &Hessian) -> Result<f64, TorchError> {
    let h = hessian.matrix()?;
    let energy = |w: &Tensor| -> Result<f64, TorchError> {
        Ok(w.f_matmul(&h)?.f_mul(w)?.f_sum(tch::Kind::Double)?.double_value(&[]))
    };
    let total = energy(before)?;
    Ok(if total > 0.0 { energy(&before.f_sub(after)?)?.max(0.0) / total } else { 0.0 })
}

#[cfg(test)]
mod tests;
