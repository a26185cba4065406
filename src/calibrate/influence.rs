//! How much the task's loss hangs on each output of a layer: on its features, and on its positions.

use std::cell::RefCell;
use std::collections::BTreeMap;

use margay_core::Node;
use tch::{Kind, Reduction, Tensor};

use crate::distill::Examples;
use crate::torch::{Effective, Norms, TorchError, TorchModel, forward, rows};

/// Features that the loss hardly hangs on count as if they had this share of the mean.
const LEAST_POWER: f64 = 0.01;
/// Images whose gradients are held at once: each takes the activations of the whole network.
pub const AT_A_TIME: usize = 8;

/// Mean squares of the loss's gradient by the outputs of every prunable layer, by node name: the outer factor of K-FAC's
/// Fisher matrix (arXiv 1503.05671), its diagonal, and the same over positions.
///
/// Labels are those of the examples (the empirical Fisher).
#[derive(Debug, Default)]
pub struct Influence {
    /// Of each feature `[out]`, mean 1.
    pub features: BTreeMap<String, Tensor>,
    /// Of each position `[positions]`, mean 1. Every image counts the same, however sure the network is of it.
    pub positions: BTreeMap<String, Tensor>,
}

/// How much the loss of the examples hangs on every prunable layer's outputs.
pub fn influence(model: &TorchModel, examples: &Examples) -> Result<Influence, TorchError> {
    let (mut features, mut positions) = (BTreeMap::new(), BTreeMap::new());
    let split = |of: &Tensor| of.f_split(AT_A_TIME as i64, 0);
    let batches = split(&examples.images)?.into_iter().zip(split(&examples.classes)?);
    for (images, classes) in batches {
        let watched = Watched { model, outputs: RefCell::default() };
        let out = forward(&model.graph, &watched, Norms::Stored, &images, &[])?;
        let none = None::<Tensor>;
        let loss = out.logits.f_cross_entropy_loss(&classes, none, Reduction::Sum, -100, 0.0)?;
        let (names, outputs): (Vec<_>, Vec<_>) = watched.outputs.into_inner().into_iter().unzip();
        let gradients = Tensor::f_run_backward(&[loss], &outputs, false, false)?;
        for (name, gradient) in names.into_iter().zip(gradients) {
            let squares = rows(&gradient)?.f_square()?;
            let by_feature = squares.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
            add(&mut features, &name, by_feature)?;
            let by_position = squares.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
            let by_position = by_position.f_reshape([images.size()[0], -1])?;
            let mean = by_position.f_mean_dim([1_i64].as_slice(), true, Kind::Double)?;
            let of_image = by_position.f_div(&mean.f_clamp_min(f64::MIN_POSITIVE)?)?;
            add(&mut positions, &name, of_image.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?)?;
        }
    }
    Ok(Influence { features: normalised(features)?, positions: normalised(positions)? })
}

fn add(sums: &mut BTreeMap<String, Tensor>, name: &str, more: Tensor) -> Result<(), TorchError> {
    let total = match sums.remove(name) {
        Some(before) => more.f_add(&before)?,
        None => more,
    };
    sums.insert(name.to_owned(), total);
    Ok(())
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

fn normalised(sums: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>, TorchError> {
    let of_layer = |(name, sum): (String, Tensor)| {
        let mean = sum.f_mean(Kind::Double)?.f_clamp_min(f64::MIN_POSITIVE)?;
        Ok((name, sum.f_div(&mean)?.f_clamp_min(LEAST_POWER)?.f_to_kind(Kind::Float)?))
    };
    sums.into_iter().map(of_layer).collect()
}
