//! From a sparse model to a list of steps on preallocated buffers.
//!
//! ```text
//! fuse:    convolution + sum + ReLU → one step
//! layouts: values joined by a stride-1 convolution or a sum share a row pitch;
//!          each gets the zero margins its readers need
//! build:   each step's kernel (sparse or dense), each value's buffer (reused when its last reader
//!          is done and the layouts are equal: padding then stays zero)
//! ```

mod build;
mod choose;
mod fuse;
mod layouts;
mod weights;

use margay_core::{MaxPool2d, NodeId};
use margay_kernels::{
    DenseConv, DenseLinear, Isa, Layout, SparseConv, SparseLinear, Taps, Tensor, combine, global_mean,
    max_pool, split_phases,
};

pub use choose::KernelChoice;

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
    /// Extents of the output.
    pub(crate) dims: Vec<usize>,
    pub(crate) input: usize,
    pub(crate) residual: Option<usize>,
    pub(crate) output: usize,
}

/// What a step calls.
#[derive(Debug)]
pub(crate) enum Kernel {
    Phases(Taps),
    SparseConv(SparseConv),
    DenseConv(DenseConv),
    SparseLinear(SparseLinear),
    DenseLinear(DenseLinear),
    MaxPool(MaxPool2d),
    Mean,
    Combine { relu: bool },
}

impl Kernel {
    /// Short name for profiles.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Phases(_) => "split_phases",
            Self::SparseConv(_) => "sparse_conv",
            Self::DenseConv(_) => "dense_conv",
            Self::SparseLinear(_) => "sparse_linear",
            Self::DenseLinear(_) => "dense_linear",
            Self::MaxPool(_) => "max_pool",
            Self::Mean => "global_mean",
            Self::Combine { .. } => "combine",
        }
    }
}

/// The buffers of one image on its way through a plan.
#[derive(Debug, Default)]
pub(crate) struct Arena(Vec<Tensor>);

impl Arena {
    /// Buffers for `plan`.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self(plan.buffers.iter().map(|layout| Tensor::zeros(*layout)).collect())
    }

    /// A buffer by index.
    pub(crate) fn tensor(&self, buffer: usize) -> &Tensor {
        &self.0[buffer]
    }

    /// Takes over one image `[channels, height, width]`.
    pub(crate) fn load(&mut self, plan: &Plan, image: &[f32]) {
        self.0[plan.image_buffer].fill(image);
    }

    /// Runs one step on `parts` threads of the current pool.
    pub(crate) fn step(&mut self, isa: Isa, step: &Step, parts: usize) {
        let mut output = std::mem::take(&mut self.0[step.output]);
        let (input, residual) = (&self.0[step.input], step.residual.map(|b| &self.0[b]));
        match &step.kernel {
            Kernel::Phases(taps) => split_phases(isa, taps, input, &mut output, parts),
            Kernel::SparseConv(conv) => conv.run(input, residual, &mut output, parts),
            Kernel::DenseConv(conv) => conv.run(input, residual, &mut output, parts),
            Kernel::SparseLinear(linear) => linear.run(input, &mut output),
            Kernel::DenseLinear(linear) => linear.run(input, &mut output, parts),
            Kernel::MaxPool(pool) => max_pool(isa, pool, input, &mut output, parts),
            Kernel::Mean => global_mean(isa, input, &mut output),
            Kernel::Combine { relu } => combine(isa, input, residual, *relu, &mut output),
        }
        self.0[step.output] = output;
    }

    /// Runs every step on one image and writes its logits.
    pub(crate) fn infer(&mut self, plan: &Plan, image: &[f32], logits: &mut [f32], parts: usize) {
        self.load(plan, image);
        for step in &plan.steps {
            self.step(plan.isa, step, parts);
        }
        self.0[plan.logits_buffer].copy_to(logits);
    }
}
