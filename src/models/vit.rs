//! Vision transformers as in Dosovitskiy et al. 2020, arXiv 2010.11929, and their relatives: DeiT
//! (2012.12877), DeiT III (2204.07118), DINOv2 (2304.07193) with registers (2309.16588).
//!
//! Canonical names are timm's, but for the learned tokens (`embed.prefix`: class, distillation, registers)
//! and positions (`embed.position`). Every extent is read from shapes; the number of heads cannot be.

use margay_core::{
    Attention, Conv2d, Embed, Graph, GraphBuilder, LayerNorm, Linear, MeanTokens, NodeId, Op, Role, Scale,
    Shape, Token,
};

use super::read::extents;
use super::{Architecture, Config, Design, Dialect, ModelError, Shapes};

/// Every plain vision transformer.
pub(super) struct Vit;

const EPS: f64 = 1e-6;
/// Features of an attention head in every published variant.
const HEAD: usize = 64;
/// Name, features, depth, heads.
const SIZES: [(&str, usize, usize, usize); 5] = [
    ("tiny", 192, 12, 3),
    ("small", 384, 12, 6),
    ("base", 768, 12, 12),
    ("large", 1024, 24, 16),
    ("huge", 1280, 32, 16),
];

/// Everything that tells one vision transformer from another.
#[derive(Clone, Debug, PartialEq)]
struct Geometry {
    patch: [usize; 2],
    image: [usize; 2],
    features: usize,
    depth: usize,
    heads: usize,
    hidden: usize,
    eps: f64,
    prefix: usize,
    positioned: usize,
    qkv_bias: bool,
    layer_scale: bool,
    norm_pre: bool,
    pool: Pool,
    classes: usize,
}

/// What the classifier reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    /// The class token, normalised with all others.
    Class,
    /// The class and the distillation token, each with a classifier of its own.
    Distilled,
    /// The mean of the patches, normalised afterwards.
    Mean,
    /// The class token and the mean of the normalised patches, one behind the other.
    ClassAndMean,
}

impl Architecture for Vit {
    fn name(&self) -> &'static str {
        "vit"
    }

    fn variants(&self) -> &'static [&'static str] {
        &["vit_tiny_patch8", "vit_tiny_patch16", "vit_small_patch16", "vit_base_patch16", "vit_large_patch16"]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[
            "embed.position",
            "patch_embed.proj.weight",
            "blocks.0.attn.qkv.weight",
            "blocks.0.mlp.fc1.weight",
            "head.weight",
        ]
    }

    fn dialects(&self) -> &'static [Dialect] {
        &[TIMM]
    }

    fn recognises(&self, shapes: &Shapes) -> bool {
        ["embed.position", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"]
            .iter()
            .all(|key| shapes.contains_key(*key))
    }

    fn detect(&self, shapes: &Shapes, config: &Config, _image: [usize; 2]) -> Result<Graph, ModelError> {
        Geometry::read(shapes, config)?.graph()
    }

    fn build(&self, design: &Design) -> Result<Graph, ModelError> {
        let unknown = || ModelError::UnknownVariant { name: design.variant.clone(), nearest: None };
        let (size, patch) =
            design.variant.strip_prefix("vit_").and_then(|v| v.split_once("_patch")).ok_or_else(unknown)?;
        let patch: usize = patch.parse().map_err(|_| unknown())?;
        let (_, features, depth, heads) = SIZES.into_iter().find(|s| s.0 == size).ok_or_else(unknown)?;
        let features = design.width.unwrap_or(features);
        let depth = design.depth.unwrap_or(depth);
        let heads = if design.width.is_some() { features.div_ceil(HEAD) } else { heads };
        let geometry = Geometry {
            patch: [patch, patch],
            image: design.image,
            features,
            depth,
            heads,
            hidden: 4 * features,
            eps: EPS,
            prefix: 1,
            positioned: 1,
            qkv_bias: true,
            layer_scale: false,
            norm_pre: false,
            pool: Pool::Class,
            classes: design.classes,
        };
        geometry.graph()
    }
}

/// timm, and the original releases of DeiT and DINOv2, which share its keys.
const TIMM: Dialect = Dialect {
    renamings: &[
        ("cls_token", "embed.prefix#0"),
        ("dist_token", "embed.prefix#1"),
        ("reg_token", "embed.prefix#1"),
        ("register_tokens", "embed.prefix#1"),
        ("pos_embed", "embed.position"),
        ("blocks.*.ls*.gamma", "blocks.*.ls*.weight"),
        ("blocks.*.gamma_*", "blocks.*.ls*.weight"),
    ],
    ..Dialect::canonical("timm")
};

impl Geometry {
    fn read(shapes: &Shapes, config: &Config) -> Result<Self, ModelError> {
        let [features, colours, ph, pw] = extents(shapes, "patch_embed.proj.weight")?;
        let [positions, _] = extents(shapes, "embed.position")?;
        let [hidden, _] = extents(shapes, "blocks.0.mlp.fc1.weight")?;
        let has = |key: &str| shapes.contains_key(key);
        let depth = (0..).take_while(|i| has(&format!("blocks.{i}.attn.qkv.weight"))).count();
        let prefix = shapes.get("embed.prefix").map_or(0, |shape| shape[0]);
        let classes = shapes.get("head.weight").map_or(0, |shape| shape[0]);
        let read = shapes.get("head.weight").and_then(|shape| shape.get(1)).copied().unwrap_or(features);
        let pool = if has("head_dist.weight") {
            Pool::Distilled
        } else if has("fc_norm.weight") || prefix == 0 {
            Pool::Mean
        } else if read == 2 * features {
            Pool::ClassAndMean
        } else {
            Pool::Class
        };
        let heads = config.integer("num_attention_heads").or_else(|| config.integer("num_heads"));
        let published = SIZES.iter().find(|(_, width, ..)| *width == features).map(|size| size.3);
        let (grid, positioned) = grid(positions, prefix);
        let geometry = Self {
            patch: [ph, pw],
            image: [grid[0] * ph, grid[1] * pw],
            features,
            depth,
            heads: heads.or(published).unwrap_or(features / HEAD),
            hidden,
            eps: config.number("layer_norm_eps").unwrap_or(EPS),
            prefix,
            positioned,
            qkv_bias: has("blocks.0.attn.qkv.bias"),
            layer_scale: has("blocks.0.ls1.weight"),
            norm_pre: has("norm_pre.weight"),
            pool,
            classes,
        };
        if colours != 3 {
            let what = format!("{colours} input channels (RGB needs 3)");
            return Err(ModelError::Unsupported { variant: geometry.name(), what });
        }
        Ok(geometry)
    }

    fn name(&self) -> String {
        let size = SIZES.iter().find(|(_, width, depth, _)| (*width, *depth) == (self.features, self.depth));
        let size = size.map_or_else(|| format!("{}x{}", self.features, self.depth), |s| s.0.to_owned());
        format!("vit_{size}_patch{}", self.patch[0])
    }

    fn graph(&self) -> Result<Graph, ModelError> {
        let [height, width] = self.image;
        let (builder, image) = GraphBuilder::new(&self.name(), Shape::map(3, height, width));
        let mut net = Net { builder, geometry: self };
        let mut x = net.embed(image);
        net.builder.role(Role::Body);
        for i in 0..self.depth {
            x = net.block(&format!("blocks.{i}"), x);
        }
        net.classify(x);
        Ok(net.builder.finish()?)
    }
}

/// Grid of a square image, and how many prefix tokens have positions of their own: as many as make the
/// number of patches a square.
fn grid(positions: usize, prefix: usize) -> ([usize; 2], usize) {
    let side = |positioned: &usize| {
        let patches = positions.checked_sub(*positioned)?;
        let side = patches.isqrt();
        (side * side == patches && side > 0).then_some(side)
    };
    let positioned = (0..=prefix).find(|n| side(n).is_some()).unwrap_or(0);
    let side = side(&positioned).unwrap_or(0);
    ([side, side], positioned)
}

struct Net<'a> {
    builder: GraphBuilder,
    geometry: &'a Geometry,
}

impl Net<'_> {
    fn embed(&mut self, image: NodeId) -> NodeId {
        let g = self.geometry;
        let patches = Conv2d {
            in_channels: 3,
            out_channels: g.features,
            kernel: g.patch,
            stride: g.patch,
            padding: [0, 0],
            groups: 1,
            bias: !g.norm_pre,
        };
        let patches = self.builder.push("patch_embed.proj", Op::Conv2d(patches), &[image]);
        let grid = [0, 1].map(|axis| g.image[axis] / g.patch[axis]);
        let embed = Embed { features: g.features, prefix: g.prefix, positioned: g.positioned, grid };
        let tokens = self.builder.push("embed", Op::Embed(embed), &[patches]);
        if g.norm_pre { self.norm("norm_pre", tokens) } else { tokens }
    }

    /// Attention and perceptron, each behind a norm and inside a shortcut.
    fn block(&mut self, name: &str, x: NodeId) -> NodeId {
        let g = self.geometry;
        let y = self.norm(&format!("{name}.norm1"), x);
        let y = self.linear(&format!("{name}.attn.qkv"), y, [g.features, 3 * g.features], g.qkv_bias);
        let attention = Attention { heads: g.heads, features: g.features };
        let y = self.builder.push(format!("{name}.attn"), Op::Attention(attention), &[y]);
        let y = self.linear(&format!("{name}.attn.proj"), y, [g.features, g.features], true);
        let x = self.shortcut(name, "1", x, y);
        let y = self.norm(&format!("{name}.norm2"), x);
        let y = self.linear(&format!("{name}.mlp.fc1"), y, [g.features, g.hidden], true);
        let y = self.builder.push(format!("{name}.mlp.act"), Op::GELU, &[y]);
        let y = self.linear(&format!("{name}.mlp.fc2"), y, [g.hidden, g.features], true);
        let x = self.shortcut(name, "2", x, y);
        self.builder.block(x);
        x
    }

    fn shortcut(&mut self, name: &str, which: &str, x: NodeId, mut y: NodeId) -> NodeId {
        if self.geometry.layer_scale {
            let scale = Op::Scale(Scale { features: self.geometry.features });
            y = self.builder.push(format!("{name}.ls{which}"), scale, &[y]);
        }
        self.builder.push(format!("{name}.add{which}"), Op::Add, &[y, x])
    }

    fn classify(&mut self, x: NodeId) {
        let g = self.geometry;
        let prefix = g.prefix;
        let token = |index| Op::Token(Token { index });
        let mean = Op::MeanTokens(MeanTokens { prefix });
        match g.pool {
            Pool::Mean => {
                let pooled = self.builder.push("pool", mean, &[x]);
                let pooled = self.norm("fc_norm", pooled);
                self.head("head", pooled, g.features);
            }
            Pool::Class => {
                let x = self.norm("norm", x);
                let class = self.builder.push("pool", token(0), &[x]);
                self.head("head", class, g.features);
            }
            Pool::ClassAndMean => {
                let x = self.norm("norm", x);
                let class = self.builder.push("class", token(0), &[x]);
                let mean = self.builder.push("mean", mean, &[x]);
                let both = self.builder.push("pool", Op::Concat, &[class, mean]);
                self.head("head", both, 2 * g.features);
            }
            Pool::Distilled => {
                let x = self.norm("norm", x);
                let tokens = [0, 1].map(|i| self.builder.push(format!("pool.{i}"), token(i), &[x]));
                let class = self.head("head", tokens[0], g.features);
                let distilled = self.head("head_dist", tokens[1], g.features);
                self.builder.push("logits", Op::Average, &[class, distilled]);
            }
        }
    }

    fn head(&mut self, name: &str, x: NodeId, features: usize) -> NodeId {
        self.builder.role(Role::Head);
        self.linear(name, x, [features, self.geometry.classes], true)
    }

    fn norm(&mut self, name: &str, x: NodeId) -> NodeId {
        let norm = LayerNorm { features: self.geometry.features, eps: self.geometry.eps };
        self.builder.push(name, Op::LayerNorm(norm), &[x])
    }

    fn linear(&mut self, name: &str, x: NodeId, [from, to]: [usize; 2], bias: bool) -> NodeId {
        let linear = Linear { in_features: from, out_features: to, bias };
        self.builder.push(name, Op::Linear(linear), &[x])
    }
}
