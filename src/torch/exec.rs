use std::collections::BTreeMap;

use margay_core::{Graph, Node, NodeId, Op};
use tch::Tensor;

use super::TorchError;
use super::ops::{
    activate, attend, embed, layer_norm, like, linear, mean_of, mean_over_plane, over_planes, pair,
    response_norm, same_pad,
};

/// What a layer multiplies with: the base weight, or a function of it, a mask and adapters.
pub trait Effective {
    /// The tensor in force for parameter `name`.
    fn effective(&self, name: &str) -> Result<Tensor, TorchError>;
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
    let mut readers = graph.readers();
    for id in keep.iter().chain([&graph.output()]) {
        readers[id.index()] += 1;
    }
    let mut values: BTreeMap<NodeId, Tensor> = BTreeMap::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let value = {
            let image = matches!(node.op, Op::Input).then_some(images);
            let inputs: Vec<&Tensor> =
                image.into_iter().chain(node.inputs.iter().map(|i| &values[i])).collect();
            apply(node, weights, norms, &inputs)?
        };
        values.insert(id, value);
        for input in &node.inputs {
            readers[input.index()] -= 1;
            if readers[input.index()] == 0 {
                values.remove(input);
            }
        }
    }
    let logits = values[&graph.output()].shallow_clone();
    Ok(Outputs { logits, kept: keep.iter().map(|id| values[id].shallow_clone()).collect() })
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
        Op::MeanTokens(mean) => {
            let rest = x.size()[1] - mean.prefix as i64;
            x.f_narrow(1, mean.prefix as i64, rest)?.f_mean_dim([1_i64].as_slice(), false, x.kind())
        }
    };
    value.map_err(|source| TorchError::Node { node: node.name.clone(), source })
}
