//! The networks that a run makes one of the other, and what is known of each.

use std::collections::BTreeMap;
use std::rc::Rc;

use margay_core::{Graph, Mask};

use super::PipelineError;
use crate::adapt::Saved;
use crate::distill::Examples;
use crate::prune::LayerOutcome;
use crate::recipe::BaseBits;
use crate::record::{Choice, Trained};
use crate::torch::{Bits, TorchError, TorchModel};

/// What a recipe may leave to the held-out fold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settled {
    /// Added to the diagonal of a scaled Hessian.
    pub damping: f64,
    /// Weight of the general photos.
    pub general_share: f64,
    /// Share of recalibrated norms beside those of the checkpoint, 0–1.
    pub recalibrated: f64,
}

/// Weights that stay, by node name.
pub type Keep = BTreeMap<String, usize>;

/// A pruned network.
pub struct Sparse {
    /// The network.
    pub model: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// What became of each layer.
    pub layers: Vec<LayerOutcome>,
}

impl Sparse {
    /// A copy that shares nothing that could be written to.
    pub fn deep_clone(&self) -> Result<Self, TorchError> {
        Ok(Self { model: self.model.deep_clone()?, masks: self.masks.clone(), layers: self.layers.clone() })
    }
}

/// What was decided before the final network is made.
#[derive(Clone)]
pub struct Chosen {
    /// What the recipe left open.
    pub settled: Settled,
    /// Weights that stay, by node name.
    pub keep: Keep,
    /// How it was decided.
    pub choices: Vec<Choice>,
    /// The calibration part's network pruned with all this but recalibration, if it was tried.
    pub pruned: Option<Rc<Sparse>>,
}

/// A sparse network before its last finetuning, and the dense one it imitates.
pub struct Base {
    /// The task's dense network.
    pub dense: TorchModel,
    /// Pruned, norms settled, not finetuned since.
    pub oneshot: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// What became of each layer at the final sparsity.
    pub layers: Vec<LayerOutcome>,
    /// What was decided on the held-out fold.
    pub chosen: Chosen,
    /// What it was pruned on.
    pub shots: Examples,
    /// What it is finetuned on: the shots, and unlabelled photos if there are any.
    pub examples: Examples,
    /// The same made without the held-out fold, on the same masks, if the fold is asked what becomes of it.
    pub trial: Option<Box<Base>>,
}

/// A finished sparse network.
pub struct Specialist {
    /// The network.
    pub model: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// The adapter that was merged, if one was trained.
    pub adapter: Option<Saved>,
    /// Whether anything was trained since it was pruned.
    pub trained: bool,
    /// What was decided on the held-out fold.
    pub choices: Vec<Choice>,
}

impl Specialist {
    /// A network whose surviving weights were trained.
    pub fn of(model: TorchModel, masks: &BTreeMap<String, Mask>) -> Self {
        Self { model, masks: masks.clone(), adapter: None, trained: true, choices: Vec::new() }
    }
}

/// What an adapter trained, as a share of a network's parameters.
pub fn trained(saved: &Saved, graph: &Graph) -> Trained {
    let all: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let (adapter, beside) = (saved.trained as u64, saved.beside as u64);
    Trained { adapter, beside, share: saved.trained as f64 / all.max(1) as f64 }
}

impl Base {
    /// The pruned network with weights in few bits, if asked for.
    pub fn packed(&self, bits: Option<BaseBits>) -> Result<Option<TorchModel>, PipelineError> {
        let Some(bits) = bits else { return Ok(None) };
        let mut packed = self.oneshot.share()?;
        packed.pack(&self.masks, bits.into())?;
        Ok(Some(packed))
    }
}

impl From<BaseBits> for Bits {
    fn from(bits: BaseBits) -> Self {
        match bits {
            BaseBits::Eight => Self::Eight,
            BaseBits::Four => Self::Four,
        }
    }
}
