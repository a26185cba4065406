//! Gradients with activations computed twice: once for what passes between parts of the network, and again, part by
//! part from the end, for the gradients (gradient checkpointing, arXiv 1604.06174).

use std::ops::Range;

use margay_core::NodeId;
use tch::Tensor;

use super::{Batch, Lesson, Student, Training, loss};
use crate::torch::{Outputs, TorchError, forward_part};

/// Adds the gradients of the loss to those of the parameters; returns the loss.
pub(super) fn backward(
    student: &dyn Student,
    lesson: &Lesson,
    batch: &Batch,
    parts: &[Range<usize>],
) -> Result<f64, TorchError> {
    let run = Run { student, training: lesson.training, blocks: lesson.blocks() };
    let target = lesson.target(batch)?;
    let (inputs, out) = run.forward(parts, lesson.input(student, batch)?)?;
    let mut loss = loss(lesson.training.spec, &out, target.as_ref(), batch)?;
    if let Some(penalty) = student.penalty()? {
        loss = loss.f_add(&penalty)?;
    }
    loss.f_backward()?;
    let mut gradient = out.logits.f_grad()?;
    let mut kept = out.kept.as_slice();
    for (part, input) in parts.iter().zip(inputs).rev() {
        let blocks = run.blocks_of(part);
        let (before, own) = kept.split_at(kept.len() - blocks.len());
        kept = before;
        gradient = run.backward(part, &input, &gradient, own)?;
    }
    Ok(loss.double_value(&[]))
}

struct Run<'a> {
    student: &'a dyn Student,
    training: &'a Training<'a>,
    blocks: &'a [NodeId],
}

impl Run<'_> {
    fn blocks_of(&self, part: &Range<usize>) -> Vec<NodeId> {
        self.blocks.iter().copied().filter(|id| part.contains(&id.index())).collect()
    }

    fn part(&self, part: &Range<usize>, input: &Tensor) -> Result<(Tensor, Vec<Tensor>), TorchError> {
        let blocks = self.blocks_of(part);
        forward_part(self.student.graph(), part.clone(), self.student, self.training.norms, input, &blocks)
    }

    /// The input of every part, and what the loss looks at as leaves of its graph of gradients.
    fn forward(&self, parts: &[Range<usize>], images: Tensor) -> Result<(Vec<Tensor>, Outputs), TorchError> {
        let (mut inputs, mut kept, mut value) = (Vec::new(), Vec::new(), images);
        {
            let _no_grad = tch::no_grad_guard();
            for part in parts {
                let (output, blocks) = self.part(part, &value)?;
                inputs.push(std::mem::replace(&mut value, output));
                kept.extend(blocks);
            }
        }
        let leaf = |value: Tensor| value.f_detach()?.f_set_requires_grad(true);
        let kept = kept.into_iter().map(leaf).collect::<Result<_, _>>()?;
        Ok((inputs, Outputs { logits: leaf(value)?, kept }))
    }

    /// Takes the gradient of a part's output, and of its blocks from the leaves that stand for them, to its input.
    fn backward(
        &self,
        part: &Range<usize>,
        input: &Tensor,
        gradient: &Tensor,
        leaves: &[Tensor],
    ) -> Result<Tensor, TorchError> {
        let input = input.f_detach()?.f_set_requires_grad(part.start > 0)?;
        self.student.part_begins()?;
        let (output, blocks) = self.part(part, &input)?;
        let mut product = output.f_mul(gradient)?.f_sum(output.kind())?;
        for (block, leaf) in blocks.iter().zip(leaves) {
            product = product.f_add(&block.f_mul(&leaf.f_grad()?)?.f_sum(block.kind())?)?;
        }
        // Nothing is trained in a frozen stem.
        if product.requires_grad() {
            product.f_backward()?;
        }
        self.student.part_ends()?;
        Ok(input.f_grad()?)
    }
}
