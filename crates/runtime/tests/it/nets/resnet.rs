//! Residual networks.

use margay_core::{
    BatchNorm, Conv2d, Graph, GraphBuilder, GraphError, Linear, MaxPool2d, NodeId, Op, Role, Shape,
};

/// What makes a residual network.
pub struct Spec {
    pub size: [usize; 2],
    pub bottleneck: bool,
    pub blocks: Vec<usize>,
    pub width: usize,
    pub groups: usize,
    pub classes: usize,
}

impl Spec {
    /// Two bottlenecks.
    pub fn tiny() -> Self {
        let (size, blocks) = ([32, 32], vec![1, 1]);
        Self { size, bottleneck: true, blocks, width: 8, groups: 1, classes: 5 }
    }
}

/// The 50-layer network at 224².
pub fn resnet50() -> Result<Graph, GraphError> {
    let (size, blocks) = ([224, 224], vec![3, 4, 6, 3]);
    graph(&Spec { size, bottleneck: true, blocks, width: 64, groups: 1, classes: 1000 })
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
