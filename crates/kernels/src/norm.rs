//! Normalisations whose statistics come from the image itself.

use std::ops::Range;

use crate::Isa;
use crate::conv::{strip_at, strip_count};
use crate::layout::{Interior, Layout, Tensor};
use crate::parallel::{Shared, Writer};
use crate::precision::Element;
use crate::simd::{Simd, Target};

/// Vectors of positions that are normalised at once: as many chains of additions.
const STRIP: usize = 4;

/// What a normalisation is made of.
#[derive(Clone, Debug)]
pub struct NormSpec<'a> {
    /// Layout of input and output.
    pub layout: Layout,
    /// One factor per feature.
    pub gain: &'a [f32],
    /// One summand per feature.
    pub shift: &'a [f32],
    /// Added to the variance, or to the mean norm.
    pub eps: f64,
}

/// A checked [`NormSpec`].
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    target: Target,
    layout: Layout,
    interior: Interior,
    gain: Vec<f32>,
    shift: Vec<f32>,
    eps: f32,
}

impl Norm {
    fn new(isa: Isa, spec: &NormSpec) -> Self {
        let (layout, features) = (spec.layout, spec.gain.len());
        assert_eq!(spec.shift.len(), features, "features of the norm");
        assert!(layout.holds_strips(), "planes of whole vectors");
        let (gain, shift) = (spec.gain.to_vec(), spec.shift.to_vec());
        let target = Target { isa, precision: layout.precision };
        Self { target, layout, interior: layout.interior(), gain, shift, eps: spec.eps as f32 }
    }

    /// # Panics
    /// If a tensor has another layout than planned.
    fn writer(&self, input: &Tensor, output: &mut Tensor) -> Writer {
        assert_eq!(*input.layout(), self.layout, "input of the norm");
        assert_eq!(*output.layout(), self.layout, "output of the norm");
        Writer::new(output)
    }
}

/// Layer normalisation (Ba et al., arXiv 1607.06450):
/// `y = (x − mean) / sqrt(var + eps) · gain + shift` over the features of each position.
///
/// ```text
/// for each strip of vectors of positions:
///     mean  = Σ over planes x / features
///     rest  = Σ over planes (x − mean) / features         what rounding left of the mean
///     var   = Σ over planes (x − mean)² / features − rest²
///     mean += rest
///     for each plane: y = (x − mean) · rsqrt(var + eps) · gain + shift
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm(Norm);

impl LayerNorm {
    /// Plans the norm of planes, one per feature, or of a vector of features.
    ///
    /// # Panics
    /// If there are neither as many planes nor as many values as features.
    pub fn new(isa: Isa, spec: &NormSpec) -> Self {
        let features = spec.gain.len();
        let fits = features == spec.layout.channels || features == spec.layout.values();
        assert!(fits, "features of the norm");
        Self(Norm::new(isa, spec))
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned.
    pub fn run(&self, input: &Tensor, output: &mut Tensor, parts: usize) {
        let norm = &self.0;
        let y = norm.writer(input, output);
        if norm.gain.len() != norm.layout.channels {
            return norm.vector(input.as_slice(), output.as_mut_slice());
        }
        crate::parallel::run(parts, &|part| {
            let vectors = norm.layout.body().div_ceil(norm.target.lanes());
            let share = crate::parallel::share(vectors, part, parts);
            // SAFETY: both buffers have the planned layout, and parts write different places.
            unsafe { layer_norm(norm.target, norm, input, y, share) };
        });
    }
}

impl Norm {
    /// One position whose features lie side by side.
    fn vector(&self, x: &[f32], y: &mut [f32]) {
        let n = self.gain.len() as f64;
        let x = &x[self.layout.origin..][..self.gain.len()];
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let var = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        let scale = (var + f64::from(self.eps)).sqrt().recip();
        let affine = self.gain.iter().zip(&self.shift);
        for ((y, x), (gain, shift)) in y[self.layout.origin..].iter_mut().zip(x).zip(affine) {
            *y = ((f64::from(*x) - mean) * scale) as f32 * gain + shift;
        }
    }
}

dispatch! {
    /// # Safety
    /// `x` and `y` have the norm's layout; nobody else writes the places of `vectors`.
    fn layer_norm(norm: &Norm, x: &Tensor, y: Writer, vectors: Range<usize>) = layer_norm_body
}

#[inline(always)]
unsafe fn layer_norm_body<S: Simd>(s: S, norm: &Norm, x: &Tensor, y: Writer, vectors: Range<usize>) {
    let strips = strip_count(&vectors, STRIP);
    for index in 0..strips {
        let (first, count) = strip_at(&vectors, index, strips);
        let at = first * S::LANES;
        // SAFETY: same contract as this function.
        unsafe {
            match count {
                1 => positions::<S, 1>(s, norm, x, y, at),
                2 => positions::<S, 2>(s, norm, x, y, at),
                3 => positions::<S, 3>(s, norm, x, y, at),
                _ => positions::<S, STRIP>(s, norm, x, y, at),
            }
        }
    }
}

#[inline(always)]
unsafe fn positions<S: Simd, const V: usize>(s: S, norm: &Norm, x: &Tensor, y: Writer, at: usize) {
    let (layout, share) = (&norm.layout, s.splat(1.0 / norm.gain.len() as f32));
    let first = layout.origin + at;
    let (x, y) = (x.as_slice::<S::E>().as_ptr(), y.values::<S::E>());
    let [mut mean, mut rest, mut scale] = [[s.splat(0.0); V]; 3];
    // SAFETY: the strip is within the span, which every plane of both buffers holds.
    unsafe {
        for plane in 0..layout.channels {
            let from = x.add(first + plane * layout.plane);
            for (v, sum) in mean.iter_mut().enumerate() {
                *sum = s.add(*sum, s.load(from.add(v * S::LANES)));
            }
        }
        for mean in &mut mean {
            *mean = s.mul(*mean, share);
        }
        for plane in 0..layout.channels {
            let from = x.add(first + plane * layout.plane);
            for v in 0..V {
                let off = s.sub(s.load(from.add(v * S::LANES)), mean[v]);
                rest[v] = s.add(rest[v], off);
                scale[v] = s.fma(off, off, scale[v]);
            }
        }
        for v in 0..V {
            let rest = s.mul(rest[v], share);
            let var = s.at_least(s.sub(s.mul(scale[v], share), s.mul(rest, rest)), s.splat(0.0));
            scale[v] = s.div(s.splat(1.0), s.sqrt(s.add(var, s.splat(norm.eps))));
            mean[v] = s.add(mean[v], rest);
        }
        for plane in 0..layout.channels {
            let place = first + plane * layout.plane;
            let gain = s.splat(*norm.gain.get_unchecked(plane));
            let shift = s.splat(*norm.shift.get_unchecked(plane));
            for v in 0..V {
                let off = s.sub(s.load(x.add(place + v * S::LANES)), mean[v]);
                let value = s.fma(s.mul(off, scale[v]), gain, shift);
                let bits = norm.interior.bits(at + v * S::LANES);
                s.store(y.add(place + v * S::LANES), value, bits);
            }
        }
    }
}

/// Global response normalisation (ConvNeXt V2, arXiv 2301.00808): with `g` the L2 norm of each plane,
/// `y = x + gain · x · g / (mean(g) + eps) + shift`.
#[derive(Clone, Debug)]
pub struct ResponseNorm(Norm);

impl ResponseNorm {
    /// Plans the norm.
    ///
    /// # Panics
    /// If there is not one plane per feature.
    pub fn new(isa: Isa, spec: &NormSpec) -> Self {
        assert_eq!(spec.gain.len(), spec.layout.channels, "features of the norm");
        Self(Norm::new(isa, spec))
    }

    /// Values of scratch space that a run needs.
    pub const fn scratch(&self) -> usize {
        self.0.layout.channels
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned, or if the scratch space is too small.
    pub fn run(&self, input: &Tensor, scratch: &mut Tensor, output: &mut Tensor, parts: usize) {
        let norm = &self.0;
        let y = norm.writer(input, output);
        let norms = &mut scratch.as_mut_slice::<f32>()[..self.scratch()];
        let to = Shared::new(norms);
        crate::parallel::run(parts, &|part| {
            for plane in crate::parallel::share(norm.layout.channels, part, parts) {
                // SAFETY: there is one value per plane, and each plane belongs to one part.
                let norm_of = unsafe { &mut *to.get().add(plane) };
                // SAFETY: the body has no contract.
                unsafe { energy(norm.target, input, plane, norm_of) };
                *norm_of = norm_of.sqrt();
            }
        });
        let mean = norms.iter().map(|g| f64::from(*g)).sum::<f64>() / norms.len().max(1) as f64;
        let share = 1.0 / (mean as f32 + norm.eps);
        let norms = &*norms;
        crate::parallel::run(parts, &|part| {
            for plane in crate::parallel::share(norm.layout.channels, part, parts) {
                let factor = 1.0 + norm.gain[plane] * norms[plane] * share;
                // SAFETY: both buffers have the planned layout, and each plane belongs to one part.
                unsafe { affine(norm.target, norm, input, y, plane, factor) };
            }
        });
    }
}

dispatch! {
    /// # Safety
    /// None.
    fn energy(x: &Tensor, plane: usize, total: &mut f32) = energy_body
}

/// Sum of squares, in sixteen interleaved sums on every instruction set.
#[inline(always)]
unsafe fn energy_body<S: Simd>(_: S, x: &Tensor, plane: usize, total: &mut f32) {
    let layout = x.layout();
    let values = &x.as_slice::<S::E>()[layout.origin + plane * layout.plane..][..layout.body()];
    let mut sums = [0.0_f32; crate::ALIGN];
    for chunk in values.chunks(crate::ALIGN) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value.widen() * value.widen();
        }
    }
    *total = sums.iter().sum();
}

dispatch! {
    /// # Safety
    /// `x` and `y` have the norm's layout; nobody else writes this plane.
    fn affine(norm: &Norm, x: &Tensor, y: Writer, plane: usize, factor: f32) = affine_body
}

#[inline(always)]
unsafe fn affine_body<S: Simd>(s: S, norm: &Norm, x: &Tensor, y: Writer, plane: usize, factor: f32) {
    let start = norm.layout.origin + plane * norm.layout.plane;
    let (factor, shift) = (s.splat(factor), s.splat(norm.shift[plane]));
    let (x, y) = (x.as_slice::<S::E>().as_ptr(), y.values::<S::E>());
    for place in (0..norm.layout.body()).step_by(S::LANES) {
        // SAFETY: the place is within the span, which every plane of both buffers holds.
        unsafe {
            let value = s.fma(factor, s.load(x.add(start + place)), shift);
            s.store(y.add(start + place), value, norm.interior.bits(place));
        }
    }
}
