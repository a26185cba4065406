//! Vision transformers as in Dosovitskiy et al. 2020, arXiv 2010.11929, and their relatives: DeiT
//! (2012.12877), DeiT III (2204.07118), DINOv2 (2304.07193) with registers (2309.16588).
//!
//! Canonical names are timm's, but for the learned tokens (`embed.prefix`: class, distillation, registers)
//! and positions (`embed.position`). Every extent is read from shapes; the number of heads cannot be.

mod dialects;
#[cfg(test)]
mod tests;

use margay_core::{
    Activation, Attention, Conv2d, Embed, Graph, GraphBuilder, LayerNorm, Linear, MeanTokens, NodeId, Op,
    ParamRole, Role, Scale, Shape, Token,
};

use super::read::{activation, check_colours, count, extents, matrix, unsupported};
use super::{Architecture, Config, Design, Dialect, ModelError, NameMap, Part, Shapes};

/// Every plain vision transformer.
pub(super) struct Vit;

const EPS: f64 = 1e-6;
/// Networks with a norm before the first block come from CLIP, which has this one.
const CLIP_EPS: f64 = 1e-5;
/// Features of an attention head in every published variant.
const HEAD: usize = 64;
/// Name, features, depth, heads.
const SIZES: [(&str, usize, usize, usize); 8] = [
    ("tiny", 192, 12, 3),
    ("small", 384, 12, 6),
    ("base", 768, 12, 12),
    ("large", 1024, 24, 16),
    ("huge", 1280, 32, 16),
    ("so400m", 1152, 27, 16),
    ("giant", 1408, 40, 16),
    ("gigantic", 1664, 48, 16),
];
/// Parts of keys of relatives, and what they tell.
const RELATIVES: [(&str, &str); 12] = [
    (".mlp.w12.", "gated (SwiGLU) perceptrons"),
    (".mlp.weights_in.", "gated (SwiGLU) perceptrons"),
    (".mlp.gate_proj.", "gated (SwiGLU) perceptrons"),
    (".mlp.fc1_g.", "gated (SwiGLU) perceptrons"),
    (".attn.q_norm.", "norms of queries and keys"),
    (".attn.norm.", "norms inside the attention"),
    (".attn.rel_pos", "relative positions"),
    (".attn.q_bias", "biases of queries and values only"),
    ("attn_pool.", "attention pooling"),
    ("pre_logits.", "a hidden layer before the classifier"),
    ("blocks_token_only.", "class attention"),
    ("patch_embed.backbone.", "a convolutional stem"),
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
    activation: Activation,
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
    /// The mean of the normalised patches.
    MeanOfNormed,
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

    fn heads(&self) -> &'static [&'static str] {
        &["head", "head_dist"]
    }

    fn concatenates(&self) -> bool {
        true
    }

    fn dialects(&self) -> &'static [Dialect] {
        dialects::ALL
    }

    fn recognises(&self, shapes: &Shapes) -> bool {
        ["embed.position", "patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight"]
            .iter()
            .all(|key| shapes.contains_key(*key))
    }

    fn timm_names(&self, graph: &Graph) -> NameMap {
        let mut names = NameMap::identity();
        for spec in graph.params().filter(|spec| spec.role == ParamRole::Embedding) {
            let key = if spec.name.ends_with(".prefix") { "cls_token" } else { "pos_embed" };
            let shape = [&[1], spec.shape.as_slice()].concat();
            names.push(&spec.name, Part { key: key.to_owned(), shape });
        }
        names
    }

    fn detect(&self, shapes: &Shapes, config: &Config, _image: [usize; 2]) -> Result<Graph, ModelError> {
        Geometry::read(shapes, config)?.graph()
    }

    fn build(&self, design: &Design) -> Result<Graph, ModelError> {
        let unknown = || ModelError::UnknownVariant { name: design.variant.clone(), nearest: None };
        let (size, patch) =
            design.variant.strip_prefix("vit_").and_then(|v| v.split_once("_patch")).ok_or_else(unknown)?;
        let patch: usize = patch.parse().map_err(|_| unknown())?;
        let (_, features, depth, _) = SIZES.into_iter().find(|s| s.0 == size).ok_or_else(unknown)?;
        let features = design.width.unwrap_or(features);
        let depth = design.depth.unwrap_or(depth);
        let geometry = Geometry {
            patch: [patch, patch],
            image: design.image,
            features,
            depth,
            heads: heads(features),
            hidden: 4 * features,
            eps: EPS,
            activation: Activation::Gelu,
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

impl Geometry {
    fn read(shapes: &Shapes, config: &Config) -> Result<Self, ModelError> {
        let [features, colours, ph, pw] = extents(shapes, "patch_embed.proj.weight")?;
        let [positions, _] = extents(shapes, "embed.position")?;
        let has = |key: &str| shapes.contains_key(key);
        let prefix = shapes.get("embed.prefix").map_or(0, |shape| shape[0]);
        let (grid, positioned) = grid(positions, prefix);
        let norm_pre = has("norm_pre.weight");
        let own_heads = config.integer("num_attention_heads").or_else(|| config.integer("num_heads"));
        let own_eps = if norm_pre { CLIP_EPS } else { EPS };
        let mut geometry = Self {
            patch: [ph, pw],
            image: [grid[0] * ph, grid[1] * pw],
            features,
            depth: count(shapes, |i| format!("blocks.{i}.attn.qkv.weight")),
            heads: own_heads.unwrap_or_else(|| heads(features)),
            hidden: 0,
            eps: config.number("layer_norm_eps").unwrap_or(own_eps),
            activation: Activation::Gelu,
            prefix,
            positioned,
            qkv_bias: has("blocks.0.attn.qkv.bias"),
            layer_scale: has("blocks.0.ls1.weight"),
            norm_pre,
            pool: Pool::Class,
            classes: 0,
        };
        let name = geometry.name();
        check_colours(colours, &name)?;
        geometry.check_relatives(shapes, config)?;
        geometry.activation = activation(config, Activation::Gelu, &name)?;
        [geometry.hidden, _] = matrix(shapes, "blocks.0.mlp.fc1.weight")?;
        let [_, back] = matrix(shapes, "blocks.0.mlp.fc2.weight")?;
        if back != geometry.hidden {
            return Err(unsupported(&name, "gated (SwiGLU) perceptrons"));
        }
        if has("head.weight") {
            let [classes, read] = matrix(shapes, "head.weight")?;
            geometry.classes = classes;
            geometry.pool = geometry.pool(shapes, config, read)?;
        } else {
            geometry.pool = geometry.pool(shapes, config, features)?;
        }
        Ok(geometry)
    }

    /// Refuses what the weights or the configuration tell to be different.
    fn check_relatives(&self, shapes: &Shapes, config: &Config) -> Result<(), ModelError> {
        let name = self.name();
        let relative = RELATIVES.iter().find(|(mark, _)| shapes.keys().any(|key| key.contains(mark)));
        if let Some((_, what)) = relative {
            return Err(unsupported(&name, *what));
        }
        if config.text("architecture").is_some_and(|name| name.contains("quickgelu")) {
            return Err(unsupported(&name, "the activation `quick_gelu`"));
        }
        if self.image.contains(&0) {
            return Err(unsupported(&name, "positions for a grid that is not square"));
        }
        Ok(())
    }

    /// What a classifier reads that reads this many features.
    fn pool(&self, shapes: &Shapes, config: &Config, read: usize) -> Result<Pool, ModelError> {
        let has = |key: &str| shapes.contains_key(key);
        let pooled = config.text("global_pool").filter(|pool| !pool.is_empty());
        match pooled {
            _ if read == 2 * self.features => Ok(Pool::ClassAndMean),
            _ if read != self.features => {
                Err(unsupported(&self.name(), format!("a classifier of {read} features")))
            }
            None | Some("token" | "avg") if has("head_dist.weight") => Ok(Pool::Distilled),
            None | Some("avg") if has("fc_norm.weight") => Ok(Pool::Mean),
            None | Some("token") if self.prefix > 0 => Ok(Pool::Class),
            None | Some("avg") => Ok(Pool::MeanOfNormed),
            Some(other) => Err(unsupported(&self.name(), format!("the pooling `{other}`"))),
        }
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

/// Heads that a network of this width has where no configuration tells: as published, else about as wide.
fn heads(features: usize) -> usize {
    let published = SIZES.iter().find(|(_, width, ..)| *width == features).map(|size| size.3);
    let divides = |heads: &usize| features.is_multiple_of(*heads);
    published.or_else(|| (features.div_ceil(HEAD)..=features).find(divides)).unwrap_or(1)
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
        let y = self.builder.push(format!("{name}.mlp.act"), Op::Activation(g.activation), &[y]);
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
            Pool::MeanOfNormed => {
                let x = self.norm("norm", x);
                let pooled = self.builder.push("pool", mean, &[x]);
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
