//! Kernels without weights: pooling, phase planes, sums and rectifiers. Plain loops, compiled once per
//! instruction set.

use std::ops::Range;

use margay_core::MaxPool2d;

use crate::Isa;
use crate::layout::{ALIGN, Layout, Tensor};
use crate::parallel::Shared;
use crate::simd::Simd;
use crate::taps::Taps;

/// Splits the planes of `input` into the phase planes that the windows of `taps` read.
///
/// # Panics
/// If the extents are not those of `taps`.
pub fn split_phases(isa: Isa, taps: &Taps, input: &Tensor, output: &mut Tensor, parts: usize) {
    assert_eq!(input.layout().dims(), taps.input(), "input of the split");
    assert_eq!(output.layout().dims(), taps.source(), "phase planes");
    let (from, to) = (*input.layout(), *output.layout());
    let (x, y) = (input.as_slice(), PlaneWriter::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(to.channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            let target = unsafe { y.plane(plane) };
            let phase = taps.phases()[plane % taps.phases().len()];
            let channel = from.origin + plane / taps.phases().len() * from.plane;
            for row in 0..to.height {
                let source_row = row * taps.stride()[0] + phase[0];
                let target = &mut target[row * to.pitch..][..to.width];
                // An odd extent leaves some phases short: buffers are reused, so the rest must be cleared.
                if source_row >= from.height {
                    target.fill(0.0);
                    continue;
                }
                let line = &x[channel + source_row * from.pitch..][..from.width];
                let line = line.get(phase[1]..).unwrap_or_default();
                let (target, beyond) =
                    target.split_at_mut(line.len().div_ceil(taps.stride()[1]).min(to.width));
                beyond.fill(0.0);
                // SAFETY: the body has no contract beyond its slices.
                unsafe { every_nth(isa, line, taps.stride()[1], target) };
            }
        }
    });
}

dispatch! {
    /// # Safety
    /// None beyond the slices'.
    fn every_nth(line: &[f32], step: usize, target: &mut [f32]) = every_nth_body
}

#[inline(always)]
unsafe fn every_nth_body<S: Simd>(_: S, line: &[f32], step: usize, target: &mut [f32]) {
    if step == 2 {
        let pairs = line.chunks_exact(2);
        let last = pairs.remainder();
        for (to, pair) in target.iter_mut().zip(pairs) {
            *to = pair[0];
        }
        if let (Some(to), Some(from)) = (target.get_mut(line.len() / 2), last.first()) {
            *to = *from;
        }
    } else {
        for (to, from) in target.iter_mut().zip(line.iter().step_by(step)) {
            *to = *from;
        }
    }
}

/// Maximum over windows; places outside the input count as −∞.
///
/// # Panics
/// If the output does not have one value per window, or a window lies wholly outside.
pub fn max_pool(isa: Isa, pool: &MaxPool2d, input: &Tensor, output: &mut Tensor, parts: usize) {
    let (from, to) = (*input.layout(), *output.layout());
    assert_eq!(from.channels, to.channels, "planes of the pooling");
    let last = |axis: usize, n: usize| ((n - 1) * pool.stride[axis]).saturating_sub(pool.padding[axis]);
    assert!(to.values() == 0 || last(0, to.height) < from.height, "windows down");
    assert!(to.values() == 0 || last(1, to.width) < from.width, "windows across");
    assert!(pool.padding[0] < pool.kernel[0] && pool.padding[1] < pool.kernel[1], "padding below window");
    let (x, y) = (input.as_slice(), PlaneWriter::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(to.channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            let target = unsafe { y.plane(plane) };
            let source = &x[from.origin + plane * from.plane..][..from.body()];
            // SAFETY: the body has no contract beyond its slices.
            unsafe { pool_plane(isa, pool, source, &from, target, &to) };
        }
    });
}

dispatch! {
    /// # Safety
    /// None beyond the slices'.
    fn pool_plane(
        pool: &MaxPool2d, source: &[f32], from: &Layout, target: &mut [f32], to: &Layout,
    ) = pool_plane_body
}

#[inline(always)]
unsafe fn pool_plane_body<S: Simd>(
    _: S,
    pool: &MaxPool2d,
    source: &[f32],
    from: &Layout,
    target: &mut [f32],
    to: &Layout,
) {
    for y in 0..to.height {
        let start = y * pool.stride[0];
        let rows = start.saturating_sub(pool.padding[0])
            ..(start + pool.kernel[0] - pool.padding[0]).min(from.height);
        let line = &mut target[y * to.pitch..][..to.width];
        line.fill(f32::NEG_INFINITY);
        for row in rows {
            let row = &source[row * from.pitch..][..from.width];
            for j in 0..pool.kernel[1] {
                let inside = columns_inside(pool, j, from.width, to.width);
                let first = (inside.start * pool.stride[1] + j).saturating_sub(pool.padding[1]);
                let row = row.get(first..).unwrap_or_default();
                max_into::<S>(&mut line[inside], row, pool.stride[1]);
            }
        }
    }
}

/// Outputs of a row whose window column `j` is inside the input.
fn columns_inside(pool: &MaxPool2d, j: usize, width: usize, outputs: usize) -> Range<usize> {
    let (step, pad) = (pool.stride[1], pool.padding[1]);
    let start = pad.saturating_sub(j).div_ceil(step);
    let end = (width + pad).saturating_sub(j).div_ceil(step).min(outputs);
    start.min(end)..end
}

#[inline(always)]
fn max_into<S: Simd>(line: &mut [f32], row: &[f32], step: usize) {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    if step == 2 {
        let n = line.len();
        let pairs = row.chunks_exact(2);
        let last = pairs.remainder();
        for (to, pair) in line.iter_mut().zip(pairs) {
            *to = larger(*to, pair[0]);
        }
        if let (true, Some(from)) = (n > row.len() / 2, last.first()) {
            line[row.len() / 2] = larger(line[row.len() / 2], *from);
        }
    } else {
        for (to, from) in line.iter_mut().zip(row.iter().step_by(step)) {
            *to = larger(*to, *from);
        }
    }
}

/// Mean of each plane, summed in sixteen interleaved sums on every instruction set.
///
/// # Panics
/// If the output does not have one value per plane.
pub fn global_mean(isa: Isa, input: &Tensor, output: &mut Tensor) {
    let layout = *input.layout();
    assert_eq!(output.layout().values(), layout.channels, "planes of the mean");
    let scale = 1.0 / (layout.height * layout.width) as f32;
    let means = output.as_mut_slice().iter_mut().take(layout.channels);
    for (plane, mean) in means.enumerate() {
        let source = &input.as_slice()[layout.origin + plane * layout.plane..][..layout.body()];
        // SAFETY: the body has no contract beyond its slices.
        unsafe { sum(isa, source, mean) };
        *mean *= scale;
    }
}

dispatch! {
    /// # Safety
    /// None beyond the slices'.
    fn sum(values: &[f32], total: &mut f32) = sum_body
}

#[inline(always)]
unsafe fn sum_body<S: Simd>(_: S, values: &[f32], total: &mut f32) {
    let mut sums = [0.0_f32; ALIGN];
    let chunks = values.chunks_exact(ALIGN);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += value;
    }
    *total = sums.iter().sum();
}

/// `output = relu(a [+ b])` where asked, value by value.
///
/// # Panics
/// If the layouts differ.
pub fn combine(isa: Isa, a: &Tensor, b: Option<&Tensor>, relu: bool, output: &mut Tensor) {
    assert_eq!(a.layout(), output.layout(), "layouts of a sum");
    assert!(b.is_none_or(|b| b.layout() == a.layout()), "layouts of a sum");
    let (a, b, y) = (a.as_slice(), b.map(Tensor::as_slice), output.as_mut_slice());
    // SAFETY: the body has no contract beyond its slices.
    unsafe { combined(isa, a, b, relu, y) };
}

dispatch! {
    /// # Safety
    /// None beyond the slices'.
    fn combined(a: &[f32], b: Option<&[f32]>, relu: bool, y: &mut [f32]) = combined_body
}

#[inline(always)]
unsafe fn combined_body<S: Simd>(_: S, a: &[f32], b: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    match b {
        Some(b) => y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = a + b),
        None => y.copy_from_slice(a),
    }
    if relu {
        for y in y {
            *y = if *y < 0.0 { 0.0 } else { *y };
        }
    }
}

/// Hands the planes of a tensor to several threads.
struct PlaneWriter {
    base: Shared,
    layout: Layout,
}

impl PlaneWriter {
    fn new(tensor: &mut Tensor) -> Self {
        let layout = *tensor.layout();
        let whole = tensor.as_mut_slice();
        assert!(layout.origin + layout.channels * layout.plane <= whole.len());
        Self { base: Shared(whole.as_mut_ptr()), layout }
    }

    /// The body of one plane.
    ///
    /// # Safety
    /// No two threads may hold the same plane, and the tensor must outlive the slice.
    #[expect(clippy::mut_from_ref, reason = "planes are disjoint and each goes to one thread")]
    unsafe fn plane(&self, plane: usize) -> &mut [f32] {
        assert!(plane < self.layout.channels);
        let start = self.layout.origin + plane * self.layout.plane;
        // SAFETY: planes do not overlap and lie inside the tensor, as checked when this was made.
        unsafe { std::slice::from_raw_parts_mut(self.base.0.add(start), self.layout.body()) }
    }
}
