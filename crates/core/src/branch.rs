//! Low-rank branches beside layers: `y = W x + B (A x)`.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use crate::{Conv2d, Graph, GraphError, Linear, Node, NodeId, Op, Params, Role};

/// Factors of a branch: `B[out, r]` and `A[r, in / groups · kh · kw]`, row-major.
pub type Factors = [ArrayD<f32>; 2];

/// Whether a layer can have a branch: the input of a grouped convolution has no common matrix.
pub fn can_branch(op: &Op) -> bool {
    match op {
        Op::Conv2d(conv) => conv.groups == 1,
        Op::Linear(_) => true,
        _ => false,
    }
}

/// The graph and parameters with a branch beside each of the named layers: `A` reads what the layer reads,
/// `B` reads `A`, and a sum takes the place of the layer's output.
///
/// # Panics
/// If factors do not have the layer's extents.
pub fn with_branches(
    graph: &Graph,
    params: &Params,
    factors: &BTreeMap<String, Factors>,
) -> Result<(Graph, Params), GraphError> {
    let mut params = params.clone();
    let mut nodes: Vec<Node> = Vec::new();
    let mut renamed: Vec<NodeId> = Vec::new();
    for node in graph.nodes() {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|id| renamed[id.index()]).collect();
        let mut last = push(&mut nodes, Node { inputs: inputs.clone(), ..node.clone() });
        if let Some([b, a]) = factors.get(&node.name).filter(|_| can_branch(&node.op)) {
            let [down, up] = ops(&node.op, a.shape()[0]);
            let part = |suffix: &str, op: Op, inputs: Vec<NodeId>| Node {
                name: format!("{}.{suffix}", node.name),
                op,
                inputs,
                role: Role::Side,
            };
            let down = part("lora_A", down, inputs);
            insert(&mut params, &down, a);
            let narrow = push(&mut nodes, down);
            let up = part("lora_B", up, vec![narrow]);
            insert(&mut params, &up, b);
            let wide = push(&mut nodes, up);
            last = push(&mut nodes, part("lora", Op::Add, vec![last, wide]));
        }
        renamed.push(last);
    }
    let blocks = graph.blocks().iter().map(|id| renamed[id.index()]).collect();
    let graph = graph.rebuilt(nodes, blocks);
    graph.shapes()?;
    Ok((graph, params))
}

fn push(nodes: &mut Vec<Node>, node: Node) -> NodeId {
    nodes.push(node);
    NodeId::new(nodes.len() - 1)
}

fn insert(params: &mut Params, node: &Node, value: &ArrayD<f32>) {
    let shape = node.params().swap_remove(0).shape;
    let values = value.iter().copied().collect();
    let value = ArrayD::from_shape_vec(shape, values).expect("factors have the layer's extents");
    params.insert(node.weight(), value);
}

/// From the layer's input to the rank, and from there to the layer's output.
fn ops(op: &Op, rank: usize) -> [Op; 2] {
    match op {
        Op::Conv2d(conv) => {
            let up = Conv2d {
                in_channels: rank,
                out_channels: conv.out_channels,
                kernel: [1, 1],
                stride: [1, 1],
                padding: [0, 0],
                groups: 1,
                bias: false,
            };
            [Op::Conv2d(Conv2d { out_channels: rank, bias: false, ..conv.clone() }), Op::Conv2d(up)]
        }
        Op::Linear(linear) => {
            let up = Linear { in_features: rank, out_features: linear.out_features, bias: false };
            [Op::Linear(Linear { out_features: rank, bias: false, ..linear.clone() }), Op::Linear(up)]
        }
        other => [other.clone(), other.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNorm, GraphBuilder, Shape, fold};

    #[test]
    fn a_branch_is_a_sum_and_a_batch_norm_behind_it_folds_into_both() {
        let (mut builder, image) = GraphBuilder::new("test", Shape::map(2, 3, 3));
        let conv = Conv2d {
            in_channels: 2,
            out_channels: 4,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            groups: 1,
            bias: false,
        };
        let conv = builder.push("conv", Op::Conv2d(conv), &[image]);
        let norm = builder.push("bn", Op::BatchNorm(BatchNorm { channels: 4, eps: 1e-5 }), &[conv]);
        let pool = builder.push("pool", Op::GlobalAvgPool, &[norm]);
        builder.push("fc", Op::Linear(Linear { in_features: 4, out_features: 2, bias: true }), &[pool]);
        let graph = builder.finish().unwrap();
        let ramp = |shape: Vec<usize>| {
            let count: usize = shape.iter().product();
            ArrayD::from_shape_vec(shape, (0..count).map(|i| 1.0 + i as f32).collect()).unwrap()
        };
        let params: Params = graph.params().map(|spec| (spec.name, ramp(spec.shape))).collect();
        let factors = BTreeMap::from([("conv".to_owned(), [ramp(vec![4, 1]), ramp(vec![1, 18])])]);
        let (branched, values) = with_branches(&graph, &params, &factors).unwrap();
        values.check(&branched).unwrap();
        let names: Vec<&str> = branched.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["input", "conv", "conv.lora_A", "conv.lora_B", "conv.lora", "bn", "pool", "fc"]);
        let (folded, values) = fold::all(&branched, &values).unwrap();
        values.check(&folded).unwrap();
        assert!(folded.nodes().iter().all(|node| !matches!(node.op, Op::BatchNorm(_))));
        // Row 1 of the norm: weight 2, variance 2; its factor scales both summands.
        let scale = 2.0 / (2.0_f64 + 1e-5).sqrt();
        let up = values.get("conv.lora_B.weight").unwrap();
        assert!((f64::from(up[[1, 0, 0, 0]]) - 2.0 * scale).abs() < 1e-5);
        assert!((f64::from(values.get("conv.weight").unwrap()[[1, 0, 0, 0]]) - 19.0 * scale).abs() < 1e-4);
        assert!(values.get("conv.lora_B.bias").is_err());
    }
}
