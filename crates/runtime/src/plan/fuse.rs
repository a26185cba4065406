use margay_core::{Activation, Graph, NodeId, Op, Shape};

/// Nodes that one kernel computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// In order; the first is the main node, the last the output.
    pub(super) nodes: Vec<NodeId>,
    /// What the main node reads.
    pub(super) input: NodeId,
    /// What is added to it, or else the second input of the main node.
    pub(super) other: Option<NodeId>,
    /// What ends it.
    pub(super) activation: Option<Activation>,
}

impl Group {
    /// The node whose value the group leaves behind.
    pub(super) fn output(&self) -> NodeId {
        self.nodes[self.nodes.len() - 1]
    }

    /// The node that names the kernel.
    pub(super) fn main(&self) -> NodeId {
        self.nodes[0]
    }
}

/// Whether a node runs as a convolution: on tokens and maps, a linear layer and a batch norm do.
pub(super) fn is_windowed(graph: &Graph, shapes: &[Shape], id: NodeId) -> bool {
    match graph.node(id).op {
        Op::Conv2d(_) | Op::BatchNorm(_) => true,
        Op::Linear(_) => !matches!(shapes[id.index()], Shape::Vector { .. }),
        _ => false,
    }
}

/// Groups of the nodes that the logits depend on, in execution order: what runs as a convolution takes the sum and the activation behind it with
/// it, a linear layer and a sum their activation, wherever nobody else reads what lies between.
pub(super) fn groups(graph: &Graph, shapes: &[Shape]) -> Vec<Group> {
    let live = graph.live();
    let sole = sole_readers(graph, &live);
    let mut taken = vec![false; graph.nodes().len()];
    let mut groups = Vec::new();
    // Convolutions first, backwards, so that of two that are summed the later takes the sum.
    let is_conv = |id: &NodeId| is_windowed(graph, shapes, *id);
    let ids: Vec<NodeId> = graph.ids().skip(1).filter(|id| live[id.index()]).collect();
    let convs = ids.iter().rev().filter(|id| is_conv(id));
    for &id in convs.chain(ids.iter().filter(|id| !is_conv(id))) {
        if !taken[id.index()] {
            groups.push(grow(graph, id, is_conv(&id), &sole, &mut taken));
        }
    }
    groups.sort_by_key(Group::output);
    groups
}

/// The only live reader of each node that has exactly one.
fn sole_readers(graph: &Graph, live: &[bool]) -> Vec<Option<NodeId>> {
    let (mut sole, mut counts) = (vec![None; live.len()], vec![0; live.len()]);
    for id in graph.ids().filter(|id| live[id.index()]) {
        for input in &graph.node(id).inputs {
            counts[input.index()] += 1;
            sole[input.index()] = Some(id).filter(|_| counts[input.index()] == 1);
        }
    }
    sole
}

fn grow(graph: &Graph, id: NodeId, is_conv: bool, sole: &[Option<NodeId>], taken: &mut [bool]) -> Group {
    let main = graph.node(id);
    let (input, other) = (main.inputs[0], main.inputs.get(1).copied());
    let mut group = Group { nodes: vec![id], input, other, activation: None };
    taken[id.index()] = true;
    let next = |group: &Group, taken: &[bool]| sole[group.output().index()].filter(|n| !taken[n.index()]);
    if is_conv && let Some(sum) = next(&group, taken).filter(|n| graph.node(*n).op == Op::Add) {
        group.other = graph.node(sum).inputs.iter().copied().find(|n| *n != id);
        group.nodes.push(sum);
        taken[sum.index()] = true;
    }
    if let Op::Activation(function) = main.op {
        group.activation = Some(function);
    } else if (is_conv || matches!(main.op, Op::Linear(_) | Op::Add | Op::Average))
        && let Some(end) = next(&group, taken)
        && let Op::Activation(function) = graph.node(end).op
    {
        group.activation = Some(function);
        group.nodes.push(end);
        taken[end.index()] = true;
    }
    group
}
