use tch::{Kind, Tensor};

use super::support::largest;
use super::{LayerProblem, LayerSolution, SolveError, Solver, refit};
use crate::recipe::AlpsSpec;

/// ALPS (arXiv 2406.07831): ADMM between the unconstrained least-squares solution and the k-sparse set,
/// then an exact refit on the support it settles on.
///
/// With columns scaled so that `H` has a unit diagonal, and `G = W H`:
/// ```text
/// repeat: B ← (G − V + ρ D)(H + ρ I)⁻¹
///         D ← top-k(B + V / ρ)             over the whole layer, of the pattern
///         V ← V + ρ (B − D)
///         every 5 rounds: raise ρ, by how much of the support still changes
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Alps;

/// Rounds between two looks at the support.
const CHECK_EVERY: usize = 5;

impl Solver for Alps {
    fn name(&self) -> &'static str {
        "alps"
    }

    fn about(&self) -> &'static str {
        "ADMM on the whole layer, then exact least squares on its support (most accurate)"
    }

    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError> {
        let scaled = Scaled::new(problem)?;
        let Scaled { weight, hessian, .. } = &scaled;
        let mask = if problem.keep >= weight.numel() {
            weight.f_ones_like()?.f_to_kind(Kind::Bool)?
        } else {
            support(weight, &weight.f_matmul(hessian)?, problem)?
        };
        scaled.refitted(mask)
    }

    fn on_mask(&self, problem: &LayerProblem, mask: &Tensor) -> Result<Option<LayerSolution>, SolveError> {
        Scaled::new(problem)?.refitted(mask.shallow_clone()).map(Some)
    }
}

/// A layer with columns of like power: `W D` and `D⁻¹ H D⁻¹ + damping I`.
pub(super) struct Scaled {
    pub weight: Tensor,
    pub hessian: Tensor,
    /// The diagonal of `D`.
    pub scale: Tensor,
}

impl Scaled {
    pub fn new(problem: &LayerProblem) -> Result<Self, SolveError> {
        let scale = problem.hessian.scale()?;
        let weight = problem.weight.f_mul(&scale)?;
        let size = weight.size2()?.1;
        let ridge = Tensor::f_eye(size, (Kind::Float, weight.device()))?.f_mul_scalar(problem.damping)?;
        let hessian = problem.hessian.scaled()?.f_add(&ridge)?;
        Ok(Self { weight, hessian, scale })
    }

    /// The layer as it was, with the best values on a mask.
    pub fn refitted(&self, mask: Tensor) -> Result<LayerSolution, SolveError> {
        let weight = refit(&self.weight, &self.hessian, &mask)?.f_div(&self.scale)?;
        Ok(LayerSolution { weight, mask })
    }
}

fn support(weight: &Tensor, target: &Tensor, problem: &LayerProblem) -> Result<Tensor, SolveError> {
    let keep = problem.keep;
    let AlpsSpec { rounds, least_rounds, settled, mut penalty } = problem.spec.alps;
    let inverse = |penalty: f64| {
        let inverse =
            problem.hessian.inverse(penalty + problem.damping, weight.size()[0], CHECK_EVERY as i64)?;
        inverse.ok_or(SolveError::NotPositiveDefinite { damping: problem.damping })
    };
    let mut current = inverse(penalty)?;
    let mut sparse = weight.f_detach_copy()?;
    let mut dual = weight.f_zeros_like()?;
    let mut mask = largest(weight, keep, problem.pattern)?;
    for round in 1..=rounds {
        let right = target.f_sub(&dual)?.f_add(&sparse.f_mul_scalar(penalty)?)?;
        let free = current.apply(&right)?;
        let candidate = free.f_add(&dual.f_div_scalar(penalty)?)?;
        let next = largest(&candidate, keep, problem.pattern)?;
        sparse = candidate.f_mul(&next)?;
        dual = dual.f_add(&free.f_sub(&sparse)?.f_mul_scalar(penalty)?)?;
        if round % CHECK_EVERY == 0 {
            let changed = next.f_logical_xor(&mask)?.f_sum(Kind::Int64)?.int64_value(&[]) as f64;
            let change = changed / keep.max(1) as f64;
            mask = next;
            if round >= least_rounds && change < settled {
                break;
            }
            penalty *= growth(change);
            current = inverse(penalty)?;
        }
    }
    Ok(mask)
}

/// How much more the penalty grows the more of the support still changes. Each value of it costs an inverse, so that it stays for
/// some rounds and then grows by more than in the paper.
fn growth(change: f64) -> f64 {
    if change > 0.1 {
        1.7
    } else if change > 0.005 {
        1.45
    } else {
        1.2
    }
}
