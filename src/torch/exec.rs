use std::collections::BTreeMap;
use std::ops::Range;

use margay_core::{Graph, Node, NodeId, Op};
use tch::Tensor;

use super::TorchError;
use super::ops::{
    activate, attend, embed, layer_norm, like, linear, log_sum_exp, mean_of, mean_over_plane, over_planes,
    pair, response_norm, same_pad,
};

/// What a layer multiplies with: the base weight, or a function of it, a mask and adapters.
pub trait Effective {
    /// The tensor in force for parameter `name`.
    fn effective(&self, name: &str) -> Result<Tensor, TorchError>;

    /// Shown what a layer with a weight matrix read and made; returns what is passed on.
    fn passed(&self, _node: &Node, _input: &Tensor, output: Tensor) -> Result<Tensor, TorchError> {
        Ok(output)
    }
}

/// What batch norms normalise with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// The stored statistics.
    Stored,
    /// The batch's own statistics; the stored ones follow with momentum 0.1.
    Batch,
}

/// The logits `[n, classes]` of a batch and the outputs of nodes asked for, in the order asked.
#[derive(Debug)]
pub struct Outputs {
    /// Value of the last node.
    pub logits: Tensor,
    /// Values of the nodes asked for.
    pub kept: Vec<Tensor>,
}

/// Runs a batch `[n, c, h, w]`; values are freed after their last reader, except those in `keep`.
pub fn forward(
    graph: &Graph,
    weights: &dyn Effective,
    norms: Norms,
    images: &Tensor,
    keep: &[NodeId],
) -> Result<Outputs, TorchError> {
    let (logits, kept) = forward_part(graph, 0..graph.nodes().len(), weights, norms, images, keep)?;
    Ok(Outputs { logits, kept })
}

/// Runs the nodes `part`, which read nothing from before but `input`: the images, or the value of the node before
/// the first. Returns the value of the last node, and the values in `keep`, which are nodes of the part.
pub(crate) fn forward_part(
    graph: &Graph,
    part: Range<usize>,
    weights: &dyn Effective,
    norms: Norms,
    input: &Tensor,
    keep: &[NodeId],
) -> Result<(Tensor, Vec<Tensor>), TorchError> {
    let ids: Vec<NodeId> = graph.ids().take(part.end).collect();
    let last = ids[part.end - 1];
    let mut readers = graph.readers();
    for id in keep.iter().chain([&last]) {
        readers[id.index()] += 1;
    }
    let mut values: BTreeMap<NodeId, Tensor> = BTreeMap::new();
    if part.start > 0 {
        values.insert(ids[part.start - 1], input.shallow_clone());
    }
    for id in &ids[part] {
        let node = graph.node(*id);
        let value = {
            let image = matches!(node.op, Op::Input).then_some(input);
            let inputs: Vec<&Tensor> =
                image.into_iter().chain(node.inputs.iter().map(|i| &values[i])).collect();
            apply(node, weights, norms, &inputs)?
        };
        values.insert(*id, value);
        for input in &node.inputs {
            readers[input.index()] -= 1;
            if readers[input.index()] == 0 {
                values.remove(input);
            }
        }
    }
    Ok((values[&last].shallow_clone(), keep.iter().map(|id| values[id].shallow_clone()).collect()))
}

/// Computes one node for one batch.
pub(crate) fn apply(
    node: &Node,
    weights: &dyn Effective,
    norms: Norms,
    inputs: &[&Tensor],
) -> Result<Tensor, TorchError> {
    let weight = |suffix: &str| weights.effective(&format!("{}.{suffix}", node.name));
    let bias = |has: bool| has.then(|| weight("bias")).transpose();
    let x = inputs[0];
    let value = match &node.op {
        Op::Input => Ok(x.shallow_clone()),
        Op::Activation(function) => activate(*function, x),
        Op::Add => x.f_add(inputs[1]),
        Op::Average => mean_of(x, inputs[1]),
        Op::Gate => x.f_mul(&over_planes(inputs[1])),
        Op::Concat => Tensor::f_cat(&[x, inputs[1]], 1),
        Op::Conv2d(c) => {
            let (stride, padding) = (pair(c.stride), pair(c.padding));
            x.f_conv2d(&weight("weight")?, bias(c.bias)?, stride, padding, [1, 1], c.groups as i64)
        }
        Op::Linear(l) => linear(x, &weight("weight")?, bias(l.bias)?.as_ref()),
        Op::MaxPool2d(p) => x.f_max_pool2d(pair(p.kernel), pair(p.stride), pair(p.padding), [1, 1], false),
        Op::AvgPool2d(p) => x.f_avg_pool2d(pair(p.kernel), pair(p.kernel), [0, 0], true, false, None::<i64>),
        Op::SamePad(pad) => same_pad(x, pad),
        Op::GlobalAvgPool => mean_over_plane(x),
        Op::BatchNorm(norm) => {
            let [w, b, m, v] = ["weight", "bias", "running_mean", "running_var"].map(weight);
            let train = norms == Norms::Batch;
            x.f_batch_norm(Some(w?), Some(b?), Some(m?), Some(v?), train, 0.1, norm.eps, true)
        }
        Op::LayerNorm(norm) => layer_norm(x, norm, &weight("weight")?, &weight("bias")?),
        Op::ResponseNorm(norm) => response_norm(x, norm.eps, &weight("weight")?, &weight("bias")?),
        Op::Scale(_) => x.f_mul(&like(x, &weight("weight")?)),
        Op::Attention(attention) => attend(x, attention),
        Op::Embed(e) => {
            let prefix = (e.prefix > 0).then(|| weight("prefix")).transpose()?;
            embed(x, e, prefix.as_ref(), &weight("position")?)
        }
        Op::Token(token) => x.f_select(1, token.index as i64),
        Op::LogSumExp(join) => log_sum_exp(x, &join.groups),
        Op::MeanTokens(mean) => {
            let rest = x.size()[1] - mean.prefix as i64;
            x.f_narrow(1, mean.prefix as i64, rest)?.f_mean_dim([1_i64].as_slice(), false, x.kind())
        }
    };
    let value = value.map_err(|source| TorchError::Node { node: node.name.clone(), source })?;
    if node.matrix().is_some() { weights.passed(node, x, value) } else { Ok(value) }
}
