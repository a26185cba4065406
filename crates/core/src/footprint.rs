//! What a model takes to run, known before any of it is allocated, and how much it may take.

use std::collections::HashMap;

use crate::{Activation, Conv2d, Graph, Node, Op, Preprocess, Resize, Shape};

/// Bytes of a number in full precision.
const F32: u64 = 4;
/// Bytes that a kernel keeps per place of a window and input channel: an offset, and a row of weights for each of the
/// eight rows of a tile, which a grouped convolution may leave empty but for one.
const PER_OFFSET: u64 = 36;
/// Bytes that a plan keeps per place of a window.
const PER_TAP: u64 = 32;
/// Multiply-adds that an exponential or an error function is worth.
const EXPONENTIAL: u64 = 16;
/// Multiply-adds per value of a normalisation.
const NORM: u64 = 8;
/// A photo is cut to this many times its short side before its short side is resized.
pub(crate) const MAX_ASPECT: u64 = 64;

/// How much a model may take. Readers refuse what takes more before they allocate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: u64,
    /// Multiply-adds for one photo, comparisons of a pooling included.
    pub operations: u64,
}

impl Limits {
    /// 4 GiB, and 4 · 10¹² multiply-adds: twice what the largest published classifiers take (EVA giant at 560 pixels
    /// and DINOv2 giant at 518 pixels take 1.9 and 1.8 · 10¹²), some minutes on one core.
    pub const DEFAULT: Self = Self { memory: 4 << 30, operations: 4_000_000_000_000 };
    /// For files that the same program has just written.
    pub const NONE: Self = Self { memory: u64::MAX, operations: u64::MAX };

    /// The default with another ceiling of memory.
    #[must_use]
    pub const fn with_memory(memory: u64) -> Self {
        Self { memory, ..Self::DEFAULT }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A limit that a model exceeds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// Weights, values between layers and the prepared photo take too much together.
    #[error(
        "the model needs {} MB of memory ({} MB for weights, {} MB for values between layers, {} MB for a photo); \
         at most {} MB are allowed",
        mb(*needed), mb(*weights), mb(*values), mb(*photo), mb(*limit)
    )]
    Memory {
        /// Bytes of everything.
        needed: u64,
        /// Bytes of weights, as they are stored and as kernels hold them.
        weights: u64,
        /// Bytes of values between layers and of tables of windows.
        values: u64,
        /// Bytes of a photo that is prepared.
        photo: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The weights take too much once every zero is stored.
    #[error("with every zero stored the weights need {} MB of memory; at most {} MB are allowed", mb(*needed), mb(*limit))]
    Dense {
        /// Bytes of two copies.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// One photo takes too long.
    #[error("one photo takes {:.1e} multiply-adds; at most {:.1e} are allowed", *needed as f64, *limit as f64)]
    Operations {
        /// Multiply-adds for one photo.
        needed: u64,
        /// Multiply-adds allowed.
        limit: u64,
    },
}

fn mb(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// What a model takes to run on one photo. Numbers that no 64 bits hold are the largest that they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the stored weights: values, positions and starts of rows.
    pub weights: u64,
    /// Bytes of the weights with every zero stored.
    pub dense: u64,
    /// Bytes of the values between layers, in full precision: nodes that the logits do not depend on have none,
    /// buffers of one shape are used again, and what goes value by value stays in place.
    pub values: u64,
    /// Bytes of the tables that say where windows read and where a map is padding.
    pub tables: u64,
    /// Bytes of the resized photo and of the input made of it, at most.
    pub photo: u64,
    /// Multiply-adds for one photo, zeros counted like any weight.
    pub operations: u64,
}

impl Footprint {
    /// What a sound graph takes with weights of so many stored bytes. Linear in nodes; allocates a few words for each.
    ///
    /// `shapes` are those of the graph's nodes.
    pub fn new(graph: &Graph, shapes: &[Shape], preprocess: &Preprocess, weights: u64) -> Self {
        let mut footprint = Self { weights, photo: photo(preprocess), ..Self::default() };
        let live = graph.live();
        let nodes = graph.nodes().iter().zip(shapes).zip(&live);
        for ((node, shape), _) in nodes.filter(|(_, live)| **live) {
            let inputs = node.inputs.iter().map(|id| shapes[id.index()]);
            footprint.count(node, *shape, &inputs.collect::<Vec<_>>());
        }
        for spec in graph.params() {
            footprint.dense = footprint.dense.saturating_add(F32.saturating_mul(product(&spec.shape)));
        }
        footprint.values = values(graph, shapes, &live);
        footprint
    }

    /// Bytes of everything: weights as stored and as kernels hold them, values twice, as kernels are timed on tensors
    /// of their own and inputs are prepared while others are run, tables and a photo.
    pub fn memory(&self) -> u64 {
        let twice = self.weights.saturating_add(self.values).saturating_mul(2);
        twice.saturating_add(self.tables).saturating_add(self.photo)
    }

    /// Refuses a model that takes more than is allowed.
    pub fn check(&self, limits: &Limits) -> Result<(), LimitError> {
        let Limits { memory: limit, operations } = *limits;
        let needed = self.memory();
        if needed > limit {
            let values = self.values.saturating_mul(2).saturating_add(self.tables);
            let weights = self.weights.saturating_mul(2);
            return Err(LimitError::Memory { needed, weights, values, photo: self.photo, limit });
        }
        if self.operations > operations {
            return Err(LimitError::Operations { needed: self.operations, limit: operations });
        }
        Ok(())
    }

    /// Refuses a model whose weights take too much with every zero stored, for those who store them.
    pub fn check_dense(&self, limits: &Limits) -> Result<(), LimitError> {
        let (needed, limit) = (self.dense.saturating_mul(2), limits.memory);
        if needed > limit { Err(LimitError::Dense { needed, limit }) } else { Ok(()) }
    }

    fn count(&mut self, node: &Node, shape: Shape, inputs: &[Shape]) {
        let [offsets, taps] = windows(&node.op, inputs);
        let padding = shape.positions() as u64 / 8 + 64;
        let tables = PER_OFFSET.saturating_mul(offsets).saturating_add(PER_TAP.saturating_mul(taps));
        self.tables = self.tables.saturating_add(tables).saturating_add(padding);
        self.operations = self.operations.saturating_add(operations(&node.op, shape, inputs));
    }
}

/// Places of all windows of a node that runs as a convolution, times input channels and alone.
fn windows(op: &Op, inputs: &[Shape]) -> [u64; 2] {
    let features = inputs.first().map_or(0, |input| input.features());
    match op {
        Op::Conv2d(Conv2d { in_channels, kernel: [kh, kw], .. }) => {
            [product(&[*in_channels, *kh, *kw]), product(&[*kh, *kw])]
        }
        Op::Linear(_) | Op::BatchNorm(_) => [features as u64, 1],
        _ => [0, 0],
    }
}

/// Multiply-adds of a node with weights for one image, zeros counted like any weight; of others 0.
pub(crate) fn macs(op: &Op, shape: Shape) -> u64 {
    match (op, op.matrix()) {
        (Op::Attention(a), _) => product(&[2, shape.positions(), shape.positions(), a.features]),
        (_, Some([out, inner])) => product(&[out, inner, shape.positions()]),
        (_, None) => 0,
    }
}

/// Multiply-adds of any node, or what takes as long.
fn operations(op: &Op, shape: Shape, inputs: &[Shape]) -> u64 {
    let len = shape.len() as u64;
    let read: u64 = inputs.iter().map(|input| input.len() as u64).sum();
    let own = match op {
        Op::Attention(a) => {
            let scores = product(&[a.heads, shape.positions(), shape.positions()]);
            EXPONENTIAL.saturating_mul(scores)
        }
        Op::MaxPool2d(pool) => len.saturating_mul(product(&pool.kernel)),
        Op::AvgPool2d(pool) => len.saturating_mul(product(&pool.kernel)),
        Op::Activation(Activation::Gelu | Activation::Silu | Activation::Sigmoid) => {
            EXPONENTIAL.saturating_mul(len)
        }
        Op::BatchNorm(_) | Op::LayerNorm(_) | Op::ResponseNorm(_) => NORM.saturating_mul(len),
        _ => 0,
    };
    macs(op, shape).saturating_add(own).saturating_add(len).saturating_add(read)
}

/// Bytes of values between layers at once.
fn values(graph: &Graph, shapes: &[Shape], live: &[bool]) -> u64 {
    let mut last = vec![0; shapes.len()];
    let nodes = || graph.nodes().iter().enumerate().filter(|(index, _)| live[*index]);
    for (index, node) in nodes() {
        node.inputs.iter().for_each(|input| last[input.index()] = index);
    }
    let (mut free, mut total): (HashMap<Shape, usize>, u64) = (HashMap::new(), 0);
    for (index, node) in nodes() {
        let shape = shapes[index];
        let mut ends: Vec<usize> =
            node.inputs.iter().map(|id| id.index()).filter(|i| last[*i] == index).collect();
        ends.dedup();
        let taken = ends.iter().position(|input| goes_by_value(&node.op) && shapes[*input] == shape);
        match (taken, free.get_mut(&shape).filter(|count| **count > 0)) {
            (Some(place), _) => drop(ends.remove(place)),
            (None, Some(count)) => *count -= 1,
            (None, None) => total = total.saturating_add(F32.saturating_mul(shape.len() as u64)),
        }
        for input in ends {
            *free.entry(shapes[input]).or_default() += 1;
        }
    }
    total
}

/// Whether each value of the output depends on the same place of the inputs, so that it can take that place.
fn goes_by_value(op: &Op) -> bool {
    matches!(
        op,
        Op::Activation(_)
            | Op::Add
            | Op::Average
            | Op::Gate
            | Op::Scale(_)
            | Op::BatchNorm(_)
            | Op::LayerNorm(_)
            | Op::ResponseNorm(_)
    )
}

/// Bytes of a photo of the longest sides at its resized size, and of the input made of it: twice, alone and in a batch.
fn photo(spec: &Preprocess) -> u64 {
    let [height, width] = spec.resized();
    let resized = match spec.resize {
        Resize::ShortSide(short) => product(&[short, short]).saturating_mul(MAX_ASPECT),
        _ => product(&[height, width]),
    };
    let input = product(&spec.size).saturating_mul(2 * F32 + 1);
    resized.saturating_add(input).saturating_mul(3)
}

fn product(extents: &[usize]) -> u64 {
    extents.iter().fold(1, |n, extent| n.saturating_mul(*extent as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GraphBuilder, Linear, MaxPool2d, NodeId, SamePad};

    /// An image of 2 × 2 that grows by 1023 rows and columns with each of so many nodes, then what `rest` adds, then a
    /// head of two classes.
    fn growing(steps: usize, rest: impl Fn(&mut GraphBuilder, NodeId) -> NodeId) -> Footprint {
        let (mut builder, mut last) = GraphBuilder::new("growing", Shape::map(3, 2, 2));
        for step in 0..steps {
            let pad = SamePad { kernel: [1024, 1024], stride: [1, 1] };
            last = builder.push(format!("p{step}"), Op::SamePad(pad), &[last]);
        }
        last = rest(&mut builder, last);
        let pool = builder.push("pool", Op::GlobalAvgPool, &[last]);
        builder.push("fc", Op::Linear(Linear { in_features: 3, out_features: 2, bias: false }), &[pool]);
        let graph = builder.finish().unwrap();
        Footprint::new(&graph, &graph.shapes().unwrap(), &Preprocess::squash(2), 24)
    }

    #[test]
    fn buffers_that_are_free_are_used_again_and_dead_nodes_have_none() {
        let alone = growing(2, |_, last| last);
        assert_eq!(alone.dense, 24);
        let sides: u64 = [2_u64, 1025, 2048].iter().map(|side| side * side).sum();
        assert_eq!(alone.values, 4 * (3 * sides + 3 + 2));
        let dead = growing(2, |builder, last| {
            for i in 0..9 {
                let _ = builder.push(format!("d{i}"), Op::RELU, &[last]);
            }
            last
        });
        assert_eq!(dead, alone);
        // A chain in place, and a chain of two buffers in turns.
        let chain = growing(2, |builder, last| {
            (0..9).fold(last, |last, i| builder.push(format!("r{i}"), Op::RELU, &[last]))
        });
        assert_eq!(chain.values, alone.values);
        let pool = MaxPool2d { kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
        let pools = growing(2, |builder, last| {
            (0..9).fold(last, |last, i| builder.push(format!("m{i}"), Op::MaxPool2d(pool.clone()), &[last]))
        });
        assert_eq!(pools.values, alone.values + 4 * 3 * 2048 * 2048);
    }

    #[test]
    fn what_takes_hours_or_all_memory_is_refused_with_numbers() {
        let memory = growing(8, |_, last| last).check(&Limits::DEFAULT).unwrap_err();
        assert!(matches!(memory, LimitError::Memory { .. }), "{memory:?}");
        assert!(memory.to_string().contains("at most 4295 MB are allowed"), "{memory}");
        let pool = MaxPool2d { kernel: [1001, 15], stride: [1, 1], padding: [500, 7] };
        let slow = growing(4, |builder, last| {
            (0..9).fold(last, |last, i| builder.push(format!("m{i}"), Op::MaxPool2d(pool.clone()), &[last]))
        });
        let slow = slow.check(&Limits::DEFAULT).unwrap_err();
        assert!(matches!(slow, LimitError::Operations { .. }), "{slow:?}");
        assert!(slow.to_string().contains("at most 4.0e12"), "{slow}");
        growing(4, |_, last| last).check(&Limits::DEFAULT).unwrap();
    }

    #[test]
    fn numbers_beyond_64_bits_stay_the_largest() {
        assert_eq!(product(&[usize::MAX, 2]), u64::MAX);
        let spec = Preprocess { resize: Resize::ShortSide(usize::MAX), ..Preprocess::squash(8) };
        assert_eq!(photo(&spec), u64::MAX);
    }
}
