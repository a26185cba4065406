use tch::{Kind, Reduction, Tensor};

use super::batch::{Batch, Mixed};
use crate::recipe::RecoverySpec;
use crate::torch::{Outputs, TorchError};

/// The loss of a batch, averaged over its images as they count.
pub(super) fn loss(
    spec: &RecoverySpec,
    out: &Outputs,
    teacher: Option<&Outputs>,
    batch: &Batch,
) -> Result<Tensor, TorchError> {
    let mut loss = cross_entropy(spec, &out.logits, batch)?.f_mul_scalar(spec.cross_entropy)?;
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

/// Cross-entropy over the images that have a class, of both classes where two images are mixed.
fn cross_entropy(spec: &RecoverySpec, logits: &Tensor, batch: &Batch) -> Result<Tensor, TorchError> {
    let of = |classes: &Tensor| cross_entropy_with(spec, logits, classes, batch.weights.as_ref());
    let own = of(&batch.classes)?;
    Ok(match &batch.mixed {
        Some(Mixed { first, classes }) => {
            own.f_mul_scalar(*first)?.f_add(&of(classes)?.f_mul_scalar(1.0 - first)?)?
        }
        None => own,
    })
}

fn cross_entropy_with(
    spec: &RecoverySpec,
    logits: &Tensor,
    classes: &Tensor,
    weights: Option<&Tensor>,
) -> Result<Tensor, TorchError> {
    let (none, ignored) = (None::<Tensor>, -100);
    let Some(weights) = weights else {
        let mean = Reduction::Mean;
        return Ok(logits.f_cross_entropy_loss(classes, none, mean, ignored, spec.label_smoothing)?);
    };
    let each = logits.f_cross_entropy_loss(classes, none, Reduction::None, ignored, spec.label_smoothing)?;
    let labelled = classes.f_ge(0)?.f_sum(Kind::Float)?.f_clamp_min(1.0)?;
    Ok(each.f_mul(weights)?.f_sum(Kind::Float)?.f_div(&labelled)?)
}
