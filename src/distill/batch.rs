//! Batches: their order, and how their images are varied.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use tch::Tensor;

use super::Examples;
use crate::torch::TorchError;

/// Some of the examples, each image mirrored with probability ½ and shifted by up to 1/16 of its side.
pub(super) struct Batch {
    /// Images `[n, c, h, w]`.
    pub images: Tensor,
    /// Classes `[n]`.
    pub classes: Tensor,
    /// Which examples these are `[n]`.
    pub examples: Tensor,
    /// Whether each is mirrored `[n]`, 0 or 1.
    pub mirrored: Tensor,
}

impl Batch {
    /// The examples with these indices.
    pub fn draw(examples: &Examples, chosen: &[i64], rng: &mut impl Rng) -> Result<Self, TorchError> {
        let device = examples.images.device();
        let indices = Tensor::f_from_slice(chosen)?.f_to_device(device)?;
        let (_, _, height, width) = examples.images.size4()?;
        let pad = (height.min(width) / 16).max(1);
        let padded = examples.images.f_index_select(0, &indices)?.f_reflection_pad2d([pad, pad, pad, pad])?;
        let (mut images, mut mirrored) = (Vec::new(), Vec::new());
        for i in 0..chosen.len() as i64 {
            let (top, left) = (rng.random_range(0..=2 * pad), rng.random_range(0..=2 * pad));
            let image = padded.f_get(i)?.f_narrow(1, top, height)?.f_narrow(2, left, width)?;
            let mirror = rng.random::<bool>();
            images.push(if mirror { image.f_flip([2])? } else { image });
            mirrored.push(i64::from(mirror));
        }
        Ok(Self {
            images: Tensor::f_stack(&images, 0)?,
            classes: examples.classes.f_index_select(0, &indices)?,
            mirrored: Tensor::f_from_slice(&mirrored)?.f_to_device(device)?,
            examples: indices,
        })
    }
}

/// Number of batches that [`shuffled`] makes.
pub(super) fn batch_count(len: usize, size: usize) -> usize {
    let size = size.max(2);
    len.div_ceil(size).saturating_sub(usize::from(len > size && len % size == 1)).max(1)
}

/// Indices of `0..len` in a random order, in batches.
pub(super) fn shuffled(len: usize, size: usize, rng: &mut impl Rng) -> Vec<Vec<i64>> {
    let mut order: Vec<i64> = (0..len as i64).collect();
    order.shuffle(rng);
    let mut batches: Vec<Vec<i64>> = order.chunks(size.max(2)).map(<[i64]>::to_vec).collect();
    // One image has no batch statistics: it joins the batch before.
    if batches.len() > 1 && batches.last().is_some_and(|last| last.len() == 1) {
        let single = batches.pop().unwrap_or_default();
        batches.last_mut().into_iter().for_each(|last| last.extend(&single));
    }
    batches
}
