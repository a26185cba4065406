use margay_core::{Graph, NodeId, Op};

/// Nodes that one kernel computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// In order; the first is the main node, the last the output.
    pub(super) nodes: Vec<NodeId>,
    /// What the main node reads.
    pub(super) input: NodeId,
    /// What is added to it.
    pub(super) residual: Option<NodeId>,
    /// Whether a rectifier ends it.
    pub(super) relu: bool,
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

/// Groups in execution order: a convolution (or batch norm) takes the sum and the rectifier behind it
/// with it, a linear layer and a sum their rectifier, wherever nobody else reads what lies between.
pub(super) fn groups(graph: &Graph) -> Vec<Group> {
    let sole = sole_readers(graph);
    let mut taken = vec![false; graph.nodes().len()];
    let mut groups = Vec::new();
    // Convolutions first, backwards, so that of two that are summed the later takes the sum.
    let is_conv = |id: &NodeId| matches!(graph.node(*id).op, Op::Conv2d(_) | Op::BatchNorm(_));
    let ids: Vec<NodeId> = graph.ids().skip(1).collect();
    let convs = ids.iter().rev().filter(|id| is_conv(id));
    for &id in convs.chain(ids.iter().filter(|id| !is_conv(id))) {
        if !taken[id.index()] {
            groups.push(grow(graph, id, &sole, &mut taken));
        }
    }
    groups.sort_by_key(Group::output);
    groups
}

/// The only reader of each node that has exactly one.
fn sole_readers(graph: &Graph) -> Vec<Option<NodeId>> {
    let counts = graph.readers();
    let mut sole = vec![None; counts.len()];
    for id in graph.ids() {
        for input in &graph.node(id).inputs {
            if counts[input.index()] == 1 {
                sole[input.index()] = Some(id);
            }
        }
    }
    sole
}

fn grow(graph: &Graph, id: NodeId, sole: &[Option<NodeId>], taken: &mut [bool]) -> Group {
    let main = graph.node(id);
    let mut residual = None;
    if let (Op::Add, [_, other]) = (&main.op, main.inputs.as_slice()) {
        residual = Some(*other);
    }
    let mut group = Group { nodes: vec![id], input: main.inputs[0], residual, relu: false };
    taken[id.index()] = true;
    let next = |group: &Group, taken: &[bool]| sole[group.output().index()].filter(|n| !taken[n.index()]);
    let is = |id: &NodeId, op: &Op| graph.node(*id).op == *op;
    if matches!(main.op, Op::Conv2d(_) | Op::BatchNorm(_))
        && let Some(sum) = next(&group, taken).filter(|n| is(n, &Op::Add))
    {
        group.residual = graph.node(sum).inputs.iter().copied().find(|n| *n != id);
        group.nodes.push(sum);
        taken[sum.index()] = true;
    }
    if matches!(main.op, Op::Conv2d(_) | Op::BatchNorm(_) | Op::Linear(_) | Op::Add)
        && let Some(relu) = next(&group, taken).filter(|n| is(n, &Op::RELU))
    {
        group.relu = true;
        group.nodes.push(relu);
        taken[relu.index()] = true;
    }
    group.relu |= main.op == Op::RELU;
    group
}
