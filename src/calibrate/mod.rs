//! What layers are judged on: second moments of their inputs, over the task's images and general ones.

mod columns;
mod fisher;
mod hessian;

use margay_core::Node;
use tch::{Device, Tensor};

pub use fisher::output_power;
pub use hessian::Hessian;

use crate::torch::TorchError;
use columns::{chunks, columns_of_group, groups};

/// Images that layers are judged on, in batches: those of the task, then general ones.
#[derive(Debug)]
pub struct Calibration {
    /// Images `[n, 3, h, w]` of every batch.
    pub batches: Vec<Tensor>,
    /// How much each image of a batch counts, `[n]`, mean 1 over the task; absent: all the same.
    weights: Vec<Option<Tensor>>,
    /// Batches of the task, before the general ones.
    of_task: usize,
    /// Weight of the general images' moments.
    general: f64,
}

impl Calibration {
    /// The task's images, `weights[n]` of which say how much each counts.
    pub fn new(images: &Tensor, weights: Option<&Tensor>, batch: usize) -> Result<Self, TorchError> {
        let batches = images.f_split(batch.max(1) as i64, 0)?;
        let weights = match weights {
            Some(weights) => weights.f_split(batch.max(1) as i64, 0)?.into_iter().map(Some).collect(),
            None => batches.iter().map(|_| None).collect(),
        };
        Ok(Self { of_task: batches.len(), batches, weights, general: 0.0 })
    }

    /// Adds general images whose moments count with weight `share`, 0–1, after their traces are matched.
    #[must_use = "the general images are in what is returned"]
    pub fn with_general(mut self, images: &Tensor, share: f64, batch: usize) -> Result<Self, TorchError> {
        let batches = images.f_split(batch.max(1) as i64, 0)?;
        self.weights.extend(batches.iter().map(|_| None));
        self.batches.extend(batches);
        self.general = share;
        Ok(self)
    }

    /// The Hessian of each group of a layer from the layer's inputs, batch by batch; with what the same
    /// inputs are in the dense network, cross moments too.
    pub fn hessians(
        &self,
        node: &Node,
        inputs: &[Tensor],
        dense: Option<&[Tensor]>,
    ) -> Result<Vec<Hessian>, TorchError> {
        let collect = |range: std::ops::Range<usize>| {
            let mut hessians = empty(node, inputs)?;
            for at in range {
                let dense = dense.map(|dense| &dense[at]);
                add(&mut hessians, node, &inputs[at], dense, self.weights[at].as_ref())?;
            }
            Ok::<_, TorchError>(hessians)
        };
        let task = collect(0..self.of_task)?;
        if self.of_task == self.batches.len() {
            return Ok(task);
        }
        let general = collect(self.of_task..self.batches.len())?;
        task.iter().zip(&general).map(|(task, general)| task.blend(general, self.general)).collect()
    }
}

/// The Hessian of each group of a layer from the layer's inputs, batch by batch.
pub fn hessians(node: &Node, inputs: &[Tensor]) -> Result<Vec<Hessian>, TorchError> {
    let mut hessians = empty(node, inputs)?;
    for batch in inputs {
        add(&mut hessians, node, batch, None, None)?;
    }
    Ok(hessians)
}

fn empty(node: &Node, inputs: &[Tensor]) -> Result<Vec<Hessian>, TorchError> {
    let columns = node.matrix().map_or(0, |[_, inner]| inner);
    let device = inputs.first().map_or(Device::Cpu, Tensor::device);
    (0..groups(node)).map(|_| Hessian::new(columns, device)).collect()
}

fn add(
    hessians: &mut [Hessian],
    node: &Node,
    batch: &Tensor,
    dense: Option<&Tensor>,
    weights: Option<&Tensor>,
) -> Result<(), TorchError> {
    let roots = weights.map(|weights| root_like(weights, batch)).transpose()?;
    for (start, length) in chunks(node, batch) {
        // Scaling an image by the root of its weight scales its products by the weight.
        let part = |of: &Tensor| -> Result<Tensor, TorchError> {
            let part = of.f_narrow(0, start, length)?;
            Ok(match &roots {
                Some(roots) => part.f_mul(&roots.f_narrow(0, start, length)?)?,
                None => part,
            })
        };
        let (input, dense) = (part(batch)?, dense.map(part).transpose()?);
        for (group, hessian) in hessians.iter_mut().enumerate() {
            let x = columns_of_group(node, &input, group)?;
            hessian.update(&x)?;
            if let Some(dense) = &dense {
                hessian.update_cross(&columns_of_group(node, dense, group)?, &x)?;
            }
        }
    }
    Ok(())
}

/// Square roots of the weights `[n]` as `[n, 1, …]`, to be multiplied with `batch[n, …]`.
fn root_like(weights: &Tensor, batch: &Tensor) -> Result<Tensor, TorchError> {
    let mut shape = vec![1; batch.dim()];
    shape[0] = -1;
    Ok(weights.f_sqrt()?.f_reshape(shape)?)
}
