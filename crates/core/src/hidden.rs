//! Hidden channels: those between two layers that nothing else reads.
//!
//! ```text
//! producer ── activation, norm, depthwise convolution, attention ── reader
//!   rows                     channels or heads                      columns
//! ```
//! A channel whose columns are zero changes no answer: its rows, and what lies between, may go with it.

use ndarray::Axis;

use crate::{Graph, Node, NodeId, Op, Params, ParamsError};

/// The channels between two layers; heads where attention lies between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The layer that writes them.
    pub producer: NodeId,
    /// The only layer that reads them.
    pub reader: NodeId,
    /// How many there are.
    pub channels: usize,
    /// Consecutive columns of the reader's matrix that belong to one.
    pub columns: usize,
    /// Values of one at each position: 1, or the size of a head.
    features: usize,
    /// How often the producer writes each: queries, keys and values.
    parts: usize,
    /// Nodes on the way, last first.
    between: Vec<NodeId>,
}

impl Graph {
    /// Hidden channels between prunable layers, in the order of their readers.
    pub fn hidden(&self) -> Vec<Hidden> {
        let readers = self.readers();
        self.prunable().filter_map(|id| Hidden::before(self, &readers, id)).collect()
    }
}

impl Hidden {
    fn before(graph: &Graph, readers: &[usize], reader: NodeId) -> Option<Self> {
        let [_, columns] = ungrouped(graph.node(reader))?;
        let (mut between, mut heads) = (Vec::new(), None);
        let mut at = *graph.node(reader).inputs.first()?;
        while readers[at.index()] == 1 {
            let node = graph.node(at);
            if let Some([rows, _]) = ungrouped(node) {
                let (channels, parts) = heads.map_or((rows, 1), |heads| (heads, 3));
                let features = rows / (channels * parts);
                let columns = columns / channels;
                return Some(Self { producer: at, reader, channels, columns, features, parts, between });
            }
            match &node.op {
                // Nothing may stand between queries, keys and values and their attention.
                _ if heads.is_some() => return None,
                Op::Attention(attention) => heads = Some(attention.heads),
                op if is_per_channel(op) => {}
                _ => return None,
            }
            between.push(at);
            at = *node.inputs.first()?;
        }
        None
    }

    /// Rows of the producer's matrix that write a channel.
    pub fn rows(&self, channel: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { channels, features, parts, .. } = *self;
        (0..parts).flat_map(move |part| {
            let first = (part * channels + channel) * features;
            first..first + features
        })
    }

    /// Channels that the reader gives any weight, in order; the first if there is none.
    fn read(&self, nodes: &[Node], params: &Params) -> Result<Vec<usize>, ParamsError> {
        let weight = params.get(&nodes[self.reader.index()].weight())?;
        let mut read = vec![false; self.channels];
        let row = self.channels * self.columns;
        for (at, _) in weight.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            read[at % row / self.columns] = true;
        }
        let mut read: Vec<usize> = (0..self.channels).filter(|channel| read[*channel]).collect();
        if read.is_empty() {
            read.push(0);
        }
        Ok(read)
    }

    /// Takes all channels but these out of the nodes and their parameters.
    fn keep(&self, channels: &[usize], nodes: &mut [Node], params: &mut Params) -> Result<(), ParamsError> {
        let of = |channel: &usize| channel * self.features..(channel + 1) * self.features;
        let features: Vec<usize> = channels.iter().flat_map(of).collect();
        let mut rows: Vec<usize> = channels.iter().flat_map(|channel| self.rows(*channel)).collect();
        rows.sort_unstable();
        let reader = &mut nodes[self.reader.index()];
        select(params, &reader.weight(), 1, &features)?;
        match &mut reader.op {
            Op::Conv2d(conv) => conv.in_channels = features.len(),
            Op::Linear(linear) => linear.in_features = features.len(),
            _ => {}
        }
        for id in &self.between {
            let node = &mut nodes[id.index()];
            node.params().iter().try_for_each(|spec| select(params, &spec.name, 0, &features))?;
            narrow(&mut node.op, channels.len(), features.len());
        }
        let producer = &mut nodes[self.producer.index()];
        producer.params().iter().try_for_each(|spec| select(params, &spec.name, 0, &rows))?;
        match &mut producer.op {
            Op::Conv2d(conv) => conv.out_channels = rows.len(),
            Op::Linear(linear) => linear.out_features = rows.len(),
            _ => {}
        }
        Ok(())
    }
}

/// The graph and parameters without hidden channels that their reader gives no weight; one always stays. Answers are
/// the same up to rounding.
pub fn compact(graph: &Graph, params: &Params) -> Result<(Graph, Params), ParamsError> {
    let (mut nodes, mut params) = (graph.nodes().to_vec(), params.clone());
    for hidden in graph.hidden() {
        let read = hidden.read(&nodes, &params)?;
        if read.len() < hidden.channels {
            hidden.keep(&read, &mut nodes, &mut params)?;
        }
    }
    Ok((graph.rebuilt(nodes, graph.blocks().to_vec()), params))
}

/// Extents of the matrix of a prunable layer without groups.
fn ungrouped(node: &Node) -> Option<[usize; 2]> {
    let grouped = matches!(&node.op, Op::Conv2d(conv) if conv.groups > 1);
    node.matrix().filter(|_| node.is_prunable() && !grouped)
}

/// Whether each output channel depends on the same input channel only.
fn is_per_channel(op: &Op) -> bool {
    match op {
        Op::Conv2d(conv) => conv.groups == conv.in_channels && conv.groups == conv.out_channels,
        Op::Activation(_)
        | Op::BatchNorm(_)
        | Op::Scale(_)
        | Op::MaxPool2d(_)
        | Op::AvgPool2d(_)
        | Op::SamePad(_) => true,
        _ => false,
    }
}

/// Gives a node between producer and reader fewer channels.
fn narrow(op: &mut Op, channels: usize, features: usize) {
    match op {
        Op::Conv2d(conv) => [conv.in_channels, conv.out_channels, conv.groups] = [features; 3],
        Op::BatchNorm(norm) => norm.channels = features,
        Op::Scale(scale) => scale.features = features,
        Op::Attention(attention) => (attention.heads, attention.features) = (channels, features),
        _ => {}
    }
}

fn select(params: &mut Params, name: &str, axis: usize, at: &[usize]) -> Result<(), ParamsError> {
    let value = params.get(name)?.select(Axis(axis), at);
    params.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, ArrayD};

    use super::*;
    use crate::{Attention, BatchNorm, Conv2d, Embed, GraphBuilder, Linear, MeanTokens, Role, Shape};

    /// Values that tell where they came from: each parameter counts from 1.
    fn counted(graph: &Graph) -> Params {
        let value = |shape: &[usize]| {
            let count: usize = shape.iter().product();
            Array1::from_iter((1..=count).map(|n| n as f32)).into_shape_with_order(shape).unwrap()
        };
        graph.params().map(|spec| (spec.name, value(&spec.shape).into_dyn())).collect()
    }

    fn forget(params: &mut Params, name: &str, axis: usize, at: &[usize]) {
        let weight: &mut ArrayD<f32> = params.get_mut(name).unwrap();
        for at in at {
            weight.index_axis_mut(Axis(axis), *at).fill(0.0);
        }
    }

    fn values(params: &Params, name: &str) -> Vec<f32> {
        params.get(name).unwrap().iter().copied().collect()
    }

    #[test]
    fn channels_that_are_not_read_go_with_all_that_belongs_to_them() {
        let (mut builder, image) = GraphBuilder::new("test", Shape::map(2, 4, 4));
        builder.role(Role::Body);
        let conv = |channels| Op::Conv2d(Conv2d::square(channels, 3, 1));
        let a = builder.push("a", conv([2, 3]), &[image]);
        let norm = builder.push("norm", Op::BatchNorm(BatchNorm { channels: 3, eps: 1e-5 }), &[a]);
        let relu = builder.push("relu", Op::RELU, &[norm]);
        let depthwise = Conv2d { groups: 3, ..Conv2d::square([3, 3], 3, 1) };
        let depthwise = builder.push("depthwise", Op::Conv2d(depthwise), &[relu]);
        let b = builder.push("b", conv([3, 2]), &[depthwise]);
        let sum = builder.push("sum", Op::Add, &[b, image]);
        builder.push("pool", Op::GlobalAvgPool, &[sum]);
        let graph = builder.finish().unwrap();
        let hidden = graph.hidden();
        assert_eq!((hidden.len(), hidden[0].channels, hidden[0].columns), (1, 3, 9));
        assert_eq!((hidden[0].producer, hidden[0].reader), (a, b));
        let mut params = counted(&graph);
        assert_eq!(compact(&graph, &params).unwrap(), (graph.clone(), params.clone()));
        forget(&mut params, "b.weight", 1, &[1]);
        let (smaller, kept) = compact(&graph, &params).unwrap();
        kept.check(&smaller).unwrap();
        assert_eq!(values(&kept, "norm.bias"), [1.0, 3.0]);
        assert_eq!(values(&kept, "depthwise.weight").len(), 18);
        assert_eq!(
            values(&kept, "a.weight"),
            [&values(&params, "a.weight")[..18], &values(&params, "a.weight")[36..]].concat()
        );
        assert_eq!(smaller.shapes().unwrap().last(), graph.shapes().unwrap().last());
    }

    #[test]
    fn heads_go_with_their_queries_keys_and_values() {
        let (mut builder, image) = GraphBuilder::new("test", Shape::map(4, 2, 2));
        let embed = Embed { features: 4, prefix: 0, positioned: 0, grid: [2, 2] };
        let tokens = builder.push("embed", Op::Embed(embed), &[image]);
        builder.role(Role::Body);
        let linear = |inner, out| Op::Linear(Linear { in_features: inner, out_features: out, bias: true });
        let qkv = builder.push("qkv", linear(4, 12), &[tokens]);
        let attention = builder.push("attention", Op::Attention(Attention { heads: 2, features: 4 }), &[qkv]);
        let proj = builder.push("proj", linear(4, 4), &[attention]);
        builder.push("mean", Op::MeanTokens(MeanTokens { prefix: 0 }), &[proj]);
        let graph = builder.finish().unwrap();
        let hidden = graph.hidden();
        assert_eq!((hidden.len(), hidden[0].channels, hidden[0].columns), (1, 2, 2));
        assert_eq!(hidden[0].rows(1).collect::<Vec<_>>(), [2, 3, 6, 7, 10, 11]);
        let mut params = counted(&graph);
        forget(&mut params, "proj.weight", 1, &[0, 1]);
        let (smaller, kept) = compact(&graph, &params).unwrap();
        kept.check(&smaller).unwrap();
        assert_eq!(values(&kept, "qkv.bias"), [3.0, 4.0, 7.0, 8.0, 11.0, 12.0]);
        assert_eq!(smaller.node(attention).op, Op::Attention(Attention { heads: 1, features: 2 }));
        // Two of the head's columns: a head goes as a whole or not at all.
        let mut params = counted(&graph);
        forget(&mut params, "proj.weight", 1, &[0, 2, 3]);
        assert_eq!(compact(&graph, &params).unwrap().0.node(attention).op, smaller.node(attention).op);
        forget(&mut params, "proj.weight", 1, &[0, 1, 2, 3]);
        assert_eq!(values(&compact(&graph, &params).unwrap().1, "qkv.bias").len(), 6);
    }
}
