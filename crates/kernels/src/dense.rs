//! Direct dense convolution: the fallback for weights with too few zeros.
//!
//! ```text
//! for each group of strips that fits the L2 cache:
//!     for each block of R output channels:
//!         for each strip of V vectors of the group:
//!             acc[R][V] = bias
//!             for each column k of the weight:
//!                 acc[r][v] += weight[r][k] · source[offset[k] + strip + v · LANES]
//!             output[r][strip] = act(acc + residual)
//! ```
//!
//! The weight is packed `[block][k][R]`, so that a block is read front to back.

use std::ops::Range;

use crate::conv::{
    Bent, ConvError, ConvSpec, Frame, Job, RowCosts, bend, finish, spread, strip_at, strip_count,
};
use crate::layout::Tensor;
use crate::simd::{Simd, Target};
use crate::taps::Taps;
use crate::{Isa, Precision};

/// Bytes of source that a group of strips may cover.
const GROUP_BYTES: usize = 256 << 10;

/// A convolution with every weight stored.
#[derive(Clone, Debug)]
pub struct DenseConv {
    frame: Frame,
    target: Target,
    columns: usize,
    blocks_per_group: usize,
    group_vectors: usize,
    /// Offset of column `k` in group `g`: `[g · columns + k]`.
    offsets: Vec<u32>,
    /// `[block][column][R]`, rows past the last of a group zero.
    packed: Vec<f32>,
}

impl DenseConv {
    /// Plans `y = act(weight ∗ x + bias [+ residual])` with row-major `weight`
    /// `[out, in / groups · kh · kw]`.
    pub fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Result<Self, ConvError> {
        let columns = spec.taps.columns();
        let rows = weight.len().checked_div(columns).unwrap_or(0);
        let (frame, offsets) = Frame::new(spec, [rows, columns])?;
        let (target, offsets) = (frame.target(isa), offsets.concat());
        let blocks_per_group = frame.group_rows.div_ceil(target.tile()[0]);
        let packed = pack(target, &frame, weight, columns);
        let bytes_per_vector = (frame.source.channels * target.lanes() * target.precision.bytes()).max(1);
        let tile = target.tile()[1];
        let group_vectors = (GROUP_BYTES / bytes_per_vector).next_multiple_of(tile).max(2 * tile);
        Ok(Self { frame, target, columns, blocks_per_group, group_vectors, offsets, packed })
    }

    /// Output channels with those that only pad the last register tile of each group.
    pub fn padded_rows(isa: Isa, precision: Precision, taps: &Taps) -> usize {
        let tile = Target { isa, precision }.tile();
        (taps.output()[0] / taps.groups()).next_multiple_of(tile[0]) * taps.groups()
    }

    /// Output channels of a block.
    #[inline(always)]
    fn rows_of(&self, block: usize) -> Range<usize> {
        let (group, in_group) = (block / self.blocks_per_group, block % self.blocks_per_group);
        let (rows, tile) = (self.frame.group_rows, self.target.tile()[0]);
        let first = group * rows + in_group * tile;
        first..(first + tile).min((group + 1) * rows)
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned.
    pub fn run(&self, input: &Tensor, residual: Option<&Tensor>, output: &mut Tensor, parts: usize) {
        let job = self.frame.job(input, residual, output);
        spread(self.target, &self.frame, parts, self, &|blocks, vectors| {
            // SAFETY: the plan has checked that every offset and every row stays inside the buffers
            // for all vectors of a plane, and the job holds buffers of the planned layouts.
            unsafe { dense(self.target, self, &job, blocks, vectors) }
        });
    }
}

impl RowCosts for DenseConv {
    fn rows(&self) -> usize {
        self.frame.bias.len() / self.frame.group_rows.max(1) * self.blocks_per_group
    }

    fn boundary(&self, part: usize, parts: usize) -> usize {
        self.rows() * part / parts
    }
}

fn pack(target: Target, frame: &Frame, weight: &[f32], columns: usize) -> Vec<f32> {
    let (block, rows) = (target.tile()[0], frame.bias.len());
    let mut packed = Vec::new();
    for group in (0..rows).step_by(frame.group_rows.max(1)) {
        for first in (group..group + frame.group_rows).step_by(block) {
            for k in 0..columns {
                packed.extend(
                    (first..first + block).map(|row| {
                        if row < group + frame.group_rows { weight[row * columns + k] } else { 0.0 }
                    }),
                );
            }
        }
    }
    packed
}

dispatch! {
    /// # Safety
    /// `job` belongs to the frame of `conv`; `blocks` and `vectors` are within it.
    fn dense(conv: &DenseConv, job: &Job, blocks: Range<usize>, vectors: Range<usize>) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, conv: &DenseConv, job: &Job, blocks: Range<usize>, vectors: Range<usize>) {
    let (mut start, mut bent) = (vectors.start, Bent::new());
    while start < vectors.end {
        let group = start..vectors.end.min(start + conv.group_vectors);
        start = group.end;
        // No closure here: it would be a function of its own, without the instruction set of its caller.
        let strips = strip_count(&group, S::TARGET.tile()[1]);
        for block in blocks.clone() {
            for index in 0..strips {
                let (first, count) = strip_at(&group, index, strips);
                let at = first * S::LANES;
                // SAFETY: same contract as this function.
                unsafe {
                    match (S::TARGET.tile(), count) {
                        ([8, _], 1) => tile::<S, 8, 1>(s, conv, job, block, at, &mut bent),
                        ([8, _], 2) => tile::<S, 8, 2>(s, conv, job, block, at, &mut bent),
                        ([8, _], _) => tile::<S, 8, 3>(s, conv, job, block, at, &mut bent),
                        ([6, _], 1) => tile::<S, 6, 1>(s, conv, job, block, at, &mut bent),
                        ([6, _], _) => tile::<S, 6, 2>(s, conv, job, block, at, &mut bent),
                        (_, 1) => tile::<S, 4, 1>(s, conv, job, block, at, &mut bent),
                        (_, _) => tile::<S, 4, 2>(s, conv, job, block, at, &mut bent),
                    }
                    bend(s, job, conv.rows_of(block), at, count, &bent);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    conv: &DenseConv,
    job: &Job,
    block: usize,
    at: usize,
    bent: &mut Bent,
) {
    let group = block / conv.blocks_per_group;
    let Range { start: first, end } = conv.rows_of(block);
    let rows = end - first;
    // SAFETY: the block is one of the plan, which holds `columns` offsets per group and `columns · R`
    // weights per block; an offset plus any place of the rounded body is inside the source.
    unsafe {
        let source = job.input::<S::E>().add(at);
        let offsets = conv.offsets.as_ptr().add(group * conv.columns);
        let weights = conv.packed.as_ptr().add(block * conv.columns * R);
        let mut acc = [[s.splat(0.0); V]; R];
        for (r, row) in acc.iter_mut().enumerate().take(rows) {
            *row = [s.splat(*job.frame.bias.get_unchecked(first + r)); V];
        }
        for k in 0..conv.columns {
            let from = source.add(*offsets.add(k) as usize);
            let mut x = [s.splat(0.0); V];
            for (v, x) in x.iter_mut().enumerate() {
                *x = s.load(from.add(v * S::LANES));
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let weight = s.splat(*weights.add(k * R + r));
                for v in 0..V {
                    row[v] = s.fma(weight, x[v], row[v]);
                }
            }
        }
        for (r, row) in acc.into_iter().enumerate() {
            if r < rows {
                finish::<S, V>(s, job, [first + r, r], at, row, bent);
            }
        }
    }
}
