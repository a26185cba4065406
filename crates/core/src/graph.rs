use serde::{Deserialize, Serialize};

use crate::footprint::macs;
use crate::{LogSumExp, Op, ParamRole, ParamSpec, Shape};

/// Values of one weight or activation: 8 GiB.
pub(crate) const MAX_VALUES: usize = 1 << 31;

/// Index of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(u32);

impl NodeId {
    /// Position in [`Graph::nodes`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which part of a classifier a layer belongs to. Only body layers are pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The first layer: few weights, every later layer depends on it. Stays dense.
    Stem,
    /// Everything between stem and head.
    #[default]
    Body,
    /// Small helpers of the body, such as squeeze-and-excitation. Stay dense.
    Side,
    /// The classifier. Stays dense.
    Head,
}

/// One step of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Canonical module name, which prefixes the names of its parameters (`layer1.0.conv1`).
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Where it reads, all earlier in the graph.
    pub inputs: Vec<NodeId>,
    /// Part of the classifier.
    #[serde(default)]
    pub role: Role,
}

impl Node {
    /// Every parameter of the node.
    pub fn params(&self) -> Vec<ParamSpec> {
        self.op.params(&self.name)
    }

    /// Name of the node's weight.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Name of the node's bias.
    pub fn bias(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// The weight seen as a matrix `[out, in / groups · kh · kw]`, if the node has one.
    pub fn matrix(&self) -> Option<[usize; 2]> {
        self.op.matrix()
    }

    /// Groups of channels that it computes one by one: one, but in grouped convolutions.
    pub fn groups(&self) -> usize {
        match &self.op {
            Op::Conv2d(conv) => conv.groups,
            _ => 1,
        }
    }

    /// Whether the weight may be pruned: that of a layer of the body.
    pub fn is_prunable(&self) -> bool {
        self.role == Role::Body && self.matrix().is_some()
    }
}

/// A classifier: nodes in execution order, the first the image, the last the logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Architecture and variant, as `margay list` prints it (`resnet50`).
    pub architecture: String,
    /// Shape of the image.
    pub input: Shape,
    /// Every node; inputs come before their readers.
    nodes: Vec<Node>,
    /// Outputs of residual blocks, in order: what feature distillation compares.
    blocks: Vec<NodeId>,
}

/// Why nodes do not form a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A node reads another that does not come before it.
    #[error("node `{node}` reads node {input}, which does not come before it")]
    Order {
        /// Name of the reader.
        node: String,
        /// Index it reads.
        input: usize,
    },
    /// Two nodes have one name.
    #[error("two nodes are named `{0}`")]
    DuplicateName(String),
    /// An op got the wrong number of inputs.
    #[error("node `{node}` has {got} inputs, expected {expected}")]
    Arity {
        /// Name of the node.
        node: String,
        /// Inputs the op takes.
        expected: usize,
        /// Inputs given.
        got: usize,
    },
    /// An op cannot take an input of this shape.
    #[error("node `{node}` cannot take an input of shape {got}: {reason}")]
    Shape {
        /// Name of the node.
        node: String,
        /// Shape of the input.
        got: Shape,
        /// What does not fit.
        reason: String,
    },
    /// A node has more output values than any image classifier.
    #[error("node `{node}` is too large")]
    TooLarge {
        /// Name of the node.
        node: String,
    },
    /// A graph whose first node is not the image, or that ends in no vector.
    #[error("a classifier graph starts with its input and ends in a vector of logits")]
    Ends,
}

impl Graph {
    /// Every node in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ids in execution order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.ids().find(|id| self.node(*id).name == name)
    }

    /// The node of the logits: the last.
    pub fn output(&self) -> NodeId {
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Outputs of residual blocks, in order.
    pub fn blocks(&self) -> &[NodeId] {
        &self.blocks
    }

    /// Every parameter in execution order.
    pub fn params(&self) -> impl Iterator<Item = ParamSpec> + '_ {
        self.nodes.iter().flat_map(Node::params)
    }

    /// Number of its parameters: all that it learns, but no statistics of norms.
    pub fn parameters(&self) -> usize {
        let learnt = self.params().filter(|spec| spec.role != ParamRole::Statistic);
        learnt.map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// Nodes whose weight may be pruned, in execution order.
    pub fn prunable(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ids().filter(|id| self.node(*id).is_prunable())
    }

    /// The classifier layers: one, or one per class token of a distilled network.
    pub fn heads(&self) -> Vec<NodeId> {
        let is_head = |node: &Node| node.role == Role::Head && matches!(node.op, Op::Linear(_));
        self.ids().filter(|id| is_head(self.node(*id))).collect()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.shapes().ok().and_then(|shapes| shapes.last().copied()).map_or(0, Shape::len)
    }

    /// How many outputs of the classifier layers each class joins, if any are joined.
    pub fn joined(&self) -> Option<&[usize]> {
        match &self.nodes.last()?.op {
            Op::LogSumExp(join) => Some(&join.groups),
            _ => None,
        }
    }

    /// Joins the outputs, one behind the other, in groups of these sizes: the logit of a group is the `log Σ exp` of
    /// its members, so that its probability is their sum. Does nothing where every group is one output.
    pub fn join_outputs(&mut self, groups: &[usize]) {
        if groups.iter().all(|group| *group == 1) {
            return;
        }
        let (op, inputs) = (Op::LogSumExp(LogSumExp { groups: groups.to_vec() }), vec![self.output()]);
        let mut name = "join".to_owned();
        while self.find(&name).is_some() {
            name.push('_');
        }
        self.nodes.push(Node { name, op, inputs, role: Role::Head });
    }

    /// Gives the classifier layers another number of classes, none of which are joined.
    pub fn set_classes(&mut self, classes: usize) {
        if self.joined().is_some() {
            self.nodes.pop();
        }
        for node in self.nodes.iter_mut().filter(|node| node.role == Role::Head) {
            if let Op::Linear(linear) = &mut node.op {
                linear.out_features = classes;
            }
        }
    }

    /// Whether layer norms are what the network normalises with.
    pub fn has_layer_norms(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Op::LayerNorm(_)))
    }

    /// How many nodes read each node.
    pub fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.nodes.len()];
        for input in self.nodes.iter().flat_map(|n| &n.inputs) {
            readers[input.index()] += 1;
        }
        readers
    }

    /// By node, whether the logits depend on it.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        if let Some(output) = live.last_mut() {
            *output = true;
        }
        // Inputs come before their readers: backwards, every reader is known.
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if live[index] {
                node.inputs.iter().for_each(|input| live[input.index()] = true);
            }
        }
        live
    }

    /// The last node that reads each node, by index; 0 where none does.
    pub fn last_readers(&self) -> Vec<usize> {
        let mut last = vec![0; self.nodes.len()];
        for (reader, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|input| last[input.index()] = reader);
        }
        last
    }

    /// By node, whether everything on its way to the output passes it: no shortcut leads around it, and after it no
    /// earlier value is read any more.
    pub fn trunk(&self) -> Vec<bool> {
        // Nodes stand in the order of execution: an edge over a node is a way around it.
        let mut reach = 0;
        let passed = self.last_readers().into_iter().enumerate().map(|(node, last)| {
            let on_trunk = reach <= node;
            reach = reach.max(last);
            on_trunk
        });
        passed.collect()
    }

    /// The same graph for images of another height and width, with position embeddings for its patches.
    pub fn with_image_size(mut self, [height, width]: [usize; 2]) -> Result<Self, GraphError> {
        let Shape::Map { channels, .. } = self.input else { return Err(GraphError::Ends) };
        self.input = Shape::map(channels, height, width);
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.nodes.len());
        for index in 0..self.nodes.len() {
            let before = self.nodes[index].inputs.first().map(|id| shapes[id.index()]);
            if let (Op::Embed(embed), Some(Shape::Map { height, width, .. })) =
                (&mut self.nodes[index].op, before)
            {
                embed.grid = [height, width];
            }
            shapes.push(self.output_shape(index, &shapes)?);
        }
        Ok(self)
    }

    /// Checks order, names, arity and shapes; returns the output shape of every node.
    pub fn shapes(&self) -> Result<Vec<Shape>, GraphError> {
        let mut names = std::collections::BTreeSet::new();
        let mut shapes = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            if !names.insert(&node.name) {
                return Err(GraphError::DuplicateName(node.name.clone()));
            }
            if matches!(node.op, Op::Input) != (index == 0) {
                return Err(GraphError::Ends);
            }
            shapes.push(self.output_shape(index, &shapes)?);
        }
        match shapes.last() {
            Some(Shape::Vector { .. }) => Ok(shapes),
            _ => Err(GraphError::Ends),
        }
    }

    /// The output shape of a node, given those of all nodes before it.
    fn output_shape(&self, index: usize, shapes: &[Shape]) -> Result<Shape, GraphError> {
        let node = &self.nodes[index];
        if let Some(bad) = node.inputs.iter().find(|id| id.index() >= index) {
            return Err(GraphError::Order { node: node.name.clone(), input: bad.index() });
        }
        let (expected, got) = (node.op.arity(), node.inputs.len());
        if got != expected {
            return Err(GraphError::Arity { node: node.name.clone(), expected, got });
        }
        let inputs: Vec<Shape> = node.inputs.iter().map(|id| shapes[id.index()]).collect();
        let shape = match inputs.first() {
            None => self.input,
            Some(&got) => {
                let refuse = |reason| GraphError::Shape { node: node.name.clone(), got, reason };
                node.op.output_shape(&inputs).map_err(refuse)?
            }
        };
        let too_large = || GraphError::TooLarge { node: node.name.clone() };
        shape.checked_len().filter(|values| *values <= MAX_VALUES).map(|_| shape).ok_or_else(too_large)
    }

    /// Multiply-adds of each node for one image, zeros counted like any weight.
    pub fn macs(&self) -> Result<Vec<u64>, GraphError> {
        let shapes = self.shapes()?;
        Ok(self.nodes.iter().zip(&shapes).map(|(node, shape)| macs(&node.op, *shape)).collect())
    }

    pub(crate) fn rebuilt(&self, nodes: Vec<Node>, blocks: Vec<NodeId>) -> Self {
        Self { architecture: self.architecture.clone(), input: self.input, nodes, blocks }
    }
}

/// Builds a graph node by node.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
    role: Role,
}

impl GraphBuilder {
    /// Starts a graph that reads an image of shape `input`; the node of the image comes back with it.
    pub fn new(architecture: &str, input: Shape) -> (Self, NodeId) {
        let graph =
            Graph { architecture: architecture.to_owned(), input, nodes: Vec::new(), blocks: Vec::new() };
        let mut builder = Self { graph, role: Role::Stem };
        let image = builder.push("input", Op::Input, &[]);
        (builder, image)
    }

    /// The part of the classifier that following nodes belong to; a graph starts in its stem.
    pub fn role(&mut self, role: Role) {
        self.role = role;
    }

    /// Adds a node.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        let node = Node { name: name.into(), op, inputs: inputs.to_vec(), role: self.role };
        self.graph.nodes.push(node);
        self.graph.output()
    }

    /// Marks a node as the output of a residual block.
    pub fn block(&mut self, id: NodeId) {
        self.graph.blocks.push(id);
    }

    /// Checks the whole and returns it.
    pub fn finish(self) -> Result<Graph, GraphError> {
        self.graph.shapes()?;
        Ok(self.graph)
    }
}

impl NodeId {
    pub(crate) const fn new(index: usize) -> Self {
        Self(index as u32)
    }
}
