use tch::{Kind, Reduction, Tensor};

use crate::recipe::RecoverySpec;
use crate::torch::{Outputs, TorchError};

/// The loss of a batch, averaged over its images.
pub(super) fn loss(
    spec: &RecoverySpec,
    out: &Outputs,
    teacher: Option<&Outputs>,
    classes: &Tensor,
) -> Result<Tensor, TorchError> {
    let none = None::<Tensor>;
    let hard = out.logits.f_cross_entropy_loss(classes, none, Reduction::Mean, -100, spec.label_smoothing)?;
    let mut loss = hard.f_mul_scalar(spec.cross_entropy)?;
    let Some(teacher) = teacher else { return Ok(loss) };
    let t = spec.temperature;
    let soft = |logits: &Tensor| logits.f_div_scalar(t)?.f_log_softmax(1, Kind::Float);
    let target = soft(&teacher.logits)?;
    let divergence = target.f_exp()?.f_mul(&target.f_sub(&soft(&out.logits)?)?)?;
    let divergence = divergence.f_sum(Kind::Float)?.f_div_scalar(classes.numel() as f64)?;
    loss = loss.f_add(&divergence.f_mul_scalar(spec.distillation * t * t)?)?;
    let share = spec.square_head / out.kept.len().max(1) as f64;
    for (s, f) in out.kept.iter().zip(&teacher.kept) {
        let error = s.f_sub(f)?.f_square()?.f_sum(Kind::Float)?;
        let energy = f.f_square()?.f_sum(Kind::Float)?.f_clamp_min(1e-12)?;
        loss = loss.f_add(&error.f_div(&energy)?.f_mul_scalar(share)?)?;
    }
    Ok(loss)
}
