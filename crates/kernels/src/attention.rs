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
//! tiles of R rows and V vectors. A thread needs scratch space for the scores of one strip, and for the keys and
//! values of one head, which it widens to f32 and packs in the order in which the tiles read them.

use crate::Isa;
use crate::conv::{strip_at, strip_count};
use crate::layout::{Interior, Layout, Tensor};
use crate::math;
use crate::parallel::{Shared, Writer};
use crate::precision::Element;
use crate::simd::{Simd, Target};

/// `softmax(q kᵀ / sqrt(dims)) v` per head, of planes of queries, keys and values.
#[derive(Clone, Debug)]
pub struct Attention {
    target: Target,
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
        assert_eq!(input.precision, output.precision, "precision of tokens");
        let target = Target { isa, precision: output.precision };
        Self { target, heads, dims, input, output, interior: output.interior() }
    }

    /// Values of scratch space that each of the `parts` of a run needs.
    pub const fn scratch(&self) -> usize {
        let [keys, values] = self.packed();
        self.scores() + keys + values
    }

    /// Values of the scores of one strip.
    const fn scores(&self) -> usize {
        self.output.width * self.target.tile()[1] * self.target.lanes()
    }

    /// Values of the packed keys and values of one head.
    const fn packed(&self) -> [usize; 2] {
        let [rows, _] = self.target.tile();
        let (count, dims) = (self.output.width, self.dims);
        [count.next_multiple_of(rows) * dims, dims.next_multiple_of(rows) * count]
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned, or if the scratch space is too small.
    pub fn run(&self, input: &Tensor, scratch: &mut Tensor, output: &mut Tensor, parts: usize) {
        assert_eq!(*input.layout(), self.input, "input of the attention");
        assert_eq!(*output.layout(), self.output, "output of the attention");
        let y = Writer::new(output);
        let scratch = Shared::new(&mut scratch.as_mut_slice::<f32>()[..parts * self.scratch()]);
        let vectors = 0..self.output.width.div_ceil(self.target.lanes());
        let strips = strip_count(&vectors, self.target.tile()[1]);
        crate::parallel::run(parts, &|part| {
            let mut packed = None;
            for job in crate::parallel::share(self.heads * strips, part, parts) {
                let (first, count) = strip_at(&vectors, job % strips, strips);
                let head = job / strips;
                let pack = packed != Some(head);
                packed = Some(head);
                let strip = Strip { head, pack, at: first * self.target.lanes(), vectors: count };
                // SAFETY: the buffers have the planned layouts; each part has scratch space of its own, and
                // each strip of a head belongs to one part, which packs each of its heads first.
                unsafe { attend(self.target, self, input, scratch.offset(part * self.scratch()), y, strip) };
            }
        });
    }
}

/// Vectors of queries of one head, from place `at`.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    head: usize,
    /// Whether its keys and values are to be packed first.
    pack: bool,
    at: usize,
    vectors: usize,
}

dispatch! {
    /// # Safety
    /// `x` and `y` have the planned layouts, the strip is one of theirs, `scratch` has room for
    /// [`Attention::scratch`] values and holds what was packed for this head, and nobody else touches `scratch` and
    /// this strip of `y`.
    fn attend(plan: &Attention, x: &Tensor, scratch: Shared<f32>, y: Writer, strip: Strip) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, plan: &Attention, x: &Tensor, scratch: Shared<f32>, y: Writer, strip: Strip) {
    let (x, y, scratch) = (x.as_slice::<S::E>(), y.values::<S::E>(), scratch.get());
    // SAFETY: same contract as this function.
    unsafe {
        match (S::TARGET.tile(), strip.vectors) {
            ([8, _], 1) => queries::<S, 8, 1>(s, plan, x, scratch, y, strip),
            ([8, _], 2) => queries::<S, 8, 2>(s, plan, x, scratch, y, strip),
            ([8, _], _) => queries::<S, 8, 3>(s, plan, x, scratch, y, strip),
            ([6, _], 1) => queries::<S, 6, 1>(s, plan, x, scratch, y, strip),
            ([6, _], _) => queries::<S, 6, 2>(s, plan, x, scratch, y, strip),
            (_, 1) => queries::<S, 4, 1>(s, plan, x, scratch, y, strip),
            (_, _) => queries::<S, 4, 2>(s, plan, x, scratch, y, strip),
        }
    }
}

#[inline(always)]
unsafe fn queries<S: Simd, const R: usize, const V: usize>(
    s: S,
    plan: &Attention,
    x: &[S::E],
    scratch: *mut f32,
    y: *mut S::E,
    Strip { head, pack, at, .. }: Strip,
) {
    let (plane, count, dims) = (plan.input.plane, plan.output.width, plan.dims);
    let planes = |part: usize| &x[plan.input.origin + (part * plan.heads + head) * dims * plane..];
    // SAFETY: planes of queries, keys and values are in the input for every head, with `count` places
    // and whole vectors at the strip; `scratch` holds `count` rows of the strip, packed keys and packed values.
    unsafe {
        let scores = scratch;
        let keys = scratch.add(plan.scores());
        let values = keys.add(plan.packed()[0]);
        if pack {
            pack_keys::<S::E, R>(planes(1), plane, [count, dims], keys);
            pack_values::<S::E, R>(planes(2), plane, [count, dims], values);
        }
        let most = score::<S, R, V>(s, plan, keys, planes(0).as_ptr().add(at), scores);
        let total = exponentials::<S, V>(s, count, scores, most);
        for dim in (0..dims).step_by(R) {
            let mut sums = [[s.splat(0.0); V]; R];
            for key in 0..count {
                let mut x = [s.splat(0.0); V];
                for (v, x) in x.iter_mut().enumerate() {
                    *x = s.fetch(scores.add((key * V + v) * S::LANES));
                }
                multiply(s, values.add(dim * count + key * R), &x, &mut sums);
            }
            for (r, sums) in sums.into_iter().enumerate() {
                if dim + r < dims {
                    let place = plan.output.origin + (head * dims + dim + r) * plan.output.plane + at;
                    for (v, sum) in sums.into_iter().enumerate() {
                        let bits = plan.interior.bits(at + v * S::LANES);
                        s.store(y.add(place + v * S::LANES), s.mul(sum, total[v]), bits);
                    }
                }
            }
        }
    }
}

/// Packs planes of keys `[dims][count]` as `[block of R keys][dims][R]`, with zeros behind the last.
///
/// # Safety
/// `to` has room for them.
#[inline(always)]
unsafe fn pack_keys<E: Element, const R: usize>(
    x: &[E],
    plane: usize,
    [count, dims]: [usize; 2],
    to: *mut f32,
) {
    for block in 0..count.div_ceil(R) {
        for dim in 0..dims {
            let keys = &x[dim * plane..][block * R..((block + 1) * R).min(count)];
            for r in 0..R {
                let key = if r < keys.len() { keys[r].widen() } else { 0.0 };
                // SAFETY: the caller vouches for whole blocks.
                unsafe { to.add((block * dims + dim) * R + r).write(key) };
            }
        }
    }
}

/// Packs planes of values `[dims][count]` as `[block of R dims][count][R]`, with zeros behind the last.
///
/// # Safety
/// `to` has room for them.
#[inline(always)]
unsafe fn pack_values<E: Element, const R: usize>(
    x: &[E],
    plane: usize,
    [count, dims]: [usize; 2],
    to: *mut f32,
) {
    for dim in 0..dims.next_multiple_of(R) {
        let first = dim / R * R * count + dim % R;
        for key in 0..count {
            let value = if dim < dims { x[dim * plane + key].widen() } else { 0.0 };
            // SAFETY: the caller vouches for whole blocks.
            unsafe { to.add(first + key * R).write(value) };
        }
    }
}

/// Writes the scores of every key, and returns the largest of each query.
#[inline(always)]
unsafe fn score<S: Simd, const R: usize, const V: usize>(
    s: S,
    plan: &Attention,
    keys: *const f32,
    queries: *const S::E,
    scores: *mut f32,
) -> [S::V; V] {
    let (count, dims) = (plan.output.width, plan.dims);
    let scale = s.splat((dims as f32).sqrt().recip());
    let mut most = [s.splat(f32::NEG_INFINITY); V];
    for key in (0..count).step_by(R) {
        let mut sums = [[s.splat(0.0); V]; R];
        // SAFETY: the caller's planes hold `dims` rows of queries, `keys` whole blocks, `scores` `count` rows.
        unsafe {
            for dim in 0..dims {
                let mut x = [s.splat(0.0); V];
                for (v, x) in x.iter_mut().enumerate() {
                    *x = s.load(queries.add(dim * plan.input.plane + v * S::LANES));
                }
                multiply(s, keys.add(key * dims + dim * R), &x, &mut sums);
            }
            for (r, sums) in sums.into_iter().enumerate() {
                if key + r < count {
                    for (v, sum) in sums.into_iter().enumerate() {
                        let value = s.mul(sum, scale);
                        most[v] = s.at_least(most[v], value);
                        s.spill(scores.add(((key + r) * V + v) * S::LANES), value);
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
                let value = math::exp(s, s.sub(s.fetch(place), most[v]));
                total[v] = s.add(total[v], value);
                s.spill(place, value);
            }
        }
    }
    for total in &mut total {
        *total = s.div(s.splat(1.0), *total);
    }
    total
}

/// `sums[r] += factors[r] · x`.
///
/// # Safety
/// There must be `R` factors.
#[inline(always)]
unsafe fn multiply<S: Simd, const R: usize, const V: usize>(
    s: S,
    factors: *const f32,
    x: &[S::V; V],
    sums: &mut [[S::V; V]; R],
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: same contract as this function.
        let factor = s.splat(unsafe { *factors.add(r) });
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = s.fma(factor, *x, *sum);
        }
    }
}
