//! Functions of each value, and the sums they end.

use margay_core::Activation;

use crate::Isa;
use crate::layout::{Interior, Layout, Tensor};
use crate::math;
use crate::parallel::Writer;
use crate::simd::{Simd, Target};

/// `function(x)`, or `x` without one.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, function: Option<Activation>, x: S::V) -> S::V {
    match function {
        None => x,
        Some(Activation::Relu) => s.relu(x),
        Some(Activation::Relu6) => s.at_most(s.relu(x), s.splat(6.0)),
        Some(Activation::Gelu) => math::gelu(s, x),
        Some(Activation::Silu) => s.mul(x, math::sigmoid(s, x)),
        Some(Activation::Sigmoid) => math::sigmoid(s, x),
    }
}

/// `y = act(factor · (a [+ b]))`, value by value, all in one layout.
#[derive(Clone, Debug)]
pub struct Pointwise {
    target: Target,
    layout: Layout,
    interior: Interior,
    factor: f32,
    activation: Option<Activation>,
}

impl Pointwise {
    /// Plans the sum of values in this layout.
    pub fn new(isa: Isa, layout: Layout, factor: f32, activation: Option<Activation>) -> Self {
        let target = Target { isa, precision: layout.precision };
        Self { target, layout, interior: layout.interior(), factor, activation }
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another layout than planned.
    pub fn run(&self, a: &Tensor, b: Option<&Tensor>, output: &mut Tensor, parts: usize) {
        let fits = |tensor: &Tensor| *tensor.layout() == self.layout;
        assert!(fits(a) && b.is_none_or(fits) && fits(output), "layouts of a sum");
        assert!(self.layout.holds_strips(), "planes of whole vectors");
        let y = Writer::new(output);
        crate::parallel::run(parts, &|part| {
            for plane in crate::parallel::share(self.layout.channels, part, parts) {
                let start = self.layout.origin + plane * self.layout.plane;
                // SAFETY: all three hold the span of every plane, and each plane has one part.
                unsafe { pointwise(self.target, self, a, b, y, start) };
            }
        });
    }
}

dispatch! {
    /// # Safety
    /// All hold the span of the plane that starts at `start`, which nobody else writes.
    fn pointwise(plan: &Pointwise, a: &Tensor, b: Option<&Tensor>, y: Writer, start: usize) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, plan: &Pointwise, a: &Tensor, b: Option<&Tensor>, y: Writer, start: usize) {
    let (factor, y) = (s.splat(plan.factor), y.values::<S::E>());
    let a = a.as_slice::<S::E>().as_ptr();
    let b = match b {
        Some(b) => b.as_slice::<S::E>().as_ptr(),
        None => std::ptr::null(),
    };
    for place in (0..plan.layout.body()).step_by(S::LANES) {
        // SAFETY: the place is within the span.
        unsafe {
            let mut value = s.load(a.add(start + place));
            if !b.is_null() {
                value = s.add(value, s.load(b.add(start + place)));
            }
            value = activate(s, plan.activation, s.mul(factor, value));
            s.store(y.add(start + place), value, plan.interior.bits(place));
        }
    }
}
