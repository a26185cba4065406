//! Direct sparse convolution.
//!
//! ```text
//! for each strip of V vectors of output places:
//!     for each output channel r:
//!         acc[V] = bias[r]
//!         for each stored weight (offset, value) of r:
//!             acc[v] += value · source[offset + strip + v · LANES]
//!         output[r][strip] = act(acc + residual)
//! ```
//!
//! There is no im2col: a weight's channel and tap are one flat offset into the padded source (the
//! pointer-offset idea of Park et al., "Faster CNNs with Direct Sparse Convolutions", ICLR 2017). The
//! accumulators of a strip stay in registers; every weight costs one broadcast and V multiply-adds with
//! a memory operand, none of them on zeros.

use std::ops::Range;

use margay_core::Csr;

use crate::conv::{
    Bent, ConvError, ConvSpec, Frame, Job, RowCosts, bend, finish, spread, strip_at, strip_count,
};
use crate::layout::Tensor;
use crate::simd::{Simd, Target};
use crate::{Isa, Precision};

/// A convolution whose weight is stored as its nonzeros.
#[derive(Clone, Debug)]
pub struct SparseConv {
    frame: Frame,
    target: Target,
    strip: usize,
    row_ptr: Vec<u32>,
    entries: Vec<Entry>,
}

/// One stored weight: where it reads and its value.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Entry {
    offset: u32,
    value: f32,
}

impl SparseConv {
    /// Plans `y = act(weight ∗ x + bias [+ residual])` with `weight` `[out, in / groups · kh · kw]`.
    pub fn new(isa: Isa, spec: &ConvSpec, weight: &Csr) -> Result<Self, ConvError> {
        let (frame, offsets) = Frame::new(spec, [weight.rows(), weight.cols()])?;
        let mut entries = Vec::with_capacity(weight.nnz());
        for row in 0..weight.rows() {
            let group = &offsets[row / frame.group_rows];
            entries.extend(weight.row(row).map(|(c, value)| Entry { offset: group[c as usize], value }));
        }
        let target = frame.target(isa);
        let strip = strip_width(target, &frame);
        Ok(Self { frame, target, strip, row_ptr: weight.row_ptr().to_vec(), entries })
    }

    /// Widths of strips that are worth trying, in vectors: each cuts a plane into another number of strips.
    pub fn widths(&self) -> Vec<usize> {
        let vectors = self.frame.output.body().div_ceil(self.target.lanes()).max(1);
        let mut widths: Vec<usize> = [2, 4, 5, 7, 9, 14]
            .into_iter()
            .filter(|width| *width <= most_vectors(self.target))
            .map(|width| vectors.div_ceil(vectors.div_ceil(width)))
            .collect();
        widths.dedup();
        widths
    }

    /// The same convolution with strips of `vectors` vectors. Results do not change.
    #[must_use]
    pub fn with_strip(mut self, vectors: usize) -> Self {
        self.strip = vectors.clamp(1, most_vectors(self.target));
        self
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned.
    pub fn run(&self, input: &Tensor, residual: Option<&Tensor>, output: &mut Tensor, parts: usize) {
        let job = self.frame.job(input, residual, output);
        spread(self.target, &self.frame, parts, self, &|rows, vectors| {
            // SAFETY: the plan has checked that every offset and every row stays inside the buffers
            // for all vectors of a plane, and the job holds buffers of the planned layouts.
            unsafe { sparse(self.target, self, &job, rows, vectors) }
        });
    }

    /// Width of the strips, in vectors.
    pub const fn strip(&self) -> usize {
        self.strip
    }

    /// Stored weights.
    pub fn nonzeros(&self) -> usize {
        self.entries.len()
    }
}

impl RowCosts for SparseConv {
    fn rows(&self) -> usize {
        self.frame.bias.len()
    }

    fn boundary(&self, part: usize, parts: usize) -> usize {
        // A row costs its weights and an epilogue, which takes as long as about four of them.
        let cost = |row: usize| self.row_ptr[row] as usize + 4 * row;
        crate::parallel::boundary(self.rows(), part, parts, cost)
    }
}

/// Longer strips amortise broadcasts, shorter ones keep the strip of all source planes in the cache. A map that one
/// strip covers saves the rest.
fn strip_width(target: Target, frame: &Frame) -> usize {
    let most = most_vectors(target);
    let vectors = frame.output.body().div_ceil(target.lanes());
    let fits = (32 << 10) / (frame.source.channels.max(1) * target.lanes() * target.precision.bytes());
    match target.precision {
        Precision::Bf16 if vectors <= most => vectors.max(1),
        Precision::Bf16 => fits.clamp(4, 5).min(most),
        Precision::F32 => fits.clamp(2, 8).min(most),
    }
}

/// Most vectors a strip may have: its accumulators, a weight and what is read must fit the registers.
pub(crate) const fn most_vectors(target: Target) -> usize {
    match (target.isa, target.precision) {
        (Isa::Avx512, Precision::F32) => 14,
        (Isa::Avx512, Precision::Bf16) => 9,
        (_, Precision::F32) => 12,
        (_, Precision::Bf16) => 5,
    }
}

dispatch! {
    /// # Safety
    /// `job` belongs to the frame of `conv`; `rows` and `vectors` are within it.
    fn sparse(conv: &SparseConv, job: &Job, rows: Range<usize>, vectors: Range<usize>) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, conv: &SparseConv, job: &Job, rows: Range<usize>, vectors: Range<usize>) {
    // No closure here: it would be a function of its own, without the instruction set of its caller.
    let strips = strip_count(&vectors, conv.strip);
    let mut bent = Bent::new();
    for index in 0..strips {
        let (first, count) = strip_at(&vectors, index, strips);
        let (at, at_once) = (first * S::LANES, Bent::rows(job, count, S::LANES));
        let mut start = rows.start;
        while start < rows.end {
            let rows = start..rows.end.min(start.saturating_add(at_once));
            start = rows.end;
            // SAFETY: same contract as this function.
            unsafe {
                strip_of(s, conv, job, rows.clone(), at, count, &mut bent);
                bend(s, job, rows, at, count, &bent);
            }
        }
    }
}

/// A strip of `count` vectors: [`strip`] compiled for each width that the registers hold.
#[inline(always)]
unsafe fn strip_of<S: Simd>(
    s: S,
    conv: &SparseConv,
    job: &Job,
    rows: Range<usize>,
    at: usize,
    count: usize,
    bent: &mut Bent,
) {
    macro_rules! widths {
        ($($width:literal)*) => {
            match count {
                $($width if most_vectors(S::TARGET) >= $width => {
                    // SAFETY: same contract as this function.
                    unsafe { strip::<S, $width>(s, conv, job, rows, at, bent) }
                })*
                _ => unreachable!("strips have one to most_vectors vectors"),
            }
        };
    }
    widths!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

#[inline(always)]
unsafe fn strip<S: Simd, const V: usize>(
    s: S,
    conv: &SparseConv,
    job: &Job,
    rows: Range<usize>,
    at: usize,
    bent: &mut Bent,
) {
    debug_assert!(at.is_multiple_of(S::LANES));
    let entries = conv.entries.as_ptr();
    // SAFETY: rows are rows of the plan, whose `row_ptr` bounds `entries`; an offset plus any place of
    // the span is inside the source.
    unsafe {
        let source = job.input::<S::E>().add(at);
        for (waiting, row) in rows.enumerate() {
            let mut entry = entries.add(*conv.row_ptr.get_unchecked(row) as usize);
            let end = entries.add(*conv.row_ptr.get_unchecked(row + 1) as usize);
            let mut acc = [s.splat(*job.frame.bias.get_unchecked(row)); V];
            while entry < end {
                let (weight, from) = (s.splat((*entry).value), source.add((*entry).offset as usize));
                for (v, a) in acc.iter_mut().enumerate() {
                    *a = s.fma(weight, s.load(from.add(v * S::LANES)), *a);
                }
                entry = entry.add(1);
            }
            finish::<S, V>(s, job, [row, waiting], at, acc, bent);
        }
    }
}
