//! What sparse and dense convolution share: the frame of a call, the epilogue, the split over threads.

use std::ops::Range;

use margay_core::Activation;

use crate::Isa;
use crate::activation::activate;
use crate::layout::{Interior, Layout, Tensor};
use crate::simd::Simd;
use crate::taps::Taps;

/// Why a convolution cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvError {
    /// Source and output layouts do not fit the windows.
    #[error("the layouts of source and output do not fit the windows of the convolution")]
    Layout,
    /// The weight has other extents than the convolution.
    #[error("the weight is {got:?}, the convolution needs {expected:?}")]
    Weight {
        /// `[out, in / groups · kh · kw]`.
        expected: [usize; 2],
        /// Extents of the weight given.
        got: [usize; 2],
    },
    /// There is not one bias per output channel.
    #[error("{got} biases for {expected} output channels")]
    Bias {
        /// Output channels.
        expected: usize,
        /// Biases given.
        got: usize,
    },
}

/// Geometry and epilogue of one convolution: checked when it is made, so that a run cannot leave its
/// buffers.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) source: Layout,
    pub(crate) output: Layout,
    pub(crate) bias: Vec<f32>,
    activation: Option<Activation>,
    /// Output channels of one group.
    pub(crate) group_rows: usize,
    interior: Interior,
}

/// What a planned convolution computes besides its weight.
#[derive(Clone, Debug)]
pub struct ConvSpec<'a> {
    /// Windows.
    pub taps: &'a Taps,
    /// Layout of what the windows read: [`Taps::source`].
    pub source: Layout,
    /// Layout of the output.
    pub output: Layout,
    /// One value per output channel.
    pub bias: &'a [f32],
    /// What each output goes through at the end.
    pub activation: Option<Activation>,
}

impl Frame {
    /// Checks everything a run relies on; returns the offsets of every weight, `[groups][columns]`.
    pub(crate) fn new(spec: &ConvSpec, weight: [usize; 2]) -> Result<(Self, Vec<Vec<u32>>), ConvError> {
        let rows = spec.taps.output()[0];
        let expected = [rows, spec.taps.columns()];
        if weight != expected {
            return Err(ConvError::Weight { expected, got: weight });
        }
        if spec.bias.len() != rows {
            return Err(ConvError::Bias { expected: rows, got: spec.bias.len() });
        }
        let offsets = spec.taps.offsets(&spec.source, &spec.output).ok_or(ConvError::Layout)?;
        let frame = Self {
            source: spec.source,
            output: spec.output,
            bias: spec.bias.to_vec(),
            activation: spec.activation,
            group_rows: rows / spec.taps.groups(),
            interior: spec.output.interior(),
        };
        Ok((frame, offsets))
    }

    /// Vectors of `lanes` values that cover a plane of the output.
    pub(crate) fn vectors(&self, lanes: usize) -> usize {
        self.output.body().div_ceil(lanes)
    }

    /// The pointers of one run.
    ///
    /// # Panics
    /// If a tensor has another layout than planned.
    pub(crate) fn job<'a>(
        &'a self,
        input: &'a Tensor,
        residual: Option<&'a Tensor>,
        output: &'a mut Tensor,
    ) -> Job<'a> {
        assert_eq!(*input.layout(), self.source, "source layout");
        assert_eq!(*output.layout(), self.output, "output layout");
        let residual = residual.map_or(std::ptr::null(), |tensor| {
            assert_eq!(*tensor.layout(), self.output, "residual layout");
            tensor.as_slice().as_ptr()
        });
        let (input, output) = (input.as_slice().as_ptr(), output.as_mut_slice().as_mut_ptr());
        Job { input, residual, output, frame: self }
    }
}

/// Pointers of one run: input and residual are only read, threads write to disjoint places of output.
pub(crate) struct Job<'a> {
    pub(crate) input: *const f32,
    residual: *const f32,
    output: *mut f32,
    pub(crate) frame: &'a Frame,
}

// SAFETY: input and residual are borrowed shared and output exclusively for the job's lifetime, and
// every thread writes to rows and places that no other thread has.
unsafe impl Sync for Job<'_> {}

/// How many strips of at most `most` vectors cover a range.
#[inline(always)]
pub(crate) fn strip_count(vectors: &Range<usize>, most: usize) -> usize {
    vectors.len().div_ceil(most)
}

/// First vector and length of strip `strip` of `count` that cover a range evenly.
#[inline(always)]
pub(crate) fn strip_at(vectors: &Range<usize>, strip: usize, count: usize) -> (usize, usize) {
    let range = crate::parallel::share(vectors.len(), strip, count);
    (vectors.start + range.start, range.len())
}

/// Stores `acc + residual`, rectified if asked, at place `at` of output row `row`, zero in padding columns.
/// Other activations are left to [`bend`].
///
/// # Safety
/// `row` is a row of the output and `at + V · LANES` is within its body rounded up to `ALIGN`.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd, const V: usize>(s: S, job: &Job, row: usize, at: usize, acc: [S::V; V]) {
    let frame = job.frame;
    let base = frame.output.origin + row * frame.output.plane + at;
    for (v, mut value) in acc.into_iter().enumerate() {
        let (place, index) = (at + v * S::LANES, base + v * S::LANES);
        // SAFETY: a planned output holds the rounded body of every row, and residual has the same layout.
        unsafe {
            if !job.residual.is_null() {
                value = s.add(value, s.load(job.residual.add(index)));
            }
            if matches!(frame.activation, Some(Activation::Relu)) {
                value = s.relu(value);
            }
            s.store(job.output.add(index), s.keep(value, frame.interior.bits(place)));
        }
    }
}

/// Applies an activation other than ReLU to `vectors` vectors from `at` of some rows, just stored. Apart
/// from [`finish`], which is compiled for every size of tile and stays small.
///
/// # Safety
/// As for [`finish`], for each of the rows.
#[inline(always)]
pub(crate) unsafe fn bend<S: Simd>(s: S, job: &Job, rows: Range<usize>, at: usize, vectors: usize) {
    let frame = job.frame;
    if matches!(frame.activation, None | Some(Activation::Relu)) {
        return;
    }
    for row in rows {
        let base = frame.output.origin + row * frame.output.plane;
        for v in 0..vectors {
            let place = at + v * S::LANES;
            // SAFETY: as in `finish`.
            unsafe {
                let to = job.output.add(base + place);
                let value = activate(s, frame.activation, s.load(to));
                s.store(to, s.keep(value, frame.interior.bits(place)));
            }
        }
    }
}

/// Runs `work(rows, vectors)` over the output, cut into `parts` for as many threads: planes are cut if
/// they are long enough, else the `rows`, whose costs are given as ascending sums.
pub(crate) fn spread(
    isa: Isa,
    frame: &Frame,
    parts: usize,
    sums: &dyn RowCosts,
    work: &(impl Fn(Range<usize>, Range<usize>) + Sync),
) {
    let (rows, vectors) = (sums.rows(), frame.vectors(isa.lanes()));
    if parts <= 1 {
        work(0..rows, 0..vectors);
    } else if vectors >= 4 * parts {
        crate::parallel::run(parts, &|part| {
            work(0..rows, crate::parallel::share(vectors, part, parts));
        });
    } else {
        crate::parallel::run(parts, &|part| {
            work(sums.boundary(part, parts)..sums.boundary(part + 1, parts), 0..vectors);
        });
    }
}

/// Rows of a weight and what they cost.
pub(crate) trait RowCosts: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// First row of part `part` of `parts` of nearly equal cost.
    fn boundary(&self, part: usize, parts: usize) -> usize;
}
