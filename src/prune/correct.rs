use tch::Tensor;

use super::SolveError;
use crate::calibrate::Hessian;

/// The weight `[r, d]` whose outputs on the pruned network's inputs come nearest to those of `weight` on the dense
/// network's: the target of a layer that makes good its predecessors' errors.
///
/// ```text
/// W* = argmin ‖W X_dense − W* X‖² + damping ‖(W − W*) D‖²     with X_dense ← (1 − share) X + share X_dense
///    = (W C + damping W D²)(H + damping D²)⁻¹                      C = X_denseᵀ X / n,  D² = diag H
/// ```
/// The asymmetric calibration of `GPTAQ` (arXiv 2504.02692) for any solver. Without share, or without cross moments in
/// the Hessian, it is `weight` itself.
pub(super) fn corrected(
    weight: &Tensor,
    hessian: &Hessian,
    damping: f64,
    share: f64,
) -> Result<Tensor, SolveError> {
    let (true, Some(cross)) = (share > 0.0, hessian.cross()?) else { return Ok(weight.f_detach_copy()?) };
    let scale = hessian.scale()?;
    let cross = cross.f_sub(&hessian.matrix()?)?.f_mul_scalar(share)?;
    // Only the difference from W is solved for: without a predecessor's error it is zero, exactly.
    let right = weight.f_matmul(&cross)?.f_div(&scale)?;
    let change = hessian.spectrum()?.solve(&right, damping)?;
    Ok(weight.f_add(&change.f_div(&scale)?)?)
}
