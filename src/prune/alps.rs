use tch::{Kind, Tensor};

use super::{LayerProblem, LayerSolution, SolveError, Solver, column_scale, refit};
use crate::torch::{Spectrum, top_k_mask};

/// ALPS (arXiv 2406.07831): ADMM between the unconstrained least-squares solution and the k-sparse set,
/// then an exact refit on the support it settles on.
///
/// With columns scaled so that `H` has a unit diagonal, and `G = W H`:
/// ```text
/// repeat: B ← (G − V + ρ D)(H + ρ I)⁻¹     one multiplication in the eigenbasis of H
///         D ← top-k(B + V / ρ)             over the whole layer
///         V ← V + ρ (B − D)
///         every 3 rounds: raise ρ, by how much of the support still changes
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Alps;

const MAX_ROUNDS: usize = 300;
const MIN_ROUNDS: usize = 30;
const CHECK_EVERY: usize = 3;
const FIRST_PENALTY: f64 = 0.1;
/// The support has settled when less than this share of it changes between checks.
const SETTLED: f64 = 3e-4;

impl Solver for Alps {
    fn name(&self) -> &'static str {
        "alps"
    }

    fn about(&self) -> &'static str {
        "ADMM on the whole layer, then exact least squares on its support (most accurate)"
    }

    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError> {
        let scale = column_scale(problem.hessian)?;
        let weight = problem.weight.f_mul(&scale)?;
        let size = weight.size2()?.1;
        let ridge = Tensor::f_eye(size, (Kind::Float, weight.device()))?.f_mul_scalar(problem.damping)?;
        let h = problem.hessian.scaled(&scale)?.f_add(&ridge)?;
        let mask = if problem.keep >= weight.numel() {
            weight.f_ones_like()?.f_to_kind(Kind::Bool)?
        } else {
            let spectrum = problem.hessian.scaled_spectrum(&scale)?;
            support(&weight, &weight.f_matmul(&h)?, &spectrum, problem)?
        };
        let weight = refit(&weight, &h, &mask)?.f_div(&scale)?;
        Ok(LayerSolution { weight, mask })
    }
}

fn support(
    weight: &Tensor,
    target: &Tensor,
    spectrum: &Spectrum,
    problem: &LayerProblem,
) -> Result<Tensor, SolveError> {
    let keep = problem.keep;
    let mut penalty = FIRST_PENALTY;
    let mut sparse = weight.f_detach_copy()?;
    let mut dual = weight.f_zeros_like()?;
    let mut mask = top_k_mask(&weight.f_abs()?, keep)?;
    for round in 1..=MAX_ROUNDS {
        let right = target.f_sub(&dual)?.f_add(&sparse.f_mul_scalar(penalty)?)?;
        let free = spectrum.solve(&right, penalty + problem.damping)?;
        let candidate = free.f_add(&dual.f_div_scalar(penalty)?)?;
        if round % CHECK_EVERY == 0 {
            let next = top_k_mask(&candidate.f_abs()?, keep)?;
            let changed = next.f_logical_xor(&mask)?.f_sum(Kind::Int64)?.int64_value(&[]) as f64;
            let change = changed / keep.max(1) as f64;
            mask = next;
            sparse = candidate.f_mul(&mask)?;
            dual = dual.f_add(&free.f_sub(&sparse)?.f_mul_scalar(penalty)?)?;
            if round >= MIN_ROUNDS && change < SETTLED {
                break;
            }
            penalty *= growth(change);
        } else {
            sparse = candidate.f_mul(&top_k_mask(&candidate.f_abs()?, keep)?)?;
            dual = dual.f_add(&free.f_sub(&sparse)?.f_mul_scalar(penalty)?)?;
        }
    }
    Ok(mask)
}

fn growth(change: f64) -> f64 {
    if change > 0.1 {
        1.3
    } else if change > 0.005 {
        1.2
    } else {
        1.1
    }
}
