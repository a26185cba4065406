use tch::Tensor;

use super::SolveError;
use crate::calibrate::Hessian;

/// The weight `[r, d]` whose outputs on the pruned network's inputs come nearest to what they should be: the target of a
/// layer that makes good its predecessors' errors.
///
/// ```text
/// W* = argmin ‖W Xᵀ + share Gᵀ − W* Xᵀ‖² / n + damping ‖(W − W*) D‖²     G: what the outputs lack, D² = diag H
///    = W + share (Gᵀ X / n)(H + damping D²)⁻¹
/// ```
/// With `G = (X_dense − X) Wᵀ` this is the asymmetric calibration of `GPTAQ` (arXiv 2504.02692), for any solver. Without
/// share, or where nothing lacks, it is `weight` itself.
pub(super) fn corrected(
    weight: &Tensor,
    hessian: &Hessian,
    damping: f64,
    share: f64,
) -> Result<Tensor, SolveError> {
    let (true, Some(gap)) = (share > 0.0, hessian.gap()?) else { return Ok(weight.f_detach_copy()?) };
    let scale = hessian.scale()?;
    let right = gap.f_mul_scalar(share)?.f_div(&scale)?;
    let inverse = hessian.inverse(damping, right.size()[0], 1)?;
    let change = inverse.ok_or(SolveError::NotPositiveDefinite { damping })?.apply(&right)?;
    Ok(weight.f_add(&change.f_div(&scale)?)?)
}
