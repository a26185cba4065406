//! What must hold for every model, whether it is written or read.

use std::collections::BTreeMap;

use super::{FormatError, SparseModel, Weight};
use crate::graph::MAX_VALUES;
use crate::{Footprint, Graph, Node, Op, Preprocess, Shape};

const MAX_NODES: usize = 1 << 16;
/// Channels, features, and sides of images.
const MAX_EXTENT: usize = 1 << 20;
/// Sides, steps and margins of windows.
const MAX_WINDOW: usize = 1 << 10;

/// Refuses graphs whose numbers could overflow, then checks the rest; returns the output shape of every node.
pub(super) fn graph(graph: &Graph) -> Result<Vec<Shape>, FormatError> {
    if graph.nodes().len() > MAX_NODES {
        return Err(FormatError::TooManyNodes { limit: MAX_NODES, got: graph.nodes().len() });
    }
    let too_large = |node: &Node| FormatError::NodeTooLarge { node: node.name.clone() };
    if let Some(node) = graph.nodes().iter().find(|node| !is_bounded(node)) {
        return Err(too_large(node));
    }
    if let Some(node) = graph.nodes().first().filter(|_| graph.input.dims().iter().any(|n| *n > MAX_EXTENT)) {
        return Err(too_large(node));
    }
    let shapes = graph.shapes()?;
    for (node, shape) in graph.nodes().iter().zip(&shapes) {
        if shape.is_empty() {
            return Err(FormatError::NodeEmpty { node: node.name.clone() });
        }
        if node.params().iter().any(|spec| values(&spec.shape).is_none()) {
            return Err(too_large(node));
        }
        eps(node)?;
    }
    let stray = graph.blocks().iter().map(|id| id.index()).find(|index| *index >= graph.nodes().len());
    stray.map_or(Ok(shapes), |index| Err(FormatError::Block { index }))
}

/// What is added before a division keeps it away from zero, in the precision of the kernels.
fn eps(node: &Node) -> Result<(), FormatError> {
    let eps = match &node.op {
        Op::BatchNorm(norm) => norm.eps,
        Op::LayerNorm(norm) => norm.eps,
        Op::ResponseNorm(norm) => norm.eps,
        _ => return Ok(()),
    };
    let sound = eps > 0.0 && (eps as f32).is_normal();
    if sound { Ok(()) } else { Err(FormatError::Eps { node: node.name.clone(), eps }) }
}

/// Number of values of a shape, if it is within bounds.
pub(super) fn values(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |n, extent| n.checked_mul(*extent));
    count.filter(|n| *n <= MAX_VALUES)
}

fn is_bounded(node: &Node) -> bool {
    let within = |limit: usize, numbers: &[usize]| numbers.iter().all(|n| *n <= limit);
    match &node.op {
        Op::Conv2d(c) => {
            within(MAX_EXTENT, &[c.in_channels, c.out_channels, c.groups])
                && within(MAX_WINDOW, &[c.kernel, c.stride, c.padding].concat())
        }
        Op::MaxPool2d(p) => within(MAX_WINDOW, &[p.kernel, p.stride, p.padding].concat()),
        Op::AvgPool2d(p) => within(MAX_WINDOW, &p.kernel),
        Op::SamePad(p) => within(MAX_WINDOW, &[p.kernel, p.stride].concat()),
        Op::BatchNorm(norm) => within(MAX_EXTENT, &[norm.channels]),
        Op::LayerNorm(norm) => within(MAX_EXTENT, &[norm.features]),
        Op::ResponseNorm(norm) => within(MAX_EXTENT, &[norm.features]),
        Op::Linear(linear) => within(MAX_EXTENT, &[linear.in_features, linear.out_features]),
        Op::Attention(a) => within(MAX_EXTENT, &[a.heads, a.features]),
        Op::Embed(e) => {
            within(MAX_EXTENT, &[e.features, e.prefix, e.positioned]) && within(MAX_EXTENT, &e.grid)
        }
        Op::Scale(scale) => within(MAX_EXTENT, &[scale.features]),
        Op::LogSumExp(join) => within(MAX_EXTENT, &[join.groups.len()]) && within(MAX_EXTENT, &join.groups),
        Op::Input
        | Op::Activation(_)
        | Op::Add
        | Op::Average
        | Op::Gate
        | Op::Concat
        | Op::GlobalAvgPool
        | Op::Token(_)
        | Op::MeanTokens(_) => true,
    }
}

/// Labels and preprocessing fit the graph.
pub(super) fn surroundings(
    graph: &Graph,
    shapes: &[Shape],
    labels: &[String],
    preprocess: &Preprocess,
) -> Result<(), FormatError> {
    let classes = shapes.last().map_or(0, |shape| shape.len());
    let [height, width] = preprocess.size;
    if labels.len() != classes {
        return Err(FormatError::LabelCount { classes, labels: labels.len() });
    }
    if graph.input != Shape::map(3, height, width) {
        return Err(FormatError::ImageSize { expected: graph.input, got: preprocess.size });
    }
    Ok(preprocess.check()?)
}

/// Shape of every parameter, and the matrix it may be stored as.
pub(super) type Wanted = BTreeMap<String, (Vec<usize>, Option<[usize; 2]>)>;

/// What the graph asks for.
pub(super) fn wanted(graph: &Graph) -> Wanted {
    let specs = graph.nodes().iter().flat_map(|node| {
        let matrix = |name: &str| node.matrix().filter(|_| name == node.weight());
        node.params().into_iter().map(move |spec| {
            let matrix = matrix(&spec.name);
            (spec.name, (spec.shape, matrix))
        })
    });
    specs.collect()
}

/// The table of tensors is complete and holds nothing else.
pub(super) fn names<'a>(
    wanted: &Wanted,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), FormatError> {
    let mut before: Option<&str> = None;
    for name in names.clone() {
        if before.is_some_and(|before| before >= name) {
            return Err(FormatError::TensorOrder { name: name.to_owned() });
        }
        if !wanted.contains_key(name) {
            return Err(FormatError::TensorExtra { name: name.to_owned() });
        }
        before = Some(name);
    }
    let mut names = names;
    let missing = wanted.keys().find(|name| names.next() != Some(name.as_str()));
    missing.map_or(Ok(()), |name| Err(FormatError::TensorMissing { name: name.clone() }))
}

/// A tensor has the shape that the graph asks for; a sparse one, that of its matrix.
pub(super) fn shape(wanted: &Wanted, name: &str, sparse: bool, got: &[usize]) -> Result<(), FormatError> {
    let (dense, matrix) = &wanted[name];
    let expected = if sparse { matrix.map_or_else(Vec::new, Vec::from) } else { dense.clone() };
    if expected == got {
        return Ok(());
    }
    Err(FormatError::TensorShape { name: name.to_owned(), expected, got: got.to_vec() })
}

/// A tensor holds numbers only.
pub(super) fn finite(name: &str, weight: &Weight) -> Result<(), FormatError> {
    let count = match weight {
        Weight::Dense(array) => array.iter().filter(|v| !v.is_finite()).count(),
        Weight::Csr(csr) => csr.values().iter().filter(|v| !v.is_finite()).count(),
    };
    if count == 0 { Ok(()) } else { Err(FormatError::NotFinite { name: name.to_owned(), count }) }
}

/// Batch norms are a finite scale and shift of each channel.
pub(super) fn norms(graph: &Graph, weights: &BTreeMap<String, Weight>) -> Result<(), FormatError> {
    for node in graph.nodes() {
        let Op::BatchNorm(norm) = &node.op else { continue };
        let [gain, shift, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(|suffix| {
            let name = format!("{}.{suffix}", node.name);
            let Some(Weight::Dense(values)) = weights.get(&name) else {
                unreachable!("the table holds what the graph asks for, and a norm has no matrix");
            };
            values.iter().copied()
        });
        for (channel, (((gain, shift), mean), var)) in gain.zip(shift).zip(mean).zip(var).enumerate() {
            if var < 0.0 {
                return Err(FormatError::Variance { name: format!("{}.running_var", node.name), value: var });
            }
            let scale = f64::from(gain) / (f64::from(var) + norm.eps).sqrt();
            let shift = f64::from(shift) - f64::from(mean) * scale;
            if ![scale, shift].iter().all(|value| (*value as f32).is_finite()) {
                return Err(FormatError::Scale { node: node.name.clone(), channel });
            }
        }
    }
    Ok(())
}

/// Everything that can be wrong with a model in memory.
pub(super) fn model(model: &SparseModel) -> Result<Footprint, FormatError> {
    let shapes = graph(&model.graph)?;
    surroundings(&model.graph, &shapes, &model.labels, &model.preprocess)?;
    let wanted = wanted(&model.graph);
    names(&wanted, model.weights.keys().map(String::as_str))?;
    for (name, weight) in &model.weights {
        match weight {
            Weight::Dense(array) => shape(&wanted, name, false, array.shape())?,
            Weight::Csr(csr) => shape(&wanted, name, true, &[csr.rows(), csr.cols()])?,
        }
        finite(name, weight)?;
    }
    norms(&model.graph, &model.weights)?;
    let bytes = model.weights.values().map(Weight::bytes).sum();
    Ok(Footprint::new(&model.graph, &shapes, &model.preprocess, bytes))
}
