//! The laws that every adapter must obey, over all of the table.

mod attention;
mod matrix;
mod network;

use std::collections::BTreeMap;

use margay_core::{Activation, BatchNorm, Conv2d, Graph, GraphBuilder, Linear, Mask, Op, Role, Shape};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use super::statistics::Residual;
use super::*;
use crate::models::{Design, build};
use crate::pipeline::random_params;
use crate::recipe::AdapterInit;
use crate::torch::{Effective, Norms, TorchModel, forward, tensor_to_mask, top_k_mask};

const INITS: [AdapterInit; 3] = [AdapterInit::Default, AdapterInit::Eva, AdapterInit::Residual];

/// Adapters that add variables to layers.
fn with_parts() -> impl Iterator<Item = &'static dyn Adapter> {
    let spec = AdaptSpec::default();
    ADAPTERS.iter().copied().filter(move |adapter| {
        let split = adapter.split(&spec);
        split.low_rank + split.sparse > 0.0
    })
}

/// Standard normal numbers from a generator of their own: libtorch's is shared by all tests.
fn normal(shape: &[i64], seed: u64) -> Tensor {
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let count: i64 = shape.iter().product();
    let values: Vec<f32> = StandardNormal.sample_iter(rng).take(count as usize).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// Adds noise to every variable, as training would.
fn stir(store: &VarStore, amount: f64, seed: u64) {
    tch::no_grad(|| {
        for (mut variable, seed) in store.trainable_variables().into_iter().zip(seed..) {
            let noise = normal(&variable.size(), seed).to_kind(variable.kind()) * amount;
            let _ = variable.g_add_(&noise);
        }
    });
}

fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

fn logits(graph: &Graph, weights: &dyn Effective, images: &Tensor) -> Tensor {
    tch::no_grad(|| forward(graph, weights, Norms::Stored, images, &[]).unwrap().logits)
}

/// A small network with a convolution, a grouped one, a linear layer, biases and batch norms.
fn grouped() -> Graph {
    let conv = |from: usize, to: usize, side: usize, groups: usize, bias: bool| {
        Op::Conv2d(Conv2d {
            in_channels: from,
            out_channels: to,
            kernel: [side, side],
            stride: [1, 1],
            padding: [side / 2, side / 2],
            groups,
            bias,
        })
    };
    let norm = |channels: usize| Op::BatchNorm(BatchNorm { channels, eps: 1e-5 });
    let (mut builder, image) = GraphBuilder::new("test", Shape::map(3, 16, 16));
    let stem = builder.push("stem", conv(3, 8, 3, 1, false), &[image]);
    builder.role(Role::Body);
    let wide = builder.push("wide", conv(8, 12, 3, 1, true), &[stem]);
    let wide = builder.push("bn1", norm(12), &[wide]);
    let act = builder.push("act", Op::Activation(Activation::Relu), &[wide]);
    let grouped = builder.push("grouped", conv(12, 8, 3, 4, false), &[act]);
    let grouped = builder.push("bn2", norm(8), &[grouped]);
    let pool = builder.push("pool", Op::GlobalAvgPool, &[grouped]);
    let hidden = Op::Linear(Linear { in_features: 8, out_features: 16, bias: true });
    let hidden = builder.push("hidden", hidden, &[pool]);
    builder.role(Role::Head);
    builder.push("fc", Op::Linear(Linear { in_features: 16, out_features: 2, bias: true }), &[hidden]);
    builder.finish().unwrap()
}

/// A real architecture, made small.
fn small(variant: &str, width: usize) -> Graph {
    let variant = variant.to_owned();
    build(&Design { variant, width: Some(width), depth: Some(1), classes: 2, image: [32, 32] }).unwrap()
}

fn networks() -> [(&'static str, Graph); 4] {
    [
        ("grouped", grouped()),
        ("resnet", small("resnet18", 8)),
        ("convnext", small("convnext_atto", 8)),
        ("vit", small("vit_tiny_patch16", 64)),
    ]
}

/// A network, dense and with three tenths of its prunable weights.
struct Pruned {
    dense: TorchModel,
    base: TorchModel,
    masks: BTreeMap<String, Mask>,
}

impl Pruned {
    fn new(graph: &Graph) -> Self {
        let mut dense = TorchModel::new(graph.clone(), &random_params(graph, 3), Device::Cpu).unwrap();
        for (spec, seed) in graph.params().zip(0..) {
            let noise = normal(&dense.get(&spec.name).unwrap().size(), seed);
            // Norms and biases of a trained network are no constants.
            let value = dense.get(&spec.name).unwrap() + noise.abs() * 0.1;
            dense.set(&spec.name, &value).unwrap();
        }
        let mut base = dense.deep_clone().unwrap();
        let mut masks = BTreeMap::new();
        for id in graph.prunable() {
            let name = graph.node(id).weight();
            let weight = base.get(&name).unwrap().shallow_clone();
            let mask = top_k_mask(&weight.abs(), weight.numel() * 3 / 10).unwrap();
            base.set(&name, &(weight * &mask)).unwrap();
            masks.insert(name, tensor_to_mask(&mask).unwrap());
        }
        Self { dense, base, masks }
    }
}
