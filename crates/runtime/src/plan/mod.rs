//! From a sparse model to a list of steps on preallocated buffers.
//!
//! ```text
//! fuse:    convolution (or linear layer on tokens) + sum + activation → one step
//! layouts: values joined by a stride-1 convolution, a norm or a sum share a row pitch;
//!          each gets the zero margins its readers need
//! buffers: each value's buffer (reused when its last reader is done and the layouts are equal:
//!          padding then stays zero); what all take together is compared with the memory allowed
//! build:   each step's kernel (sparse or dense)
//! ```

mod buffers;
mod build;
mod cache;
mod choose;
mod fuse;
mod layouts;
#[cfg(test)]
mod tests;
mod tune;
mod weights;

use margay_core::{AvgPool2d, MaxPool2d, NodeId, Shape};
use margay_kernels::{
    Attention, BlockConv, DenseConv, DenseLinear, Embedding, Isa, LayerNorm, Layout, Pointwise, ResponseNorm,
    SparseConv, SparseLinear, Taps, Tensor, avg_pool, concat, gate, global_mean, log_sum_exp, max_pool, pad,
    scale, split_phases, token,
};

pub use cache::fuzz as fuzz_tune_cache;
pub use choose::KernelChoice;

/// Why a step of two inputs has the second.
const SECOND: &str = "the graph's arity is checked";

/// A model ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) isa: Isa,
    pub(crate) steps: Vec<Step>,
    pub(crate) image: usize,
    pub(crate) image_buffer: usize,
    pub(crate) classes: usize,
    pub(crate) logits_buffer: usize,
    buffers: Vec<Layout>,
    scratch: Layout,
}

impl Plan {
    /// Bytes of the buffers of one image.
    pub(crate) fn arena_bytes(&self) -> u64 {
        self.buffers.iter().map(Layout::bytes).sum::<u64>() + self.scratch.bytes()
    }

    /// Whether the buffers of this plan serve the other.
    pub(crate) fn has_buffers_of(&self, other: &Self) -> bool {
        (&self.buffers, self.scratch, self.image_buffer)
            == (&other.buffers, other.scratch, other.image_buffer)
    }

    /// Whether the steps of this plan are those of the other, kernels aside.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let places = |plan: &Self| -> Vec<_> {
            plan.steps.iter().map(|step| (step.names.clone(), step.input, step.other, step.output)).collect()
        };
        self.has_buffers_of(other) && places(self) == places(other)
    }
}

/// One kernel call.
#[derive(Debug)]
pub(crate) struct Step {
    /// Nodes computed, the last of which is the output; none for a split into phase planes.
    pub(crate) nodes: Vec<NodeId>,
    /// Names of the nodes.
    pub(crate) names: Vec<String>,
    pub(crate) kernel: Kernel,
    /// Fraction of the weight that is stored.
    pub(crate) density: Option<f64>,
    /// Stored weights, 0 without a weight.
    pub(crate) stored: usize,
    /// Shape of the output.
    pub(crate) shape: Shape,
    pub(crate) input: usize,
    /// Second input.
    pub(crate) other: Option<usize>,
    pub(crate) output: usize,
}

/// What a step calls.
#[derive(Debug)]
pub(crate) enum Kernel {
    Phases(Taps),
    SparseConv(SparseConv),
    BlockConv(BlockConv),
    DenseConv(DenseConv),
    SparseLinear(SparseLinear),
    DenseLinear(DenseLinear),
    Attention(Attention),
    LayerNorm(LayerNorm),
    ResponseNorm(ResponseNorm),
    Embed(Embedding),
    Pointwise(Pointwise),
    Scale(Vec<f32>),
    Gate,
    MaxPool(MaxPool2d),
    AvgPool(AvgPool2d),
    /// Zero rows and columns in front.
    Pad([usize; 2]),
    /// Without so many places in front.
    Mean(usize),
    Token(usize),
    Concat,
    /// Sizes of groups.
    LogSumExp(Vec<usize>),
}

impl Kernel {
    /// Short name for profiles.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Phases(_) => "split_phases",
            Self::SparseConv(_) => "sparse_conv",
            Self::BlockConv(_) => "block_conv",
            Self::DenseConv(_) => "dense_conv",
            Self::SparseLinear(_) => "sparse_linear",
            Self::DenseLinear(_) => "dense_linear",
            Self::Attention(_) => "attention",
            Self::LayerNorm(_) => "layer_norm",
            Self::ResponseNorm(_) => "response_norm",
            Self::Embed(_) => "embed",
            Self::Pointwise(_) => "pointwise",
            Self::Scale(_) => "scale",
            Self::Gate => "gate",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::Pad(_) => "pad",
            Self::Mean(_) => "global_mean",
            Self::Token(_) => "token",
            Self::Concat => "concat",
            Self::LogSumExp(_) => "log_sum_exp",
        }
    }

    /// Strip width of a sparse kernel, in vectors.
    pub(crate) const fn strip(&self) -> Option<usize> {
        match self {
            Self::SparseConv(conv) => Some(conv.strip()),
            Self::BlockConv(conv) => Some(conv.strip()),
            _ => None,
        }
    }

    /// Bytes of a stored weight.
    const fn weight_bytes(&self) -> usize {
        match self {
            Self::SparseConv(_) | Self::SparseLinear(_) => 8,
            Self::BlockConv(_) => 5,
            _ => 4,
        }
    }

    /// Values of scratch space that a run on `parts` threads needs.
    fn scratch(&self, parts: usize) -> usize {
        match self {
            Self::Attention(attention) => parts.saturating_mul(attention.scratch()),
            Self::ResponseNorm(norm) => norm.scratch(),
            _ => 0,
        }
    }
}

/// The buffers of one image on its way through a plan.
#[derive(Debug)]
pub(crate) struct Arena {
    buffers: Vec<Tensor>,
    scratch: Tensor,
}

impl Arena {
    /// Buffers for `plan`.
    pub(crate) fn new(plan: &Plan) -> Self {
        let buffers = plan.buffers.iter().map(|layout| Tensor::zeros(*layout)).collect();
        Self { buffers, scratch: Tensor::zeros(plan.scratch) }
    }

    /// A buffer by index.
    pub(crate) fn tensor(&self, buffer: usize) -> &Tensor {
        &self.buffers[buffer]
    }

    /// Bytes of a step's inputs, output and weight.
    pub(crate) fn traffic(&self, step: &Step) -> usize {
        let tensors = [Some(step.input), step.other, Some(step.output)].into_iter().flatten();
        let bytes = |buffer: usize| {
            let layout = self.buffers[buffer].layout();
            layout.values() * layout.precision().bytes()
        };
        tensors.map(bytes).sum::<usize>() + step.stored * step.kernel.weight_bytes()
    }

    /// Takes over one image `[channels, height, width]`.
    pub(crate) fn load(&mut self, plan: &Plan, image: &[f32]) {
        self.buffers[plan.image_buffer].fill(image);
    }

    /// Runs one step on `parts` threads of the current pool.
    pub(crate) fn step(&mut self, isa: Isa, step: &Step, parts: usize) {
        self.call(isa, step, &step.kernel, parts);
    }

    /// Runs one step on another kernel that computes the same.
    pub(crate) fn call(&mut self, isa: Isa, step: &Step, kernel: &Kernel, parts: usize) {
        let mut output = std::mem::take(&mut self.buffers[step.output]);
        let (x, y, scratch) = (&self.buffers[step.input], &mut output, &mut self.scratch);
        let other = step.other.map(|buffer| &self.buffers[buffer]);
        match kernel {
            Kernel::Phases(taps) => split_phases(isa, taps, x, y, parts),
            Kernel::SparseConv(conv) => conv.run(x, other, y, parts),
            Kernel::BlockConv(conv) => conv.run(x, other, y, parts),
            Kernel::DenseConv(conv) => conv.run(x, other, y, parts),
            Kernel::SparseLinear(linear) => linear.run(x, y),
            Kernel::DenseLinear(linear) => linear.run(x, y, parts),
            Kernel::Attention(attention) => attention.run(x, scratch, y, parts),
            Kernel::LayerNorm(norm) => norm.run(x, y, parts),
            Kernel::ResponseNorm(norm) => norm.run(x, scratch, y, parts),
            Kernel::Embed(embedding) => embedding.run(x, y, parts),
            Kernel::Pointwise(pointwise) => pointwise.run(x, other, y, parts),
            Kernel::Scale(factors) => scale(isa, x, factors, y, parts),
            Kernel::Gate => gate(isa, x, other.expect(SECOND), y, parts),
            Kernel::MaxPool(pool) => max_pool(isa, pool, x, y, parts),
            Kernel::AvgPool(pool) => avg_pool(pool, x, y, parts),
            Kernel::Pad(before) => pad(x, *before, y, parts),
            Kernel::Mean(skip) => global_mean(isa, x, *skip, y),
            Kernel::Token(index) => token(x, *index, y),
            Kernel::Concat => concat(x, other.expect(SECOND), y),
            Kernel::LogSumExp(groups) => log_sum_exp(x, groups, y),
        }
        self.buffers[step.output] = output;
    }

    /// Runs every step on one image and writes its logits.
    pub(crate) fn infer(&mut self, plan: &Plan, image: &[f32], logits: &mut [f32], parts: usize) {
        self.load(plan, image);
        for step in &plan.steps {
            self.step(plan.isa, step, parts);
        }
        self.tensor(plan.logits_buffer).copy_to(logits);
    }
}
