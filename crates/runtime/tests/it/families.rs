//! The other families, small, and every op where no family has it.

use margay_core::{
    Activation, AvgPool2d, BatchNorm, Conv2d, Embed, GraphBuilder, LayerNorm, Linear, LogSumExp, MeanTokens,
    Op, ResponseNorm, SamePad, Scale, Shape, SparseModel, Token,
};
use margay_runtime::{Isa, KernelChoice, Precision, RuntimeError, Session, SessionOptions};

use crate::nets::{self, convnext, efficientnet, noise, vit};
use crate::session::{CHOICES, compare, isas, logits, open_in};

/// Against the definition, and on several threads against one.
fn check(model: &SparseModel) {
    for isa in isas() {
        for kernel in CHOICES {
            compare(model, isa, kernel);
        }
        for precision in Precision::ALL {
            share(model, isa, precision);
        }
    }
}

/// Neither threads nor tuning change a bit.
fn share(model: &SparseModel, isa: Isa, precision: Precision) {
    let mut one = open_in(model, 1, isa, KernelChoice::Auto, precision);
    let images = noise(3 * one.image_len(), 11);
    let expected = logits(&mut one, &images);
    for (threads, tune) in [(2, false), (3, true)] {
        let kernel = KernelChoice::Auto;
        let options =
            SessionOptions { threads, isa: Some(isa), kernel, precision, tune, ..SessionOptions::default() };
        let mut session = Session::new(model, &options).unwrap();
        assert_eq!(logits(&mut session, &images), expected, "{threads} threads, {isa}, {precision}");
        let single: Vec<f32> =
            images.chunks(session.image_len()).flat_map(|i| logits(&mut session, i)).collect();
        assert_eq!(single, expected, "{threads} threads share each image, {isa}, {precision}");
    }
}

#[test]
fn vision_transformers_match_the_definition() {
    let tiny = vit::Spec::tiny();
    let registers = vit::Spec { prefix: 5, layer_scale: true, ..tiny.clone() };
    let pooling = vit::Pooling::Distilled;
    let distilled = vit::Spec { prefix: 2, positioned: 2, pooling, ..tiny.clone() };
    let pooling = vit::Pooling::Mean;
    let (prefix, positioned) = (0, 0);
    let mean = vit::Spec { size: [72, 64], prefix, positioned, pooling, width: 24, heads: 3, ..tiny };
    for sparsity in [0.0, 0.5, 0.95] {
        for spec in [&registers, &distilled, &mean] {
            check(&nets::pack(&vit::graph(spec).unwrap(), sparsity).unwrap());
        }
    }
    check(&nets::unfolded(&vit::graph(&registers).unwrap(), 0.5).unwrap());
}

#[test]
fn convnexts_match_the_definition() {
    for sparsity in [0.0, 0.5, 0.95] {
        for version2 in [false, true] {
            let spec = convnext::Spec { version2, ..convnext::Spec::tiny() };
            check(&nets::pack(&convnext::graph(&spec).unwrap(), sparsity).unwrap());
        }
    }
    check(&nets::unfolded(&convnext::graph(&convnext::Spec::tiny()).unwrap(), 0.5).unwrap());
}

#[test]
fn efficientnets_match_the_definition() {
    let graph = efficientnet::graph(&efficientnet::Spec::tiny()).unwrap();
    for sparsity in [0.0, 0.5, 0.95] {
        check(&nets::pack(&graph, sparsity).unwrap());
    }
    check(&nets::unfolded(&graph, 0.5).unwrap());
}

fn conv(from: usize, to: usize, k: usize, padding: usize) -> Op {
    let [kernel, stride, padding] = [[k, k], [1, 1], [padding, padding]];
    let (in_channels, out_channels) = (from, to);
    Op::Conv2d(Conv2d { in_channels, out_channels, kernel, stride, padding, groups: 1, bias: false })
}

/// The shortcut of a ResNet-D, and activations that are not zero at zero in front of padded windows.
fn maps() -> SparseModel {
    let (mut net, image) = GraphBuilder::new("maps", Shape::map(3, 13, 18));
    let mut push = |name: &str, op: Op, inputs: &[_]| net.push(name, op, inputs);
    let pad = push("pad", Op::SamePad(SamePad { kernel: [5, 2], stride: [2, 3] }), &[image]);
    let a = push("a", conv(3, 6, 3, 1), &[pad]);
    let gate = push("gate", Op::Activation(Activation::Sigmoid), &[a]);
    let b = push("b", conv(6, 6, 3, 1), &[gate]);
    let norm = push("norm", Op::LayerNorm(LayerNorm { features: 6, eps: 1e-5 }), &[b]);
    let c = push("c", conv(6, 6, 3, 1), &[norm]);
    let grn = push("grn", Op::ResponseNorm(ResponseNorm { features: 6, eps: 1e-6 }), &[c]);
    let d = push("d", conv(6, 6, 3, 1), &[grn]);
    let bn = push("bn", Op::BatchNorm(BatchNorm { channels: 6, eps: 1e-3 }), &[grn]);
    let bn = push("bn.act", Op::Activation(Activation::Silu), &[bn]);
    let scale = push("scale", Op::Scale(Scale { features: 6 }), &[bn]);
    let average = push("average", Op::Average, &[d, scale]);
    let average = push("average.act", Op::Activation(Activation::Gelu), &[average]);
    let twice = push("twice", Op::Add, &[average, average]);
    let short = push("short", Op::AvgPool2d(AvgPool2d { kernel: [2, 4] }), &[twice]);
    let e = push("e", Op::Linear(Linear { in_features: 6, out_features: 7, bias: false }), &[short]);
    let mean = push("mean", Op::GlobalAvgPool, &[e]);
    push("head", Op::Linear(Linear { in_features: 7, out_features: 3, bias: true }), &[mean]);
    nets::unfolded(&net.finish().unwrap(), 0.5).unwrap()
}

/// Tokens without attention, and vectors.
fn tokens() -> SparseModel {
    let (mut net, image) = GraphBuilder::new("tokens", Shape::map(5, 3, 7));
    let mut push = |name: &str, op: Op, inputs: &[_]| net.push(name, op, inputs);
    let embed = Embed { features: 5, prefix: 2, positioned: 1, grid: [3, 7] };
    let x = push("embed", Op::Embed(embed), &[image]);
    let grn = push("grn", Op::ResponseNorm(ResponseNorm { features: 5, eps: 1e-6 }), &[x]);
    let first = push("first", Op::Token(Token { index: 1 }), &[grn]);
    let gated = push("gated", Op::Gate, &[x, first]);
    let act = push("act", Op::Activation(Activation::Silu), &[gated]);
    let sum = push("sum", Op::Add, &[act, x]);
    let relu = push("relu", Op::RELU, &[sum]);
    let mean = push("mean", Op::MeanTokens(MeanTokens { prefix: 2 }), &[relu]);
    let both = push("both", Op::Concat, &[mean, first]);
    let norm = push("norm", Op::LayerNorm(LayerNorm { features: 10, eps: 1e-6 }), &[both]);
    let scale = push("scale", Op::Scale(Scale { features: 10 }), &[norm]);
    let act = push("sigmoid", Op::Activation(Activation::Sigmoid), &[scale]);
    let product = push("product", Op::Gate, &[act, norm]);
    let twice = push("twice", Op::Average, &[product, norm]);
    let wide = push("wide", Op::Linear(Linear { in_features: 10, out_features: 19, bias: true }), &[twice]);
    let wide = push("wide.act", Op::Activation(Activation::Sigmoid), &[wide]);
    let again = push("again", Op::Linear(Linear { in_features: 19, out_features: 19, bias: false }), &[wide]);
    let residual = push("residual", Op::Add, &[again, wide]);
    push("join", Op::LogSumExp(LogSumExp { groups: vec![1, 7, 1, 10] }), &[residual]);
    nets::unfolded(&net.finish().unwrap(), 0.5).unwrap()
}

#[test]
fn every_op_matches_the_definition_where_no_family_has_it() {
    check(&maps());
    check(&tokens());
}

#[test]
fn a_response_norm_of_a_vector_is_refused() {
    let (mut net, image) = GraphBuilder::new("bad", Shape::map(4, 3, 3));
    let x = net.push("mean", Op::GlobalAvgPool, &[image]);
    net.push("grn", Op::ResponseNorm(ResponseNorm { features: 4, eps: 1e-6 }), &[x]);
    let model = nets::pack(&net.finish().unwrap(), 0.0).unwrap();
    let error = Session::new(&model, &SessionOptions::default()).unwrap_err();
    assert!(matches!(error, RuntimeError::Unsupported { ref node, .. } if node == "grn"), "{error}");
}
