//! `EfficientNet` V2, Tan & Le 2021, arXiv 2104.00298, V1, Tan & Le 2019, arXiv 1905.11946, V1 Lite, which has no gates and
//! `ReLU6`, and `MobileNet` V2, Sandler et al. 2018, arXiv 1801.04381, of which V1 is made.
//!
//! Canonical names are timm's. Kinds and widths of blocks are read from keys and shapes; strides, which
//! weights do not tell, are those of the papers: all have the same.

mod dialects;
#[cfg(test)]
mod tests;

use margay_core::{
    Activation, BatchNorm, Conv2d, Graph, GraphBuilder, Linear, NodeId, Op, Role, SamePad, Shape,
};

use super::read::{activation, check_colours, extents, matrix, unsupported};
use super::{Architecture, Config, Design, Dialect, ModelError, Shapes};

/// Both versions of any width and depth.
pub(super) struct EfficientNet;

const EPS: f64 = 1e-5;
/// Of everything that was trained with TensorFlow.
const TENSORFLOW_EPS: f64 = 1e-3;
/// Stride of the first block of each stage; V2 has the last stage in its larger sizes only.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];
/// Name, features before the classifier, blocks; V1.
const SIZES_V1: [(&str, usize, usize); 10] = [
    ("b0", 1280, 16),
    ("b1", 1280, 23),
    ("b2", 1408, 23),
    ("b3", 1536, 26),
    ("b4", 1792, 32),
    ("b5", 2048, 39),
    ("b6", 2304, 45),
    ("b7", 2560, 55),
    ("b8", 2816, 61),
    ("l2", 5504, 88),
];
/// Name, channels of the last stage, blocks; V1 Lite, whose stem and features are all the same.
const SIZES_LITE: [(&str, usize, usize); 5] =
    [("0", 320, 16), ("1", 320, 21), ("2", 352, 21), ("3", 384, 24), ("4", 448, 30)];
/// Channels of the stem, and blocks, of `MobileNet` V2 as published.
const MOBILE: [usize; 2] = [32, 17];
/// Name, features before the classifier, blocks; V2.
const SIZES_V2: [(&str, usize, usize); 11] = [
    ("s", 1280, 40),
    ("m", 1280, 57),
    ("l", 1280, 79),
    ("xl", 1280, 100),
    ("b0", 1280, 21),
    ("b1", 1280, 27),
    ("b2", 1408, 28),
    ("b3", 1536, 32),
    ("rw_t", 1024, 39),
    ("rw_s", 1792, 40),
    ("rw_m", 2152, 60),
];
/// Kernels of V1's stages, by which its relatives are told from it.
const KERNELS_V1: [usize; 7] = [3, 3, 5, 3, 5, 5, 3];
const KERNELS_MOBILE: [usize; 7] = [3; 7];

/// Everything that tells one network from another.
struct Geometry {
    version: Version,
    stem: [usize; 2],
    kernel: usize,
    stages: Vec<Vec<Block>>,
    features: usize,
    classes: usize,
    padding: Padding,
    eps: f64,
    activation: Activation,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    /// V1 without gates.
    Lite,
    Mobile,
    V2,
}

/// Where zeros go around a convolution with a stride.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    /// As many on each side.
    Symmetric,
    /// As TensorFlow's `SAME` wants.
    Same,
}

/// One residual block; `out` are the channels it writes.
struct Block {
    name: String,
    kind: Kind,
    kernel: usize,
    out: usize,
}

/// What is inside a block.
enum Kind {
    /// One convolution.
    Plain,
    /// A convolution to more channels, a 1 × 1 one back.
    Fused { hidden: usize },
    /// A depthwise convolution, a gate if it squeezes to some channels, a 1 × 1 convolution.
    Depthwise { squeezed: Option<usize> },
    /// A 1 × 1 convolution to more channels, a depthwise one, a gate, a 1 × 1 one back.
    Inverted { hidden: usize, squeezed: Option<usize> },
}

impl Architecture for EfficientNet {
    fn name(&self) -> &'static str {
        "efficientnet"
    }

    fn variants(&self) -> &'static [&'static str] {
        &VARIANTS
    }

    fn marks(&self) -> &'static [&'static str] {
        &[
            "conv_stem.weight",
            "blocks.3.0.conv_dw.weight",
            "blocks.3.0.se.conv_reduce.weight",
            "conv_head.weight",
            "bn2.weight",
            "classifier.weight",
        ]
    }

    fn heads(&self) -> &'static [&'static str] {
        &["classifier"]
    }

    fn dialects(&self) -> &'static [Dialect] {
        dialects::ALL
    }

    fn recognises(&self, shapes: &Shapes) -> bool {
        let has = |key: &&str| shapes.contains_key(*key);
        let is = |key: &str, test: fn(&[usize]) -> bool| shapes.get(key).is_some_and(|shape| test(shape));
        let depthwise = |shape: &[usize]| matches!(shape, [_, 1, _, _]);
        let fused = |shape: &[usize]| matches!(shape, [_, _, kernel, _] if *kernel > 1);
        let first = is("blocks.0.0.conv_dw.weight", depthwise);
        let second = is("blocks.1.0.conv_exp.weight", fused);
        ["conv_stem.weight", "conv_head.weight", "bn2.weight"].iter().all(has) && (first || second)
    }

    fn detect(&self, shapes: &Shapes, config: &Config, image: [usize; 2]) -> Result<Graph, ModelError> {
        Geometry::read(shapes, config)?.graph(image)
    }

    fn build(&self, design: &Design) -> Result<Graph, ModelError> {
        let unknown = || ModelError::UnknownVariant { name: design.variant.clone(), nearest: None };
        let plan = PLANS.iter().find(|plan| plan.name == design.variant).ok_or_else(unknown)?;
        plan.geometry(design).graph(design.image)
    }
}

/// A published size, to be built anew.
struct Plan {
    name: &'static str,
    version: Version,
    /// Channels of the stem.
    stem: usize,
    /// Blocks, expansion and channels of each stage.
    stages: &'static [[usize; 3]],
}

/// Stages of B0.
const B0: &[[usize; 3]] =
    &[[1, 1, 16], [2, 6, 24], [2, 6, 40], [3, 6, 80], [3, 6, 112], [4, 6, 192], [1, 6, 320]];

const PLANS: [Plan; 6] = [
    Plan {
        name: "efficientnetv2_s",
        version: Version::V2,
        stem: 24,
        stages: &[[2, 1, 24], [4, 4, 48], [4, 4, 64], [6, 4, 128], [9, 6, 160], [15, 6, 256]],
    },
    Plan {
        name: "efficientnetv2_m",
        version: Version::V2,
        stem: 24,
        stages: &[[3, 1, 24], [5, 4, 48], [5, 4, 80], [7, 4, 160], [14, 6, 176], [18, 6, 304], [5, 6, 512]],
    },
    Plan {
        name: "efficientnetv2_l",
        version: Version::V2,
        stem: 32,
        stages: &[[4, 1, 32], [7, 4, 64], [7, 4, 96], [10, 4, 192], [19, 6, 224], [25, 6, 384], [7, 6, 640]],
    },
    Plan { name: "efficientnet_b0", version: Version::V1, stem: 32, stages: B0 },
    Plan { name: "efficientnet_lite0", version: Version::Lite, stem: 32, stages: B0 },
    Plan {
        name: "mobilenetv2",
        version: Version::Mobile,
        stem: 32,
        stages: &[[1, 1, 16], [2, 6, 24], [3, 6, 32], [4, 6, 64], [3, 6, 96], [3, 6, 160], [1, 6, 320]],
    },
];

/// Names of the plans.
const VARIANTS: [&str; PLANS.len()] = {
    let mut names = [""; PLANS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = PLANS[at].name;
        at += 1;
    }
    names
};

impl Plan {
    fn geometry(&self, design: &Design) -> Geometry {
        let stem = design.width.unwrap_or(self.stem);
        let mut channels = stem;
        let stage = |(s, &[blocks, expansion, out]): (usize, &[usize; 3])| {
            let stage = (0..blocks).map(|b| {
                let out = (out * stem / self.stem).max(1);
                let from = std::mem::replace(&mut channels, out);
                let kind = self.kind(s, expansion, from);
                Block { name: format!("blocks.{s}.{b}"), kind, kernel: self.kernel(s), out }
            });
            stage.collect()
        };
        let tensorflow = self.version == Version::V2;
        Geometry {
            version: self.version,
            stem: [3, stem],
            kernel: 3,
            stages: self.stages.iter().enumerate().map(stage).collect(),
            features: 1280,
            classes: design.classes,
            padding: if tensorflow { Padding::Same } else { Padding::Symmetric },
            eps: if tensorflow { TENSORFLOW_EPS } else { EPS },
            activation: self.version.activation(),
        }
    }

    fn kind(&self, stage: usize, expansion: usize, from: usize) -> Kind {
        let (hidden, squeezed) = (expansion * from, Some((from / 4).max(1)));
        match (self.version, stage) {
            (Version::V2, 0) => Kind::Plain,
            (Version::V2, 1 | 2) => Kind::Fused { hidden },
            (Version::V1, 0) => Kind::Depthwise { squeezed },
            (Version::V1 | Version::V2, _) => Kind::Inverted { hidden, squeezed },
            (Version::Lite | Version::Mobile, 0) => Kind::Depthwise { squeezed: None },
            (Version::Lite | Version::Mobile, _) => Kind::Inverted { hidden, squeezed: None },
        }
    }

    fn kernel(&self, stage: usize) -> usize {
        match self.version {
            Version::V2 => 3,
            Version::V1 | Version::Lite => KERNELS_V1[stage],
            Version::Mobile => KERNELS_MOBILE[stage],
        }
    }
}

impl Version {
    fn of(stages: &[Vec<Block>]) -> Self {
        let expands = |stage: &Vec<Block>| matches!(stage[0].kind, Kind::Fused { .. });
        if stages.get(1).is_some_and(expands) {
            return Self::V2;
        }
        match (stages.iter().flatten().any(Block::has_gate), stages.iter().all(|stage| stage[0].kernel == 3))
        {
            (true, _) => Self::V1,
            (false, false) => Self::Lite,
            (false, true) => Self::Mobile,
        }
    }

    const fn family(self) -> &'static str {
        match self {
            Self::V1 => "efficientnet",
            Self::Lite => "efficientnet_lite",
            Self::Mobile => "mobilenetv2",
            Self::V2 => "efficientnetv2",
        }
    }

    const fn activation(self) -> Activation {
        match self {
            Self::V1 | Self::V2 => Activation::Silu,
            Self::Lite | Self::Mobile => Activation::Relu6,
        }
    }
}

impl Geometry {
    fn read(shapes: &Shapes, config: &Config) -> Result<Self, ModelError> {
        let [stem, colours, kernel, _] = extents(shapes, "conv_stem.weight")?;
        let has = |key: &str| shapes.contains_key(key);
        let stages = (0..).map_while(|s| {
            let blocks = (0..).map_while(|b| Block::read(shapes, &format!("blocks.{s}.{b}")));
            let blocks: Result<Vec<_>, _> = blocks.collect();
            blocks.map(|blocks| (!blocks.is_empty()).then_some(blocks)).transpose()
        });
        let mut stages: Vec<Vec<Block>> = stages.collect::<Result<_, _>>()?;
        if stages.len() == 1 {
            // Counted through: each stage has channels of its own.
            let all = stages.remove(0);
            let lengths: Vec<usize> = all.chunk_by(|a, b| a.out == b.out).map(<[_]>::len).collect();
            let mut all = all.into_iter();
            stages = lengths.into_iter().map(|length| all.by_ref().take(length).collect()).collect();
        }
        let classes = has("classifier.weight").then(|| matrix(shapes, "classifier.weight").map(|m| m[0]));
        let version = Version::of(&stages);
        let mut geometry = Self {
            version,
            stem: [colours, stem],
            kernel,
            stages,
            features: extents::<4>(shapes, "conv_head.weight")?[0],
            classes: classes.transpose()?.unwrap_or(0),
            padding: Padding::Symmetric,
            eps: EPS,
            activation: activation(config, version.activation(), version.family())?,
        };
        geometry.check()?;
        geometry.padding = geometry.padding(config);
        let same = geometry.padding == Padding::Same;
        geometry.eps = config.number("bn_eps").unwrap_or(if same { TENSORFLOW_EPS } else { EPS });
        Ok(geometry)
    }

    /// Refuses relatives whose strides or activations are others.
    fn check(&self) -> Result<(), ModelError> {
        let name = self.name();
        check_colours(self.stem[0], &name)?;
        let kernels = || self.stages.iter().map(|stage| stage[0].kernel);
        let known = match self.version {
            Version::V1 | Version::Lite => kernels().eq(KERNELS_V1),
            Version::Mobile => kernels().eq(KERNELS_MOBILE),
            Version::V2 => [6, 7].contains(&self.stages.len()),
        };
        let gates = self.stages.iter().filter(|stage| stage.iter().all(Block::has_gate)).count();
        let gated = match self.version {
            Version::V1 | Version::V2 => gates >= 3,
            Version::Lite | Version::Mobile => !self.stages.iter().flatten().any(Block::has_gate),
        };
        if known && gated { Ok(()) } else { Err(unsupported(&name, "stages of another design")) }
    }

    /// As configured; without configuration, as the published weights of this variant have it.
    fn padding(&self, config: &Config) -> Padding {
        let same = match (config.text("pad_type"), config.text("architecture")) {
            (Some(kind), _) => kind == "same",
            (None, Some(name)) => name.starts_with("tf_") || name.ends_with("_pruned"),
            (None, None) => match self.version {
                Version::V1 => self.features > 2048,
                // timm trained the smallest itself.
                Version::Lite => self.blocks() > SIZES_LITE[0].2,
                Version::Mobile => false,
                Version::V2 => matches!(self.stages[0][0].kind, Kind::Plain),
            },
        };
        if same { Padding::Same } else { Padding::Symmetric }
    }

    fn blocks(&self) -> usize {
        self.stages.iter().map(Vec::len).sum()
    }

    fn name(&self) -> String {
        let (family, blocks) = (self.version.family(), self.blocks());
        let published = |sizes: &[(&'static str, usize, usize)], width: usize| {
            sizes.iter().find(|(_, of, count)| (*of, *count) == (width, blocks)).map(|size| size.0)
        };
        let last = || self.stages.last().and_then(|stage| stage.last()).map_or(0, |block| block.out);
        let size = match self.version {
            Version::V1 => published(&SIZES_V1, self.features).map(|size| format!("_{size}")),
            Version::V2 => published(&SIZES_V2, self.features).map(|size| format!("_{size}")),
            Version::Lite => published(&SIZES_LITE, last()).map(str::to_owned),
            Version::Mobile => ([self.stem[1], blocks] == MOBILE).then(String::new),
        };
        format!("{family}{}", size.unwrap_or_else(|| format!("_{}x{blocks}", self.stem[1])))
    }

    fn graph(&self, [height, width]: [usize; 2]) -> Result<Graph, ModelError> {
        let (builder, image) = GraphBuilder::new(&self.name(), Shape::map(3, height, width));
        let mut net = Net { builder, geometry: self };
        let [colours, mut channels] = self.stem;
        let mut x = net.conv("conv_stem", image, Conv2d::square([colours, channels], self.kernel, 2));
        x = net.norm("bn1", x, channels);
        net.builder.role(Role::Body);
        x = net.activate("bn1.act", x);
        for (stage, stride) in self.stages.iter().zip(STRIDES) {
            for (b, block) in stage.iter().enumerate() {
                let stride = if b == 0 { stride } else { 1 };
                x = net.block(x, block, channels, stride);
                channels = block.out;
            }
        }
        x = net.conv("conv_head", x, Conv2d::square([channels, self.features], 1, 1));
        x = net.normed("bn2", x, self.features);
        x = net.builder.push("global_pool", Op::GlobalAvgPool, &[x]);
        net.builder.role(Role::Head);
        net.linear("classifier", x, [self.features, self.classes]);
        Ok(net.builder.finish()?)
    }
}

impl Block {
    /// The block of this name, if there is one.
    fn read(shapes: &Shapes, name: &str) -> Option<Result<Self, ModelError>> {
        let key = |layer: &str| format!("{name}.{layer}.weight");
        let has = |layer: &str| shapes.contains_key(&key(layer));
        let conv = |layer: &str| extents::<4>(shapes, &key(layer));
        let squeezed = || {
            has("se.conv_reduce").then(|| matrix(shapes, &key("se.conv_reduce")).map(|m| m[0])).transpose()
        };
        let kind = match () {
            () if has("conv") => conv("conv").map(|c| (Kind::Plain, c[2], c[0])),
            () if has("conv_exp") => {
                conv("conv_exp").and_then(|c| Ok((Kind::Fused { hidden: c[0] }, c[2], conv("conv_pwl")?[0])))
            }
            () if has("conv_pwl") => conv("conv_dw").and_then(|c| {
                let kind = Kind::Inverted { hidden: c[0], squeezed: squeezed()? };
                Ok((kind, c[2], conv("conv_pwl")?[0]))
            }),
            () if has("conv_dw") => conv("conv_dw")
                .and_then(|c| Ok((Kind::Depthwise { squeezed: squeezed()? }, c[2], conv("conv_pw")?[0]))),
            () => return None,
        };
        Some(kind.map(|(kind, kernel, out)| Self { name: name.to_owned(), kind, kernel, out }))
    }

    const fn has_gate(&self) -> bool {
        matches!(self.kind, Kind::Depthwise { squeezed: Some(_) } | Kind::Inverted { squeezed: Some(_), .. })
    }
}

struct Net<'a> {
    builder: GraphBuilder,
    geometry: &'a Geometry,
}

impl Net<'_> {
    fn block(&mut self, x: NodeId, block: &Block, channels: usize, stride: usize) -> NodeId {
        let Block { ref name, ref kind, kernel, out } = *block;
        let layer = |layer: &str| format!("{name}.{layer}");
        let mut y = match *kind {
            Kind::Plain => {
                let y = self.conv(&layer("conv"), x, Conv2d::square([channels, out], kernel, stride));
                self.normed(&layer("bn1"), y, out)
            }
            Kind::Fused { hidden } => {
                let y = self.conv(&layer("conv_exp"), x, Conv2d::square([channels, hidden], kernel, stride));
                let y = self.normed(&layer("bn1"), y, hidden);
                let y = self.conv(&layer("conv_pwl"), y, Conv2d::square([hidden, out], 1, 1));
                self.norm(&layer("bn2"), y, out)
            }
            Kind::Depthwise { squeezed } => {
                let y = self.conv(&layer("conv_dw"), x, depthwise(channels, kernel, stride));
                let y = self.normed(&layer("bn1"), y, channels);
                let y = self.gate(&layer("se"), y, channels, squeezed);
                let y = self.conv(&layer("conv_pw"), y, Conv2d::square([channels, out], 1, 1));
                self.norm(&layer("bn2"), y, out)
            }
            Kind::Inverted { hidden, squeezed } => {
                let y = self.conv(&layer("conv_pw"), x, Conv2d::square([channels, hidden], 1, 1));
                let y = self.normed(&layer("bn1"), y, hidden);
                let y = self.conv(&layer("conv_dw"), y, depthwise(hidden, kernel, stride));
                let y = self.normed(&layer("bn2"), y, hidden);
                let y = self.gate(&layer("se"), y, hidden, squeezed);
                let y = self.conv(&layer("conv_pwl"), y, Conv2d::square([hidden, out], 1, 1));
                self.norm(&layer("bn3"), y, out)
            }
        };
        if stride == 1 && channels == out {
            y = self.builder.push(layer("add"), Op::Add, &[y, x]);
        }
        self.builder.block(y);
        y
    }

    /// Squeeze and excitation, arXiv 1709.01507, if the block has it.
    fn gate(&mut self, name: &str, x: NodeId, channels: usize, squeezed: Option<usize>) -> NodeId {
        let Some(squeezed) = squeezed else { return x };
        self.builder.role(Role::Side);
        let y = self.builder.push(format!("{name}.pool"), Op::GlobalAvgPool, &[x]);
        let y = self.linear(&format!("{name}.conv_reduce"), y, [channels, squeezed]);
        let y = self.activate(&format!("{name}.act1"), y);
        let y = self.linear(&format!("{name}.conv_expand"), y, [squeezed, channels]);
        let gate = self.builder.push(format!("{name}.gate"), Op::Activation(Activation::Sigmoid), &[y]);
        self.builder.role(Role::Body);
        self.builder.push(name, Op::Gate, &[x, gate])
    }

    /// A convolution; with a stride and `SAME` padding behind zeros of its own.
    fn conv(&mut self, name: &str, mut x: NodeId, mut conv: Conv2d) -> NodeId {
        if conv.stride != [1, 1] && self.geometry.padding == Padding::Same {
            let pad = SamePad { kernel: conv.kernel, stride: conv.stride };
            x = self.builder.push(format!("{name}.pad"), Op::SamePad(pad), &[x]);
            conv.padding = [0, 0];
        }
        self.builder.push(name, Op::Conv2d(conv), &[x])
    }

    fn normed(&mut self, name: &str, x: NodeId, channels: usize) -> NodeId {
        let x = self.norm(name, x, channels);
        self.activate(&format!("{name}.act"), x)
    }

    fn norm(&mut self, name: &str, x: NodeId, channels: usize) -> NodeId {
        let norm = BatchNorm { channels, eps: self.geometry.eps };
        self.builder.push(name, Op::BatchNorm(norm), &[x])
    }

    fn activate(&mut self, name: &str, x: NodeId) -> NodeId {
        self.builder.push(name, Op::Activation(self.geometry.activation), &[x])
    }

    fn linear(&mut self, name: &str, x: NodeId, [from, to]: [usize; 2]) -> NodeId {
        let linear = Linear { in_features: from, out_features: to, bias: true };
        self.builder.push(name, Op::Linear(linear), &[x])
    }
}

fn depthwise(channels: usize, kernel: usize, stride: usize) -> Conv2d {
    Conv2d { groups: channels, ..Conv2d::square([channels, channels], kernel, stride) }
}
