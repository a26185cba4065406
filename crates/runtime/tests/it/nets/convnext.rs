//! ConvNeXt, versions 1 and 2.

use margay_core::{Graph, GraphBuilder, GraphError, LayerNorm, NodeId, Op, ResponseNorm, Role, Scale, Shape};

use super::{conv, linear};

/// What makes a ConvNeXt.
#[derive(Clone)]
pub struct Spec {
    pub size: [usize; 2],
    pub widths: Vec<usize>,
    pub depths: Vec<usize>,
    /// Response norms in place of layer scales.
    pub version2: bool,
    pub classes: usize,
}

impl Spec {
    /// Two stages of uneven maps.
    pub fn tiny() -> Self {
        let (widths, depths) = (vec![8, 12], vec![1, 2]);
        Self { size: [37, 45], widths, depths, version2: false, classes: 5 }
    }

    /// ConvNeXt-T at 224².
    pub fn t224() -> Self {
        let (widths, depths) = (vec![96, 192, 384, 768], vec![3, 3, 9, 3]);
        Self { size: [224, 224], widths, depths, version2: false, classes: 1000 }
    }
}

fn norm(features: usize) -> Op {
    Op::LayerNorm(LayerNorm { features, eps: 1e-6 })
}

/// The graph.
pub fn graph(spec: &Spec) -> Result<Graph, GraphError> {
    let (mut net, image) = GraphBuilder::new("convnext", Shape::map(3, spec.size[0], spec.size[1]));
    let mut width = spec.widths[0];
    let x = net.push("stem.0", conv([3, width], 4, 4, 0, 1), &[image]);
    let mut x = net.push("stem.1", norm(width), &[x]);
    net.role(Role::Body);
    for (stage, (&to, &depth)) in spec.widths.iter().zip(&spec.depths).enumerate() {
        if stage > 0 {
            x = net.push(format!("stages.{stage}.downsample.0"), norm(width), &[x]);
            let down = conv([width, to], 2, 2, 0, 1);
            x = net.push(format!("stages.{stage}.downsample.1"), down, &[x]);
            width = to;
        }
        for i in 0..depth {
            x = block(&mut net, &format!("stages.{stage}.blocks.{i}"), x, width, spec.version2);
        }
    }
    net.role(Role::Head);
    let x = net.push("head.global_pool", Op::GlobalAvgPool, &[x]);
    let x = net.push("head.norm", norm(width), &[x]);
    net.push("head.fc", linear(width, spec.classes), &[x]);
    net.finish()
}

fn block(net: &mut GraphBuilder, name: &str, x: NodeId, width: usize, version2: bool) -> NodeId {
    let mut push = |part: &str, op: Op, inputs: &[NodeId]| net.push(format!("{name}.{part}"), op, inputs);
    let mut y = push("conv_dw", conv([width, width], 7, 1, 3, width), &[x]);
    y = push("norm", norm(width), &[y]);
    y = push("mlp.fc1", linear(width, 4 * width), &[y]);
    y = push("mlp.act", Op::GELU, &[y]);
    if version2 {
        y = push("mlp.grn", Op::ResponseNorm(ResponseNorm { features: 4 * width, eps: 1e-6 }), &[y]);
    }
    y = push("mlp.fc2", linear(4 * width, width), &[y]);
    if !version2 {
        y = push("gamma", Op::Scale(Scale { features: width }), &[y]);
    }
    push("add", Op::Add, &[y, x])
}
