//! Training with masks held: finetuning, knowledge distillation and dense training share one loop.
//!
//! ```text
//! loss = w_ce · CE(labels, smoothed) + w_kd · T² · KL(teacher ‖ student)
//!      + w_sq · mean over blocks of ‖f_s − f_t‖² / ‖f_t‖²               (SquareHead, arXiv 2310.06927)
//! ```
//! Masks are part of the forward pass, so that gradients off the mask are zero and pruned weights stay zero.

use std::collections::BTreeMap;

use margay_core::{Graph, Mask, NodeId, Shape};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::nn::{self, Optimizer, OptimizerConfig, Sgd, VarStore};
use tch::{Kind, Reduction, Tensor};

use crate::progress::Progress;
use crate::recipe::{OptimizerChoice, RecoverySpec};
use crate::torch::{Effective, Norms, Outputs, TorchError, TorchModel, forward, mask_to_tensor};

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
    let blocks = if spec.square_head > 0.0 && training.teacher.is_some() {
        model.graph.blocks().to_vec()
    } else {
        Vec::new()
    };
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let per_epoch = batch_count(examples.len(), spec.batch);
    let total = per_epoch * spec.epochs;
    let mut last = 0.0;
    progress.start(training.stage, total as u64);
    for epoch in 0..spec.epochs {
        let mut sum = 0.0;
        for (index, batch) in shuffled(examples.len(), spec.batch, &mut rng).into_iter().enumerate() {
            optimizer.set_lr(learning_rate(peak, epoch * per_epoch + index, total));
            let (images, classes) = draw(examples, &batch, &mut rng)?;
            let student = Masked { model, masks: &masks };
            let loss = step(&student, training, &images, &classes, &blocks, &mut optimizer)?;
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

/// Hands the model's trainable parameters to an optimiser's store.
fn adopt(model: &mut TorchModel, store: &VarStore) -> Result<(), TorchError> {
    let root = store.root();
    for (name, value) in model.trainable()? {
        let group = if value.dim() > 1 { DECAYED } else { UNDECAYED };
        let variable = root.set_group(group).f_var_copy(&name.replace('.', "/"), &value)?;
        model.replace(&name, variable);
    }
    Ok(())
}

/// Matrices, kernels and embeddings.
const DECAYED: usize = 0;
/// Biases, norms and factors, which AdamW leaves alone as is customary.
const UNDECAYED: usize = 1;

/// The optimiser of a recipe for a network, never `Auto`.
pub(crate) fn optimizer_of(spec: &RecoverySpec, graph: &Graph) -> OptimizerChoice {
    let layer_norms = graph.has_layer_norms();
    match spec.optimizer {
        OptimizerChoice::Auto if layer_norms => OptimizerChoice::Adamw,
        OptimizerChoice::Auto => OptimizerChoice::Sgd,
        other => other,
    }
}

impl OptimizerChoice {
    /// Peak learning rate for finetuning.
    const fn learning_rate(self) -> f64 {
        match self {
            Self::Adamw => 3e-4,
            Self::Auto | Self::Sgd => 0.01,
        }
    }

    fn build(self, store: &VarStore, rate: f64, decay: f64) -> Result<Optimizer, TorchError> {
        if self == Self::Adamw {
            let mut adamw = nn::adamw(0.9, 0.999, decay).build(store, rate)?;
            adamw.set_weight_decay_group(UNDECAYED, 0.0);
            return Ok(adamw);
        }
        Ok(Sgd { momentum: 0.9, dampening: 0.0, wd: decay, nesterov: true }.build(store, rate)?)
    }
}

/// Images `[n, c, h, w]` at the size a network reads.
fn fitted(images: &Tensor, graph: &Graph) -> Result<Tensor, TorchError> {
    let (_, _, height, width) = images.size4()?;
    match graph.input {
        Shape::Map { height: h, width: w, .. } if [h as i64, w as i64] != [height, width] => {
            let size = [h as i64, w as i64];
            Ok(images.f_internal_upsample_bilinear2d_aa(size, false, None, None)?)
        }
        _ => Ok(images.shallow_clone()),
    }
}

fn step(
    student: &Masked,
    training: &Training,
    images: &Tensor,
    classes: &Tensor,
    blocks: &[NodeId],
    optimizer: &mut Optimizer,
) -> Result<f64, TorchError> {
    let teacher = training.teacher.map(|teacher| {
        let _no_grad = tch::no_grad_guard();
        forward(&teacher.graph, teacher, Norms::Stored, &fitted(images, &teacher.graph)?, blocks)
    });
    let teacher = teacher.transpose()?;
    let own = fitted(images, &student.model.graph)?;
    let out = forward(&student.model.graph, student, training.norms, &own, blocks)?;
    let loss = loss(training.spec, &out, teacher.as_ref(), classes)?;
    optimizer.zero_grad();
    loss.f_backward()?;
    optimizer.step();
    Ok(loss.double_value(&[]))
}

fn loss(
    spec: &RecoverySpec,
    out: &Outputs,
    teacher: Option<&Outputs>,
    classes: &Tensor,
) -> Result<Tensor, TorchError> {
    let none = None::<Tensor>;
    let hard = out.logits.f_cross_entropy_loss(classes, none, Reduction::Mean, -100, spec.label_smoothing)?;
    let mut loss = hard.f_mul_scalar(spec.cross_entropy)?;
    let Some(teacher) = teacher else { return Ok(loss) };
    let t = spec.temperature;
    let soft = |logits: &Tensor| logits.f_div_scalar(t)?.f_log_softmax(1, Kind::Float);
    let target = soft(&teacher.logits)?;
    let divergence = target.f_exp()?.f_mul(&target.f_sub(&soft(&out.logits)?)?)?;
    let divergence = divergence.f_sum(Kind::Float)?.f_div_scalar(classes.numel() as f64)?;
    loss = loss.f_add(&divergence.f_mul_scalar(spec.distillation * t * t)?)?;
    let share = spec.square_head / out.kept.len().max(1) as f64;
    for (s, f) in out.kept.iter().zip(&teacher.kept) {
        let error = s.f_sub(f)?.f_square()?.f_sum(Kind::Float)?;
        let energy = f.f_square()?.f_sum(Kind::Float)?.f_clamp_min(1e-12)?;
        loss = loss.f_add(&error.f_div(&energy)?.f_mul_scalar(share)?)?;
    }
    Ok(loss)
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

/// Number of batches that [`shuffled`] makes.
fn batch_count(len: usize, size: usize) -> usize {
    let size = size.max(2);
    len.div_ceil(size).saturating_sub(usize::from(len > size && len % size == 1)).max(1)
}

fn shuffled(len: usize, size: usize, rng: &mut impl Rng) -> Vec<Vec<i64>> {
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

/// Five per cent linear warm-up, then a cosine to zero.
fn learning_rate(peak: f64, step: usize, total: usize) -> f64 {
    let warm = (total / 20).max(1);
    if step < warm {
        return peak * (step + 1) as f64 / warm as f64;
    }
    let progress = (step - warm) as f64 / (total - warm).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

/// A batch, each image mirrored with probability ½ and shifted by up to 1/16 of its side.
fn draw(examples: &Examples, batch: &[i64], rng: &mut impl Rng) -> Result<(Tensor, Tensor), TorchError> {
    let indices = Tensor::f_from_slice(batch)?.f_to_device(examples.images.device())?;
    let classes = examples.classes.f_index_select(0, &indices)?;
    let size = examples.images.size();
    let (height, width) = (size[2], size[3]);
    let pad = (height.min(width) / 16).max(1);
    let images = examples.images.f_index_select(0, &indices)?.f_reflection_pad2d([pad, pad, pad, pad])?;
    let mut out = Vec::with_capacity(batch.len());
    for i in 0..batch.len() as i64 {
        let (top, left) = (rng.random_range(0..=2 * pad), rng.random_range(0..=2 * pad));
        let image = images.f_get(i)?.f_narrow(1, top, height)?.f_narrow(2, left, width)?;
        out.push(if rng.random::<bool>() { image.f_flip([2])? } else { image });
    }
    Ok((Tensor::f_stack(&out, 0)?, classes))
}
