//! How much the task's loss hangs on each output of a layer.

use std::cell::RefCell;
use std::collections::BTreeMap;

use margay_core::Node;
use tch::{Kind, Reduction, Tensor};

use crate::distill::Examples;
use crate::torch::{Effective, Norms, TorchError, TorchModel, forward, rows};

/// Features that the loss hardly hangs on count as if they had this share of the mean.
const LEAST_POWER: f64 = 0.01;

/// Mean square of the loss's gradient by each output feature of every prunable layer, `[out]` by node name: the
/// outer factor of K-FAC's Fisher matrix (arXiv 1503.05671), its diagonal.
///
/// Labels are those of the examples (the empirical Fisher). Features are normalised to mean 1 per layer.
pub fn output_power(
    model: &TorchModel,
    examples: &Examples,
    batch: usize,
) -> Result<BTreeMap<String, Tensor>, TorchError> {
    let mut power: BTreeMap<String, Tensor> = BTreeMap::new();
    let size = batch.max(1) as i64;
    let batches = examples.images.f_split(size, 0)?.into_iter().zip(examples.classes.f_split(size, 0)?);
    for (images, classes) in batches {
        let watched = Watched { model, outputs: RefCell::default() };
        let out = forward(&model.graph, &watched, Norms::Stored, &images, &[])?;
        let none = None::<Tensor>;
        let loss = out.logits.f_cross_entropy_loss(&classes, none, Reduction::Sum, -100, 0.0)?;
        let (names, outputs): (Vec<_>, Vec<_>) = watched.outputs.into_inner().into_iter().unzip();
        let gradients = Tensor::f_run_backward(&[loss], &outputs, false, false)?;
        for (name, gradient) in names.into_iter().zip(gradients) {
            let squares = rows(&gradient)?.f_square()?;
            let sum = squares.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
            let total = match power.remove(&name) {
                Some(before) => before.f_add(&sum)?,
                None => sum,
            };
            power.insert(name, total);
        }
    }
    power.into_iter().map(|(name, sum)| Ok((name, normalised(&sum)?))).collect()
}

/// A model whose prunable layers' outputs keep their gradients.
struct Watched<'a> {
    model: &'a TorchModel,
    outputs: RefCell<Vec<(String, Tensor)>>,
}

impl Effective for Watched<'_> {
    fn effective(&self, name: &str) -> Result<Tensor, TorchError> {
        self.model.effective(name)
    }

    fn passed(&self, node: &Node, _input: &Tensor, output: Tensor) -> Result<Tensor, TorchError> {
        // The first layer's output becomes the root of what is differentiated.
        let output = if output.requires_grad() { output } else { output.f_set_requires_grad(true)? };
        self.outputs.borrow_mut().push((node.name.clone(), output.shallow_clone()));
        Ok(output)
    }
}

fn normalised(sum: &Tensor) -> Result<Tensor, TorchError> {
    let mean = sum.f_mean(Kind::Double)?.f_clamp_min(f64::MIN_POSITIVE)?;
    Ok(sum.f_div(&mean)?.f_clamp_min(LEAST_POWER)?.f_to_kind(Kind::Float)?)
}
