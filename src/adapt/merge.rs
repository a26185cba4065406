//! What training leaves: the adapter alone, and the network with it in its weights.

use std::collections::BTreeMap;

use margay_core::Mask;
use margay_core::branch::with_branches;
use tch::Tensor;

use super::{AdaptError, Adapted};
use crate::torch::{TorchModel, mask_to_tensor};

/// A network with its adapter merged.
pub struct Merged {
    /// The network; with the policy `branch` its graph has more nodes than the base's.
    pub model: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// The adapter alone.
    pub adapter: Saved,
}

/// The trained parts of an adapter, before they are merged.
#[derive(Debug, Default)]
pub struct Saved {
    /// Name of the adapter.
    pub method: &'static str,
    /// Parameters in the layers' adapters.
    pub trained: usize,
    /// Parameters of the base that are trained beside them: head, norms, biases.
    pub beside: usize,
    /// What is added to each weight, by weight name.
    pub layers: BTreeMap<String, Change>,
    /// Head, norms and biases after training, by name.
    pub params: BTreeMap<String, Tensor>,
}

/// What is added to a weight `[m, n]`: a product, entries, or both.
#[derive(Debug)]
pub struct Change {
    /// Factors `B[m, r]`, scale included, and `A[r, n]`.
    pub factors: Option<[Tensor; 2]>,
    /// Positions `[k]` in the flat weight, and values `[k]`.
    pub entries: Option<[Tensor; 2]>,
    /// Positions that leave the support, with the policy `grow`.
    pub dropped: Option<Tensor>,
    /// Whether the factors run as a branch beside the layer, unmasked.
    pub branch: bool,
}

/// The network with the low-rank parts as layers of their own.
pub(super) fn branched(merged: &Merged) -> Result<TorchModel, AdaptError> {
    let array = |tensor: &Tensor| crate::torch::to_array(tensor);
    let mut factors = BTreeMap::new();
    for (name, change) in merged.adapter.layers.iter().filter(|(_, change)| change.branch) {
        if let Some([b, a]) = &change.factors {
            let node = name.strip_suffix(".weight").unwrap_or(name);
            factors.insert(node.to_owned(), [array(b)?, array(a)?]);
        }
    }
    let (graph, params) = with_branches(&merged.model.graph, &merged.model.to_params()?, &factors)?;
    Ok(TorchModel::new(graph, &params, merged.model.device())?)
}

/// The network with the adapters in its weights; `before` are the base's masks.
pub(super) fn merge(
    adapted: &Adapted,
    before: &BTreeMap<String, Mask>,
    masks: &BTreeMap<String, Mask>,
) -> Result<Merged, AdaptError> {
    let _no_grad = tch::no_grad_guard();
    let base = adapted.base();
    let mut model = base.share()?;
    let mut saved = Saved::default();
    for spec in base.graph.params() {
        let (old, merged) = (base.get(&spec.name)?, adapted.merged(&spec.name)?);
        if old.requires_grad() {
            saved.beside += merged.numel();
            saved.params.insert(spec.name.clone(), merged.f_detach()?.f_detach_copy()?);
        }
        if let Some(delta) = adapted.delta(&spec.name) {
            let change = Change {
                factors: delta.factors()?,
                entries: delta.entries(),
                dropped: dropped(before.get(&spec.name), masks.get(&spec.name))?,
                branch: adapted.has_branch(&spec.name),
            };
            saved.layers.insert(spec.name.clone(), change.or_difference(&old.f_sub(&merged)?.f_neg()?)?);
        }
        model.set(&spec.name, &merged)?;
    }
    Ok(Merged { model, masks: masks.clone(), adapter: saved })
}

impl Merged {
    /// Moves what was trained on one base to another, such as from packed weights to exact ones.
    pub fn rebase(&mut self, from: &TorchModel, to: &TorchModel) -> Result<(), AdaptError> {
        let _no_grad = tch::no_grad_guard();
        for id in from.graph.prunable() {
            let name = from.graph.node(id).weight();
            let change = self.model.get(&name)?.f_sub(&from.get(&name)?)?;
            let mut weight = to.get(&name)?.f_add(&change)?;
            if let Some(mask) = self.masks.get(&name) {
                weight = weight.f_mul(&mask_to_tensor(mask, &change.size(), to.device())?)?;
            }
            self.model.set(&name, &weight)?;
        }
        Ok(())
    }
}

impl Change {
    /// An adapter that is neither a product nor entries is kept as the entries of what it changes.
    fn or_difference(mut self, difference: &Tensor) -> Result<Self, AdaptError> {
        if self.factors.is_none() && self.entries.is_none() {
            let flat = difference.f_flatten(0, -1)?;
            let positions = flat.f_nonzero()?.f_squeeze_dim(1)?;
            let values = flat.f_index_select(0, &positions)?;
            self.entries = Some([positions, values]);
        }
        Ok(self)
    }
}

/// Positions of one mask that are not in the other.
fn dropped(before: Option<&Mask>, after: Option<&Mask>) -> Result<Option<Tensor>, AdaptError> {
    let (Some(before), Some(after)) = (before, after) else { return Ok(None) };
    let gone = before.iter().zip(after.iter()).enumerate().filter(|(_, (before, after))| *before && !*after);
    let gone: Vec<i64> = gone.map(|(position, _)| position as i64).collect();
    Ok(if gone.is_empty() { None } else { Some(Tensor::f_from_slice(&gone)?) })
}
