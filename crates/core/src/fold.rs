//! Folding batch norms into the convolutions before them.
//!
//! With scale `s = weight / sqrt(var + eps)` per channel, `bn(conv(x))` is a convolution with weight
//! `s · W` and bias `bias − s · mean` (+ `s ·` the convolution's own bias). Zeros stay zeros.

use ndarray::{Array1, ArrayD, Axis};

use crate::{BatchNorm, Graph, Node, NodeId, Op, Params, ParamsError};

/// The graph and parameters without batch norms that directly follow a convolution of their own.
///
/// A norm whose convolution has other readers stays. Arithmetic is in f64, results are rounded once.
pub fn batch_norms(graph: &Graph, params: &Params) -> Result<(Graph, Params), ParamsError> {
    let readers = graph.readers();
    let mut folded = params.clone();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes().len());
    let mut renamed: Vec<NodeId> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        if let Op::BatchNorm(norm) = &node.op {
            let source = node.inputs[0];
            if readers[source.index()] == 1 && matches!(graph.node(source).op, Op::Conv2d(_)) {
                let target = renamed[source.index()];
                fold_into(&mut nodes[target.index()], node, norm, &mut folded)?;
                renamed.push(target);
                continue;
            }
        }
        let inputs = node.inputs.iter().map(|id| renamed[id.index()]).collect();
        renamed.push(NodeId::new(nodes.len()));
        nodes.push(Node { inputs, ..node.clone() });
    }
    let blocks = graph.blocks().iter().map(|id| renamed[id.index()]).collect();
    Ok((graph.rebuilt(nodes, blocks), folded))
}

fn fold_into(conv: &mut Node, node: &Node, norm: &BatchNorm, params: &mut Params) -> Result<(), ParamsError> {
    let take = |params: &mut Params, suffix: &str| -> Result<Array1<f64>, ParamsError> {
        let name = format!("{}.{suffix}", node.name);
        let value = params.get(&name)?.iter().map(|v| f64::from(*v)).collect();
        params.remove(&name);
        Ok(value)
    };
    let [weight, bias, mean, var] = ["weight", "bias", "running_mean", "running_var"];
    let scale = take(params, weight)? / (take(params, var)? + norm.eps).mapv(f64::sqrt);
    let own = params.remove(&conv.bias()).map_or_else(
        || Array1::zeros(norm.channels),
        |own| own.iter().map(|v| f64::from(*v)).collect::<Array1<f64>>(),
    );
    let shift = take(params, bias)? + (own - take(params, mean)?) * &scale;
    params.insert(conv.bias(), shift.mapv(|v| v as f32).into_dyn());
    scale_rows(params, &conv.weight(), &scale)?;
    if let Op::Conv2d(op) = &mut conv.op {
        op.bias = true;
    }
    Ok(())
}

fn scale_rows(params: &mut Params, name: &str, scale: &Array1<f64>) -> Result<(), ParamsError> {
    let mut weight: ArrayD<f32> = params.get(name)?.clone();
    for (mut row, s) in weight.axis_iter_mut(Axis(0)).zip(scale) {
        row.mapv_inplace(|v| (f64::from(v) * s) as f32);
    }
    params.insert(name, weight);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, GraphBuilder, Linear, Shape};

    #[test]
    fn a_folded_convolution_computes_what_both_did() {
        let (mut builder, image) = GraphBuilder::new("test", Shape::map(2, 1, 1));
        let geometry = Conv2d {
            in_channels: 2,
            out_channels: 1,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            groups: 1,
            bias: false,
        };
        let conv = builder.push("conv", Op::Conv2d(geometry), &[image]);
        let norm = builder.push("bn", Op::BatchNorm(BatchNorm { channels: 1, eps: 0.5 }), &[conv]);
        let relu = builder.push("relu", Op::RELU, &[norm]);
        let pool = builder.push("pool", Op::GlobalAvgPool, &[relu]);
        builder.push("fc", Op::Linear(Linear { in_features: 1, out_features: 1, bias: false }), &[pool]);
        builder.block(norm);
        let graph = builder.finish().unwrap();
        let values: [(&str, &[usize], &[f32]); 6] = [
            ("conv.weight", &[1, 2, 1, 1], &[3.0, -1.0]),
            ("bn.weight", &[1], &[2.0]),
            ("bn.bias", &[1], &[0.25]),
            ("bn.running_mean", &[1], &[1.0]),
            ("bn.running_var", &[1], &[3.5]),
            ("fc.weight", &[1, 1], &[1.0]),
        ];
        let params: Params = values
            .iter()
            .map(|(n, s, v)| ((*n).to_owned(), ArrayD::from_shape_vec(s.to_vec(), v.to_vec()).unwrap()))
            .collect();
        params.check(&graph).unwrap();
        let (folded, values) = batch_norms(&graph, &params).unwrap();
        values.check(&folded).unwrap();
        assert_eq!(folded.nodes().len(), graph.nodes().len() - 1);
        assert_eq!(folded.node(folded.blocks()[0]).name, "conv");
        // scale = 2 / sqrt(3.5 + 0.5) = 1, shift = 0.25 - 1
        assert_eq!(values.get("conv.weight").unwrap().as_slice().unwrap(), [3.0, -1.0]);
        assert_eq!(values.get("conv.bias").unwrap().as_slice().unwrap(), [-0.75]);
    }
}
