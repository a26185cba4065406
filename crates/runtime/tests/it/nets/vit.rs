//! Vision transformers.

use margay_core::{
    Attention, Embed, Graph, GraphBuilder, GraphError, LayerNorm, MeanTokens, NodeId, Op, Role, Scale, Shape,
    Token,
};

use super::{conv, linear};

/// What makes a vision transformer.
#[derive(Clone)]
pub struct Spec {
    pub size: [usize; 2],
    pub patch: usize,
    pub width: usize,
    pub depth: usize,
    pub heads: usize,
    /// Class, distillation and register tokens.
    pub prefix: usize,
    pub positioned: usize,
    pub layer_scale: bool,
    pub pooling: Pooling,
    pub classes: usize,
}

/// What the classifier reads.
#[derive(Clone, Copy, PartialEq)]
pub enum Pooling {
    Class,
    /// Mean of the heads of class and distillation token.
    Distilled,
    Mean,
}

impl Spec {
    /// Two blocks with class and register tokens, on an uneven grid.
    pub fn tiny() -> Self {
        let (size, pooling) = ([24, 40], Pooling::Class);
        Self {
            size,
            patch: 8,
            width: 20,
            depth: 2,
            heads: 2,
            prefix: 3,
            classes: 5,
            pooling,
            ..Self::deit(0)
        }
    }

    /// A model of DeiT's sizes at 224².
    pub fn deit(width: usize) -> Self {
        Self {
            size: [224, 224],
            patch: 16,
            width,
            depth: 12,
            heads: width / 64,
            prefix: 1,
            positioned: 1,
            layer_scale: false,
            pooling: Pooling::Class,
            classes: 1000,
        }
    }
}

/// The graph.
pub fn graph(spec: &Spec) -> Result<Graph, GraphError> {
    let (mut net, image) = GraphBuilder::new("vit", Shape::map(3, spec.size[0], spec.size[1]));
    let (width, patch) = (spec.width, spec.patch);
    let x = net.push("patch_embed.proj", conv([3, width], patch, patch, 0, 1), &[image]);
    let grid = spec.size.map(|n| n / patch);
    let embed = Embed { features: width, prefix: spec.prefix, positioned: spec.positioned, grid };
    let mut x = net.push("embed", Op::Embed(embed), &[x]);
    net.role(Role::Body);
    for i in 0..spec.depth {
        x = block(&mut net, &format!("blocks.{i}"), x, spec);
    }
    head(&mut net, x, spec);
    net.finish()
}

fn block(net: &mut GraphBuilder, name: &str, x: NodeId, spec: &Spec) -> NodeId {
    let (width, heads) = (spec.width, spec.heads);
    let mut push = |part: &str, op: Op, inputs: &[NodeId]| net.push(format!("{name}.{part}"), op, inputs);
    let norm = || Op::LayerNorm(LayerNorm { features: width, eps: 1e-6 });
    let scale = || Op::Scale(Scale { features: width });
    let mut y = push("norm1", norm(), &[x]);
    y = push("attn.qkv", linear(width, 3 * width), &[y]);
    y = push("attn", Op::Attention(Attention { heads, features: width }), &[y]);
    y = push("attn.proj", linear(width, width), &[y]);
    if spec.layer_scale {
        y = push("ls1", scale(), &[y]);
    }
    let x = push("add1", Op::Add, &[x, y]);
    let mut y = push("norm2", norm(), &[x]);
    y = push("mlp.fc1", linear(width, 4 * width), &[y]);
    y = push("mlp.act", Op::GELU, &[y]);
    y = push("mlp.fc2", linear(4 * width, width), &[y]);
    if spec.layer_scale {
        y = push("ls2", scale(), &[y]);
    }
    push("add2", Op::Add, &[x, y])
}

fn head(net: &mut GraphBuilder, x: NodeId, spec: &Spec) {
    let (width, classes) = (spec.width, spec.classes);
    let norm = Op::LayerNorm(LayerNorm { features: width, eps: 1e-6 });
    net.role(Role::Head);
    if spec.pooling == Pooling::Mean {
        let x = net.push("pool", Op::MeanTokens(MeanTokens { prefix: spec.prefix }), &[x]);
        let x = net.push("fc_norm", norm, &[x]);
        net.push("head", linear(width, classes), &[x]);
        return;
    }
    let x = net.push("norm", norm, &[x]);
    let token = net.push("class", Op::Token(Token { index: 0 }), &[x]);
    let logits = net.push("head", linear(width, classes), &[token]);
    if spec.pooling == Pooling::Distilled {
        let token = net.push("distillation", Op::Token(Token { index: 1 }), &[x]);
        let other = net.push("head_dist", linear(width, classes), &[token]);
        net.push("average", Op::Average, &[logits, other]);
    }
}
