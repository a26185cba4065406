use tch::{Kind, Reduction, Tensor};

use super::batch::Batch;
use crate::recipe::RecoverySpec;
use crate::torch::{Outputs, TorchError};

/// The loss of a batch, averaged over its images as they count.
pub(super) fn loss(
    spec: &RecoverySpec,
    out: &Outputs,
    teacher: Option<&Outputs>,
    batch: &Batch,
) -> Result<Tensor, TorchError> {
    let (weight, smoothing) = spec.labels();
    let mut loss = cross_entropy(smoothing, &out.logits, batch)?.f_mul_scalar(weight)?;
    let Some(teacher) = teacher else { return Ok(loss) };
    let t = spec.temperature;
    let soft = |logits: &Tensor| logits.f_div_scalar(t)?.f_log_softmax(1, Kind::Float);
    let target = soft(&teacher.logits)?;
    let divergence = target.f_exp()?.f_mul(&target.f_sub(&soft(&out.logits)?)?)?;
    let divergence = match &batch.weights {
        Some(weights) => divergence.f_mul(&weights.f_unsqueeze(1)?)?,
        None => divergence,
    };
    let divergence = divergence.f_sum(Kind::Float)?.f_div_scalar(batch.classes.numel() as f64)?;
    loss = loss.f_add(&divergence.f_mul_scalar(spec.distillation * t * t)?)?;
    let share = spec.square_head / out.kept.len().max(1) as f64;
    for (s, f) in out.kept.iter().zip(&teacher.kept) {
        let error = s.f_sub(f)?.f_square()?.f_sum(Kind::Float)?;
        let energy = f.f_square()?.f_sum(Kind::Float)?.f_clamp_min(1e-12)?;
        loss = loss.f_add(&error.f_div(&energy)?.f_mul_scalar(share)?)?;
    }
    Ok(loss)
}

/// Cross-entropy over the images that have a class.
fn cross_entropy(smoothing: f64, logits: &Tensor, batch: &Batch) -> Result<Tensor, TorchError> {
    let (none, ignored) = (None::<Tensor>, -100);
    let of = |reduction| logits.f_cross_entropy_loss(&batch.classes, none, reduction, ignored, smoothing);
    let Some(weights) = &batch.weights else { return Ok(of(Reduction::Mean)?) };
    let labelled = batch.classes.f_ge(0)?.f_sum(Kind::Float)?.f_clamp_min(1.0)?;
    Ok(of(Reduction::None)?.f_mul(weights)?.f_sum(Kind::Float)?.f_div(&labelled)?)
}
