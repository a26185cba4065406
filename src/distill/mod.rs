//! Training with masks held: finetuning, knowledge distillation and dense training share one loop.
//!
//! ```text
//! loss = w_ce · CE(labels, smoothed) + w_kd · T² · KL(teacher ‖ student)
//!      + w_sq · mean over blocks of ‖f_s − f_t‖² / ‖f_t‖²               (SquareHead, arXiv 2310.06927)
//! ```
//! Masks are part of the forward pass, so that gradients off the mask are zero and pruned weights stay zero.

mod batch;
mod examples;
mod groups;
mod loss;
mod optimizer;
mod recompute;
mod teacher;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use margay_core::{Graph, Mask};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::progress::Progress;
use crate::recipe::RecoverySpec;
use crate::torch::{Effective, Norms, TorchError, TorchModel, forward, mask_to_tensor, segments};
use batch::{Batch, batch_count, shuffled};
pub use batch::{corners, varied};
pub use examples::Examples;
pub use groups::Groups;
use loss::loss;
pub(crate) use optimizer::{Stepper, adopt, optimizer_of};
use teacher::{Teacher, blocks, fitted};

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

/// Looks on: gets the number of each epoch that is over, from 1, and the student, and says whether there is another.
pub type Watch<'a> = dyn FnMut(usize, &dyn Student) -> Result<ControlFlow<()>, TorchError> + 'a;

/// The watch of a training that goes on to its end.
pub fn to_the_end(_epoch: usize, _student: &dyn Student) -> Result<ControlFlow<()>, TorchError> {
    Ok(ControlFlow::Continue(()))
}

/// What a training loop changes.
pub trait Student: Effective {
    /// What is computed.
    fn graph(&self) -> &Graph;
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
    watch: &mut Watch,
    progress: &mut dyn Progress,
) -> Result<f64, TorchError> {
    let spec = training.spec;
    let store = VarStore::new(model.device());
    adopt(model, &store, |_| true)?;
    let kind = optimizer_of(spec, &model.graph);
    let peak = spec.learning_rate.unwrap_or(kind.learning_rate()) * training.pace;
    let optimizer = Stepper::new(kind.build(&store, peak, spec.weight_decay)?, &store, &[peak; 2]);
    let masks = mask_tensors(model, masks)?;
    let last = fit(&mut Masked { model, masks }, optimizer, examples, training, None, watch, progress)?;
    model.freeze()?;
    Ok(last)
}

/// The training loop; returns the mean loss of the last epoch. Ends early after `limit` steps, if given, and where `watch`
/// says so.
pub(crate) fn fit(
    student: &mut dyn Student,
    mut optimizer: Stepper,
    examples: &Examples,
    training: &Training,
    limit: Option<usize>,
    watch: &mut Watch,
    progress: &mut dyn Progress,
) -> Result<f64, TorchError> {
    let spec = training.spec;
    let diverged = || TorchError::Diverged { stage: training.stage.to_owned() };
    let clip = (spec.max_grad_norm > 0.0).then_some(spec.max_grad_norm);
    let teacher = Teacher::of(training, student.graph(), examples, progress)?;
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let parts = spec.recompute.then(|| segments(student.graph()));
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
                Some(parts) => recompute::backward(student, training, &batch, teacher.as_ref(), parts),
                None => backward(student, training, &batch, teacher.as_ref()),
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
        if watch(start / per_epoch + 1, student)?.is_break() {
            break;
        }
    }
    progress.finish();
    if optimizer.finite()? { Ok(last) } else { Err(diverged()) }
}

/// Adds the gradients of the loss to those of the parameters; returns the loss.
fn backward(
    student: &dyn Student,
    training: &Training,
    batch: &Batch,
    teacher: Option<&Teacher>,
) -> Result<f64, TorchError> {
    let loss = objective(student, training, batch, teacher)?;
    loss.f_backward()?;
    Ok(loss.double_value(&[]))
}

/// The loss of a student on a batch, with its penalty.
fn objective(
    student: &dyn Student,
    training: &Training,
    batch: &Batch,
    teacher: Option<&Teacher>,
) -> Result<Tensor, TorchError> {
    let target = teacher.map(|teacher| teacher.outputs(batch)).transpose()?;
    let blocks = teacher.map_or(&[][..], Teacher::blocks);
    let images = fitted(&batch.images, student.graph())?;
    let out = forward(student.graph(), student, training.norms, &images, blocks)?;
    let loss = loss(training.spec, &out, target.as_ref(), batch)?;
    Ok(match student.penalty()? {
        Some(penalty) => loss.f_add(&penalty)?,
        None => loss,
    })
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
    let teacher =
        training.teacher.map(|model| Teacher::Present { model, blocks: blocks(training, &model.graph) });
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let order = shuffled(examples, examples.len(), &mut rng).concat();
    let labelled = order.into_iter().filter(|index| (*index as usize) < examples.labelled());
    progress.start(training.stage, images.min(examples.labelled()) as u64);
    for index in labelled.take(images) {
        let batch = Batch::draw(examples, &[index], training.spec, &mut rng)?;
        objective(student, training, &batch, teacher.as_ref())?.f_backward()?;
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
}

impl Student for Masked<'_> {
    fn graph(&self) -> &Graph {
        &self.model.graph
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
