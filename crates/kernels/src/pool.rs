//! Windows and planes reduced to one value. Plain loops, compiled once per instruction set.

use half::bf16;
use margay_core::{AvgPool2d, MaxPool2d};

use crate::Isa;
use crate::layout::{ALIGN, Tensor};
use crate::parallel::Writer;
use crate::precision::{Element, Precision};
use crate::simd::{Simd, Target};

/// Widest window of a [`max_pool`].
pub const MAX_POOL_WINDOW: usize = 64;

/// Columns of a map that [`max_pool`] reduces at once.
const COLUMNS: usize = 4 * MAX_POOL_WINDOW;

/// Values behind them that may be read: two vectors and two values.
const SLACK: usize = 80;

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
    assert!(pool.kernel[1] <= MAX_POOL_WINDOW, "width of the window");
    let (target, channels, y) = (Target { isa, precision: from.precision }, to.channels, Writer::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            unsafe { pool_plane(target, pool, input, y, plane) };
        }
    });
}

dispatch! {
    /// # Safety
    /// Nobody else holds this plane of `y`.
    fn pool_plane(pool: &MaxPool2d, x: &Tensor, y: Writer, plane: usize) = pool_plane_body
}

/// Takes the maximum down some columns first, then across them.
#[inline(always)]
unsafe fn pool_plane_body<S: Simd>(s: S, pool: &MaxPool2d, x: &Tensor, y: Writer, plane: usize) {
    let (from, to) = (*x.layout(), *y.layout());
    // SAFETY: the caller vouches for the plane.
    let target = unsafe { y.plane::<S::E>(plane) };
    let source = &x.as_slice::<S::E>()[from.origin + plane * from.plane..][..from.body()];
    let ([kh, kw], [down, across], [above, left]) = (pool.kernel, pool.stride, pool.padding);
    let at_once = (COLUMNS - kw) / across + 1;
    for row in 0..to.height {
        let rows = (row * down).saturating_sub(above)..(row * down + kh - above).min(from.height);
        let line = &mut target[row * to.pitch..][..to.width];
        for first in (0..to.width).step_by(at_once) {
            let line = &mut line[first..(first + at_once).min(to.width)];
            // Column `c` of the most is column `c + start` of the map with its padding.
            let start = first * across;
            let mut most = [S::E::narrow(f32::NEG_INFINITY); COLUMNS + SLACK];
            let begin = start.max(left);
            let end = (start + (line.len() - 1) * across + kw).min(from.width + left).max(begin);
            for row in rows.clone() {
                let values = &source[row * from.pitch..][begin - left..end - left];
                raise(s, &mut most[begin - start..], values);
            }
            across_columns(s, &mut most, [kw, across], line);
        }
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `most[i] = max(most[i], values[i])`.
#[inline(always)]
fn raise<S: Simd>(s: S, most: &mut [S::E], values: &[S::E]) {
    let whole = values.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: `most` is at least as long as `values`, which hold a vector from here on.
        unsafe {
            let to = most.as_mut_ptr().add(i);
            s.store(to, s.at_least(s.load(to), s.load(values.as_ptr().add(i))), u32::MAX);
        }
    }
    for (most, value) in most[whole..].iter_mut().zip(&values[whole..]) {
        *most = S::E::narrow(larger(most.widen(), value.widen()));
    }
}

/// The largest of each window of columns; leaves other values in `most`.
#[inline(always)]
fn across_columns<S: Simd>(
    s: S,
    most: &mut [S::E; COLUMNS + SLACK],
    [window, step]: [usize; 2],
    line: &mut [S::E],
) {
    if (window, step) == (3, 2) {
        for i in (0..line.len()).step_by(S::LANES) {
            // SAFETY: there are `SLACK` values behind the columns, and what is written has been read.
            unsafe {
                let from = most.as_ptr().add(2 * i);
                let (a, b) = (s.load(from), s.load(from.add(S::LANES)));
                let third = s.evens(s.load(from.add(2)), s.load(from.add(2 + S::LANES)));
                let largest = s.at_least(s.at_least(s.evens(a, b), s.odds(a, b)), third);
                s.store(most.as_mut_ptr().add(i), largest, u32::MAX);
            }
        }
        line.copy_from_slice(&most[..line.len()]);
    } else {
        for (i, to) in line.iter_mut().enumerate() {
            let window = most[i * step..][..window].iter().map(|value| value.widen());
            *to = S::E::narrow(window.fold(f32::NEG_INFINITY, larger));
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
    match from.precision {
        Precision::F32 => avg_pool_as::<f32>(pool, input, output, parts),
        Precision::Bf16 => avg_pool_as::<bf16>(pool, input, output, parts),
    }
}

fn avg_pool_as<E: Element>(pool: &AvgPool2d, input: &Tensor, output: &mut Tensor, parts: usize) {
    let (from, to, [down, across]) = (*input.layout(), *output.layout(), pool.kernel);
    let (x, y) = (input.as_slice::<E>(), Writer::new(output));
    let mean = |plane: usize, row: usize, column: usize| {
        let rows = row * down..((row + 1) * down).min(from.height);
        let columns = column * across..((column + 1) * across).min(from.width);
        let line = |row| x[from.row(plane * from.height + row)..][columns.clone()].iter().map(|v| v.widen());
        let sums = rows.clone().map(|row| line(row).sum::<f32>());
        sums.sum::<f32>() / (rows.len() * columns.len()) as f32
    };
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(to.channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            let target = unsafe { y.plane::<E>(plane) };
            for row in 0..to.height {
                let line = &mut target[row * to.pitch..][..to.width];
                line.iter_mut().enumerate().for_each(|(i, to)| *to = E::narrow(mean(plane, row, i)));
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
    let target = Target { isa, precision: layout.precision };
    // SAFETY: the body has no contract.
    unsafe { means(target, input, skip, output.as_mut_slice()) };
}

dispatch! {
    /// # Safety
    /// None.
    fn means(x: &Tensor, skip: usize, y: &mut [f32]) = means_body
}

#[inline(always)]
unsafe fn means_body<S: Simd>(_: S, x: &Tensor, skip: usize, y: &mut [f32]) {
    let (layout, x) = (*x.layout(), x.as_slice::<S::E>());
    let share = 1.0 / (layout.height * layout.width - skip) as f32;
    for (plane, mean) in y.iter_mut().enumerate().take(layout.channels) {
        let values = &x[layout.origin + plane * layout.plane..][skip..layout.body()];
        let mut sums = [0.0_f32; ALIGN];
        let chunks = values.chunks_exact(ALIGN);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += value.widen();
            }
        }
        for (sum, value) in sums.iter_mut().zip(rest) {
            *sum += value.widen();
        }
        *mean = share * sums.iter().sum::<f32>();
    }
}
