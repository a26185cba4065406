use std::cell::RefCell;
use std::collections::BTreeMap;

use margay_core::{Graph, Mask, Node};
use tch::Tensor;

use super::Delta;
use crate::distill::Student;
use crate::torch::{Effective, Sampled, TorchError, TorchModel, mask_to_tensor};

/// A model with adapters on some of its layers.
pub struct Adapted<'a> {
    model: &'a TorchModel,
    layers: BTreeMap<String, Layer>,
    /// Weight name by bias name, of layers whose adapter may change the bias.
    biases: BTreeMap<String, String>,
    /// The part whose gradients are collected.
    part: RefCell<Option<Part>>,
}

/// Layers of a part of the network whose weights' gradients are sampled.
#[derive(Default)]
struct Part {
    /// Weights in force, with their graphs of gradients, by name.
    weights: BTreeMap<String, Tensor>,
    seen: Vec<Seen>,
}

/// A layer whose weight's gradient is sampled.
struct Seen {
    node: Node,
    input: Tensor,
    /// Zeros that were added to its output.
    probe: Tensor,
}

/// One weight that is not used as it is.
struct Layer {
    /// Whether a weight is kept, boolean `[m, n]`; absent: everywhere.
    mask: Option<Tensor>,
    delta: Option<Box<dyn Delta>>,
    /// Whether the low-rank part stays outside of the mask.
    branch: bool,
    /// How the gradient of its few weights is computed.
    sampled: Option<Sampled>,
}

impl Layer {
    fn new(mask: Option<Tensor>) -> Self {
        Self { mask, delta: None, branch: false, sampled: None }
    }

    /// Positions `[k]` of the only weights that can change, if they are at most so many.
    fn few(&self, most: f64) -> Result<Option<Tensor>, TorchError> {
        let support = match (self.delta.as_ref().and_then(|delta| delta.support()), &self.mask) {
            (Some(support), _) => support,
            (None, Some(mask)) if !self.branch => mask.f_flatten(0, -1)?.f_nonzero()?.f_squeeze_dim(1)?,
            _ => return Ok(None),
        };
        Ok((support.numel() as f64 <= most).then_some(support))
    }
}

impl<'a> Adapted<'a> {
    /// The model with its masks held, and no adapter yet.
    pub fn new(model: &'a TorchModel, masks: &BTreeMap<String, Mask>) -> Result<Self, TorchError> {
        let layer = |(name, mask): (&String, &Mask)| {
            let matrix = model.get(name)?.f_flatten(1, -1)?.size();
            let mask = mask_to_tensor(mask, &matrix, model.device())?;
            Ok((name.clone(), Layer::new(Some(mask))))
        };
        let layers = masks.iter().map(layer).collect::<Result<_, TorchError>>()?;
        Ok(Self { model, layers, biases: BTreeMap::new(), part: RefCell::default() })
    }

    /// Puts an adapter on the layer `node`; with `branch` its low-rank part is not masked.
    pub fn attach(&mut self, node: &str, delta: Box<dyn Delta>, branch: bool) {
        let name = format!("{node}.weight");
        let layer = self.layers.entry(name.clone()).or_insert_with(|| Layer::new(None));
        layer.branch = branch && delta.factors().is_ok_and(|factors| factors.is_some());
        layer.delta = Some(delta);
        self.biases.insert(format!("{node}.bias"), name);
    }

    /// Where activations are computed anew, samples the gradients of layers of which at most this share of the weights
    /// can change.
    pub fn sample(&mut self, share: f64) -> Result<(), TorchError> {
        for node in self.model.graph.nodes() {
            if let (Some(layer), Some([m, n])) = (self.layers.get_mut(&node.weight()), node.matrix())
                && let Some(few) = layer.few(share * (m * n) as f64)?
            {
                layer.sampled = Sampled::new(&node.op, &few)?;
            }
        }
        Ok(())
    }

    /// How the gradient of a weight is sampled, if it is now.
    fn sampled(&self, weight: &str) -> Option<&Sampled> {
        let layer = self.layers.get(weight).filter(|_| self.part.borrow().is_some())?;
        let trained = layer.delta.is_some() || self.model.is_trained(weight);
        layer.sampled.as_ref().filter(|_| trained)
    }

    /// The model without adapters.
    pub fn base(&self) -> &TorchModel {
        self.model
    }

    /// The adapter of a weight.
    pub fn delta(&self, weight: &str) -> Option<&dyn Delta> {
        self.layers.get(weight)?.delta.as_deref()
    }

    /// Whether the low-rank part of a weight's adapter stays outside of its mask.
    pub fn has_branch(&self, weight: &str) -> bool {
        self.layers.get(weight).is_some_and(|layer| layer.branch)
    }

    /// The weight that is merged: without branches.
    pub fn merged(&self, name: &str) -> Result<Tensor, TorchError> {
        let base = self.model.effective(name)?;
        let Some(layer) = self.layers.get(name) else { return self.effective(name) };
        let mut weight = base.f_flatten(1, -1)?;
        if let Some(delta) = &layer.delta {
            let mut change = delta.delta(&weight)?;
            if let Some([b, a]) = delta.factors()?.filter(|_| layer.branch) {
                change = change.f_sub(&b.f_matmul(&a)?)?;
            }
            weight = weight.f_add(&change)?;
        }
        if let Some(mask) = &layer.mask {
            weight = weight.f_mul(mask)?;
        }
        Ok(weight.f_reshape(base.size())?)
    }

    fn deltas(&mut self) -> impl Iterator<Item = &mut Box<dyn Delta>> {
        self.layers.values_mut().filter_map(|layer| layer.delta.as_mut())
    }
}

impl Adapted<'_> {
    /// The tensor in force, with its graph of gradients.
    fn in_force(&self, name: &str) -> Result<Tensor, TorchError> {
        let base = self.model.effective(name)?;
        if let Some(delta) = self.biases.get(name).and_then(|weight| self.delta(weight)) {
            return Ok(match delta.bias_delta(&base)? {
                Some(change) => base.f_add(&change)?,
                None => base,
            });
        }
        let Some(layer) = self.layers.get(name) else { return Ok(base) };
        let mut weight = base.f_flatten(1, -1)?;
        if let Some(delta) = &layer.delta {
            weight = weight.f_add(&delta.delta(&weight)?)?;
        }
        if let Some(mask) = &layer.mask {
            let masked = weight.f_mul(mask)?;
            weight = match layer.delta.as_ref().filter(|_| layer.branch).map(|d| d.factors()).transpose()? {
                // What the mask took from the branch comes back.
                Some(Some([b, a])) => {
                    let outside = mask.f_logical_not()?;
                    masked.f_add(&b.f_matmul(&a)?.f_mul(&outside)?)?
                }
                _ => masked,
            };
        }
        Ok(weight.f_reshape(base.size())?)
    }
}

impl Effective for Adapted<'_> {
    fn effective(&self, name: &str) -> Result<Tensor, TorchError> {
        let weight = self.in_force(name)?;
        if self.sampled(name).is_none() {
            return Ok(weight);
        }
        let detached = weight.f_detach()?;
        self.part.borrow_mut().get_or_insert_default().weights.insert(name.to_owned(), weight);
        Ok(detached)
    }

    fn passed(&self, node: &Node, input: &Tensor, output: Tensor) -> Result<Tensor, TorchError> {
        if self.sampled(&node.weight()).is_none() {
            return Ok(output);
        }
        let probe = output.f_zeros_like()?.f_set_requires_grad(true)?;
        let output = output.f_add(&probe)?;
        let seen = Seen { node: node.clone(), input: input.f_detach()?, probe };
        self.part.borrow_mut().get_or_insert_default().seen.push(seen);
        Ok(output)
    }
}

impl Student for Adapted<'_> {
    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    fn penalty(&self) -> Result<Option<Tensor>, TorchError> {
        let deltas = self.layers.values().filter_map(|layer| layer.delta.as_ref());
        let parts = deltas.filter_map(|delta| delta.penalty().transpose());
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok(parts.into_iter().reduce(|a, b| a + b))
    }

    fn part_begins(&self) -> Result<(), TorchError> {
        *self.part.borrow_mut() = Some(Part::default());
        Ok(())
    }

    fn part_ends(&self) -> Result<(), TorchError> {
        let Part { weights, seen } = self.part.take().expect("a part has begun");
        for Seen { node, input, probe } in seen {
            let name = node.weight();
            let sampled = self.layers.get(&name).and_then(|layer| layer.sampled.as_ref());
            if let (Some(sampled), Some(weight)) = (sampled, weights.get(&name)) {
                let gradient = sampled.gradient(&node.op, &input, &probe.f_grad()?)?;
                let few = weight.f_flatten(0, -1)?.f_index_select(0, sampled.positions())?;
                few.f_dot(&gradient)?.f_backward()?;
            }
        }
        Ok(())
    }

    fn before_step(&mut self) -> Result<(), TorchError> {
        self.deltas().try_for_each(|delta| delta.before_step())
    }

    fn after_step(&mut self, step: usize, total: usize) -> Result<(), TorchError> {
        self.deltas().try_for_each(|delta| delta.after_step(step, total))
    }
}
