//! Networks with random weights and masks, for tests and examples.
#![allow(dead_code, reason = "no test or example uses all of them")]

pub mod convnext;
pub mod efficientnet;
pub mod resnet;
pub mod vit;

use std::collections::BTreeMap;

use margay_core::adapter::{Adapter, Change};
use margay_core::{
    Conv2d, Csr, FormatError, Graph, Linear, Mask, Op, ParamRole, ParamSpec, Params, ParamsError, Pattern,
    Preprocess, Provenance, Shape, SparseModel, Weight, fold,
};
use ndarray::{Array2, ArrayD};

/// The graph with random weights of unit gain, folded, body layers masked.
pub fn pack(graph: &Graph, sparsity: f64) -> Result<SparseModel, ParamsError> {
    let (graph, params) = fold::all(graph, &random(graph))?;
    masked(graph, &params, sparsity)
}

/// The graph with random weights of unit gain as it is, body layers masked.
pub fn unfolded(graph: &Graph, sparsity: f64) -> Result<SparseModel, ParamsError> {
    masked(graph.clone(), &random(graph), sparsity)
}

fn masked(graph: Graph, params: &Params, sparsity: f64) -> Result<SparseModel, ParamsError> {
    let mut masks = BTreeMap::new();
    for id in graph.prunable().filter(|_| sparsity > 0.0) {
        let node = graph.node(id);
        let scores = noise(node.matrix().map_or(0, |[r, c]| r * c), 1000 + id.index() as u64);
        let kept = ((1.0 - sparsity) * scores.len() as f64).round() as usize;
        masks.insert(node.weight(), Mask::top_k(&scores, kept));
    }
    let labels = (0..graph.classes()).map(|c| format!("class {c}")).collect();
    let size = match graph.input {
        Shape::Map { height, width, .. } => [height, width],
        _ => [1, 1],
    };
    let preprocess = Preprocess::squash(1).at(size);
    SparseModel::pack(graph, params, &masks, labels, preprocess, Provenance::default())
}

/// The model with every sparse weight pruned by blocks of four rows where it has as many: the first row of each says
/// what stays.
pub fn blocked(model: &SparseModel) -> Result<SparseModel, FormatError> {
    let (mut blocked, mut patterns) = (model.clone(), BTreeMap::new());
    for (name, weight) in &mut blocked.weights {
        let Weight::Csr(csr) = weight else { continue };
        let (rows, columns, kept) = (csr.rows(), csr.cols(), csr.mask());
        let mask = Mask::from_fn(rows * columns, |i| kept.get(i / columns / 4 * 4 * columns + i % columns));
        let gain = (6.0 * rows as f32 / mask.count().max(1) as f32).sqrt();
        let values: Vec<f32> = noise(rows * columns, 77).into_iter().map(|v| gain * v).collect();
        *csr = Csr::from_dense(rows, columns, &values, &mask);
        patterns.insert(name.clone(), Pattern::Block { rows: 4, cols: 1 });
    }
    blocked.with_patterns(&patterns)
}

/// A random adapter of a model with its own head: rank and entries (a fraction of the stored) on sparse weights.
pub fn adapter(model: &SparseModel, rank: usize, density: f64, seed: u64) -> Result<Adapter, FormatError> {
    let mut adapter = Adapter { base: model.fingerprint()?, ..Adapter::default() };
    for (index, (name, weight)) in model.weights.iter().enumerate() {
        let seed = seed + 10 * index as u64;
        match weight {
            Weight::Csr(csr) => {
                let matrix = |rows: usize, columns: usize, seed| {
                    let values = noise(rows * columns, seed).into_iter().map(|v| 0.05 * v).collect();
                    Array2::from_shape_vec([rows, columns], values).unwrap_or_default()
                };
                let step = ((1.0 / density) as usize).max(1);
                let kept = csr.mask();
                let positions = (0..kept.len() as u32).filter(|i| kept.get(*i as usize)).step_by(step);
                let positions: Vec<u32> = positions.collect();
                let values = noise(positions.len(), seed + 3).into_iter().map(|v| 0.1 * v).collect();
                let factors = [matrix(csr.rows(), rank, seed + 1), matrix(rank, csr.cols(), seed + 2)];
                let change = Change {
                    factors: Some(factors),
                    entries: Some((positions, values)),
                    ..Change::default()
                };
                adapter.layers.insert(name.clone(), change);
            }
            Weight::Dense(values) if name.ends_with("bias") => {
                let changed = noise(values.len(), seed).into_iter().map(|v| 0.1 * v).collect();
                let changed = ArrayD::from_shape_vec(values.shape().to_vec(), changed);
                adapter.params.insert(name.clone(), changed.unwrap_or_default());
            }
            Weight::Dense(_) => {}
        }
    }
    Ok(adapter)
}

fn random(graph: &Graph) -> Params {
    let value = |(seed, spec): (usize, ParamSpec)| {
        let values = noise(spec.shape.iter().product(), seed as u64).into_iter().map(|v| draw(&spec, v));
        let value = ArrayD::from_shape_vec(spec.shape.clone(), values.collect()).ok()?;
        Some((spec.name, value))
    };
    graph.params().enumerate().filter_map(value).collect()
}

/// A value of a parameter from noise in −1 .. 1.
fn draw(spec: &ParamSpec, v: f32) -> f32 {
    let fan_in: usize = spec.shape.iter().skip(1).product();
    match spec.role {
        ParamRole::Weight => (6.0 / fan_in.max(1) as f32).sqrt() * v,
        ParamRole::Norm if spec.name.ends_with("weight") => 0.6 + 0.2 * v,
        ParamRole::Statistic if spec.name.ends_with("var") => 1.0 + 0.5 * v,
        ParamRole::Embedding => 0.5 * v,
        ParamRole::Bias | ParamRole::Norm | ParamRole::Statistic => 0.1 * v,
    }
}

/// Reproducible values in −1 .. 1 (splitmix64).
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A convolution with a bias.
fn conv([from, to]: [usize; 2], k: usize, stride: usize, padding: usize, groups: usize) -> Op {
    let [kernel, stride, padding] = [k, stride, padding].map(|n| [n, n]);
    let (in_channels, out_channels) = (from, to);
    Op::Conv2d(Conv2d { in_channels, out_channels, kernel, stride, padding, groups, bias: true })
}

fn linear(in_features: usize, out_features: usize) -> Op {
    Op::Linear(Linear { in_features, out_features, bias: true })
}
