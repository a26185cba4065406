//! Residual networks as in He et al. 2015, arXiv 1512.03385, with the stride of a bottleneck on its
//! 3 × 3 convolution; grouped (ResNeXt, 1611.05431), wide (1605.07146) and with the stem and shortcuts of
//! He et al. 2018, 1812.01187.
//!
//! Canonical names are timm's, which are torchvision's. Every width and depth is read from shapes.

mod dialects;
#[cfg(test)]
mod tests;

use margay_core::{
    Activation, AvgPool2d, BatchNorm, Conv2d, Graph, GraphBuilder, Linear, MaxPool2d, NodeId, Op, Role, Shape,
};

use super::read::{activation, check_colours, count, extents, unsupported};
use super::{Architecture, Config, Design, Dialect, ModelError, Shapes};

/// ResNet-18, 34, 50, 101 and 152 of any width, and their relatives.
pub(super) struct ResNet;

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
/// Parts of keys of relatives, and what they tell.
const RELATIVES: [(&str, &str); 7] = [
    (".se.", "channel attention (squeeze-and-excitation)"),
    (".conv2.fc1.", "split attention (ResNeSt)"),
    (".conv2.attn.", "selective kernels (SKNet)"),
    (".convs.", "several scales per block (Res2Net)"),
    ("attnpool.", "attention pooling (CLIP)"),
    ("maxpool.", "a convolution for its pooling"),
    ("conv1.bias", "a bias in its stem"),
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
    stem: Stem,
    stages: [Stage; 4],
    shortcut: Shortcut,
    activation: Activation,
    /// The stride of a bottleneck is on its first convolution.
    stride_first: bool,
    /// Stride of the first stage.
    first_stride: usize,
    classes: usize,
}

/// What halves the image before the pooling.
enum Stem {
    /// One convolution.
    Single { channels: usize, kernel: [usize; 2] },
    /// Three 3 × 3 convolutions.
    Deep { channels: [usize; 3] },
}

/// How a shortcut changes size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortcut {
    /// A 1 × 1 convolution with a stride.
    Strided,
    /// The mean of 2 × 2 windows, then a 1 × 1 convolution.
    Averaged,
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
        let stem = ["conv1.weight", "conv1.0.weight"].iter().any(|key| shapes.contains_key(*key));
        stem && ["bn1.weight", "layer1.0.conv1.weight"].iter().all(|key| shapes.contains_key(*key))
    }

    fn heads(&self) -> &'static [&'static str] {
        &["fc"]
    }

    fn dialects(&self) -> &'static [Dialect] {
        dialects::ALL
    }

    fn detect(&self, shapes: &Shapes, config: &Config, image: [usize; 2]) -> Result<Graph, ModelError> {
        Geometry::read(shapes, config)?.graph(image)
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
        let geometry = Geometry {
            block: *block,
            stem: Stem::Single { channels: width, kernel: [7, 7] },
            stages,
            shortcut: Shortcut::Strided,
            activation: Activation::Relu,
            stride_first: false,
            first_stride: 1,
            classes: design.classes,
        };
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
    fn read(shapes: &Shapes, config: &Config) -> Result<Self, ModelError> {
        check_relatives(shapes, config)?;
        let has = |key: &str| shapes.contains_key(key);
        let (stem, colours) = Stem::read(shapes)?;
        let block = if has("layer1.0.conv3.weight") { Block::Bottleneck } else { Block::Basic };
        let averaged = STAGES.iter().any(|stage| has(&format!("{stage}.0.downsample.2.weight")));
        let [a, b, c, d] = STAGES.map(|stage| Stage::read(shapes, stage, block));
        let fact = |key| config.flag(key).unwrap_or(false);
        let classes = has("fc.weight").then(|| extents::<2>(shapes, "fc.weight").map(|[rows, _]| rows));
        let mut geometry = Self {
            block,
            stem,
            stages: [a?, b?, c?, d?],
            shortcut: if averaged { Shortcut::Averaged } else { Shortcut::Strided },
            activation: Activation::Relu,
            stride_first: fact("downsample_in_bottleneck"),
            first_stride: if fact("downsample_in_first_stage") { 2 } else { 1 },
            classes: classes.transpose()?.unwrap_or(0),
        };
        let name = geometry.name();
        check_colours(colours, &name)?;
        geometry.activation = activation(config, Activation::Relu, &name)?;
        Ok(geometry)
    }

    /// `resnet` and the number of weighted layers, with what libraries add for relatives.
    fn name(&self) -> String {
        let blocks: usize = self.stages.iter().map(|stage| stage.blocks).sum();
        let layers = blocks * self.block.convolutions() + 2;
        let Stage { inner, outer, groups, .. } = self.stages[0];
        let width = outer / self.block.expansion();
        let stem = match (&self.stem, self.shortcut) {
            (Stem::Single { .. }, _) => "",
            (Stem::Deep { channels: [first, second, _] }, Shortcut::Averaged) if first < second => "t",
            (Stem::Deep { .. }, Shortcut::Averaged) => "d",
            (Stem::Deep { channels: [first, ..] }, Shortcut::Strided) if *first == width => "s",
            (Stem::Deep { .. }, Shortcut::Strided) => "c",
        };
        match self.block {
            Block::Bottleneck if groups > 1 => format!("resnext{layers}{stem}_{groups}x{}d", inner / groups),
            Block::Bottleneck if inner == 2 * width => format!("wide_resnet{layers}{stem}_2"),
            _ => format!("resnet{layers}{stem}"),
        }
    }

    fn graph(&self, [height, width]: [usize; 2]) -> Result<Graph, ModelError> {
        let (builder, image) = GraphBuilder::new(&self.name(), Shape::map(3, height, width));
        let mut net = Net { builder, geometry: self };
        let (mut x, mut channels) = net.stem(image);
        let pool = MaxPool2d { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
        x = net.builder.push("maxpool", Op::MaxPool2d(pool), &[x]);
        for (s, stage) in self.stages.iter().enumerate() {
            for b in 0..stage.blocks {
                let stride = match (s, b) {
                    (0, 0) => self.first_stride,
                    (_, 0) => 2,
                    _ => 1,
                };
                x = net.block(&format!("{}.{b}", STAGES[s]), x, stage, channels, stride);
                channels = stage.outer;
            }
        }
        let pooled = net.builder.push("avgpool", Op::GlobalAvgPool, &[x]);
        net.builder.role(Role::Head);
        let head = Linear { in_features: channels, out_features: self.classes, bias: true };
        net.builder.push("fc", Op::Linear(head), &[pooled]);
        Ok(net.builder.finish()?)
    }

    /// The convolutions of a block in order.
    fn branch(&self, stage: &Stage, channels: usize, stride: usize) -> Vec<Conv2d> {
        let Stage { inner, outer, groups, .. } = *stage;
        let [first, second] = if self.stride_first { [stride, 1] } else { [1, stride] };
        match self.block {
            Block::Basic => {
                vec![Conv2d::square([channels, inner], 3, stride), Conv2d::square([inner, outer], 3, 1)]
            }
            Block::Bottleneck => vec![
                Conv2d::square([channels, inner], 1, first),
                Conv2d { groups, ..Conv2d::square([inner, inner], 3, second) },
                Conv2d::square([inner, outer], 1, 1),
            ],
        }
    }
}

/// Refuses what the weights or the configuration tell to be different.
fn check_relatives(shapes: &Shapes, config: &Config) -> Result<(), ModelError> {
    let relative = RELATIVES.iter().find(|(mark, _)| shapes.keys().any(|key| key.contains(mark)));
    // Anti-aliasing has no weights; only the name of the architecture tells it.
    let smoothed = |name: &str| name.starts_with("resnetblur") || name.starts_with("resnetaa");
    let what = match relative {
        Some((_, what)) => what,
        None if !shapes.contains_key("bn1.running_mean") && shapes.contains_key("bn1.bias") => {
            "norms without running statistics"
        }
        None if config.text("architecture").is_some_and(smoothed) => "anti-aliased strides",
        // Hugging Face puts it at the ends of blocks and leaves rectifiers inside.
        None if config.text("hidden_act").is_some_and(|act| act != "relu") => "two kinds of activations",
        None => return Ok(()),
    };
    Err(unsupported("a ResNet", what))
}

impl Stem {
    /// The stem, and the channels of the image.
    fn read(shapes: &Shapes) -> Result<(Self, usize), ModelError> {
        if !shapes.contains_key("conv1.0.weight") {
            let [channels, colours, kh, kw] = extents(shapes, "conv1.weight")?;
            return Ok((Self::Single { channels, kernel: [kh, kw] }, colours));
        }
        let conv = |i: usize| extents::<4>(shapes, &format!("conv1.{i}.weight"));
        let [first, second, third] = [conv(0)?, conv(3)?, conv(6)?];
        Ok((Self::Deep { channels: [first[0], second[0], third[0]] }, first[1]))
    }
}

impl Stage {
    fn read(shapes: &Shapes, stage: &str, block: Block) -> Result<Self, ModelError> {
        let conv = |i: usize| extents::<4>(shapes, &format!("{stage}.0.conv{i}.weight"));
        let [inner, ..] = conv(1)?;
        let [outer, ..] = conv(block.convolutions())?;
        let [_, fan, ..] = conv(2)?;
        let blocks = count(shapes, |b| format!("{stage}.{b}.conv1.weight"));
        Ok(Self { blocks, inner, outer, groups: (inner / fan).max(1) })
    }
}

struct Net<'a> {
    builder: GraphBuilder,
    geometry: &'a Geometry,
}

impl Net<'_> {
    /// The stem with its norms and activations, and the channels it writes.
    fn stem(&mut self, image: NodeId) -> (NodeId, usize) {
        let (x, channels) = match self.geometry.stem {
            Stem::Single { channels, kernel } => {
                let padding = kernel.map(|k| k / 2);
                let conv = Conv2d { kernel, padding, ..Conv2d::square([3, channels], 1, 2) };
                (self.conv("conv1", image, conv), channels)
            }
            Stem::Deep { channels: [first, second, third] } => {
                let mut x = self.conv("conv1.0", image, Conv2d::square([3, first], 3, 2));
                x = self.norm("conv1.1", x, first);
                x = self.activate("conv1.2", x);
                x = self.conv("conv1.3", x, Conv2d::square([first, second], 3, 1));
                x = self.norm("conv1.4", x, second);
                x = self.activate("conv1.5", x);
                (self.conv("conv1.6", x, Conv2d::square([second, third], 3, 1)), third)
            }
        };
        let x = self.norm("bn1", x, channels);
        self.builder.role(Role::Body);
        (self.activate("relu", x), channels)
    }

    /// Convolutions with norms and activations between them, the shortcut, the sum, the last activation.
    fn block(&mut self, name: &str, x: NodeId, stage: &Stage, channels: usize, stride: usize) -> NodeId {
        let last = self.geometry.block.convolutions();
        let mut y = x;
        for (i, conv) in (1..).zip(self.geometry.branch(stage, channels, stride)) {
            let out = conv.out_channels;
            y = self.conv(&format!("{name}.conv{i}"), y, conv);
            y = self.norm(&format!("{name}.bn{i}"), y, out);
            if i < last {
                y = self.activate(&format!("{name}.relu{i}"), y);
            }
        }
        let changes = stride != 1 || channels != stage.outer;
        let shortcut = if changes { self.shortcut(name, x, [channels, stage.outer], stride) } else { x };
        let sum = self.builder.push(format!("{name}.add"), Op::Add, &[y, shortcut]);
        let end = self.activate(&format!("{name}.relu"), sum);
        self.builder.block(end);
        end
    }

    fn shortcut(&mut self, block: &str, mut x: NodeId, [from, to]: [usize; 2], stride: usize) -> NodeId {
        let name = |i: usize| format!("{block}.downsample.{i}");
        let (first, stride) = match self.geometry.shortcut {
            Shortcut::Strided => (0, stride),
            Shortcut::Averaged => {
                if stride > 1 {
                    let pool = AvgPool2d { kernel: [stride, stride] };
                    x = self.builder.push(name(0), Op::AvgPool2d(pool), &[x]);
                }
                (1, 1)
            }
        };
        let x = self.conv(&name(first), x, Conv2d::square([from, to], 1, stride));
        self.norm(&name(first + 1), x, to)
    }

    fn conv(&mut self, name: &str, x: NodeId, conv: Conv2d) -> NodeId {
        self.builder.push(name, Op::Conv2d(conv), &[x])
    }

    fn norm(&mut self, name: &str, x: NodeId, channels: usize) -> NodeId {
        self.builder.push(name, Op::BatchNorm(BatchNorm { channels, eps: EPS }), &[x])
    }

    fn activate(&mut self, name: &str, x: NodeId) -> NodeId {
        self.builder.push(name, Op::Activation(self.geometry.activation), &[x])
    }
}
