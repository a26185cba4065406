//! Training with masks held: finetuning, knowledge distillation and dense training share one loop.
//!
//! ```text
//! loss = w_ce · CE(labels, smoothed) + w_kd · T² · KL(teacher ‖ student)
//!      + w_sq · mean over blocks of ‖f_s − f_t‖² / ‖f_t‖²               (SquareHead, arXiv 2310.06927)
//! ```
//! Masks are part of the forward pass, so that gradients off the mask are zero and pruned weights stay zero.

mod batch;
mod loss;
mod optimizer;
mod teacher;

use std::collections::BTreeMap;

use margay_core::Mask;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::nn::{Optimizer, VarStore};
use tch::{Kind, Tensor};

use crate::progress::Progress;
use crate::recipe::RecoverySpec;
use crate::torch::{Effective, Norms, TorchError, TorchModel, forward, mask_to_tensor};
use batch::{Batch, batch_count, shuffled};
use loss::loss;
pub(crate) use optimizer::optimizer_of;
use optimizer::{adopt, learning_rate};
use teacher::{Teacher, fitted};

/// Labelled images on the training device.
#[derive(Debug)]
pub struct Examples {
    /// Normalised images `[n, 3, h, w]`.
    pub images: Tensor,
    /// Class of each image `[n]`, 64-bit integers.
    pub classes: Tensor,
}

impl Examples {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.size()[0] as usize
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same images with 64 bits.
    pub fn in_double(&self) -> Result<Self, TorchError> {
        let images = self.images.f_to_kind(Kind::Double)?;
        Ok(Self { images, classes: self.classes.shallow_clone() })
    }

    /// The images in batches of at most `size`.
    pub fn batches(&self, size: usize) -> Result<Vec<Tensor>, TorchError> {
        Ok(self.images.f_split(size.max(1) as i64, 0)?)
    }
}

/// One call of the training loop.
#[derive(Debug)]
pub struct Training<'a> {
    /// What to minimise, for how long.
    pub spec: &'a RecoverySpec,
    /// Kept weights by weight name; weights without a mask are dense.
    pub masks: &'a BTreeMap<String, Mask>,
    /// The dense model whose logits and features are imitated.
    pub teacher: Option<&'a TorchModel>,
    /// What batch norms normalise with: stored statistics for few shots.
    pub norms: Norms,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Name of the stage for the progress bar.
    pub stage: &'a str,
}

/// Trains `model` in place; returns the mean loss of the last epoch.
pub fn train(
    model: &mut TorchModel,
    examples: &Examples,
    training: &Training,
    progress: &mut dyn Progress,
) -> Result<f64, TorchError> {
    let spec = training.spec;
    let store = VarStore::new(model.device());
    adopt(model, &store)?;
    let kind = optimizer_of(spec, &model.graph);
    let peak = spec.learning_rate.unwrap_or(kind.learning_rate());
    let mut optimizer = kind.build(&store, peak, spec.weight_decay)?;
    let masks = mask_tensors(model, training.masks)?;
    let teacher = Teacher::of(training, &model.graph, examples, progress)?;
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let per_epoch = batch_count(examples.len(), spec.batch);
    let total = per_epoch * spec.epochs;
    let mut last = 0.0;
    progress.start(training.stage, total as u64);
    for epoch in 0..spec.epochs {
        let mut sum = 0.0;
        for (index, batch) in shuffled(examples.len(), spec.batch, &mut rng).into_iter().enumerate() {
            optimizer.set_lr(learning_rate(peak, epoch * per_epoch + index, total));
            let batch = Batch::draw(examples, &batch, &mut rng)?;
            let student = Masked { model, masks: &masks };
            let loss = step(&student, training, &batch, teacher.as_ref(), &mut optimizer)?;
            if !loss.is_finite() {
                return Err(TorchError::Diverged { stage: training.stage.to_owned() });
            }
            sum += loss;
            progress.status(&format!("loss {loss:.3}"));
            progress.advance(1);
        }
        last = sum / per_epoch as f64;
    }
    progress.finish();
    model.freeze()?;
    Ok(last)
}

fn step(
    student: &Masked,
    training: &Training,
    batch: &Batch,
    teacher: Option<&Teacher>,
    optimizer: &mut Optimizer,
) -> Result<f64, TorchError> {
    let target = teacher.map(|teacher| teacher.outputs(batch)).transpose()?;
    let blocks = match teacher {
        Some(Teacher::Present { blocks, .. }) => blocks.as_slice(),
        _ => &[],
    };
    let images = fitted(&batch.images, &student.model.graph)?;
    let out = forward(&student.model.graph, student, training.norms, &images, blocks)?;
    let loss = loss(training.spec, &out, target.as_ref(), &batch.classes)?;
    optimizer.zero_grad();
    loss.f_backward()?;
    optimizer.step();
    Ok(loss.double_value(&[]))
}

/// A model whose pruned weights are held at zero.
struct Masked<'a> {
    model: &'a TorchModel,
    masks: &'a BTreeMap<String, Tensor>,
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
