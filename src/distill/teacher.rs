//! The model that is imitated.

use margay_core::{Graph, NodeId, Shape};
use tch::Tensor;

use super::batch::Batch;
use super::{Examples, Training};
use crate::progress::Progress;
use crate::torch::{Norms, Outputs, TorchError, TorchModel, forward};

/// Images answered at a time when answers are collected.
const BATCH: usize = 64;
/// With fewer epochs it is cheaper to ask anew.
const WORTHWHILE: usize = 3;

/// Where a teacher's answers come from.
pub(super) enum Teacher<'a> {
    /// It sees every batch as the student does, and shows the outputs of its blocks.
    Present { model: &'a TorchModel, blocks: Vec<NodeId> },
    /// It has seen every image once as it is and once mirrored: logits `[2, examples, classes]`.
    Answered(Tensor),
}

impl<'a> Teacher<'a> {
    /// The teacher of a training, if there is one. Where only its answers are imitated, over several epochs,
    /// they are collected once.
    pub fn of(
        training: &Training<'a>,
        student: &Graph,
        examples: &Examples,
        progress: &mut dyn Progress,
    ) -> Result<Option<Self>, TorchError> {
        let Some(model) = training.teacher else { return Ok(None) };
        if training.spec.square_head > 0.0 {
            return Ok(Some(Self::Present { model, blocks: blocks(training, student) }));
        }
        let spec = training.spec;
        if spec.epochs < WORTHWHILE || spec.crop < 1.0 {
            return Ok(Some(Self::Present { model, blocks: Vec::new() }));
        }
        Ok(Some(Self::Answered(answers(model, examples, progress)?)))
    }

    /// The blocks whose outputs are imitated.
    pub fn blocks(&self) -> &[NodeId] {
        match self {
            Self::Present { blocks, .. } => blocks,
            Self::Answered(_) => &[],
        }
    }

    /// Logits, and outputs of blocks if they are imitated.
    pub fn outputs(&self, batch: &Batch) -> Result<Outputs, TorchError> {
        match self {
            Self::Present { model, blocks } => ask(model, &batch.images, blocks),
            Self::Answered(logits) => {
                let rows = batch.mirrored.f_mul_scalar(logits.size()[1])?.f_add(&batch.examples)?;
                let logits = logits.f_flatten(0, 1)?.f_index_select(0, &rows)?;
                Ok(Outputs { logits, kept: Vec::new() })
            }
        }
    }
}

/// The blocks whose outputs are imitated.
pub(super) fn blocks(training: &Training, graph: &Graph) -> Vec<NodeId> {
    if training.spec.square_head > 0.0 { graph.blocks().to_vec() } else { Vec::new() }
}

fn ask(model: &TorchModel, images: &Tensor, blocks: &[NodeId]) -> Result<Outputs, TorchError> {
    let _no_grad = tch::no_grad_guard();
    forward(&model.graph, model, Norms::Stored, &fitted(images, &model.graph)?, blocks)
}

fn answers(
    model: &TorchModel,
    examples: &Examples,
    progress: &mut dyn Progress,
) -> Result<Tensor, TorchError> {
    let batches = examples.batches(BATCH)?;
    progress.start("ask teacher", 2 * batches.len() as u64);
    let mut logits = Vec::with_capacity(2 * batches.len());
    for mirror in [false, true] {
        for batch in &batches {
            let images = if mirror { batch.f_flip([3])? } else { batch.shallow_clone() };
            logits.push(ask(model, &images, &[])?.logits);
            progress.advance(1);
        }
    }
    progress.finish();
    let logits = Tensor::f_cat(&logits, 0)?;
    let classes = logits.size()[1];
    Ok(logits.f_reshape([2, -1, classes])?)
}

/// Images `[n, c, h, w]` at the size a network reads.
pub(super) fn fitted(images: &Tensor, graph: &Graph) -> Result<Tensor, TorchError> {
    let (_, _, height, width) = images.size4()?;
    match graph.input {
        Shape::Map { height: h, width: w, .. } if [h as i64, w as i64] != [height, width] => {
            let size = [h as i64, w as i64];
            Ok(images.f_internal_upsample_bilinear2d_aa(size, false, None, None)?)
        }
        _ => Ok(images.shallow_clone()),
    }
}
