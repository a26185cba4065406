//! Training with masks held: finetuning, knowledge distillation and dense training share one loop.
//!
//! ```text
//! loss = w_ce · CE(labels, smoothed) + w_kd · T² · KL(teacher ‖ student)
//!      + w_sq · mean over blocks of ‖f_s − f_t‖² / ‖f_t‖²               (SquareHead, arXiv 2310.06927)
//! ```
//! Masks are part of the forward pass, so that gradients off the mask are zero and pruned weights stay zero.

mod batch;
mod examples;
mod frozen;
mod groups;
mod loss;
mod memory;
mod optimizer;
mod recompute;
mod teacher;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use margay_core::{Graph, Mask, Node, NodeId};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::progress::Progress;
use crate::recipe::RecoverySpec;
use crate::torch::{
    Effective, Norms, Outputs, TorchError, TorchModel, forward_part, mask_to_tensor, segments,
};
use batch::{Batch, batch_count, shuffled};
pub use batch::{corners, varied};
pub use examples::Examples;
use frozen::Frozen;
pub(crate) use frozen::frozen_nodes;
pub use groups::Groups;
use loss::loss;
pub(crate) use optimizer::{Stepper, adopt, optimizer_of};
use teacher::{Teacher, fitted};

/// What a training loop minimises, for how long, on what.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    /// What to minimise, for how long.
    pub spec: &'a RecoverySpec,
    /// The dense model whose logits and features are imitated.
    pub teacher: Option<&'a TorchModel>,
    /// What batch norms normalise with: stored statistics for few shots.
    pub norms: Norms,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Name of the stage for the progress bar.
    pub stage: &'a str,
    /// Factor on every learning rate.
    pub pace: f64,
}

/// What a training loop changes.
pub trait Student: Effective {
    /// What is computed.
    fn graph(&self) -> &Graph;
    /// Number of nodes at the start of the graph that stay as they are.
    fn frozen(&self) -> usize {
        0
    }
    /// Added to the loss.
    fn penalty(&self) -> Result<Option<Tensor>, TorchError> {
        Ok(None)
    }
    /// Called before a part of the network is run for its gradients.
    fn part_begins(&self) -> Result<(), TorchError> {
        Ok(())
    }
    /// Called when the gradients of the part are there.
    fn part_ends(&self) -> Result<(), TorchError> {
        Ok(())
    }
    /// Called when gradients are there.
    fn before_step(&mut self) -> Result<(), TorchError> {
        Ok(())
    }
    /// Called when step `step` of `total` is taken.
    fn after_step(&mut self, _step: usize, _total: usize) -> Result<(), TorchError> {
        Ok(())
    }
}

/// Trains `model` in place with its masks held; returns the mean loss of the last epoch.
///
/// Weights without a mask are dense.
pub fn train(
    model: &mut TorchModel,
    masks: &BTreeMap<String, Mask>,
    examples: &Examples,
    training: &Training,
    progress: &mut dyn Progress,
) -> Result<f64, TorchError> {
    let spec = training.spec;
    let store = VarStore::new(model.device());
    let frozen = frozen_nodes(&model.graph, spec.freeze);
    let start = model.graph.nodes()[..frozen].iter().flat_map(Node::params);
    let names: BTreeSet<String> = start.map(|spec| spec.name).collect();
    adopt(model, &store, |spec| !names.contains(&spec.name))?;
    let kind = optimizer_of(spec, &model.graph);
    let peak = spec.learning_rate.unwrap_or(kind.learning_rate()) * training.pace;
    let optimizer = Stepper::new(kind.build(&store, peak, spec.weight_decay)?, &store, &[peak; 2]);
    let masks = mask_tensors(model, masks)?;
    let last = fit(&mut Masked { model, masks, frozen }, optimizer, examples, training, None, progress)?;
    model.freeze()?;
    Ok(last)
}

/// The training loop; returns the mean loss of the last epoch. Takes `limit` steps in place of the recipe's epochs, if given.
pub(crate) fn fit(
    student: &mut dyn Student,
    mut optimizer: Stepper,
    examples: &Examples,
    training: &Training,
    limit: Option<usize>,
    progress: &mut dyn Progress,
) -> Result<f64, TorchError> {
    let spec = training.spec;
    let diverged = || TorchError::Diverged { stage: training.stage.to_owned() };
    let clip = (spec.max_grad_norm > 0.0).then_some(spec.max_grad_norm);
    let lesson = Lesson::new(training, student);
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let parts = spec.recompute.then(|| parts(student));
    let per_epoch = batch_count(examples, spec.batch);
    let total = limit.unwrap_or(per_epoch * spec.epochs);
    let mut last = 0.0;
    progress.start(training.stage, total as u64);
    for start in (0..total).step_by(per_epoch) {
        let (mut sum, mut steps) = (0.0, 0);
        let batches = shuffled(examples, spec.batch, &mut rng);
        for (step, batch) in (start..total).zip(batches) {
            let batch = Batch::draw(examples, &batch, spec, &mut rng)?;
            let loss = optimizer.step(student, [step, total], clip, |student| match &parts {
                Some(parts) => recompute::backward(student, &lesson, &batch, parts),
                None => lesson.backward(student, &batch),
            })?;
            if !loss.is_finite() {
                progress.finish();
                return Err(diverged());
            }
            (sum, steps) = (sum + loss, steps + 1);
            progress.status(&format!("loss {loss:.3}"));
            progress.advance(1);
        }
        last = sum / f64::from(steps);
    }
    progress.finish();
    if optimizer.finite()? { Ok(last) } else { Err(diverged()) }
}

/// Parts of the network that is trained.
fn parts(student: &dyn Student) -> Vec<Range<usize>> {
    let trained = |part: Range<usize>| part.start.max(student.frozen())..part.end;
    segments(student.graph()).into_iter().map(trained).filter(|part| !part.is_empty()).collect()
}

/// A training, and what is remembered in its course.
struct Lesson<'a> {
    training: &'a Training<'a>,
    teacher: Option<Teacher<'a>>,
    frozen: Frozen,
}

impl<'a> Lesson<'a> {
    fn new(training: &'a Training<'a>, student: &dyn Student) -> Self {
        Self { training, teacher: Teacher::of(training, student), frozen: Frozen::new(student.frozen()) }
    }

    /// Blocks whose outputs are imitated.
    fn blocks(&self) -> &[NodeId] {
        self.teacher.as_ref().map_or(&[], Teacher::blocks)
    }

    /// What the teacher makes of a batch.
    fn target(&self, batch: &Batch) -> Result<Option<Outputs>, TorchError> {
        self.teacher.as_ref().map(|teacher| teacher.outputs(batch)).transpose()
    }

    /// What the trained part of the student reads.
    fn input(&self, student: &dyn Student, batch: &Batch) -> Result<Tensor, TorchError> {
        self.frozen.pass(student, &fitted(&batch.images, student.graph())?, batch)
    }

    /// The loss of a student on a batch, with its penalty.
    fn objective(&self, student: &dyn Student, batch: &Batch) -> Result<Tensor, TorchError> {
        let (target, input) = (self.target(batch)?, self.input(student, batch)?);
        let (graph, norms) = (student.graph(), self.training.norms);
        let part = self.frozen.nodes..graph.nodes().len();
        let (logits, kept) = forward_part(graph, part, student, norms, &input, self.blocks())?;
        let loss = loss(self.training.spec, &Outputs { logits, kept }, target.as_ref(), batch)?;
        Ok(match student.penalty()? {
            Some(penalty) => loss.f_add(&penalty)?,
            None => loss,
        })
    }

    /// Adds the gradients of the loss to those of the parameters; returns the loss.
    fn backward(&self, student: &dyn Student, batch: &Batch) -> Result<f64, TorchError> {
        let loss = self.objective(student, batch)?;
        loss.f_backward()?;
        Ok(loss.double_value(&[]))
    }
}

/// Calls `visit` after each backward pass over `batches` batches of one image each.
///
/// One image at a time, because the square of a mean gradient says nothing of the mean square.
pub(crate) fn each_gradient(
    student: &dyn Student,
    examples: &Examples,
    training: &Training,
    images: usize,
    progress: &mut dyn Progress,
    mut visit: impl FnMut() -> Result<(), TorchError>,
) -> Result<(), TorchError> {
    let lesson = Lesson::new(training, student);
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let order = shuffled(examples, examples.len(), &mut rng).concat();
    let labelled = order.into_iter().filter(|index| (*index as usize) < examples.labelled());
    progress.start(training.stage, images.min(examples.labelled()) as u64);
    for index in labelled.take(images) {
        let batch = Batch::draw(examples, &[index], training.spec, &mut rng)?;
        lesson.objective(student, &batch)?.f_backward()?;
        visit()?;
        progress.advance(1);
    }
    progress.finish();
    Ok(())
}

/// A model whose pruned weights are held at zero.
struct Masked<'a> {
    model: &'a TorchModel,
    masks: BTreeMap<String, Tensor>,
    frozen: usize,
}

impl Student for Masked<'_> {
    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    fn frozen(&self) -> usize {
        self.frozen
    }
}

impl Effective for Masked<'_> {
    fn effective(&self, name: &str) -> Result<Tensor, TorchError> {
        let weight = self.model.effective(name)?;
        Ok(match self.masks.get(name) {
            Some(mask) => weight.f_mul(mask)?,
            None => weight,
        })
    }
}

fn mask_tensors(
    model: &TorchModel,
    masks: &BTreeMap<String, Mask>,
) -> Result<BTreeMap<String, Tensor>, TorchError> {
    let tensor = |(name, mask): (&String, &Mask)| {
        let shape = model.get(name)?.size();
        let mask = mask_to_tensor(mask, &shape, model.device())?.f_to_kind(Kind::Float)?;
        Ok((name.clone(), mask))
    };
    masks.iter().map(tensor).collect()
}
