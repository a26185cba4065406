//! The model that is imitated.

use margay_core::{Graph, NodeId, Shape};
use tch::Tensor;

use super::batch::Batch;
use super::memory::Memory;
use super::{Student, Training};
use crate::torch::{Norms, Outputs, TorchError, TorchModel, forward};

/// The teacher of a training.
pub(super) struct Teacher<'a> {
    model: &'a TorchModel,
    /// Blocks whose outputs are imitated.
    blocks: Vec<NodeId>,
    /// Logits `[classes]`.
    answers: Memory,
}

impl<'a> Teacher<'a> {
    /// The teacher of a training, if there is one.
    pub fn of(training: &Training<'a>, student: &dyn Student) -> Option<Self> {
        let blocks = if training.spec.square_head > 0.0 { student.graph().blocks() } else { &[] };
        let blocks: Vec<NodeId> =
            blocks.iter().copied().filter(|block| block.index() >= student.frozen()).collect();
        training.teacher.map(|model| Self { model, blocks, answers: Memory::new(usize::MAX) })
    }

    /// The blocks whose outputs are imitated.
    pub fn blocks(&self) -> &[NodeId] {
        &self.blocks
    }

    /// Logits, and outputs of blocks if they are imitated. Where only its answers are, it is asked once for each view that has
    /// a number.
    pub fn outputs(&self, batch: &Batch) -> Result<Outputs, TorchError> {
        match &batch.numbers {
            Some(numbers) if self.blocks.is_empty() => {
                let logits = |images: &Tensor| Ok(self.ask(images)?.logits);
                Ok(Outputs { logits: self.answers.recall(&batch.images, numbers, logits)?, kept: Vec::new() })
            }
            _ => self.ask(&batch.images),
        }
    }

    fn ask(&self, images: &Tensor) -> Result<Outputs, TorchError> {
        let _no_grad = tch::no_grad_guard();
        let Self { model, blocks, .. } = self;
        forward(&model.graph, *model, Norms::Stored, &fitted(images, &model.graph)?, blocks)
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use tch::{Device, Kind};

    use super::*;
    use crate::distill::{Examples, Masked};
    use crate::models::{Design, build};
    use crate::pipeline::random_params;
    use crate::recipe::RecoverySpec;

    #[test]
    fn fixed_views_are_answered_once_and_as_they_are_shown() {
        let design = Design {
            variant: "resnet18".to_owned(),
            width: Some(8),
            depth: None,
            classes: 4,
            image: [32, 32],
        };
        let graph = build(&design).unwrap();
        let model = TorchModel::new(graph.clone(), &random_params(&graph, 3), Device::Cpu).unwrap();
        let images =
            Tensor::arange(5 * 3 * 32 * 32, (Kind::Float, Device::Cpu)).sin().reshape([5, 3, 32, 32]);
        let examples = Examples::new(images, Tensor::from_slice(&[0_i64, 1, 2, 3, 0]));
        for crop in [0.4, 1.0] {
            let spec = RecoverySpec { square_head: 0.0, fixed_views: 3, crop, ..RecoverySpec::default() };
            let training = Training {
                spec: &spec,
                teacher: Some(&model),
                norms: Norms::Stored,
                seed: 0,
                stage: "test",
                pace: 1.0,
            };
            let student = Masked { model: &model, masks: BTreeMap::new(), frozen: 0 };
            let teacher = Teacher::of(&training, &student).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            for _ in 0..40 {
                let batch = Batch::draw(&examples, &[4, 0, 2], &spec, &mut rng).unwrap();
                let remembered = teacher.outputs(&batch).unwrap().logits;
                let gap = (remembered - teacher.ask(&batch.images).unwrap().logits).abs().max();
                assert!(gap.double_value(&[]) < 1e-4, "{gap}");
            }
            assert_eq!(teacher.answers.len(), 3 * 3);
        }
    }
}
