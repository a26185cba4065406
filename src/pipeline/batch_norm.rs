use margay_core::Op;
use tch::{Kind, Tensor};

use crate::torch::{TorchError, TorchModel, stream};

/// Replaces every batch norm's statistics by those of the images, layer by layer: each layer is
/// measured on what its re-estimated predecessors produce.
pub fn reestimate(model: &mut TorchModel, batches: &[Tensor]) -> Result<(), TorchError> {
    stream(model, batches, |id, inputs, model| {
        let node = model.graph.node(id).clone();
        if let Op::BatchNorm(_) = node.op {
            let (mean, var) = moments(inputs)?;
            model.set(&format!("{}.running_mean", node.name), &mean)?;
            model.set(&format!("{}.running_var", node.name), &var)?;
        }
        Ok::<(), TorchError>(())
    })?;
    Ok(())
}

/// Mean and unbiased variance of each channel over all batches `[n, c, h, w]`, summed in f64.
fn moments(batches: &[Tensor]) -> Result<(Tensor, Tensor), TorchError> {
    let axes = [0_i64, 2, 3];
    let sum = |power: &dyn Fn(&Tensor) -> Result<Tensor, tch::TchError>| -> Result<Tensor, TorchError> {
        let mut total: Option<Tensor> = None;
        for batch in batches {
            let part = power(batch)?.f_sum_dim_intlist(axes.as_slice(), false, Kind::Double)?;
            total = Some(match total {
                Some(total) => total.f_add(&part)?,
                None => part,
            });
        }
        Ok(total.unwrap_or_else(|| Tensor::from_slice(&[0.0_f64])))
    };
    let count: usize = batches.iter().map(|b| b.numel() / b.size()[1].max(1) as usize).sum();
    let mean = sum(&|x| Ok(x.shallow_clone()))?.f_div_scalar(count.max(1) as f64)?;
    let shift = mean.f_reshape([1, -1, 1, 1])?;
    let squares = sum(&|x| x.f_to_kind(Kind::Double)?.f_sub(&shift)?.f_square())?;
    Ok((mean, squares.f_div_scalar(count.saturating_sub(1).max(1) as f64)?))
}
