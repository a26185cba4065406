//! Multi-head self-attention (Vaswani et al., arXiv 1706.03762) on planar tokens.
//!
//! ```text
//! for each head and strip of V vectors of queries:
//!     for each key j:     score[j] = Σ over dims d of k[d][j] · q[d][strip] / sqrt(dims)
//!     most = max over j of score[j]
//!     for each key j:     score[j] = exp(score[j] − most);  total += score[j]
//!     for each dim d:     output[d][strip] = Σ over keys j of v[d][j] · score[j] / total
//! ```
//!
//! Queries are lanes, so nothing is transposed and no sum crosses lanes. Both products run in register
//! tiles of R rows and V vectors; the scores of one strip are all the scratch space a thread needs.

use crate::Isa;
use crate::conv::{strip_at, strip_count};
use crate::dense::tile_shape;
use crate::layout::{Interior, Layout, Tensor};
use crate::math;
use crate::parallel::Shared;
use crate::simd::Simd;

/// `softmax(q kᵀ / sqrt(dims)) v` per head, of planes of queries, keys and values.
#[derive(Clone, Debug)]
pub struct Attention {
    isa: Isa,
    heads: usize,
    /// Features of one head.
    dims: usize,
    input: Layout,
    output: Layout,
    interior: Interior,
}

impl Attention {
    /// Plans attention from tokens `[count, 3 · heads · dims]` to `[count, heads · dims]`.
    ///
    /// # Panics
    /// If the layouts are not those of such tokens.
    pub fn new(isa: Isa, heads: usize, input: Layout, output: Layout) -> Self {
        let dims = output.channels.checked_div(heads).unwrap_or(0);
        assert_eq!(heads * dims, output.channels, "heads");
        assert_eq!(input.dims(), [3 * output.channels, 1, output.width], "queries, keys and values");
        assert!(input.holds_strips() && output.holds_strips(), "planes of whole vectors");
        Self { isa, heads, dims, input, output, interior: output.interior() }
    }

    /// Values of scratch space that each of the `parts` of a run needs.
    pub const fn scratch(&self) -> usize {
        self.output.width * tile_shape(self.isa.lanes())[1] * self.isa.lanes()
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned, or if the scratch space is too small.
    pub fn run(&self, input: &Tensor, scratch: &mut Tensor, output: &mut Tensor, parts: usize) {
        assert_eq!(*input.layout(), self.input, "input of the attention");
        assert_eq!(*output.layout(), self.output, "output of the attention");
        let (x, y) = (input.as_slice(), Shared(output.as_mut_slice().as_mut_ptr()));
        let scores = &mut scratch.as_mut_slice()[..parts * self.scratch()];
        let scores = Shared(scores.as_mut_ptr());
        let vectors = 0..self.output.width.div_ceil(self.isa.lanes());
        let strips = strip_count(&vectors, tile_shape(self.isa.lanes())[1]);
        crate::parallel::run(parts, &|part| {
            for job in crate::parallel::share(self.heads * strips, part, parts) {
                let (first, count) = strip_at(&vectors, job % strips, strips);
                let strip = Strip { head: job / strips, at: first * self.isa.lanes(), vectors: count };
                // SAFETY: the buffers have the planned layouts; each part has scores of its own, and
                // each strip of a head belongs to one part.
                unsafe { attend(self.isa, self, x, scores.offset(part * self.scratch()), y, strip) };
            }
        });
    }
}

/// Vectors of queries of one head, from place `at`.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    head: usize,
    at: usize,
    vectors: usize,
}

dispatch! {
    /// # Safety
    /// `x` and `y` have the planned layouts, the strip is one of theirs, `scores` has room for
    /// [`Attention::scratch`] values, and nobody else touches `scores` and this strip of `y`.
    fn attend(plan: &Attention, x: &[f32], scores: Shared, y: Shared, strip: Strip) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, plan: &Attention, x: &[f32], scores: Shared, y: Shared, strip: Strip) {
    // SAFETY: same contract as this function.
    unsafe {
        match (S::LANES, strip.vectors) {
            (16, 1) => queries::<S, 8, 1>(s, plan, x, scores.get(), y, strip),
            (16, 2) => queries::<S, 8, 2>(s, plan, x, scores.get(), y, strip),
            (16, _) => queries::<S, 8, 3>(s, plan, x, scores.get(), y, strip),
            (8, 1) => queries::<S, 6, 1>(s, plan, x, scores.get(), y, strip),
            (8, _) => queries::<S, 6, 2>(s, plan, x, scores.get(), y, strip),
            (_, 1) => queries::<S, 4, 1>(s, plan, x, scores.get(), y, strip),
            (_, _) => queries::<S, 4, 2>(s, plan, x, scores.get(), y, strip),
        }
    }
}

#[inline(always)]
unsafe fn queries<S: Simd, const R: usize, const V: usize>(
    s: S,
    plan: &Attention,
    x: &[f32],
    scores: *mut f32,
    y: Shared,
    Strip { head, at, .. }: Strip,
) {
    let (plane, count, heads) = (plan.input.plane, plan.output.width, plan.heads);
    // SAFETY: planes of queries, keys and values are in the input for every head, with `count` places
    // and whole vectors at the strip; `scores` holds `count` rows of the strip.
    unsafe {
        let base = x.as_ptr().add(plan.input.origin);
        let q = Rows { first: base.add(head * plan.dims * plane + at), step: plane };
        let k = base.add((heads + head) * plan.dims * plane);
        let v = base.add((2 * heads + head) * plan.dims * plane);
        let most = score::<S, R, V>(s, plan, k, q, scores);
        let total = exponentials::<S, V>(s, count, scores, most);
        let mixed = Rows { first: scores.cast_const(), step: V * S::LANES };
        for dim in (0..plan.dims).step_by(R) {
            let rows = R.min(plan.dims - dim);
            let matrix = Matrix { first: v.add(dim * plane), rows, row: plane, column: 1 };
            let sums = product::<S, R, V>(s, matrix, mixed, count);
            for (r, sums) in sums.into_iter().enumerate() {
                if r < rows {
                    let place = plan.output.origin + (head * plan.dims + dim + r) * plan.output.plane + at;
                    for (v, sum) in sums.into_iter().enumerate() {
                        let value = s.mul(sum, total[v]);
                        let bits = plan.interior.bits(at + v * S::LANES);
                        s.store(y.get().add(place + v * S::LANES), s.keep(value, bits));
                    }
                }
            }
        }
    }
}

/// Writes the scores of every key, and returns the largest of each query.
#[inline(always)]
unsafe fn score<S: Simd, const R: usize, const V: usize>(
    s: S,
    plan: &Attention,
    k: *const f32,
    q: Rows,
    scores: *mut f32,
) -> [S::V; V] {
    let (count, scale) = (plan.output.width, s.splat((plan.dims as f32).sqrt().recip()));
    let mut most = [s.splat(f32::NEG_INFINITY); V];
    for key in (0..count).step_by(R) {
        let rows = R.min(count - key);
        // SAFETY: the caller's planes hold `count` keys, `scores` as many rows.
        unsafe {
            let matrix = Matrix { first: k.add(key), rows, row: 1, column: plan.input.plane };
            let tile = product::<S, R, V>(s, matrix, q, plan.dims);
            for (r, tile) in tile.into_iter().enumerate() {
                if r < rows {
                    for (v, sum) in tile.into_iter().enumerate() {
                        let value = s.mul(sum, scale);
                        most[v] = s.at_least(most[v], value);
                        s.store(scores.add(((key + r) * V + v) * S::LANES), value);
                    }
                }
            }
        }
    }
    most
}

/// Replaces scores by their exponentials, and returns one over the sum of each query's.
#[inline(always)]
unsafe fn exponentials<S: Simd, const V: usize>(
    s: S,
    count: usize,
    scores: *mut f32,
    most: [S::V; V],
) -> [S::V; V] {
    let mut total = [s.splat(0.0); V];
    for key in 0..count {
        for v in 0..V {
            // SAFETY: the caller's `scores` hold `count` rows of `V` vectors.
            unsafe {
                let place = scores.add((key * V + v) * S::LANES);
                let value = math::exp(s, s.sub(s.load(place), most[v]));
                total[v] = s.add(total[v], value);
                s.store(place, value);
            }
        }
    }
    for total in &mut total {
        *total = s.div(s.splat(1.0), *total);
    }
    total
}

/// Rows of vectors, `step` values apart.
#[derive(Clone, Copy)]
struct Rows {
    first: *const f32,
    step: usize,
}

/// A matrix of scalars with these distances between its rows and columns.
#[derive(Clone, Copy)]
struct Matrix {
    first: *const f32,
    rows: usize,
    row: usize,
    column: usize,
}

/// `matrix [rows, inner] · vectors [inner, V]`; tile rows past the matrix repeat its last.
#[inline(always)]
unsafe fn product<S: Simd, const R: usize, const V: usize>(
    s: S,
    matrix: Matrix,
    vectors: Rows,
    inner: usize,
) -> [[S::V; V]; R] {
    let mut acc = [[s.splat(0.0); V]; R];
    // SAFETY: the caller vouches for `rows` × `inner` scalars and `inner` rows of `V` vectors.
    unsafe {
        let mut rows = [matrix.first; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = row.add(r.min(matrix.rows - 1) * matrix.row);
        }
        for k in 0..inner {
            let from = vectors.first.add(k * vectors.step);
            let mut x = [s.splat(0.0); V];
            for (v, x) in x.iter_mut().enumerate() {
                *x = s.load(from.add(v * S::LANES));
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let factor = s.splat(*rows[r].add(k * matrix.column));
                for v in 0..V {
                    row[v] = s.fma(factor, x[v], row[v]);
                }
            }
        }
    }
    acc
}
