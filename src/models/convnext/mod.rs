//! Convolutional networks as in Liu et al. 2022, arXiv 2201.03545, and with global response
//! normalisation, Woo et al. 2023, arXiv 2301.00808.
//!
//! Canonical names are timm's, but for the learned factors (`gamma.weight`). Every extent is read from
//! shapes.

mod dialects;
#[cfg(test)]
mod tests;

use margay_core::{
    Activation, Conv2d, Graph, GraphBuilder, LayerNorm, Linear, NodeId, Op, ResponseNorm, Role, Scale, Shape,
};

use super::read::{activation, check_colours, count, extents, matrix, unsupported};
use super::{Architecture, Config, Design, Dialect, ModelError, Shapes};

/// Both versions of any width and depth.
pub(super) struct ConvNext;

const EPS: f64 = 1e-6;
/// Added to the mean norm of a response normalisation.
const RESPONSE_EPS: f64 = 1e-6;
/// Hidden features of a block, in multiples of its width.
const EXPANSION: usize = 4;
/// Name, channels of the first stage, blocks of every stage.
const SIZES: [(&str, usize, [usize; 4]); 11] = [
    ("atto", 40, [2, 2, 6, 2]),
    ("femto", 48, [2, 2, 6, 2]),
    ("pico", 64, [2, 2, 6, 2]),
    ("nano", 80, [2, 2, 8, 2]),
    ("tiny", 96, [3, 3, 9, 3]),
    ("small", 96, [3, 3, 27, 3]),
    ("base", 128, [3, 3, 27, 3]),
    ("large", 192, [3, 3, 27, 3]),
    ("xlarge", 256, [3, 3, 27, 3]),
    ("huge", 352, [3, 3, 27, 3]),
    ("xxlarge", 384, [3, 4, 30, 3]),
];

/// Everything that tells one network from another.
struct Geometry {
    stem: Stem,
    stages: [Stage; 4],
    version: Version,
    activation: Activation,
    head: Head,
    eps: f64,
    head_eps: f64,
}

/// What halves the image twice before the first stage.
enum Stem {
    /// One convolution of patches that lie edge to edge.
    Patches([usize; 2]),
    /// Two 3 × 3 convolutions with this many channels between them, and perhaps an activation.
    Overlapping { channels: usize, activated: bool },
}

struct Stage {
    blocks: usize,
    channels: usize,
    kernel: [usize; 2],
    hidden: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A learned factor at the end of each block.
    Scaled,
    /// Neither; what Hugging Face makes of a zero initial factor.
    Plain,
    /// A response normalisation inside each block.
    V2,
}

struct Head {
    /// Where the last norm stands.
    norm: HeadNorm,
    /// Features of a layer before the classifier.
    hidden: Option<usize>,
    classes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HeadNorm {
    BeforePool,
    AfterPool,
    /// Pretrained without a classifier.
    Absent,
}

impl Architecture for ConvNext {
    fn name(&self) -> &'static str {
        "convnext"
    }

    fn variants(&self) -> &'static [&'static str] {
        &[
            "convnext_atto",
            "convnext_femto",
            "convnext_pico",
            "convnext_nano",
            "convnext_tiny",
            "convnext_small",
            "convnext_base",
            "convnext_large",
            "convnextv2_atto",
            "convnextv2_femto",
            "convnextv2_pico",
            "convnextv2_nano",
            "convnextv2_tiny",
            "convnextv2_small",
            "convnextv2_base",
            "convnextv2_large",
        ]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[
            "stem.0.weight",
            "stages.0.blocks.0.conv_dw.weight",
            "stages.0.blocks.0.mlp.fc1.weight",
            "stages.1.downsample.1.weight",
            "head.fc.weight",
        ]
    }

    fn heads(&self) -> &'static [&'static str] {
        &["head.fc"]
    }

    fn dialects(&self) -> &'static [Dialect] {
        dialects::ALL
    }

    fn recognises(&self, shapes: &Shapes) -> bool {
        ["stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "stages.0.blocks.0.mlp.fc1.weight"]
            .iter()
            .all(|key| shapes.contains_key(*key))
    }

    fn detect(&self, shapes: &Shapes, config: &Config, image: [usize; 2]) -> Result<Graph, ModelError> {
        Geometry::read(shapes, config)?.graph(image)
    }

    fn build(&self, design: &Design) -> Result<Graph, ModelError> {
        let unknown = || ModelError::UnknownVariant { name: design.variant.clone(), nearest: None };
        let (version, size) = match design.variant.split_once('_') {
            Some(("convnext", size)) => (Version::Scaled, size),
            Some(("convnextv2", size)) => (Version::V2, size),
            _ => return Err(unknown()),
        };
        let (_, width, blocks) = SIZES.into_iter().find(|s| s.0 == size).ok_or_else(unknown)?;
        let width = design.width.unwrap_or(width);
        let stages = std::array::from_fn(|s| {
            let channels = width << s;
            Stage { blocks: blocks[s], channels, kernel: [7, 7], hidden: EXPANSION * channels }
        });
        let geometry = Geometry {
            stem: Stem::Patches([4, 4]),
            stages,
            version,
            activation: Activation::Gelu,
            head: Head { norm: HeadNorm::AfterPool, hidden: None, classes: design.classes },
            eps: EPS,
            head_eps: EPS,
        };
        geometry.graph(design.image)
    }
}

impl Geometry {
    fn read(shapes: &Shapes, config: &Config) -> Result<Self, ModelError> {
        let has = |key: &str| shapes.contains_key(key);
        let [_, colours, ..] = extents::<4>(shapes, "stem.0.weight")?;
        let version = match () {
            () if has("stages.0.blocks.0.mlp.grn.weight") => Version::V2,
            () if has("stages.0.blocks.0.gamma.weight") => Version::Scaled,
            () => Version::Plain,
        };
        let [a, b, c, d] = [0, 1, 2, 3].map(|s| Stage::read(shapes, s));
        let mut geometry = Self {
            stem: Stem::read(shapes)?,
            stages: [a?, b?, c?, d?],
            version,
            activation: Activation::Gelu,
            head: Head::read(shapes)?,
            eps: EPS,
            head_eps: EPS,
        };
        let name = geometry.name();
        check_colours(colours, &name)?;
        if !has("stages.0.blocks.0.norm.bias") {
            return Err(unsupported(&name, "norms without bias"));
        }
        // timm gives only this one another epsilon.
        let own = if name == "convnext_xxlarge" { 1e-5 } else { EPS };
        geometry.eps = config.number("norm_eps").unwrap_or(own);
        geometry.head_eps = config.number("layer_norm_eps").unwrap_or(geometry.eps);
        geometry.activation = activation(config, Activation::Gelu, &name)?;
        Ok(geometry)
    }

    fn name(&self) -> String {
        let (width, blocks) = (self.stages[0].channels, self.stages.each_ref().map(|stage| stage.blocks));
        let size = SIZES.iter().find(|(_, w, b)| (*w, *b) == (width, blocks));
        let size =
            size.map_or_else(|| format!("{width}x{}", blocks.iter().sum::<usize>()), |s| s.0.to_owned());
        let version = if self.version == Version::V2 { "v2" } else { "" };
        let stem = if matches!(self.stem, Stem::Patches(_)) { "" } else { "_ols" };
        let norm = if self.head.norm == HeadNorm::BeforePool { "_hnf" } else { "" };
        let hidden = if self.head.hidden.is_some() { "_mlp" } else { "" };
        format!("convnext{version}_{size}{stem}{norm}{hidden}")
    }

    fn graph(&self, [height, width]: [usize; 2]) -> Result<Graph, ModelError> {
        let (builder, image) = GraphBuilder::new(&self.name(), Shape::map(3, height, width));
        let mut net = Net { builder, geometry: self };
        let mut x = net.stem(image);
        net.builder.role(Role::Body);
        let mut channels = self.stages[0].channels;
        for (s, stage) in self.stages.iter().enumerate() {
            if s > 0 {
                let name = format!("stages.{s}.downsample");
                x = net.norm(&format!("{name}.0"), x, channels);
                x = net.conv(
                    &format!("{name}.1"),
                    x,
                    Conv2d { kernel: [2, 2], stride: [2, 2], ..plain(channels, stage.channels) },
                );
                channels = stage.channels;
            }
            for b in 0..stage.blocks {
                x = net.block(&format!("stages.{s}.blocks.{b}"), x, stage);
            }
        }
        net.classify(x, channels);
        Ok(net.builder.finish()?)
    }
}

impl Stem {
    fn read(shapes: &Shapes) -> Result<Self, ModelError> {
        let [channels, _, kh, kw] = extents(shapes, "stem.0.weight")?;
        let convolves = |key: &str| shapes.get(key).is_some_and(|shape| shape.len() == 4);
        Ok(match () {
            () if convolves("stem.1.weight") => Self::Overlapping { channels, activated: false },
            () if convolves("stem.2.weight") => Self::Overlapping { channels, activated: true },
            () => Self::Patches([kh, kw]),
        })
    }
}

impl Stage {
    fn read(shapes: &Shapes, stage: usize) -> Result<Self, ModelError> {
        let key = |block: usize, name: &str| format!("stages.{stage}.blocks.{block}.{name}.weight");
        let [channels, _, kh, kw] = extents(shapes, &key(0, "conv_dw"))?;
        let [hidden, _] = matrix(shapes, &key(0, "mlp.fc1"))?;
        Ok(Self { blocks: count(shapes, |b| key(b, "conv_dw")), channels, kernel: [kh, kw], hidden })
    }
}

impl Head {
    fn read(shapes: &Shapes) -> Result<Self, ModelError> {
        let rows =
            |key: &str| shapes.contains_key(key).then(|| matrix(shapes, key).map(|m| m[0])).transpose();
        let classes = rows("head.fc.weight")?;
        let norm = match () {
            () if shapes.contains_key("norm_pre.weight") => HeadNorm::BeforePool,
            () if shapes.contains_key("head.norm.weight") || classes.is_some() => HeadNorm::AfterPool,
            () => HeadNorm::Absent,
        };
        Ok(Self { norm, hidden: rows("head.pre_logits.fc.weight")?, classes: classes.unwrap_or(0) })
    }
}

struct Net<'a> {
    builder: GraphBuilder,
    geometry: &'a Geometry,
}

impl Net<'_> {
    fn stem(&mut self, image: NodeId) -> NodeId {
        let channels = self.geometry.stages[0].channels;
        match self.geometry.stem {
            Stem::Patches(patch) => {
                let x =
                    self.conv("stem.0", image, Conv2d { kernel: patch, stride: patch, ..plain(3, channels) });
                self.norm("stem.1", x, channels)
            }
            Stem::Overlapping { channels: between, activated } => {
                let mut x = self.conv("stem.0", image, halving(3, between));
                if activated {
                    x = self.activate("stem.1", x);
                }
                let second = 1 + usize::from(activated);
                x = self.conv(&format!("stem.{second}"), x, halving(between, channels));
                self.norm(&format!("stem.{}", second + 1), x, channels)
            }
        }
    }

    /// A depthwise convolution and a perceptron at each position, inside a shortcut.
    fn block(&mut self, name: &str, x: NodeId, stage: &Stage) -> NodeId {
        let Stage { channels, kernel, hidden, .. } = *stage;
        let padding = kernel.map(|k| k / 2);
        let depthwise = Conv2d { kernel, padding, groups: channels, ..plain(channels, channels) };
        let mut y = self.conv(&format!("{name}.conv_dw"), x, depthwise);
        y = self.norm(&format!("{name}.norm"), y, channels);
        y = self.linear(&format!("{name}.mlp.fc1"), y, [channels, hidden]);
        y = self.activate(&format!("{name}.mlp.act"), y);
        if self.geometry.version == Version::V2 {
            let norm = Op::ResponseNorm(ResponseNorm { features: hidden, eps: RESPONSE_EPS });
            y = self.builder.push(format!("{name}.mlp.grn"), norm, &[y]);
        }
        y = self.linear(&format!("{name}.mlp.fc2"), y, [hidden, channels]);
        if self.geometry.version == Version::Scaled {
            let scale = Op::Scale(Scale { features: channels });
            y = self.builder.push(format!("{name}.gamma"), scale, &[y]);
        }
        let end = self.builder.push(format!("{name}.add"), Op::Add, &[y, x]);
        self.builder.block(end);
        end
    }

    fn classify(&mut self, mut x: NodeId, mut features: usize) {
        let head = &self.geometry.head;
        let norm = |name| (name, LayerNorm { features, eps: self.geometry.head_eps });
        let (before, after) = match head.norm {
            HeadNorm::BeforePool => (Some(norm("norm_pre")), None),
            HeadNorm::AfterPool => (None, Some(norm("head.norm"))),
            HeadNorm::Absent => (None, None),
        };
        if let Some((name, norm)) = before {
            x = self.builder.push(name, Op::LayerNorm(norm), &[x]);
        }
        x = self.builder.push("head.global_pool", Op::GlobalAvgPool, &[x]);
        if let Some((name, norm)) = after {
            x = self.builder.push(name, Op::LayerNorm(norm), &[x]);
        }
        if let Some(hidden) = head.hidden {
            x = self.linear("head.pre_logits.fc", x, [features, hidden]);
            x = self.builder.push("head.pre_logits.act", Op::GELU, &[x]);
            features = hidden;
        }
        self.builder.role(Role::Head);
        self.linear("head.fc", x, [features, head.classes]);
    }

    fn conv(&mut self, name: &str, x: NodeId, conv: Conv2d) -> NodeId {
        self.builder.push(name, Op::Conv2d(conv), &[x])
    }

    fn norm(&mut self, name: &str, x: NodeId, features: usize) -> NodeId {
        let norm = LayerNorm { features, eps: self.geometry.eps };
        self.builder.push(name, Op::LayerNorm(norm), &[x])
    }

    fn activate(&mut self, name: &str, x: NodeId) -> NodeId {
        self.builder.push(name, Op::Activation(self.geometry.activation), &[x])
    }

    fn linear(&mut self, name: &str, x: NodeId, [from, to]: [usize; 2]) -> NodeId {
        let linear = Linear { in_features: from, out_features: to, bias: true };
        self.builder.push(name, Op::Linear(linear), &[x])
    }
}

/// One pixel per window, with bias.
fn plain(in_channels: usize, out_channels: usize) -> Conv2d {
    Conv2d {
        in_channels,
        out_channels,
        kernel: [1, 1],
        stride: [1, 1],
        padding: [0, 0],
        groups: 1,
        bias: true,
    }
}

/// 3 × 3 windows, every other one.
fn halving(in_channels: usize, out_channels: usize) -> Conv2d {
    Conv2d { kernel: [3, 3], stride: [2, 2], padding: [1, 1], ..plain(in_channels, out_channels) }
}
