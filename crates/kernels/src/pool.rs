//! Windows and planes reduced to one value. Plain loops, compiled once per instruction set.

use std::ops::Range;

use margay_core::{AvgPool2d, MaxPool2d};

use crate::Isa;
use crate::layout::{ALIGN, Layout, Tensor};
use crate::parallel::PlaneWriter;
use crate::simd::Simd;

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

/// Mean over windows that lie edge to edge; places outside the input do not count.
///
/// # Panics
/// If the output does not have one value per window that begins inside.
pub fn avg_pool(pool: &AvgPool2d, input: &Tensor, output: &mut Tensor, parts: usize) {
    let (from, to, [down, across]) = (*input.layout(), *output.layout(), pool.kernel);
    assert!(down > 0 && across > 0, "windows of the pooling");
    let windows = [from.channels, from.height.div_ceil(down), from.width.div_ceil(across)];
    assert_eq!(to.dims(), windows, "windows of the pooling");
    let (x, y) = (input.as_slice(), PlaneWriter::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(to.channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            let target = unsafe { y.plane(plane) };
            for row in 0..to.height {
                let line = &mut target[row * to.pitch..][..to.width];
                let rows = row * down..((row + 1) * down).min(from.height);
                line.fill(0.0);
                for row in rows.clone() {
                    let source = &x[from.row(plane * from.height + row)..][..from.width];
                    for (sum, values) in line.iter_mut().zip(source.chunks(across)) {
                        *sum += values.iter().sum::<f32>();
                    }
                }
                for (i, sum) in line.iter_mut().enumerate() {
                    let columns = across.min(from.width - i * across);
                    *sum /= (rows.len() * columns) as f32;
                }
            }
        }
    });
}

/// Mean of each plane without the first `skip` places of a single row, summed in sixteen interleaved sums
/// on every instruction set.
///
/// # Panics
/// If the output does not have one value per plane, or if places of more than one row are to be skipped.
pub fn global_mean(isa: Isa, input: &Tensor, skip: usize, output: &mut Tensor) {
    let layout = *input.layout();
    assert_eq!(output.layout().values(), layout.channels, "planes of the mean");
    assert!(skip == 0 || layout.height == 1 && skip < layout.width, "places of the mean");
    let scale = 1.0 / (layout.height * layout.width - skip) as f32;
    let means = output.as_mut_slice().iter_mut().take(layout.channels);
    for (plane, mean) in means.enumerate() {
        let source = &input.as_slice()[layout.origin + plane * layout.plane..][skip..layout.body()];
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
