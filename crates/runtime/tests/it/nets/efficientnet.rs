//! EfficientNetV2.

use margay_core::{Activation, BatchNorm, Graph, GraphBuilder, GraphError, NodeId, Op, Role, SamePad, Shape};

use super::{conv, linear};

/// What makes an EfficientNetV2.
#[derive(Clone)]
pub struct Spec {
    pub size: [usize; 2],
    pub stem: usize,
    pub stages: Vec<Stage>,
    pub head: usize,
    pub classes: usize,
}

/// Blocks of one width.
#[derive(Clone, Copy)]
pub struct Stage {
    /// Expansion and spatial filter in one convolution.
    pub fused: bool,
    pub expand: usize,
    pub stride: usize,
    pub width: usize,
    pub depth: usize,
}

fn stage(fused: bool, [expand, stride, width, depth]: [usize; 4]) -> Stage {
    Stage { fused, expand, stride, width, depth }
}

impl Spec {
    /// A stage of every kind, on uneven maps.
    pub fn tiny() -> Self {
        let stages = vec![
            stage(true, [1, 1, 8, 1]),
            stage(true, [2, 2, 12, 2]),
            stage(false, [2, 2, 16, 2]),
            stage(false, [3, 1, 16, 1]),
        ];
        Self { size: [45, 38], stem: 8, stages, head: 24, classes: 5 }
    }

    /// EfficientNetV2-S at 224².
    pub fn s224() -> Self {
        let stages = vec![
            stage(true, [1, 1, 24, 2]),
            stage(true, [4, 2, 48, 4]),
            stage(true, [4, 2, 64, 4]),
            stage(false, [4, 2, 128, 6]),
            stage(false, [6, 1, 160, 9]),
            stage(false, [6, 2, 256, 15]),
        ];
        Self { size: [224, 224], stem: 24, stages, head: 1280, classes: 1000 }
    }
}

/// The graph.
pub fn graph(spec: &Spec) -> Result<Graph, GraphError> {
    let (builder, image) = GraphBuilder::new("efficientnetv2", Shape::map(3, spec.size[0], spec.size[1]));
    let mut net = Net(builder);
    let mut x = net.conv("conv_stem", image, [3, spec.stem], 3, 2, 1);
    x = net.silu("act1", x);
    net.0.role(Role::Body);
    let mut from = spec.stem;
    for (i, stage) in spec.stages.iter().enumerate() {
        for j in 0..stage.depth {
            let stride = if j == 0 { stage.stride } else { 1 };
            x = net.block(&format!("blocks.{i}.{j}"), x, from, Stage { stride, ..*stage });
            from = stage.width;
        }
    }
    x = net.conv("conv_head", x, [from, spec.head], 1, 1, 1);
    x = net.silu("act2", x);
    net.0.role(Role::Head);
    let x = net.0.push("global_pool", Op::GlobalAvgPool, &[x]);
    net.0.push("classifier", linear(spec.head, spec.classes), &[x]);
    net.0.finish()
}

struct Net(GraphBuilder);

impl Net {
    /// Convolution and batch norm; strided ones pad as TensorFlow does.
    fn conv(
        &mut self,
        name: &str,
        mut x: NodeId,
        channels: [usize; 2],
        k: usize,
        s: usize,
        groups: usize,
    ) -> NodeId {
        let same = s > 1;
        if same {
            x = self.0.push(
                format!("{name}.pad"),
                Op::SamePad(SamePad { kernel: [k, k], stride: [s, s] }),
                &[x],
            );
        }
        let x = self.0.push(name, conv(channels, k, s, if same { 0 } else { k / 2 }, groups), &[x]);
        self.0.push(format!("{name}.bn"), Op::BatchNorm(BatchNorm { channels: channels[1], eps: 1e-3 }), &[x])
    }

    fn silu(&mut self, name: &str, x: NodeId) -> NodeId {
        self.0.push(name, Op::Activation(Activation::Silu), &[x])
    }

    fn block(&mut self, name: &str, x: NodeId, from: usize, stage: Stage) -> NodeId {
        let sub = |part: &str| format!("{name}.{part}");
        let (wide, to, stride) = (from * stage.expand, stage.width, stage.stride);
        let mut y = x;
        if stage.fused {
            let first = if stage.expand == 1 { to } else { wide };
            y = self.conv(&sub("conv_exp"), y, [from, first], 3, stride, 1);
            y = self.silu(&sub("act1"), y);
            if stage.expand > 1 {
                y = self.conv(&sub("conv_pwl"), y, [wide, to], 1, 1, 1);
            }
        } else {
            y = self.conv(&sub("conv_pw"), y, [from, wide], 1, 1, 1);
            y = self.silu(&sub("act1"), y);
            y = self.conv(&sub("conv_dw"), y, [wide, wide], 3, stride, wide);
            y = self.silu(&sub("act2"), y);
            y = self.squeeze(&sub("se"), y, wide, from / 4);
            y = self.conv(&sub("conv_pwl"), y, [wide, to], 1, 1, 1);
        }
        if stride == 1 && from == to { self.0.push(sub("add"), Op::Add, &[y, x]) } else { y }
    }

    /// Squeeze and excitation.
    fn squeeze(&mut self, name: &str, x: NodeId, width: usize, narrow: usize) -> NodeId {
        self.0.role(Role::Side);
        let mut y = self.0.push(format!("{name}.pool"), Op::GlobalAvgPool, &[x]);
        y = self.0.push(format!("{name}.conv_reduce"), linear(width, narrow), &[y]);
        y = self.silu(&format!("{name}.act1"), y);
        y = self.0.push(format!("{name}.conv_expand"), linear(narrow, width), &[y]);
        y = self.0.push(format!("{name}.gate"), Op::Activation(Activation::Sigmoid), &[y]);
        self.0.role(Role::Body);
        self.0.push(name, Op::Gate, &[x, y])
    }
}
