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
unsafe fn split_body<S: Simd>(_: S, taps: &Taps, x: &Tensor, y: Writer, plane: usize) {
    let (from, to, step) = (*x.layout(), *y.layout(), taps.stride());
    // SAFETY: the caller vouches for the plane.
    let target = unsafe { y.plane::<S::E>(plane) };
    let phase = taps.phases()[plane % taps.phases().len()];
    let channel = from.origin + plane / taps.phases().len() * from.plane;
    for row in 0..to.height {
        let source_row = row * step[0] + phase[0];
        let target = &mut target[row * to.pitch..][..to.width];
        // An odd extent leaves some phases short: buffers are reused, so the rest must be cleared.
        if source_row >= from.height {
            target.fill(S::E::default());
            continue;
        }
        let line = &x.as_slice::<S::E>()[channel + source_row * from.pitch..][..from.width];
        let line = line.get(phase[1]..).unwrap_or_default();
        let (target, beyond) = target.split_at_mut(line.len().div_ceil(step[1]).min(to.width));
        beyond.fill(S::E::default());
        every_nth(line, step[1], target);
    }
}

#[inline(always)]
fn every_nth<E: Element>(line: &[E], step: usize, target: &mut [E]) {
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
