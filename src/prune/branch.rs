//! Layers that write into a residual stream.

use margay_core::{Graph, NodeId, Op};
use tch::{Kind, Tensor};

use crate::torch::{Flow, TorchError, TorchModel, features_like};

/// Features of a branch that are scaled by less than this share of the usual factor count as if it were that: what they
/// would have to make to mend the stream is beyond what they were trained for.
const LEAST_FACTOR: f64 = 0.1;

/// The end of a residual branch: its last layer, behind which its output is only scaled, feature by feature, before it is
/// added to the stream.
pub(super) struct Branch {
    /// The stream that it is added to.
    stream: NodeId,
    /// What each feature of the layer's output is multiplied by before, `[out]`.
    factor: Tensor,
}

impl Branch {
    /// The branch that ends with this layer, if one does and the stream beside it is computed by then.
    pub fn ending(model: &TorchModel, layer: NodeId) -> Result<Option<Self>, TorchError> {
        let graph = &model.graph;
        let mut factor: Option<Tensor> = None;
        let mut last = layer;
        while let Some(reader) = only_reader(graph, last) {
            let node = graph.node(reader);
            let own = match &node.op {
                Op::Scale(_) => model.get(&node.weight())?,
                Op::BatchNorm(norm) => {
                    let variance = model.get(&format!("{}.running_var", node.name))?;
                    model.get(&node.weight())?.f_div(&variance.f_add_scalar(norm.eps)?.f_sqrt()?)?
                }
                Op::Add => {
                    let stream = if node.inputs[0] == last { node.inputs[1] } else { node.inputs[0] };
                    let [out, _] =
                        graph.node(layer).matrix().expect("only layers with a weight matrix are pruned");
                    let ones = || Tensor::f_ones([out as i64], (Kind::Float, model.device()));
                    let factor = bounded(&factor.map_or_else(ones, Ok)?)?;
                    return Ok((stream < layer).then_some(Self { stream, factor }));
                }
                _ => return Ok(None),
            };
            factor = Some(match factor {
                Some(before) => before.f_mul(&own)?,
                None => own,
            });
            last = reader;
        }
        Ok(None)
    }

    /// What the layer's output would have to be more for the stream behind the branch to be that of the dense network, as far as
    /// the stream before it differs.
    pub fn lacks(&self, pruned: &Flow, dense: &Flow, batch: usize) -> Result<Tensor, TorchError> {
        let lost = dense.value(self.stream, batch).f_sub(pruned.value(self.stream, batch))?;
        Ok(lost.f_div(&features_like(&lost, &self.factor))?)
    }
}

/// The node that alone reads this one.
fn only_reader(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let mut readers = graph.ids().filter(|reader| graph.node(*reader).inputs.contains(&id));
    let reader = readers.next()?;
    readers.next().is_none().then_some(reader)
}

/// Factors no smaller than a share of their root mean square, their signs kept.
fn bounded(factor: &Tensor) -> Result<Tensor, TorchError> {
    let usual = factor.f_square()?.f_mean(Kind::Double)?.double_value(&[]).sqrt();
    let least = if usual > 0.0 { LEAST_FACTOR * usual } else { 1.0 };
    let sign = factor.f_ge(0.0)?.f_to_kind(Kind::Float)?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
    Ok(factor.f_abs()?.f_clamp_min(least)?.f_mul(&sign)?)
}
