//! What layers are judged on: second moments of their inputs, over the task's images and general ones.

mod columns;
mod hessian;
mod influence;

use margay_core::Node;
use tch::{Device, Tensor};

pub use hessian::{Hessian, Inverse};
pub use influence::{AT_A_TIME, Influence, influence};

use crate::torch::{TorchError, rows};
use columns::{chunks, columns_of_group};

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

/// What a layer of a pruned network reads.
pub struct Seen<'a> {
    /// The layer.
    pub node: &'a Node,
    /// Its inputs, batch by batch.
    pub inputs: &'a [Tensor],
    /// How much each position of its output counts, `[positions]`, mean 1; absent: all the same.
    pub positions: Option<&'a Tensor>,
    /// What the layer's output lacks in a batch for what it should be, if that is to be made good.
    pub gap: Option<&'a Gap<'a>>,
}

/// By the number of a batch what a layer's output lacks there, of that output's shape.
pub type Gap<'a> = dyn Fn(usize) -> Result<Tensor, TorchError> + 'a;

impl<'a> Seen<'a> {
    /// Every position counts the same, and nothing is to be made good.
    pub fn plain(node: &'a Node, inputs: &'a [Tensor]) -> Self {
        Self { node, inputs, positions: None, gap: None }
    }
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

    /// The Hessian of each group of a layer from what the layer reads, with what its outputs lack.
    pub fn hessians(&self, seen: &Seen) -> Result<Vec<Hessian>, TorchError> {
        let collect = |range: std::ops::Range<usize>| {
            let mut hessians = empty(seen.node, seen.inputs)?;
            for at in range {
                add(&mut hessians, seen, at, self.weights[at].as_ref())?;
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
    for at in 0..inputs.len() {
        add(&mut hessians, &Seen::plain(node, inputs), at, None)?;
    }
    Ok(hessians)
}

fn empty(node: &Node, inputs: &[Tensor]) -> Result<Vec<Hessian>, TorchError> {
    let [_, columns] = node.matrix().expect("only layers with a weight matrix have moments");
    let device = inputs.first().map_or(Device::Cpu, Tensor::device);
    (0..node.groups()).map(|_| Hessian::new(columns, device)).collect()
}

/// Adds the samples of a batch, of which an image counts as `weights[n]` say.
fn add(
    hessians: &mut [Hessian],
    seen: &Seen,
    batch: usize,
    weights: Option<&Tensor>,
) -> Result<(), TorchError> {
    let input = &seen.inputs[batch];
    let gap = seen.gap.map(|gap| gap(batch)).transpose()?;
    for (start, length) in chunks(seen.node, input) {
        let part = |of: &Tensor| of.f_narrow(0, start, length);
        let (input, gap) = (part(input)?, gap.as_ref().map(part).transpose()?);
        // Scaling a sample by the root of its weight scales its products by the weight.
        let roots = roots(weights.map(part).transpose()?.as_ref(), seen.positions)?;
        let scaled = |x: Tensor| match &roots {
            Some(roots) => x.f_reshape([length, -1, x.size()[1]])?.f_mul(roots)?.f_flatten(0, 1),
            None => Ok(x),
        };
        let gaps = gap.map(|gap| scaled(rows(&gap)?)?.f_chunk(hessians.len() as i64, 1)).transpose()?;
        for (group, hessian) in hessians.iter_mut().enumerate() {
            let x = scaled(columns_of_group(seen.node, &input, group)?)?;
            hessian.update(&x)?;
            if let Some(gaps) = &gaps {
                hessian.update_gap(&gaps[group], &x)?;
            }
        }
    }
    Ok(())
}

/// Square roots of what positions of images count, `[images or 1, positions or 1, 1]`; absent: all the same.
fn roots(weights: Option<&Tensor>, positions: Option<&Tensor>) -> Result<Option<Tensor>, TorchError> {
    let weights = weights.map(|weights| weights.f_sqrt()?.f_reshape([-1, 1, 1])).transpose()?;
    let positions = positions.map(|positions| positions.f_sqrt()?.f_reshape([1, -1, 1])).transpose()?;
    Ok(match (weights, positions) {
        (Some(weights), Some(positions)) => Some(weights.f_mul(&positions)?),
        (one, other) => one.or(other),
    })
}
