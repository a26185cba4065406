use tch::{Kind, Tensor};

use super::alps::Scaled;
use super::refit::saliencies;
use super::support::best;
use super::{Alps, LayerProblem, LayerSolution, SolveError, Solver};
use crate::recipe::ObcSpec;

/// Optimal Brain Compression (arXiv 2208.11580) in geometric steps: the tenth of the layer's weights goes whose
/// removal raises the error least, all rows are refitted exactly, and so on.
///
/// The inverse of every row's own matrix is needed for that: layers with more than 384 weights per row
/// begin with the support that `alps` gives so many.
#[derive(Clone, Copy, Debug)]
pub struct Obc;

/// Keeps a useless weight ahead of one that is gone.
const LEAST: f64 = 1e-30;

impl Solver for Obc {
    fn name(&self) -> &'static str {
        "obc"
    }

    fn about(&self) -> &'static str {
        "the least useful tenth goes, the rest is refitted exactly, and again (slow)"
    }

    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError> {
        let ObcSpec { start, step } = problem.spec.obc;
        let scaled = Scaled::new(problem)?;
        let Scaled { weight, hessian, .. } = &scaled;
        let all = weight.numel();
        let mut left = all.min(problem.keep.max(start * weight.size()[0] as usize));
        let mut mask = if left == all {
            weight.f_ones_like()?.f_to_kind(Kind::Bool)?
        } else {
            Alps.solve(&LayerProblem { keep: left, ..*problem })?.mask
        };
        while left > problem.keep {
            left = ((left as f64 * (1.0 - step)) as usize).max(problem.keep);
            let (_, rises) = saliencies(weight, hessian, &mask)?;
            let scores = rises.f_add(&mask.f_to_kind(Kind::Float)?.f_mul_scalar(LEAST)?)?;
            mask = best(&scores, left, problem.pattern)?;
        }
        scaled.refitted(mask)
    }

    fn on_mask(&self, problem: &LayerProblem, mask: &Tensor) -> Result<Option<LayerSolution>, SolveError> {
        Scaled::new(problem)?.refitted(mask.shallow_clone()).map(Some)
    }
}
