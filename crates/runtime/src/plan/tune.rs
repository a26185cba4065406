//! Which kernel a convolution runs on, found by trying.
//!
//! Sparse and dense kernels and strips of every width sum in one order, so whatever is chosen, and however noisy the
//! machine was, answers are the same bit for bit.

use std::collections::HashMap;
use std::time::Instant;

use margay_core::{Activation, Csr, Pattern};
use margay_kernels::{Layout, Tensor};
use serde::{Deserialize, Serialize};

use super::Kernel;

/// Timed runs of a candidate, after one that counts only where it tells enough.
const RUNS: usize = 2;
/// A first run that took so many times the least so far needs no second.
const HOPELESS: f64 = 2.0;

/// Tensors that a convolution runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) source: Layout,
    pub(super) output: Layout,
    pub(super) residual: bool,
}

/// What layers are told apart by: equal ones are timed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layer {
    /// Channels, height, width and pitch of what is read and written.
    maps: [[usize; 4]; 2],
    residual: bool,
    /// Extents of the weight.
    matrix: [usize; 2],
    stored: usize,
    pattern: Pattern,
    activation: Option<Activation>,
}

impl Layer {
    pub(super) fn new(place: &Place, weight: &Csr, activation: Option<Activation>) -> Self {
        let (matrix, stored, pattern) = ([weight.rows(), weight.cols()], weight.nnz(), weight.pattern());
        let map = |layout: &Layout| {
            let [channels, height, width] = layout.dims();
            [channels, height, width, layout.pitch()]
        };
        let maps = [map(&place.source), map(&place.output)];
        Self { maps, residual: place.residual, matrix, stored, pattern, activation }
    }

    /// The same with any number of stored weights.
    fn kind(&self) -> Self {
        Self { stored: 0, ..self.clone() }
    }

    /// Whether a layer of this one's kind has the same number of stored weights but for a twentieth.
    fn is_near(&self, other: &Self) -> bool {
        self.stored.abs_diff(other.stored).saturating_mul(20) <= self.stored.max(other.stored)
    }
}

/// A way to run a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    Dense,
    /// With strips so wide.
    Sparse(usize),
    /// In blocks of rows, with strips so wide.
    Blocks(usize),
}

/// A layer and the milliseconds of each way to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tried {
    pub(super) layer: Layer,
    pub(super) ms: Vec<(Way, f64)>,
}

impl Tried {
    fn fastest(&self) -> Option<Way> {
        self.ms.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(way, _)| *way)
    }
}

/// Times kernels: a trait, so that a test can say what is fast.
pub(super) trait Clock {
    /// Milliseconds of `kernel`, at least roughly where they are far above `least`.
    fn time(&mut self, place: &Place, kernel: &Kernel, least: f64) -> f64;
}

/// What has been timed for one model.
pub(super) struct Tuner<'c> {
    clock: &'c mut dyn Clock,
    tried: Vec<Tried>,
    /// Places in `tried` of the layers of each kind.
    kinds: HashMap<Layer, Vec<usize>>,
}

impl<'c> Tuner<'c> {
    /// A tuner that knows some layers already.
    pub(super) fn new(clock: &'c mut dyn Clock, tried: Vec<Tried>) -> Self {
        let mut tuner = Self { clock, tried: Vec::new(), kinds: HashMap::new() };
        for tried in tried {
            tuner.keep(tried);
        }
        tuner
    }

    /// For fuzzing: finds each layer that is known.
    pub(super) fn look_up(&self) {
        for tried in &self.tried {
            assert!(self.known(&tried.layer).is_some_and(|known| known.fastest().is_some()));
        }
    }

    fn keep(&mut self, tried: Tried) {
        self.kinds.entry(tried.layer.kind()).or_default().push(self.tried.len());
        self.tried.push(tried);
    }

    fn known(&self, layer: &Layer) -> Option<&Tried> {
        let alike = self.kinds.get(&layer.kind())?.iter().map(|place| &self.tried[*place]);
        alike.into_iter().find(|tried| tried.layer.is_near(layer))
    }

    /// Every layer that is known.
    pub(super) fn tried(&self) -> &[Tried] {
        &self.tried
    }

    /// The fastest of some ways to run a layer; the earlier of two that are as fast.
    pub(super) fn choose(
        &mut self,
        layer: Layer,
        place: &Place,
        ways: &[Way],
        make: impl Fn(Way) -> Option<Kernel>,
    ) -> Option<Kernel> {
        if let Some(known) = self.known(&layer) {
            // A file may name a way that this layer does not have.
            return known.fastest().filter(|way| ways.contains(way)).and_then(make);
        }
        let (mut best, mut least, mut ms) = (None, f64::INFINITY, Vec::new());
        for &way in ways {
            let Some(kernel) = make(way) else { continue };
            let time = self.clock.time(place, &kernel, least);
            ms.push((way, time));
            if time < least {
                (best, least) = (Some(kernel), time);
            }
        }
        self.keep(Tried { layer, ms });
        best
    }
}

/// Measures on tensors of zeros: no kernel is faster or slower on them.
#[derive(Default)]
pub(super) struct Stopwatch(Option<Buffers>);

struct Buffers {
    place: Place,
    input: Tensor,
    residual: Option<Tensor>,
    output: Tensor,
}

impl Clock for Stopwatch {
    fn time(&mut self, place: &Place, kernel: &Kernel, least: f64) -> f64 {
        let kept = self.0.take().filter(|buffers| buffers.place == *place);
        let buffers = self.0.insert(kept.unwrap_or_else(|| Buffers::new(place)));
        let first = buffers.time(kernel);
        if first > HOPELESS * least {
            return first;
        }
        (0..RUNS).map(|_| buffers.time(kernel)).fold(f64::INFINITY, f64::min)
    }
}

impl Buffers {
    fn new(place: &Place) -> Self {
        let residual = place.residual.then(|| Tensor::zeros(place.output));
        let (input, output) = (Tensor::zeros(place.source), Tensor::zeros(place.output));
        Self { place: *place, input, residual, output }
    }

    fn time(&mut self, kernel: &Kernel) -> f64 {
        let (input, residual, output) = (&self.input, self.residual.as_ref(), &mut self.output);
        let start = Instant::now();
        match kernel {
            Kernel::SparseConv(conv) => conv.run(input, residual, output, 1),
            Kernel::BlockConv(conv) => conv.run(input, residual, output, 1),
            Kernel::DenseConv(conv) => conv.run(input, residual, output, 1),
            other => unreachable!("{} is no way to run a convolution", other.name()),
        }
        1e3 * start.elapsed().as_secs_f64()
    }
}
