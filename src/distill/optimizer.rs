//! What takes the steps, and how large they are.

use std::sync::PoisonError;

use margay_core::{Graph, ParamSpec};
use tch::nn::{self, Optimizer, OptimizerConfig, Sgd, VarStore};
use tch::{Kind, Tensor};

use super::Student;
use crate::recipe::{OptimizerChoice, RecoverySpec};
use crate::torch::{TorchError, TorchModel};

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
    pub(crate) const fn learning_rate(self) -> f64 {
        match self {
            Self::Adamw => 1e-3,
            Self::Auto | Self::Sgd => 0.003,
        }
    }

    pub(crate) fn build(self, store: &VarStore, rate: f64, decay: f64) -> Result<Optimizer, TorchError> {
        if self == Self::Adamw {
            let mut adamw = nn::adamw(0.9, 0.999, decay).build(store, rate)?;
            adamw.set_weight_decay_group(UNDECAYED, 0.0);
            return Ok(adamw);
        }
        Ok(Sgd { momentum: 0.9, dampening: 0.0, wd: decay, nesterov: true }.build(store, rate)?)
    }
}

/// An optimiser whose groups follow one schedule.
pub(crate) struct Stepper {
    optimizer: Optimizer,
    peaks: Vec<f64>,
    trained: Vec<Tensor>,
}

impl Stepper {
    /// `peaks[g]` is the highest learning rate of group `g`; groups behind the last variable's do not exist.
    pub fn new(optimizer: Optimizer, store: &VarStore, peaks: &[f64]) -> Self {
        let variables = store.variables_.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = variables.trainable_variables.iter().map(|variable| variable.group + 1).max();
        let peaks = peaks.iter().copied().take(groups.unwrap_or(0)).collect();
        let trained = variables.trainable_variables.iter().map(|variable| variable.tensor.shallow_clone());
        Self { optimizer, peaks, trained: trained.collect() }
    }

    /// One step down the loss that `backward` returns, having set its gradients; none where loss or gradients are no
    /// numbers, which the loss that is returned then says. Gradients of a larger norm than `clip` are scaled down to it.
    pub fn step(
        &mut self,
        student: &mut dyn Student,
        [step, total]: [usize; 2],
        clip: Option<f64>,
        backward: impl FnOnce(&dyn Student) -> Result<f64, TorchError>,
    ) -> Result<f64, TorchError> {
        for (group, peak) in self.peaks.iter().enumerate() {
            self.optimizer.set_lr_group(group, learning_rate(*peak, step, total));
        }
        self.optimizer.zero_grad();
        let loss = backward(student)?;
        student.before_step()?;
        if !loss.is_finite() || !self.clip(clip)?.is_finite() {
            return Ok(f64::NAN);
        }
        self.optimizer.step();
        student.after_step(step, total)?;
        Ok(loss)
    }

    /// Scales all gradients down to a norm of `limit` together; returns their norm before (arXiv 1211.5063).
    fn clip(&self, limit: Option<f64>) -> Result<f64, TorchError> {
        let _no_grad = tch::no_grad_guard();
        let gradients = self.trained.iter().map(Tensor::f_grad).collect::<Result<Vec<_>, _>>()?;
        let gradients: Vec<Tensor> = gradients.into_iter().filter(Tensor::defined).collect();
        let mut squares = 0.0;
        for gradient in &gradients {
            squares += gradient.f_norm_scalaropt_dtype(2.0, Kind::Float)?.double_value(&[]).powi(2);
        }
        let norm = squares.sqrt();
        if let Some(factor) = limit.map(|limit| limit / norm).filter(|factor| *factor < 1.0) {
            for mut gradient in gradients {
                let _ = gradient.f_mul_scalar_(factor)?;
            }
        }
        Ok(norm)
    }

    /// Whether everything that is trained is still a number.
    pub fn finite(&self) -> Result<bool, TorchError> {
        let _no_grad = tch::no_grad_guard();
        for value in &self.trained {
            if !value.f_abs()?.f_max()?.double_value(&[]).is_finite() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Hands the model's trainable parameters of the roles in `which` to an optimiser's store.
pub(crate) fn adopt(
    model: &mut TorchModel,
    store: &VarStore,
    which: impl Fn(&ParamSpec) -> bool,
) -> Result<(), TorchError> {
    let root = store.root();
    for (name, value) in model.trainable(which)? {
        let group = if value.dim() > 1 { DECAYED } else { UNDECAYED };
        let variable = root.set_group(group).f_var_copy(&name.replace('.', "/"), &value)?;
        model.replace(&name, variable);
    }
    Ok(())
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
