//! Residual networks as in He et al. 2015, arXiv 1512.03385, with the stride of a bottleneck on its
//! 3 × 3 convolution. torchvision and timm share the keys; every width and depth is read from shapes.

use margay_core::{BatchNorm, Conv2d, Graph, GraphBuilder, Linear, MaxPool2d, NodeId, Op, Role, Shape};

use super::read::extents;
use super::{Architecture, Config, Design, Dialect, ModelError, Shapes};

/// ResNet-18, 34, 50, 101 and 152 of any width, and their grouped and wide relatives.
pub(super) struct ResNet;

/// torchvision and timm share the keys.
const NATIVE: Dialect = Dialect::canonical("torchvision or timm");
const EPS: f64 = 1e-5;
const WIDTH: usize = 64;
const STAGES: [&str; 4] = ["layer1", "layer2", "layer3", "layer4"];
const VARIANTS: [(&str, Block, [usize; 4]); 5] = [
    ("resnet18", Block::Basic, [2, 2, 2, 2]),
    ("resnet34", Block::Basic, [3, 4, 6, 3]),
    ("resnet50", Block::Bottleneck, [3, 4, 6, 3]),
    ("resnet101", Block::Bottleneck, [3, 4, 23, 3]),
    ("resnet152", Block::Bottleneck, [3, 8, 36, 3]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// Two 3 × 3 convolutions.
    Basic,
    /// 1 × 1, 3 × 3, 1 × 1.
    Bottleneck,
}

/// Everything that tells one residual network from another.
struct Geometry {
    block: Block,
    stem: usize,
    kernel: [usize; 2],
    stages: [Stage; 4],
    classes: usize,
}

struct Stage {
    blocks: usize,
    inner: usize,
    outer: usize,
    groups: usize,
}

impl Architecture for ResNet {
    fn name(&self) -> &'static str {
        "resnet"
    }

    fn variants(&self) -> &'static [&'static str] {
        &["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    }

    fn marks(&self) -> &'static [&'static str] {
        &["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv2.weight", "fc.weight"]
    }

    fn recognises(&self, shapes: &Shapes) -> bool {
        ["conv1.weight", "layer1.0.conv1.weight"].iter().all(|key| shapes.contains_key(*key))
    }

    fn dialects(&self) -> &'static [Dialect] {
        &[NATIVE]
    }

    fn detect(&self, shapes: &Shapes, _config: &Config, image: [usize; 2]) -> Result<Graph, ModelError> {
        Geometry::read(shapes)?.graph(image)
    }

    fn build(&self, design: &Design) -> Result<Graph, ModelError> {
        let Some((_, block, blocks)) = VARIANTS.iter().find(|(name, ..)| *name == design.variant) else {
            return Err(ModelError::UnknownVariant { name: design.variant.clone(), nearest: None });
        };
        let width = design.width.unwrap_or(WIDTH);
        let stages = std::array::from_fn(|s| {
            let inner = width << s;
            Stage { blocks: blocks[s], inner, outer: block.expansion() * inner, groups: 1 }
        });
        let geometry =
            Geometry { block: *block, stem: width, kernel: [7, 7], stages, classes: design.classes };
        geometry.graph(design.image)
    }
}

impl Block {
    const fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }

    const fn convolutions(self) -> usize {
        match self {
            Self::Basic => 2,
            Self::Bottleneck => 3,
        }
    }
}

impl Geometry {
    fn read(shapes: &Shapes) -> Result<Self, ModelError> {
        let [stem, colours, kh, kw] = extents(shapes, "conv1.weight")?;
        let bottleneck = shapes.contains_key("layer1.0.conv3.weight");
        let block = if bottleneck { Block::Bottleneck } else { Block::Basic };
        let [classes, _] = extents(shapes, "fc.weight")?;
        let stages = STAGES.map(|stage| Stage::read(shapes, stage, block));
        let [a, b, c, d] = stages;
        let geometry = Self { block, stem, kernel: [kh, kw], stages: [a?, b?, c?, d?], classes };
        if colours != 3 {
            let what = format!("{colours} input channels (RGB needs 3)");
            return Err(ModelError::Unsupported { variant: geometry.name(), what });
        }
        Ok(geometry)
    }

    /// `resnet` and the number of weighted layers.
    fn name(&self) -> String {
        let blocks: usize = self.stages.iter().map(|stage| stage.blocks).sum();
        format!("resnet{}", blocks * self.block.convolutions() + 2)
    }

    fn graph(&self, [height, width]: [usize; 2]) -> Result<Graph, ModelError> {
        let (builder, image) = GraphBuilder::new(&self.name(), Shape::map(3, height, width));
        let mut net = Net(builder);
        let stem = net.conv("conv1", image, self.stem_geometry());
        let stem = net.norm("bn1", stem, self.stem);
        net.0.role(Role::Body);
        let stem = net.0.push("relu", Op::RELU, &[stem]);
        let pool = MaxPool2d { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
        let mut x = net.0.push("maxpool", Op::MaxPool2d(pool), &[stem]);
        let mut channels = self.stem;
        for (s, stage) in self.stages.iter().enumerate() {
            for b in 0..stage.blocks {
                let stride = if s > 0 && b == 0 { 2 } else { 1 };
                x = net.block(&format!("{}.{b}", STAGES[s]), x, self.block, stage, channels, stride);
                channels = stage.outer;
            }
        }
        let pooled = net.0.push("avgpool", Op::GlobalAvgPool, &[x]);
        net.0.role(Role::Head);
        let head = Linear { in_features: channels, out_features: self.classes, bias: true };
        net.0.push("fc", Op::Linear(head), &[pooled]);
        Ok(net.0.finish()?)
    }

    fn stem_geometry(&self) -> Conv2d {
        Conv2d {
            in_channels: 3,
            out_channels: self.stem,
            kernel: self.kernel,
            stride: [2, 2],
            padding: self.kernel.map(|k| k / 2),
            groups: 1,
            bias: false,
        }
    }
}

impl Stage {
    fn read(shapes: &Shapes, stage: &str, block: Block) -> Result<Self, ModelError> {
        let conv = |i: usize| extents::<4>(shapes, &format!("{stage}.0.conv{i}.weight"));
        let [inner, ..] = conv(1)?;
        let [outer, ..] = conv(block.convolutions())?;
        let [_, fan, ..] = conv(2)?;
        let mut blocks = 1;
        while shapes.contains_key(&format!("{stage}.{blocks}.conv1.weight")) {
            blocks += 1;
        }
        Ok(Self { blocks, inner, outer, groups: (inner / fan).max(1) })
    }
}

struct Net(GraphBuilder);

impl Net {
    fn conv(&mut self, name: &str, x: NodeId, geometry: Conv2d) -> NodeId {
        self.0.push(name, Op::Conv2d(geometry), &[x])
    }

    fn norm(&mut self, name: &str, x: NodeId, channels: usize) -> NodeId {
        self.0.push(name, Op::BatchNorm(BatchNorm { channels, eps: EPS }), &[x])
    }

    /// Convolutions with norms and a rectifier between them, the shortcut, the sum, the last rectifier.
    fn block(
        &mut self,
        name: &str,
        x: NodeId,
        block: Block,
        stage: &Stage,
        channels: usize,
        stride: usize,
    ) -> NodeId {
        let last = block.convolutions();
        let mut y = x;
        for (i, geometry) in (1..).zip(branch(block, stage, channels, stride)) {
            let out = geometry.out_channels;
            y = self.conv(&format!("{name}.conv{i}"), y, geometry);
            y = self.norm(&format!("{name}.bn{i}"), y, out);
            if i < last {
                y = self.0.push(format!("{name}.relu{i}"), Op::RELU, &[y]);
            }
        }
        let mut shortcut = x;
        if stride != 1 || channels != stage.outer {
            shortcut =
                self.conv(&format!("{name}.downsample.0"), x, square(channels, stage.outer, 1, stride));
            shortcut = self.norm(&format!("{name}.downsample.1"), shortcut, stage.outer);
        }
        let sum = self.0.push(format!("{name}.add"), Op::Add, &[y, shortcut]);
        let end = self.0.push(format!("{name}.relu"), Op::RELU, &[sum]);
        self.0.block(end);
        end
    }
}

/// The convolutions of a block in order.
fn branch(block: Block, stage: &Stage, channels: usize, stride: usize) -> Vec<Conv2d> {
    let Stage { inner, outer, groups, .. } = *stage;
    match block {
        Block::Basic => vec![square(channels, inner, 3, stride), square(inner, outer, 3, 1)],
        Block::Bottleneck => vec![
            square(channels, inner, 1, 1),
            Conv2d { groups, ..square(inner, inner, 3, stride) },
            square(inner, outer, 1, 1),
        ],
    }
}

fn square(in_channels: usize, out_channels: usize, kernel: usize, stride: usize) -> Conv2d {
    Conv2d {
        in_channels,
        out_channels,
        kernel: [kernel, kernel],
        stride: [stride, stride],
        padding: [kernel / 2, kernel / 2],
        groups: 1,
        bias: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn design(variant: &str, width: Option<usize>) -> Design {
        Design { variant: variant.to_owned(), width, depth: None, classes: 1000, image: [224, 224] }
    }

    #[test]
    fn published_parameter_and_multiply_add_counts() {
        // torchvision's model tables: parameters, and multiply-adds in thousands of millions.
        let table = [
            ("resnet18", 11_689_512, 1.81),
            ("resnet34", 21_797_672, 3.66),
            ("resnet50", 25_557_032, 4.09),
            ("resnet101", 44_549_160, 7.80),
            ("resnet152", 60_192_808, 11.51),
        ];
        for (variant, expected, giga) in table {
            let graph = ResNet.build(&design(variant, None)).unwrap();
            let statistic = |name: &str| name.contains("running_");
            let specs = graph.params().filter(|spec| !statistic(&spec.name));
            let count: usize = specs.map(|spec| spec.shape.iter().product::<usize>()).sum();
            assert_eq!(count, expected, "{variant}");
            let macs: u64 = graph.macs().unwrap().iter().sum();
            assert!((macs as f64 / 1e9 - giga).abs() < 0.01, "{variant}: {macs}");
        }
    }

    #[test]
    fn roles_blocks_and_names() {
        let graph = ResNet.build(&design("resnet50", Some(8))).unwrap();
        let role = |name: &str| graph.node(graph.find(name).unwrap()).role;
        assert_eq!([role("conv1"), role("bn1"), role("fc")], [Role::Stem, Role::Stem, Role::Head]);
        assert_eq!(graph.prunable().count(), 52);
        let ends: Vec<_> = graph.blocks().iter().map(|id| graph.node(*id).name.as_str()).collect();
        assert_eq!((ends.len(), ends[0], ends[15]), (16, "layer1.0.relu", "layer4.2.relu"));
        let stride = |name: &str| match &graph.node(graph.find(name).unwrap()).op {
            Op::Conv2d(conv) => conv.stride[0],
            other => panic!("{name} is {other:?}"),
        };
        assert_eq!([stride("layer2.0.conv1"), stride("layer2.0.conv2")], [1, 2]);
        assert_eq!(stride("layer2.0.downsample.0"), 2);
    }

    #[test]
    fn groups_are_read_from_the_shapes() {
        let graph = ResNet.build(&design("resnet50", Some(8))).unwrap();
        let mut shapes: Shapes = graph.params().map(|spec| (spec.name, spec.shape)).collect();
        for (key, shape) in &mut shapes {
            if key.ends_with("conv2.weight") {
                shape[1] /= 4;
            }
        }
        let found = ResNet.detect(&shapes, &Config::default(), [64, 64]).unwrap();
        let again: Shapes = found.params().map(|spec| (spec.name, spec.shape)).collect();
        assert_eq!(again, shapes);
    }

    #[test]
    fn refuses_what_it_cannot_build() {
        let graph = ResNet.build(&design("resnet18", Some(4))).unwrap();
        let sound: Shapes = graph.params().map(|spec| (spec.name, spec.shape)).collect();
        let with = |key: &str, shape: Option<Vec<usize>>| {
            let mut shapes = sound.clone();
            match shape {
                Some(shape) => shapes.insert(key.to_owned(), shape),
                None => shapes.remove(key),
            };
            ResNet.detect(&shapes, &Config::default(), [64, 64]).unwrap_err().to_string()
        };
        assert!(with("fc.weight", None).contains("`fc.weight` is missing"));
        assert!(with("conv1.weight", Some(vec![4, 3])).contains("expected 4 axes"));
        assert!(with("conv1.weight", Some(vec![4, 0, 7, 7])).contains("none empty"));
        assert!(with("conv1.weight", Some(vec![4, 1, 7, 7])).contains("1 input channels"));
    }
}
