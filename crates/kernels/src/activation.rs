//! Functions of each value, and the sums they end.

use margay_core::Activation;

use crate::Isa;
use crate::layout::{Interior, Layout, Tensor};
use crate::math;
use crate::parallel::Shared;
use crate::simd::Simd;

/// `function(x)`, or `x` without one.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, function: Option<Activation>, x: S::V) -> S::V {
    match function {
        None => x,
        Some(Activation::Relu) => s.relu(x),
        Some(Activation::Gelu) => math::gelu(s, x),
        Some(Activation::Silu) => s.mul(x, math::sigmoid(s, x)),
        Some(Activation::Sigmoid) => math::sigmoid(s, x),
    }
}

/// `y = act(factor · (a [+ b]))`, value by value, all in one layout.
#[derive(Clone, Debug)]
pub struct Pointwise {
    isa: Isa,
    layout: Layout,
    interior: Interior,
    factor: f32,
    activation: Option<Activation>,
}

impl Pointwise {
    /// Plans the sum of values in this layout.
    pub fn new(isa: Isa, layout: Layout, factor: f32, activation: Option<Activation>) -> Self {
        Self { isa, layout, interior: layout.interior(), factor, activation }
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned.
    pub fn run(&self, a: &Tensor, b: Option<&Tensor>, output: &mut Tensor, parts: usize) {
        let fits = |tensor: &Tensor| *tensor.layout() == self.layout;
        assert!(fits(a) && b.is_none_or(fits) && fits(output), "layouts of a sum");
        assert!(self.layout.holds_strips(), "planes of whole vectors");
        let (a, b, y) = (a.as_slice(), b.map(Tensor::as_slice), Shared(output.as_mut_slice().as_mut_ptr()));
        crate::parallel::run(parts, &|part| {
            for plane in crate::parallel::share(self.layout.channels, part, parts) {
                let start = self.layout.origin + plane * self.layout.plane;
                // SAFETY: all three hold the rounded body of every plane, and each plane has one part.
                unsafe { pointwise(self.isa, self, a, b, y, start) };
            }
        });
    }
}

dispatch! {
    /// # Safety
    /// All hold the rounded body of the plane that starts at `start`, which nobody else writes.
    fn pointwise(plan: &Pointwise, a: &[f32], b: Option<&[f32]>, y: Shared, start: usize) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, plan: &Pointwise, a: &[f32], b: Option<&[f32]>, y: Shared, start: usize) {
    let factor = s.splat(plan.factor);
    for place in (0..plan.layout.body()).step_by(S::LANES) {
        // SAFETY: the place is within the rounded body.
        unsafe {
            let mut value = s.load(a.as_ptr().add(start + place));
            if let Some(b) = b {
                value = s.add(value, s.load(b.as_ptr().add(start + place)));
            }
            value = activate(s, plan.activation, s.mul(factor, value));
            s.store(y.0.add(start + place), s.keep(value, plan.interior.bits(place)));
        }
    }
}
