//! What a layer's weight matrix multiplies with, as rows of a matrix.

use margay_core::{Node, Op};
use tch::Tensor;

use crate::torch::{TorchError, rows};

/// Floats of an unfolded input that are held at once.
const CHUNK_FLOATS: usize = 1 << 25;

/// Ranges of images of a batch, `(start, length)`, whose unfolded inputs are small enough to be held.
pub(super) fn chunks(node: &Node, batch: &Tensor) -> Vec<(i64, i64)> {
    let images = batch.size()[0];
    let taps = match &node.op {
        Op::Conv2d(conv) => conv.kernel[0] * conv.kernel[1],
        _ => 1,
    };
    let per_image = (batch.numel() / images.max(1) as usize * taps).max(1);
    let step = ((CHUNK_FLOATS / per_image) as i64).clamp(1, images.max(1));
    (0..images).step_by(step as usize).map(|start| (start, step.min(images - start))).collect()
}

/// The samples `[n, d]` one group of a layer multiplies with: windows of a convolution, columns
/// in the order (channel, kernel row, kernel column).
pub(super) fn columns_of_group(node: &Node, input: &Tensor, group: usize) -> Result<Tensor, TorchError> {
    let Op::Conv2d(conv) = &node.op else { return Ok(rows(input)?) };
    let width = (conv.in_channels / conv.groups) as i64;
    let input = input.f_narrow(1, group as i64 * width, width)?;
    let as_long = |of: [usize; 2]| of.map(|n| n as i64);
    let unfolded = if conv.kernel == [1, 1] && conv.padding == [0, 0] {
        let [down, across] = as_long(conv.stride);
        input.f_slice(2, None, None, down)?.f_slice(3, None, None, across)?.f_flatten(2, 3)?
    } else {
        input.f_im2col(as_long(conv.kernel), [1_i64, 1], as_long(conv.padding), as_long(conv.stride))?
    };
    Ok(unfolded.f_transpose(1, 2)?.f_reshape([-1, unfolded.size()[1]])?.f_contiguous()?)
}
