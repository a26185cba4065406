//! What sparse and dense convolution share: the frame of a call, the epilogue, the split over threads.

use std::ops::Range;

use margay_core::Activation;

use crate::Isa;
use crate::activation::activate;
use crate::layout::{Interior, Layout, Tensor};
use crate::precision::Element;
use crate::simd::{Simd, Target};
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
    /// The rows of a block have not the same columns, or straddle two groups.
    #[error("the weight is not made of blocks at row {row}")]
    Blocks {
        /// The first row that differs.
        row: usize,
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

    /// What the kernel of this convolution is compiled for.
    pub(crate) const fn target(&self, isa: Isa) -> Target {
        Target { isa, precision: self.output.precision }
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
            tensor.bytes()
        });
        let output = output.bytes_mut();
        Job { input: input.bytes(), residual, output, frame: self }
    }
}

/// Pointers of one run: input and residual are only read, threads write to disjoint places of output.
pub(crate) struct Job<'a> {
    input: *const u8,
    residual: *const u8,
    output: *mut u8,
    pub(crate) frame: &'a Frame,
}

// SAFETY: input and residual are borrowed shared and output exclusively for the job's lifetime, and
// every thread writes to rows and places that no other thread has.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// The buffer of the source.
    #[inline(always)]
    pub(crate) fn input<E: Element>(&self) -> *const E {
        debug_assert!(self.frame.source.precision == E::PRECISION);
        self.input.cast()
    }
}

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

/// Rows whose sums wait for an activation.
pub(crate) const BENT_ROWS: usize = 12;
/// Sums that may wait: whole strips of some rows.
const BENT_VALUES: usize = 8 * 14 * 16;

/// Sums in full precision that wait for an activation other than a rectifier. Such functions are applied by
/// [`bend`] and not by [`finish`], which is compiled for every size of tile and stays small.
pub(crate) struct Bent([f32; BENT_VALUES]);

impl Bent {
    pub(crate) const fn new() -> Self {
        Self([0.0; BENT_VALUES])
    }

    /// How many rows of `vectors` vectors of `lanes` values to compute before they are bent.
    pub(crate) fn rows(job: &Job, vectors: usize, lanes: usize) -> usize {
        if straight(job.frame.activation) {
            return usize::MAX;
        }
        (BENT_VALUES / (vectors * lanes)).clamp(1, BENT_ROWS)
    }
}

/// Whether sums are stored as they come, none or rectifiers: what else they go through waits for several rows.
const fn straight(activation: Option<Activation>) -> bool {
    matches!(activation, None | Some(Activation::Relu | Activation::Relu6))
}

/// Stores `acc + residual`, rectified if asked, at place `at` of output row `row`, zero in padding columns.
/// Where there is another activation, the sums are left in row `waiting` of `bent`.
///
/// # Safety
/// `row` is a row of the output, `at + V · LANES` is within its span, and `waiting` below [`Bent::rows`].
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd, const V: usize>(
    s: S,
    job: &Job,
    [row, waiting]: [usize; 2],
    at: usize,
    acc: [S::V; V],
    bent: &mut Bent,
) {
    let frame = job.frame;
    let base = frame.output.origin + row * frame.output.plane + at;
    let (residual, output) = (job.residual.cast::<S::E>(), job.output.cast::<S::E>());
    for (v, mut value) in acc.into_iter().enumerate() {
        let (place, index) = (at + v * S::LANES, base + v * S::LANES);
        // SAFETY: a planned output holds the span of every row, and residual has the same layout; `bent` holds
        // as many vectors as may wait.
        unsafe {
            if !residual.is_null() {
                value = s.add(value, s.load(residual.add(index)));
            }
            match frame.activation {
                None => s.store(output.add(index), value, frame.interior.bits(place)),
                Some(Activation::Relu | Activation::Relu6) => {
                    s.store(
                        output.add(index),
                        activate(s, frame.activation, value),
                        frame.interior.bits(place),
                    );
                }
                Some(_) => s.spill(bent.0.as_mut_ptr().add((waiting * V + v) * S::LANES), value),
            }
        }
    }
}

/// Applies an activation other than a rectifier to what waits: `vectors` vectors from `at` of some rows.
///
/// # Safety
/// As for [`finish`], for each of the rows.
#[inline(always)]
pub(crate) unsafe fn bend<S: Simd>(
    s: S,
    job: &Job,
    rows: Range<usize>,
    at: usize,
    vectors: usize,
    bent: &Bent,
) {
    let frame = job.frame;
    if straight(frame.activation) {
        return;
    }
    let output = job.output.cast::<S::E>();
    for (waiting, row) in rows.enumerate() {
        let base = frame.output.origin + row * frame.output.plane;
        for v in 0..vectors {
            let place = at + v * S::LANES;
            // SAFETY: as in `finish`.
            unsafe {
                let value = s.fetch(bent.0.as_ptr().add((waiting * vectors + v) * S::LANES));
                let value = activate(s, frame.activation, value);
                s.store(output.add(base + place), value, frame.interior.bits(place));
            }
        }
    }
}

/// Runs `work(rows, vectors)` over the output, cut into `parts` for as many threads: planes are cut if
/// they are long enough, else the `rows`, whose costs are given as ascending sums.
pub(crate) fn spread(
    target: Target,
    frame: &Frame,
    parts: usize,
    sums: &dyn RowCosts,
    work: &(impl Fn(Range<usize>, Range<usize>) + Sync),
) {
    let (rows, vectors) = (sums.rows(), frame.output.body().div_ceil(target.lanes()));
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
