use std::collections::BTreeMap;

use margay_core::{BatchNorm, Conv2d, Graph, Linear, NodeId, Op, Shape};
use margay_kernels::{Layout, Margin, Precision, Taps};

use super::fuse::{self, Group};
use crate::RuntimeError;

/// A value that gets a buffer: the output of a group, or the phase planes that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Output(NodeId),
    Phases(NodeId),
}

/// Where every value lies, and the windows of every convolution by its main node.
pub(super) struct Layouts {
    pub(super) of: BTreeMap<Value, Layout>,
    pub(super) taps: BTreeMap<NodeId, Taps>,
}

/// A batch norm is a convolution of each plane with one weight.
fn depthwise(norm: &BatchNorm) -> Conv2d {
    let channels = norm.channels;
    Conv2d { groups: channels, ..pixelwise(channels, channels) }
}

/// A linear layer at each position is a convolution with windows of one place.
fn pixelwise(in_channels: usize, out_channels: usize) -> Conv2d {
    let [kernel, stride, padding] = [[1, 1], [1, 1], [0, 0]];
    Conv2d { in_channels, out_channels, kernel, stride, padding, groups: 1, bias: true }
}

/// Finds the row pitch and margins of every value.
///
/// A convolution walks source and output with one flat index, so both have one pitch; so do input and
/// output of whatever goes value by value. Values joined this way form a class with the largest pitch and margins any member needs.
pub(super) fn layouts(
    graph: &Graph,
    shapes: &[Shape],
    groups: &[Group],
    precision: Precision,
) -> Result<Layouts, RuntimeError> {
    let mut taps = BTreeMap::new();
    let mut classes = Classes::default();
    let image = graph.ids().next().into_iter().map(Value::Output);
    image.chain(groups.iter().map(|g| Value::Output(g.output()))).for_each(|v| classes.add(v));
    for group in groups {
        let output = Value::Output(group.output());
        for joined in joined_values(graph, shapes, group) {
            classes.join(output, Value::Output(joined));
        }
        if let Some(windows) = windows(graph, shapes, group)? {
            let source = source(group, &windows);
            classes.add(source);
            classes.join(output, source);
            taps.insert(group.main(), windows);
        }
    }
    let dims = |value: Value| match value {
        Value::Output(id) => shapes[id.index()],
        Value::Phases(id) => taps.get(&id).map_or(Shape::vector(0), |t: &Taps| {
            let [channels, height, width] = t.source();
            Shape::map(channels, height, width)
        }),
    };
    let margins = margins(groups, &taps, &mut classes, &dims);
    let mut of = BTreeMap::new();
    for value in classes.values() {
        let margin = margins.get(&classes.root(value)).copied().unwrap_or_default();
        let layout = Layout::of(dims(value), margin, precision).ok_or_else(|| {
            let (Value::Output(id) | Value::Phases(id)) = value;
            RuntimeError::TooLarge { node: graph.node(id).name.clone(), shape: dims(value) }
        })?;
        of.insert(value, layout);
    }
    Ok(Layouts { of, taps })
}

/// What a convolution reads: its input, or the phase planes made of it.
pub(super) fn source(group: &Group, taps: &Taps) -> Value {
    if taps.is_strided() { Value::Phases(group.main()) } else { Value::Output(group.input) }
}

/// What has the pitch of the group's output.
fn joined_values(graph: &Graph, shapes: &[Shape], group: &Group) -> Vec<NodeId> {
    let (input, other) = (group.input, group.other);
    match &graph.node(group.main()).op {
        Op::Add | Op::Average | Op::Activation(_) => other.into_iter().chain([input]).collect(),
        Op::LayerNorm(_) | Op::ResponseNorm(_) | Op::Scale(_) | Op::Gate => vec![input],
        _ if fuse::is_windowed(graph, shapes, group.main()) => other.into_iter().collect(),
        _ => Vec::new(),
    }
}

fn windows(graph: &Graph, shapes: &[Shape], group: &Group) -> Result<Option<Taps>, RuntimeError> {
    let node = graph.node(group.main());
    let conv = match &node.op {
        Op::Conv2d(conv) => conv.clone(),
        Op::BatchNorm(norm) => depthwise(norm),
        Op::Linear(Linear { in_features, out_features, .. }) => pixelwise(*in_features, *out_features),
        _ => return Ok(None),
    };
    let size = match shapes[group.input.index()] {
        Shape::Map { height, width, .. } => [height, width],
        Shape::Tokens { count, .. } => [1, count],
        Shape::Vector { .. } => return Ok(None),
    };
    let taps = Taps::new(&conv, size).ok_or_else(|| RuntimeError::Unsupported {
        node: node.name.clone(),
        reason: "no window fits its input".to_owned(),
    })?;
    Ok(Some(taps))
}

fn margins(
    groups: &[Group],
    taps: &BTreeMap<NodeId, Taps>,
    classes: &mut Classes,
    dims: &dyn Fn(Value) -> Shape,
) -> BTreeMap<Value, Margin> {
    let mut margins: BTreeMap<Value, Margin> = BTreeMap::new();
    let mut demand = |root: Value, margin: Margin| {
        let entry = margins.entry(root).or_default();
        *entry = entry.union(margin);
        entry.pitch
    };
    for value in classes.values() {
        if let Shape::Map { width, .. } | Shape::Tokens { count: width, .. } = dims(value) {
            demand(classes.root(value), Margin { pitch: width, ..Margin::default() });
        }
    }
    let convs = || groups.iter().filter_map(|g| taps.get(&g.main()).map(|t| (Value::Output(g.output()), t)));
    for (output, taps) in convs() {
        demand(classes.root(output), Margin { pitch: taps.pitch(), ..Margin::default() });
    }
    for (output, taps) in convs() {
        let root = classes.root(output);
        let pitch = demand(root, Margin::default());
        demand(root, taps.margin(pitch));
    }
    margins
}

/// Disjoint sets of values.
#[derive(Default)]
struct Classes(BTreeMap<Value, Value>);

impl Classes {
    fn add(&mut self, value: Value) {
        self.0.entry(value).or_insert(value);
    }

    fn values(&self) -> Vec<Value> {
        self.0.keys().copied().collect()
    }

    /// The value that stands for the set. What lies on the way to it is led there at once the next time.
    fn root(&mut self, value: Value) -> Value {
        let mut root = value;
        while let Some(&parent) = self.0.get(&root).filter(|parent| **parent != root) {
            root = parent;
        }
        let mut at = value;
        while at != root {
            at = self.0.insert(at, root).unwrap_or(root);
        }
        root
    }

    fn join(&mut self, a: Value, b: Value) {
        let (a, b) = (self.root(a), self.root(b));
        self.0.insert(b.max(a), a.min(b));
    }
}
