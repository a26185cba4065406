//! Residual networks with random weights and masks, for tests and benches.

use std::collections::BTreeMap;

use margay_core::{
    BatchNorm, Conv2d, Graph, GraphBuilder, GraphError, Linear, Mask, MaxPool2d, NodeId, Op, Params,
    ParamsError, Preprocess, Provenance, Role, Shape, SparseModel, fold,
};
use ndarray::ArrayD;

/// What makes a residual network.
pub struct Spec {
    pub size: [usize; 2],
    pub bottleneck: bool,
    pub blocks: Vec<usize>,
    pub width: usize,
    pub groups: usize,
    pub classes: usize,
}

/// The 50-layer network at 224², random weights.
#[allow(dead_code, reason = "the example uses it, the tests do not")]
pub fn resnet50(sparsity: f64) -> Result<SparseModel, Box<dyn std::error::Error>> {
    let (size, blocks) = ([224, 224], vec![3, 4, 6, 3]);
    let spec = Spec { size, bottleneck: true, blocks, width: 64, groups: 1, classes: 1000 };
    Ok(pack(&graph(&spec)?, sparsity)?)
}

/// The graph, with batch norms.
pub fn graph(spec: &Spec) -> Result<Graph, GraphError> {
    let (mut net, image) = Net::new(spec.size);
    let mut x = net.conv("conv1", image, [3, spec.width], 7, 2, 1);
    x = net.relu("act1", x);
    let pool = MaxPool2d { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
    x = net.builder.push("maxpool", Op::MaxPool2d(pool), &[x]);
    net.builder.role(Role::Body);
    let expansion = if spec.bottleneck { 4 } else { 1 };
    let mut channels = spec.width;
    for (layer, &blocks) in spec.blocks.iter().enumerate() {
        let width = spec.width << layer;
        for block in 0..blocks {
            let stride = if block == 0 && layer > 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", layer + 1);
            x = net.block(&name, x, [channels, width, width * expansion], stride, spec);
            channels = width * expansion;
        }
    }
    net.builder.role(Role::Head);
    let x = net.builder.push("pool", Op::GlobalAvgPool, &[x]);
    let head = Linear { in_features: channels, out_features: spec.classes, bias: true };
    net.builder.push("fc", Op::Linear(head), &[x]);
    net.builder.finish()
}

struct Net {
    builder: GraphBuilder,
}

impl Net {
    fn new([height, width]: [usize; 2]) -> (Self, NodeId) {
        let (builder, image) = GraphBuilder::new("resnet", Shape::map(3, height, width));
        (Self { builder }, image)
    }

    fn conv(
        &mut self,
        name: &str,
        x: NodeId,
        [from, to]: [usize; 2],
        k: usize,
        s: usize,
        groups: usize,
    ) -> NodeId {
        let conv = Conv2d {
            in_channels: from,
            out_channels: to,
            kernel: [k, k],
            stride: [s, s],
            padding: [k / 2, k / 2],
            groups,
            bias: false,
        };
        let conv = self.builder.push(name, Op::Conv2d(conv), &[x]);
        let norm = Op::BatchNorm(BatchNorm { channels: to, eps: 1e-5 });
        self.builder.push(format!("{name}.bn"), norm, &[conv])
    }

    fn relu(&mut self, name: &str, x: NodeId) -> NodeId {
        self.builder.push(name, Op::RELU, &[x])
    }

    fn block(
        &mut self,
        name: &str,
        x: NodeId,
        [from, width, to]: [usize; 3],
        stride: usize,
        spec: &Spec,
    ) -> NodeId {
        let sub = |part: &str| format!("{name}.{part}");
        let mut y = x;
        if spec.bottleneck {
            y = self.conv(&sub("conv1"), y, [from, width], 1, 1, 1);
            y = self.relu(&sub("act1"), y);
            y = self.conv(&sub("conv2"), y, [width, width], 3, stride, spec.groups);
            y = self.relu(&sub("act2"), y);
            y = self.conv(&sub("conv3"), y, [width, to], 1, 1, 1);
        } else {
            y = self.conv(&sub("conv1"), y, [from, width], 3, stride, 1);
            y = self.relu(&sub("act1"), y);
            y = self.conv(&sub("conv2"), y, [width, to], 3, 1, spec.groups);
        }
        let shortcut =
            if from == to { x } else { self.conv(&sub("downsample"), x, [from, to], 1, stride, 1) };
        let sum = self.builder.push(sub("add"), Op::Add, &[y, shortcut]);
        let out = self.relu(&sub("act3"), sum);
        self.builder.block(out);
        out
    }
}

/// The graph with random weights of unit gain, norms folded and body layers masked.
pub fn pack(graph: &Graph, sparsity: f64) -> Result<SparseModel, ParamsError> {
    let mut params = Params::new();
    for (seed, spec) in graph.params().enumerate() {
        let n: usize = spec.shape.iter().product();
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let scale = (6.0 / fan_in.max(1) as f32).sqrt();
        let values = noise(n, seed as u64).into_iter();
        let values: Vec<f32> = match spec.name.rsplit('.').next() {
            Some("running_var") => values.map(|v| 1.0 + 0.5 * v).collect(),
            _ if spec.name.ends_with("bn.weight") => values.map(|v| 0.6 + 0.2 * v).collect(),
            _ if spec.shape.len() == 1 => values.map(|v| 0.1 * v).collect(),
            _ => values.map(|v| scale * v).collect(),
        };
        if let Ok(value) = ArrayD::from_shape_vec(spec.shape, values) {
            params.insert(spec.name, value);
        }
    }
    let (graph, params) = fold::batch_norms(graph, &params)?;
    let mut masks = BTreeMap::new();
    for id in graph.prunable().filter(|_| sparsity > 0.0) {
        let node = graph.node(id);
        let scores = noise(node.matrix().map_or(0, |[r, c]| r * c), 1000 + id.index() as u64);
        let kept = ((1.0 - sparsity) * scores.len() as f64).round() as usize;
        masks.insert(node.weight(), Mask::top_k(&scores, kept));
    }
    let labels = (0..graph.classes()).map(|c| format!("class {c}")).collect();
    let size = graph.input.dims().last().copied().unwrap_or(1);
    let preprocess = Preprocess::squash(size);
    SparseModel::pack(graph, &params, &masks, labels, preprocess, Provenance::default())
}

/// Reproducible values in −1 .. 1 (splitmix64).
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
