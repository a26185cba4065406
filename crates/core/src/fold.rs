//! Folding batch norms and layer scales into the layers before them.
//!
//! With scale `s = weight / sqrt(var + eps)` per channel, `bn(conv(x))` is a convolution with weight
//! `s · W` and bias `bias − s · mean` (+ `s ·` the convolution's own bias). A layer scale is the same with
//! `s = weight` and no shift. Zeros stay zeros.

use ndarray::{Array1, ArrayD, Axis};

use crate::{Graph, Node, NodeId, Op, Params, ParamsError};

/// The graph and parameters without batch norms and layer scales that directly follow a convolution or linear layer.
///
/// A norm or scale whose layer has other readers stays. Arithmetic is in f64, results are rounded once per
/// fold.
pub fn all(graph: &Graph, params: &Params) -> Result<(Graph, Params), ParamsError> {
    let readers = graph.readers();
    let mut folded = params.clone();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes().len());
    let mut renamed: Vec<NodeId> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        if matches!(node.op, Op::BatchNorm(_) | Op::Scale(_))
            && let Some(layers) = layers(graph, &readers, node)
        {
            let (scale, shift) = affine(node, &mut folded)?;
            let mut shift = shift;
            for id in layers {
                let layer = &mut nodes[renamed[id.index()].index()];
                fold_into(layer, &scale, shift.take(), &mut folded)?;
            }
            renamed.push(renamed[node.inputs[0].index()]);
            continue;
        }
        let inputs = node.inputs.iter().map(|id| renamed[id.index()]).collect();
        renamed.push(NodeId::new(nodes.len()));
        nodes.push(Node { inputs, ..node.clone() });
    }
    let blocks = graph.blocks().iter().map(|id| renamed[id.index()]).collect();
    Ok((graph.rebuilt(nodes, blocks), folded))
}

/// The layers whose sum `node` alone reads and that nothing else reads: one, or one and its low-rank branch.
fn layers(graph: &Graph, readers: &[usize], node: &Node) -> Option<Vec<NodeId>> {
    let alone = |id: &NodeId| readers[id.index()] == 1;
    let source = *node.inputs.first().filter(|id| alone(id))?;
    let is_layer = |id: &NodeId| matches!(graph.node(*id).op, Op::Conv2d(_) | Op::Linear(_));
    let layers = match &graph.node(source).op {
        Op::Add => graph.node(source).inputs.clone(),
        _ => vec![source],
    };
    layers.iter().all(|id| alone(id) && is_layer(id)).then_some(layers)
}

/// Multiplies the rows of a layer with `scale` and adds `shift` to its output.
fn fold_into(
    layer: &mut Node,
    scale: &Array1<f64>,
    shift: Option<Array1<f64>>,
    params: &mut Params,
) -> Result<(), ParamsError> {
    scale_rows(params, &layer.weight(), scale)?;
    let own = params.remove(&layer.bias());
    if own.is_none() && shift.is_none() {
        return Ok(());
    }
    let zeros = || Array1::zeros(scale.len());
    let own: Array1<f64> = own.map_or_else(zeros, |own| own.iter().map(|v| f64::from(*v)).collect());
    let bias = own * scale + shift.unwrap_or_else(zeros);
    params.insert(layer.bias(), bias.mapv(|v| v as f32).into_dyn());
    match &mut layer.op {
        Op::Conv2d(conv) => conv.bias = true,
        Op::Linear(linear) => linear.bias = true,
        _ => {}
    }
    Ok(())
}

/// Takes the parameters of a batch norm or layer scale: the factor and, if any, the summand of each row.
fn affine(node: &Node, params: &mut Params) -> Result<(Array1<f64>, Option<Array1<f64>>), ParamsError> {
    let mut take = |suffix: &str| -> Result<Array1<f64>, ParamsError> {
        let name = format!("{}.{suffix}", node.name);
        let value = params.get(&name)?.iter().map(|v| f64::from(*v)).collect();
        params.remove(&name);
        Ok(value)
    };
    let weight = take("weight")?;
    let Op::BatchNorm(norm) = &node.op else { return Ok((weight, None)) };
    let [bias, mean, var] = [take("bias")?, take("running_mean")?, take("running_var")?];
    let scale = weight / (var + norm.eps).mapv(f64::sqrt);
    let shift = bias - mean * &scale;
    Ok((scale, Some(shift)))
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
    use crate::{BatchNorm, Conv2d, GraphBuilder, Linear, Scale, Shape};

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
        let params = params(&values);
        params.check(&graph).unwrap();
        let (folded, values) = all(&graph, &params).unwrap();
        values.check(&folded).unwrap();
        assert_eq!(folded.nodes().len(), graph.nodes().len() - 1);
        assert_eq!(folded.node(folded.blocks()[0]).name, "conv");
        // scale = 2 / sqrt(3.5 + 0.5) = 1, shift = 0.25 - 1
        assert_eq!(values.get("conv.weight").unwrap().as_slice().unwrap(), [3.0, -1.0]);
        assert_eq!(values.get("conv.bias").unwrap().as_slice().unwrap(), [-0.75]);
    }

    fn params(values: &[(&str, &[usize], &[f32])]) -> Params {
        let array = |shape: &[usize], v: &[f32]| ArrayD::from_shape_vec(shape.to_vec(), v.to_vec()).unwrap();
        values.iter().map(|(name, shape, v)| ((*name).to_owned(), array(shape, v))).collect()
    }

    #[test]
    fn a_layer_scale_multiplies_weight_and_bias_of_its_only_layer() {
        let (mut builder, image) = GraphBuilder::new("test", Shape::map(2, 1, 1));
        let linear = |bias| Op::Linear(Linear { in_features: 2, out_features: 2, bias });
        let scale = || Op::Scale(Scale { features: 2 });
        let a = builder.push("a", linear(true), &[image]);
        let ls1 = builder.push("ls1", scale(), &[a]);
        let b = builder.push("b", linear(false), &[ls1]);
        let ls2 = builder.push("ls2", scale(), &[b]);
        let pool = builder.push("pool", Op::GlobalAvgPool, &[ls2]);
        let kept = builder.push("kept", scale(), &[pool]);
        builder.push("sum", Op::Add, &[pool, kept]);
        let graph = builder.finish().unwrap();
        let params = params(&[
            ("a.weight", &[2, 2], &[1.0, 0.0, 3.0, 4.0]),
            ("a.bias", &[2], &[5.0, 6.0]),
            ("ls1.weight", &[2], &[2.0, -1.0]),
            ("b.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
            ("ls2.weight", &[2], &[10.0, 100.0]),
            ("kept.weight", &[2], &[7.0, 8.0]),
        ]);
        let (folded, values) = all(&graph, &params).unwrap();
        values.check(&folded).unwrap();
        assert_eq!(folded.nodes().len(), graph.nodes().len() - 2);
        let value = |name: &str| values.get(name).unwrap().as_slice().unwrap().to_vec();
        assert_eq!((value("a.weight"), value("a.bias")), (vec![2.0, 0.0, -3.0, -4.0], vec![10.0, -6.0]));
        assert_eq!(value("b.weight"), [10.0, 20.0, 300.0, 400.0]);
        assert!(values.get("b.bias").is_err() && folded.find("kept").is_some());
    }

    #[test]
    fn a_scale_whose_layer_has_another_reader_stays() {
        let (mut builder, image) = GraphBuilder::new("test", Shape::map(1, 1, 1));
        let pool = builder.push("pool", Op::GlobalAvgPool, &[image]);
        let layer = Linear { in_features: 1, out_features: 1, bias: false };
        let a = builder.push("a", Op::Linear(layer), &[pool]);
        let scaled = builder.push("ls", Op::Scale(Scale { features: 1 }), &[a]);
        builder.push("sum", Op::Add, &[scaled, a]);
        let graph = builder.finish().unwrap();
        let params = params(&[("a.weight", &[1, 1], &[3.0]), ("ls.weight", &[1], &[2.0])]);
        assert_eq!(all(&graph, &params).unwrap(), (graph, params));
    }
}
