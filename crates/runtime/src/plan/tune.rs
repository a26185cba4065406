//! Which kernel a convolution runs on, found by trying.
//!
//! Sparse and dense kernels and strips of every width sum in one order, so whatever is chosen, and however noisy the
//! machine was, answers are the same bit for bit.

use std::time::{Duration, Instant};

use margay_core::Activation;
use margay_kernels::{Layout, Tensor};

use super::Kernel;

/// Timed runs of a candidate, after one untimed.
const RUNS: usize = 2;

/// What candidates are told apart by: equal keys are timed once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) source: Layout,
    pub(super) output: Layout,
    /// Extents of the weight.
    pub(super) matrix: [usize; 2],
    pub(super) stored: usize,
    pub(super) activation: Option<Activation>,
    pub(super) residual: bool,
}

impl Key {
    /// Whether a layer like this one was timed before: the same but for a twentieth of the weights.
    fn is_near(&self, other: &Self) -> bool {
        let stored = self.stored.abs_diff(other.stored) * 20 <= self.stored.max(other.stored);
        stored && *self == Self { stored: self.stored, ..other.clone() }
    }
}

/// What has been timed for one model.
#[derive(Debug, Default)]
pub(super) struct Tuner(Vec<(Key, Choice)>);

/// The fastest candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Dense,
    /// With strips so wide.
    Sparse(usize),
}

impl Tuner {
    /// The fastest of a sparse convolution with strips of every width and a dense one, if there is one.
    pub(super) fn choose(
        &mut self,
        key: Key,
        sparse: Kernel,
        dense: impl FnOnce() -> Option<Kernel>,
    ) -> Kernel {
        let Kernel::SparseConv(conv) = sparse else { return sparse };
        if let Some((_, choice)) = self.0.iter().find(|(known, _)| known.is_near(&key)) {
            return match choice {
                Choice::Sparse(width) => Kernel::SparseConv(conv.with_strip(*width)),
                Choice::Dense => dense().unwrap_or(Kernel::SparseConv(conv)),
            };
        }
        let mut buffers = Buffers::new(&key);
        let (mut best, mut choice, mut least) = (None, Choice::Dense, Duration::MAX);
        if let Some(kernel) = dense() {
            (least, best) = (buffers.time(&kernel), Some(kernel));
        }
        for width in conv.widths() {
            let kernel = Kernel::SparseConv(conv.clone().with_strip(width));
            let time = buffers.time(&kernel);
            if time < least {
                (best, choice, least) = (Some(kernel), Choice::Sparse(width), time);
            }
        }
        self.0.push((key, choice));
        best.unwrap_or(Kernel::SparseConv(conv))
    }
}

/// Tensors of zeros to try kernels on: no kernel is faster or slower on them.
struct Buffers {
    input: Tensor,
    residual: Option<Tensor>,
    output: Tensor,
}

impl Buffers {
    fn new(key: &Key) -> Self {
        let residual = key.residual.then(|| Tensor::zeros(key.output));
        Self { input: Tensor::zeros(key.source), residual, output: Tensor::zeros(key.output) }
    }

    /// The shortest time of a few runs.
    fn time(&mut self, kernel: &Kernel) -> Duration {
        let mut once = || {
            let start = Instant::now();
            let (input, residual, output) = (&self.input, self.residual.as_ref(), &mut self.output);
            match kernel {
                Kernel::SparseConv(conv) => conv.run(input, residual, output, 1),
                Kernel::DenseConv(conv) => conv.run(input, residual, output, 1),
                _ => {}
            }
            start.elapsed()
        };
        once();
        (0..RUNS).map(|_| once()).min().unwrap_or_default()
    }
}
