//! Planes taken apart, padded or multiplied. Plain loops, compiled once per instruction set.

use crate::Isa;
use crate::layout::Tensor;
use crate::parallel::PlaneWriter;
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

/// The map in the midst of zeros, `before` rows above and columns to the left of it.
///
/// # Panics
/// If the output has other planes, or no room for the input there.
pub fn pad(input: &Tensor, before: [usize; 2], output: &mut Tensor, parts: usize) {
    let (from, to) = (*input.layout(), *output.layout());
    assert_eq!(from.channels, to.channels, "planes of a padded map");
    assert!(before[0] + from.height <= to.height && before[1] + from.width <= to.width, "room for the map");
    let (x, y) = (input.as_slice(), PlaneWriter::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(to.channels, part, parts) {
            // SAFETY: each plane belongs to one part.
            let target = unsafe { y.plane(plane) };
            target.fill(0.0);
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
        let values = input.as_slice().iter().zip(factors);
        return output.as_mut_slice().iter_mut().zip(values).for_each(|(y, (x, f))| *y = x * f);
    }
    let (x, y) = (input.as_slice(), PlaneWriter::new(output));
    crate::parallel::run(parts, &|part| {
        for plane in crate::parallel::share(layout.channels, part, parts) {
            let source = &x[layout.origin + plane * layout.plane..][..layout.body()];
            // SAFETY: each plane belongs to one part; the body has no contract beyond its slices.
            unsafe { multiply(isa, source, factors[plane], y.plane(plane)) };
        }
    });
}

/// Each plane of a map times its entry of a vector: [`scale`] by computed factors.
///
/// # Panics
/// As for [`scale`].
pub fn gate(isa: Isa, input: &Tensor, gate: &Tensor, output: &mut Tensor, parts: usize) {
    scale(isa, input, &gate.as_slice()[..gate.layout().values()], output, parts);
}

dispatch! {
    /// # Safety
    /// None beyond the slices'.
    fn multiply(values: &[f32], factor: f32, target: &mut [f32]) = multiply_body
}

#[inline(always)]
unsafe fn multiply_body<S: Simd>(_: S, values: &[f32], factor: f32, target: &mut [f32]) {
    for (to, from) in target.iter_mut().zip(values) {
        *to = factor * from;
    }
}
