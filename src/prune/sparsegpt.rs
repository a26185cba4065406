use margay_core::Pattern;
use tch::{Kind, Tensor};

use super::support::best;
use super::{LayerProblem, LayerSolution, SolveError, Solver};
use crate::torch::cholesky;

/// SparseGPT (arXiv 2301.00774): columns left to right, each removed weight's error is pushed onto the
/// columns still to come through the Cholesky factor of `H⁻¹`. Our reading of TACO's solver.
#[derive(Clone, Copy, Debug)]
pub struct SparseGpt;

/// Columns whose mask is chosen together.
const BLOCK: i64 = 128;

impl Solver for SparseGpt {
    fn name(&self) -> &'static str {
        "sparsegpt"
    }

    fn about(&self) -> &'static str {
        "one pass over the columns with error feedback (our reading of TACO)"
    }

    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError> {
        let factor = inverse_factor(problem)?;
        let mut weight = problem.weight.f_detach_copy()?;
        let [rows, columns] = [weight.size()[0], weight.size()[1]];
        let mask = Tensor::f_zeros([rows, columns], (Kind::Bool, weight.device()))?;
        let (mut start, mut taken) = (0, 0);
        let [_, block] = problem.pattern.block();
        // No block of the pattern is cut, and what one step cannot take the next may.
        let step = (BLOCK / block as i64).max(1) * block as i64;
        while start < columns {
            let width = step.min(columns - start);
            let quota = share(problem.keep, columns, start + width).saturating_sub(taken);
            let kept = block_mask(&weight, &factor, [start, width], quota, problem.pattern)?;
            mask.f_narrow(1, start, width)?.f_copy_(&kept)?;
            taken += kept.f_sum(Kind::Int64)?.int64_value(&[]) as usize;
            weight = sweep(&weight, &factor, &kept, start, width)?;
            start += width;
        }
        Ok(LayerSolution { weight: weight.f_mul(&mask)?, mask })
    }
}

/// Weights kept in the first `end` of `columns` columns.
fn share(keep: usize, columns: i64, end: i64) -> usize {
    (keep as u128 * end as u128 / columns as u128) as usize
}

/// Upper Cholesky factor of `(H + damping · mean(diag H) · I)⁻¹`.
fn inverse_factor(problem: &LayerProblem) -> Result<Tensor, SolveError> {
    let refuse = || SolveError::NotPositiveDefinite { damping: problem.damping };
    let h = problem.hessian.matrix()?.f_to_kind(Kind::Double)?;
    let diagonal = h.f_diagonal(0, 0, 1)?;
    let dead = diagonal.f_le(0.0)?.f_to_kind(Kind::Double)?;
    let ridge = diagonal.f_mean(Kind::Double)?.f_mul_scalar(problem.damping)?.f_add(&dead)?;
    let damped = h.f_add(&Tensor::f_diag_embed(&ridge, 0, 0, 1)?)?;
    let checked = |matrix: &Tensor, upper: bool| -> Result<Tensor, SolveError> {
        cholesky(matrix, upper)?.ok_or_else(refuse)
    };
    let inverse = checked(&damped, false)?.f_cholesky_inverse(false)?;
    Ok(checked(&inverse, true)?.f_to_kind(Kind::Float)?)
}

fn block_mask(
    weight: &Tensor,
    factor: &Tensor,
    [start, width]: [i64; 2],
    quota: usize,
    pattern: Pattern,
) -> Result<Tensor, SolveError> {
    let pivots = factor.f_diagonal(0, 0, 1)?.f_narrow(0, start, width)?;
    let saliency = weight.f_narrow(1, start, width)?.f_div(&pivots)?.f_square()?;
    Ok(best(&saliency, quota, pattern)?)
}

/// Removes the weights off `kept` in columns `start .. start + width` and compensates all later columns.
fn sweep(
    weight: &Tensor,
    factor: &Tensor,
    kept: &Tensor,
    start: i64,
    width: i64,
) -> Result<Tensor, SolveError> {
    let columns = weight.size()[1];
    let block = weight.f_narrow(1, start, width)?.f_detach_copy()?;
    let local = factor.f_narrow(0, start, width)?.f_narrow(1, start, width)?;
    let dropped = kept.f_logical_not()?;
    let errors = block.f_zeros_like()?;
    for i in 0..width {
        let pivot = local.double_value(&[i, i]);
        let error = block.f_narrow(1, i, 1)?.f_mul(&dropped.f_narrow(1, i, 1)?)?.f_div_scalar(pivot)?;
        let rest = width - i;
        let update = error.f_matmul(&local.f_narrow(0, i, 1)?.f_narrow(1, i, rest)?)?;
        let _ = block.f_narrow(1, i, rest)?.f_sub_(&update)?;
        errors.f_narrow(1, i, 1)?.f_copy_(&error)?;
    }
    let out = weight.f_detach_copy()?;
    out.f_narrow(1, start, width)?.f_copy_(&block)?;
    let later = columns - start - width;
    if later > 0 {
        let rows = factor.f_narrow(0, start, width)?.f_narrow(1, start + width, later)?;
        let _ = out.f_narrow(1, start + width, later)?.f_sub_(&errors.f_matmul(&rows)?)?;
    }
    Ok(out)
}
