//! Direct sparse convolution in blocks of four rows.
//!
//! ```text
//! for each strip of V vectors of output places:
//!     for each four output channels:
//!         acc[4][V] = bias
//!         for each stored block (offset, value[4]):
//!             x[V] = source[offset + strip ..]
//!             acc[r][v] += value[r] · x[v]
//!         output[r][strip] = act(acc[r] + residual)
//! ```
//!
//! As [`SparseConv`](crate::SparseConv), but four channels share what they read: each vector is loaded, and widened
//! where it is stored by halves, once for four multiply-adds.

use std::ops::Range;

use margay_core::Csr;

use crate::conv::{
    Bent, ConvError, ConvSpec, Frame, Job, RowCosts, bend, finish, spread, strip_at, strip_count,
};
use crate::layout::Tensor;
use crate::simd::{Simd, Target};
use crate::{Isa, Precision};

/// Rows of a block.
pub(crate) const ROWS: usize = 4;

/// A convolution whose weight is stored in blocks of four rows and one column.
#[derive(Clone, Debug)]
pub struct BlockConv {
    frame: Frame,
    target: Target,
    strip: usize,
    /// First block of each four rows, and their number at the end.
    block_ptr: Vec<u32>,
    blocks: Vec<Block>,
}

/// Four stored weights: where they read and their values.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Block {
    offset: u32,
    values: [f32; ROWS],
}

impl BlockConv {
    /// Plans `y = act(weight ∗ x + bias [+ residual])` with `weight` `[out, in / groups · kh · kw]`, in which every
    /// four rows, counted from the first of each group, have the same columns.
    pub fn new(isa: Isa, spec: &ConvSpec, weight: &Csr) -> Result<Self, ConvError> {
        let (frame, offsets) = Frame::new(spec, [weight.rows(), weight.cols()])?;
        if !frame.group_rows.is_multiple_of(ROWS) {
            return Err(ConvError::Blocks { row: frame.group_rows });
        }
        let (mut block_ptr, mut blocks) = (vec![0], Vec::with_capacity(weight.nnz() / ROWS));
        for first in (0..weight.rows()).step_by(ROWS) {
            let columns = weight.columns(first);
            if let Some(row) = (first..first + ROWS).find(|row| weight.columns(*row) != columns) {
                return Err(ConvError::Blocks { row });
            }
            let values: [&[f32]; ROWS] = std::array::from_fn(|r| {
                let start = weight.row_ptr()[first + r] as usize;
                &weight.values()[start..start + columns.len()]
            });
            let group = &offsets[first / frame.group_rows];
            blocks.extend(columns.iter().enumerate().map(|(i, column)| Block {
                offset: group[*column as usize],
                values: values.map(|values| values[i]),
            }));
            block_ptr.push(blocks.len() as u32);
        }
        let target = frame.target(isa);
        Ok(Self { frame, target, strip: most_vectors(target), block_ptr, blocks })
    }

    /// Widths of strips that are worth trying, in vectors.
    pub fn widths(&self) -> Vec<usize> {
        (1..=most_vectors(self.target)).rev().collect()
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
        spread(self.target, &self.frame, parts, self, &|quads, vectors| {
            // SAFETY: the plan has checked that every offset and every row stays inside the buffers
            // for all vectors of a plane, and the job holds buffers of the planned layouts.
            unsafe { blocks(self.target, self, &job, quads, vectors) }
        });
    }

    /// Width of the strips, in vectors.
    pub const fn strip(&self) -> usize {
        self.strip
    }
}

impl RowCosts for BlockConv {
    fn rows(&self) -> usize {
        self.block_ptr.len() - 1
    }

    fn boundary(&self, part: usize, parts: usize) -> usize {
        // Four rows cost their blocks and four epilogues, which take as long as about six of them.
        let cost = |quad: usize| self.block_ptr[quad] as usize + 6 * quad;
        crate::parallel::boundary(self.rows(), part, parts, cost)
    }
}

/// Most vectors a strip may have: four rows of accumulators, their weights and what is read must fit the registers.
const fn most_vectors(target: Target) -> usize {
    match (target.isa, target.precision) {
        (Isa::Avx512, Precision::F32) => 6,
        (Isa::Avx512, Precision::Bf16) => 3,
        (_, Precision::F32) => 2,
        (_, Precision::Bf16) => 1,
    }
}

dispatch! {
    /// # Safety
    /// `job` belongs to the frame of `conv`; `quads` and `vectors` are within it.
    fn blocks(conv: &BlockConv, job: &Job, quads: Range<usize>, vectors: Range<usize>) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, conv: &BlockConv, job: &Job, quads: Range<usize>, vectors: Range<usize>) {
    // No closure here: it would be a function of its own, without the instruction set of its caller.
    let strips = strip_count(&vectors, conv.strip);
    let mut bent = Bent::new();
    for index in 0..strips {
        let (first, count) = strip_at(&vectors, index, strips);
        let at = first * S::LANES;
        for quad in quads.clone() {
            // SAFETY: same contract as this function.
            unsafe {
                strip_of(s, conv, job, quad, at, count, &mut bent);
                bend(s, job, ROWS * quad..ROWS * quad + ROWS, at, count, &bent);
            }
        }
    }
}

/// A strip of `count` vectors: [`strip`] compiled for each width that the registers hold.
#[inline(always)]
unsafe fn strip_of<S: Simd>(
    s: S,
    conv: &BlockConv,
    job: &Job,
    quad: usize,
    at: usize,
    count: usize,
    bent: &mut Bent,
) {
    macro_rules! widths {
        ($($width:literal)*) => {
            match count {
                $($width if most_vectors(S::TARGET) >= $width => {
                    // SAFETY: same contract as this function.
                    unsafe { strip::<S, $width>(s, conv, job, quad, at, bent) }
                })*
                _ => unreachable!("strips have one to most_vectors vectors"),
            }
        };
    }
    widths!(1 2 3 4 5 6);
}

#[inline(always)]
unsafe fn strip<S: Simd, const V: usize>(
    s: S,
    conv: &BlockConv,
    job: &Job,
    quad: usize,
    at: usize,
    bent: &mut Bent,
) {
    // SAFETY: `quad` is one of the plan, whose `block_ptr` bounds `blocks`; an offset plus any place of the span is
    // inside the source.
    unsafe {
        let source = job.input::<S::E>().add(at);
        let mut block = conv.blocks.as_ptr().add(*conv.block_ptr.get_unchecked(quad) as usize);
        let end = conv.blocks.as_ptr().add(*conv.block_ptr.get_unchecked(quad + 1) as usize);
        let mut acc = [[s.splat(0.0); V]; ROWS];
        for (r, row) in acc.iter_mut().enumerate() {
            *row = [s.splat(*job.frame.bias.get_unchecked(ROWS * quad + r)); V];
        }
        while block < end {
            let from = source.add((*block).offset as usize);
            let mut x = [s.splat(0.0); V];
            for (v, x) in x.iter_mut().enumerate() {
                *x = s.load(from.add(v * S::LANES));
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let weight = s.splat((*block).values[r]);
                for v in 0..V {
                    row[v] = s.fma(weight, x[v], row[v]);
                }
            }
            block = block.add(1);
        }
        for (r, row) in acc.into_iter().enumerate() {
            finish::<S, V>(s, job, [ROWS * quad + r, r], at, row, bent);
        }
    }
}
