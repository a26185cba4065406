//! Planes taken apart, padded or multiplied. Plain loops, compiled once per instruction set.

use half::bf16;

use crate::Isa;
use crate::layout::Tensor;
use crate::parallel::Writer;
use crate::precision::{Element, Precision};
use crate::simd::{Simd, Target};
use crate::taps::Taps;

/// Splits the planes of `input` into the phase planes that the windows of `taps` read.
///
/// # Panics
/// If the extents are not those of `taps`.
pub fn split_phases(isa: Isa, taps: &Taps, input: &Tensor, output: &mut Tensor, parts: usize) {
    assert_eq!(input.layout().dims(), taps.input(), "input of the split");
    assert_eq!(output.layout().dims(), taps.source(), "phase planes");
    let (target, channels) = (Target { isa, precision: input.layout().precision }, output.layout().channels);
    let y = Writer::new(output);
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            unsafe { split_plane(target, taps, input, y, plane) };
        }
    });
}

dispatch! {
    /// # Safety
    /// `x` has the extents of the input of `taps`, `y` those of its source, and nobody else holds this plane of it.
    fn split_plane(taps: &Taps, x: &Tensor, y: Writer, plane: usize) = split_body
}

#[inline(always)]
unsafe fn split_body<S: Simd>(s: S, taps: &Taps, x: &Tensor, y: Writer, plane: usize) {
    let (from, to, step) = (*x.layout(), *y.layout(), taps.stride());
    let x = x.as_slice::<S::E>();
    // SAFETY: the caller vouches for the plane, its padding included.
    let target = unsafe { y.whole_plane::<S::E>(plane) };
    let phase = taps.phases()[plane % taps.phases().len()];
    let channel = from.origin + plane / taps.phases().len() * from.plane;
    for row in 0..to.height {
        let source_row = row * step[0] + phase[0];
        let rest = &mut target[row * to.pitch..];
        // An odd extent leaves some phases short: buffers are reused, so the rest must be cleared.
        if source_row >= from.height {
            rest[..to.width].fill(S::E::default());
            continue;
        }
        let start = channel + source_row * from.pitch + phase[1];
        let count = from.width.saturating_sub(phase[1]).div_ceil(step[1]).min(to.width);
        rest[count.min(to.width)..to.width].fill(S::E::default());
        if step[1] == 2 {
            every_second(s, &x[start.min(x.len())..], count, rest);
        } else {
            let values = x[start.min(x.len())..].iter().step_by(step[1]);
            rest.iter_mut().zip(values).take(count).for_each(|(to, from)| *to = *from);
        }
    }
}

/// The first `count` values at even places. Zeros may follow them: rows are written in order, and what lies behind the
/// last row of a plane is padding.
#[inline(always)]
fn every_second<S: Simd>(s: S, line: &[S::E], count: usize, target: &mut [S::E]) {
    let mut done = 0;
    while done < count && done + S::LANES <= target.len() && 2 * (done + S::LANES) <= line.len() {
        let bits = u32::MAX >> (32 - (count - done).min(32));
        // SAFETY: both slices are as long as was checked.
        unsafe {
            let from = line.as_ptr().add(2 * done);
            let evens = s.evens(s.load(from), s.load(from.add(S::LANES)));
            s.store(target.as_mut_ptr().add(done), evens, bits);
        }
        done += S::LANES;
    }
    for i in done..count {
        target[i] = line[2 * i];
    }
}

/// The map in the midst of zeros, `before` rows above and columns to the left of it.
///
/// # Panics
/// If the output has other planes, or no room for the input there.
pub fn pad(input: &Tensor, before: [usize; 2], output: &mut Tensor, parts: usize) {
    let (from, to) = (*input.layout(), *output.layout());
    assert_eq!(from.channels, to.channels, "planes of a padded map");
    assert!(before[0] + from.height <= to.height && before[1] + from.width <= to.width, "room for the map");
    match from.precision {
        Precision::F32 => pad_as::<f32>(input, before, output, parts),
        Precision::Bf16 => pad_as::<bf16>(input, before, output, parts),
    }
}

fn pad_as<E: Element>(input: &Tensor, before: [usize; 2], output: &mut Tensor, parts: usize) {
    let (from, to) = (*input.layout(), *output.layout());
    let (x, y) = (input.as_slice::<E>(), Writer::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(to.channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            let target = unsafe { y.plane::<E>(plane) };
            target.fill(E::default());
            for row in 0..from.height {
                let line = &x[from.row(plane * from.height + row)..][..from.width];
                let start = (before[0] + row) * to.pitch + before[1];
                target[start..start + from.width].copy_from_slice(line);
            }
        }
    });
}

/// Each plane times its factor, or each value of a vector times its own.
///
/// # Panics
/// If the layouts differ, or if there are neither as many factors as planes nor as values.
pub fn scale(isa: Isa, input: &Tensor, factors: &[f32], output: &mut Tensor, parts: usize) {
    let layout = *input.layout();
    assert_eq!(layout, *output.layout(), "layouts of a product");
    if factors.len() != layout.channels {
        assert_eq!(factors.len(), layout.values(), "factors of a vector");
        let values = input.as_slice::<f32>().iter().zip(factors);
        return output.as_mut_slice::<f32>().iter_mut().zip(values).for_each(|(y, (x, f))| *y = x * f);
    }
    let (target, y) = (Target { isa, precision: layout.precision }, Writer::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(layout.channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            unsafe { multiply(target, input, factors[plane], y, plane) };
        }
    });
}

/// Each plane of a map times its entry of a vector: [`scale`] by computed factors.
///
/// # Panics
/// As for [`scale`].
pub fn gate(isa: Isa, input: &Tensor, gate: &Tensor, output: &mut Tensor, parts: usize) {
    scale(isa, input, &gate.as_slice::<f32>()[..gate.layout().values()], output, parts);
}

dispatch! {
    /// # Safety
    /// `x` and `y` have one layout, and nobody else holds this plane of `y`.
    fn multiply(x: &Tensor, factor: f32, y: Writer, plane: usize) = multiply_body
}

#[inline(always)]
unsafe fn multiply_body<S: Simd>(_: S, x: &Tensor, factor: f32, y: Writer, plane: usize) {
    let layout = x.layout();
    let values = &x.as_slice::<S::E>()[layout.origin + plane * layout.plane..][..layout.body()];
    // SAFETY: the caller vouches for the plane.
    let target = unsafe { y.plane::<S::E>(plane) };
    for (to, from) in target.iter_mut().zip(values) {
        *to = S::E::narrow(factor * from.widen());
    }
}
