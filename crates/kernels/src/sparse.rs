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

use crate::Isa;
use crate::conv::{ConvError, ConvSpec, Frame, Job, RowCosts, bend, finish, spread, strip_at, strip_count};
use crate::layout::{ALIGN, Tensor};
use crate::simd::Simd;

/// Most vectors a strip may have.
pub const MAX_STRIP: usize = 12;

/// A convolution whose weight is stored as its nonzeros.
#[derive(Clone, Debug)]
pub struct SparseConv {
    frame: Frame,
    isa: Isa,
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
        let strip = strip_width(isa, &frame);
        Ok(Self { frame, isa, strip, row_ptr: weight.row_ptr().to_vec(), entries })
    }

    /// The same convolution with strips of `vectors` vectors, for benches. Results do not change.
    #[must_use]
    pub fn with_strip(mut self, vectors: usize) -> Self {
        self.strip = vectors.clamp(1, MAX_STRIP);
        self
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned.
    pub fn run(&self, input: &Tensor, residual: Option<&Tensor>, output: &mut Tensor, parts: usize) {
        let job = self.frame.job(input, residual, output);
        spread(self.isa, &self.frame, parts, self, &|rows, vectors| {
            // SAFETY: the plan has checked that every offset and every row stays inside the buffers
            // for all vectors of a plane, and the job holds buffers of the planned layouts.
            unsafe { sparse(self.isa, self, &job, rows, vectors) }
        });
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
        let (mut low, mut high) = (0, self.rows());
        let target = cost(high) * part / parts;
        while low < high {
            let middle = usize::midpoint(low, high);
            if cost(middle) < target { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// Longer strips amortise broadcasts, shorter ones keep the strip of all source planes in the cache.
fn strip_width(isa: Isa, frame: &Frame) -> usize {
    let bytes = 32 << 10;
    let fits = bytes / (frame.source.channels.max(1) * isa.lanes() * size_of::<f32>());
    fits.clamp(4, 8)
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
    for index in 0..strips {
        let (first, count) = strip_at(&vectors, index, strips);
        let at = first * S::LANES;
        // SAFETY: same contract as this function.
        unsafe {
            match count {
                1 => strip::<S, 1>(s, conv, job, rows.clone(), at),
                2 => strip::<S, 2>(s, conv, job, rows.clone(), at),
                3 => strip::<S, 3>(s, conv, job, rows.clone(), at),
                4 => strip::<S, 4>(s, conv, job, rows.clone(), at),
                5 => strip::<S, 5>(s, conv, job, rows.clone(), at),
                6 => strip::<S, 6>(s, conv, job, rows.clone(), at),
                7 => strip::<S, 7>(s, conv, job, rows.clone(), at),
                8 => strip::<S, 8>(s, conv, job, rows.clone(), at),
                9 => strip::<S, 9>(s, conv, job, rows.clone(), at),
                10 => strip::<S, 10>(s, conv, job, rows.clone(), at),
                11 => strip::<S, 11>(s, conv, job, rows.clone(), at),
                _ => strip::<S, 12>(s, conv, job, rows.clone(), at),
            }
            bend(s, job, rows.clone(), at, count);
        }
    }
}

#[inline(always)]
unsafe fn strip<S: Simd, const V: usize>(s: S, conv: &SparseConv, job: &Job, rows: Range<usize>, at: usize) {
    debug_assert!(at.is_multiple_of(S::LANES) && ALIGN.is_multiple_of(S::LANES));
    let entries = conv.entries.as_ptr();
    // SAFETY: rows are rows of the plan, whose `row_ptr` bounds `entries`; an offset plus any place of
    // the rounded body is inside the source.
    unsafe {
        let source = job.input.add(at);
        for row in rows {
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
            finish::<S, V>(s, job, row, at, acc);
        }
    }
}
