use serde::{Deserialize, Serialize};

use crate::Shape;

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

/// What a node computes. Exhaustive on purpose: a new op must not compile until every executor knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The image `[channels, height, width]`.
    Input,
    /// Two-dimensional cross-correlation.
    Conv2d(Conv2d),
    /// Batch normalisation with stored statistics.
    BatchNorm(BatchNorm),
    /// `y = W x + b`.
    Linear(Linear),
    /// `max(x, 0)`.
    Relu,
    /// Sum of two inputs of one shape.
    Add,
    /// Maximum over windows.
    MaxPool2d(MaxPool2d),
    /// Mean of each plane: map to vector.
    GlobalAvgPool,
}

/// Geometry of a convolution. Weight `[out, in / groups, kh, kw]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Planes read.
    pub in_channels: usize,
    /// Planes written.
    pub out_channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Step between windows, down and across.
    pub stride: [usize; 2],
    /// Zero rows and columns added on each side.
    pub padding: [usize; 2],
    /// Independent groups of channels.
    pub groups: usize,
    /// Whether there is a bias `[out]`.
    pub bias: bool,
}

/// `y = (x − mean) / sqrt(var + eps) · weight + bias`, per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// Number of planes.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// Geometry of a linear layer. Weight `[out, in]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Features read.
    pub in_features: usize,
    /// Features written.
    pub out_features: usize,
    /// Whether there is a bias `[out]`.
    pub bias: bool,
}

/// Geometry of a max pooling; padding counts as −∞.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool2d {
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Step between windows, down and across.
    pub stride: [usize; 2],
    /// Rows and columns added on each side.
    pub padding: [usize; 2],
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

/// What a parameter is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamRole {
    /// The matrix or kernel of a convolution or linear layer.
    Weight,
    /// An additive vector of a convolution or linear layer.
    Bias,
    /// Scale or shift of a normalisation.
    Norm,
    /// Running mean or variance of a normalisation: not trained by gradients.
    Statistic,
}

/// Name, shape and meaning of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Canonical name (`layer1.0.conv1.weight`).
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// Meaning.
    pub role: ParamRole,
}

impl Node {
    /// Every parameter of the node.
    pub fn params(&self) -> Vec<ParamSpec> {
        let spec = |suffix: &str, shape: Vec<usize>, role| ParamSpec {
            name: format!("{}.{suffix}", self.name),
            shape,
            role,
        };
        let bias = |has: bool, n: usize| has.then(|| spec("bias", vec![n], ParamRole::Bias));
        match &self.op {
            Op::Conv2d(conv) => {
                let [kh, kw] = conv.kernel;
                let shape = vec![conv.out_channels, conv.in_channels / conv.groups, kh, kw];
                let weight = spec("weight", shape, ParamRole::Weight);
                [weight].into_iter().chain(bias(conv.bias, conv.out_channels)).collect()
            }
            Op::Linear(linear) => {
                let shape = vec![linear.out_features, linear.in_features];
                let weight = spec("weight", shape, ParamRole::Weight);
                [weight].into_iter().chain(bias(linear.bias, linear.out_features)).collect()
            }
            Op::BatchNorm(norm) => [
                ("weight", ParamRole::Norm),
                ("bias", ParamRole::Norm),
                ("running_mean", ParamRole::Statistic),
                ("running_var", ParamRole::Statistic),
            ]
            .map(|(suffix, role)| spec(suffix, vec![norm.channels], role))
            .into(),
            Op::Input | Op::Relu | Op::Add | Op::MaxPool2d(_) | Op::GlobalAvgPool => Vec::new(),
        }
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
        match &self.op {
            Op::Conv2d(c) => Some([c.out_channels, c.in_channels / c.groups * c.kernel[0] * c.kernel[1]]),
            Op::Linear(l) => Some([l.out_features, l.in_features]),
            _ => None,
        }
    }

    /// Whether the weight may be pruned: body layers, but not depthwise convolutions.
    pub fn is_prunable(&self) -> bool {
        let depthwise = matches!(&self.op, Op::Conv2d(c) if c.groups > 1 && c.groups == c.in_channels);
        self.role == Role::Body && self.matrix().is_some() && !depthwise
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

    /// Nodes whose weight may be pruned, in execution order.
    pub fn prunable(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ids().filter(|id| self.node(*id).is_prunable())
    }

    /// The classifier layer.
    pub fn head(&self) -> Option<NodeId> {
        self.ids().find(|id| self.node(*id).role == Role::Head)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.shapes().ok().and_then(|shapes| shapes.last().copied()).map_or(0, Shape::len)
    }

    /// Gives the classifier layer another number of classes.
    pub fn set_classes(&mut self, classes: usize) {
        for node in self.nodes.iter_mut().filter(|node| node.role == Role::Head) {
            if let Op::Linear(linear) = &mut node.op {
                linear.out_features = classes;
            }
        }
    }

    /// How many nodes read each node.
    pub fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.nodes.len()];
        for input in self.nodes.iter().flat_map(|n| &n.inputs) {
            readers[input.index()] += 1;
        }
        readers
    }

    /// The same graph for images of another height and width.
    pub fn with_image_size(mut self, [height, width]: [usize; 2]) -> Result<Self, GraphError> {
        let Shape::Map { channels, .. } = self.input else { return Err(GraphError::Ends) };
        self.input = Shape::map(channels, height, width);
        self.shapes()?;
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
            if let Some(bad) = node.inputs.iter().find(|id| id.index() >= index) {
                return Err(GraphError::Order { node: node.name.clone(), input: bad.index() });
            }
            let inputs: Vec<Shape> = node.inputs.iter().map(|id| shapes[id.index()]).collect();
            shapes.push(output_shape(node, &inputs, self.input)?);
        }
        match shapes.last() {
            Some(Shape::Vector { .. }) => Ok(shapes),
            _ => Err(GraphError::Ends),
        }
    }

    /// Multiply-adds of each node for one image, zeros counted like any weight.
    pub fn macs(&self) -> Result<Vec<u64>, GraphError> {
        let shapes = self.shapes()?;
        let macs = self.nodes.iter().zip(&shapes).map(|(node, shape)| match (node.matrix(), *shape) {
            (Some([out, inner]), Shape::Map { height, width, .. }) => (out * inner * height * width) as u64,
            (Some([out, inner]), Shape::Vector { .. }) => (out * inner) as u64,
            (None, _) => 0,
        });
        Ok(macs.collect())
    }

    pub(crate) fn rebuilt(&self, nodes: Vec<Node>, blocks: Vec<NodeId>) -> Self {
        Self { architecture: self.architecture.clone(), input: self.input, nodes, blocks }
    }
}

fn output_shape(node: &Node, inputs: &[Shape], image: Shape) -> Result<Shape, GraphError> {
    let expected = match node.op {
        Op::Input => 0,
        Op::Add => 2,
        _ => 1,
    };
    if inputs.len() != expected {
        return Err(GraphError::Arity { node: node.name.clone(), expected, got: inputs.len() });
    }
    let Some(&first) = inputs.first() else { return Ok(image) };
    let refuse = |reason: String| GraphError::Shape { node: node.name.clone(), got: first, reason };
    match (&node.op, first) {
        (Op::Conv2d(conv), Shape::Map { channels, height, width }) => {
            if channels != conv.in_channels {
                return Err(refuse(format!("the convolution reads {} channels", conv.in_channels)));
            }
            if conv.groups == 0 || channels % conv.groups != 0 || conv.out_channels % conv.groups != 0 {
                return Err(refuse(format!("{} groups do not divide its channels", conv.groups)));
            }
            windows([height, width], conv.kernel, conv.stride, conv.padding)
                .map(|[h, w]| Shape::map(conv.out_channels, h, w))
                .ok_or_else(|| refuse(format!("kernel {:?} does not fit", conv.kernel)))
        }
        (Op::MaxPool2d(pool), Shape::Map { channels, height, width }) => {
            windows([height, width], pool.kernel, pool.stride, pool.padding)
                .map(|[h, w]| Shape::map(channels, h, w))
                .ok_or_else(|| refuse(format!("window {:?} does not fit", pool.kernel)))
        }
        (Op::BatchNorm(norm), Shape::Map { channels, .. }) if channels == norm.channels => Ok(first),
        (Op::BatchNorm(norm), _) => Err(refuse(format!("the norm has {} channels", norm.channels))),
        (Op::Linear(linear), Shape::Vector { features }) if features == linear.in_features => {
            Ok(Shape::vector(linear.out_features))
        }
        (Op::Linear(linear), _) => Err(refuse(format!("the layer reads {} features", linear.in_features))),
        (Op::GlobalAvgPool, Shape::Map { channels, .. }) => Ok(Shape::vector(channels)),
        (Op::Add, _) if inputs[1] != first => {
            Err(refuse(format!("the other summand has shape {}", inputs[1])))
        }
        (Op::Relu | Op::Add, _) => Ok(first),
        (Op::Conv2d(_) | Op::MaxPool2d(_) | Op::GlobalAvgPool, Shape::Vector { .. }) => {
            Err(refuse("a feature map is needed".to_owned()))
        }
        (Op::Input, _) => Err(GraphError::Ends),
    }
}

fn windows(
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Option<[usize; 2]> {
    let extent = |axis: usize| {
        let padded = size[axis] + 2 * padding[axis];
        let fits = kernel[axis] > 0 && stride[axis] > 0 && padded >= kernel[axis];
        fits.then(|| (padded - kernel[axis]) / stride[axis] + 1)
    };
    Some([extent(0)?, extent(1)?])
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
