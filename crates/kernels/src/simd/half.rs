use half::bf16;

use super::{Halve, Simd, Target};
use crate::precision::Precision;

/// Values stored by halves and computed in f32: twice the lanes, in two vectors.
#[derive(Clone, Copy)]
pub(crate) struct Half<S>(pub(crate) S);

impl<S: Halve> Simd for Half<S> {
    type E = bf16;
    type V = [S::V; 2];
    const TARGET: Target = Target { precision: Precision::Bf16, ..S::TARGET };

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [self.0.splat(x); 2]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const bf16) -> Self::V {
        // SAFETY: same contract.
        unsafe { self.0.load_halves(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut bf16, value: Self::V, bits: u32) {
        // SAFETY: same contract.
        unsafe { self.0.store_halves(to, value, bits) }
    }

    #[inline(always)]
    unsafe fn fetch(self, from: *const f32) -> Self::V {
        // SAFETY: same contract: half of the lanes and the other half.
        unsafe { [self.0.fetch(from), self.0.fetch(from.add(S::LANES))] }
    }

    #[inline(always)]
    unsafe fn spill(self, to: *mut f32, value: Self::V) {
        // SAFETY: same contract: half of the lanes and the other half.
        unsafe {
            self.0.spill(to, value[0]);
            self.0.spill(to.add(S::LANES), value[1]);
        }
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [self.0.fma(a[0], b[0], c[0]), self.0.fma(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.add(a[0], b[0]), self.0.add(a[1], b[1])]
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.sub(a[0], b[0]), self.0.sub(a[1], b[1])]
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.mul(a[0], b[0]), self.0.mul(a[1], b[1])]
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.div(a[0], b[0]), self.0.div(a[1], b[1])]
    }

    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        [self.0.sqrt(a[0]), self.0.sqrt(a[1])]
    }

    #[inline(always)]
    fn at_least(self, a: Self::V, bound: Self::V) -> Self::V {
        [self.0.at_least(a[0], bound[0]), self.0.at_least(a[1], bound[1])]
    }

    #[inline(always)]
    fn at_most(self, a: Self::V, bound: Self::V) -> Self::V {
        [self.0.at_most(a[0], bound[0]), self.0.at_most(a[1], bound[1])]
    }

    #[inline(always)]
    fn evens(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.evens(a[0], b[0]), self.0.odds(a[0], b[0])]
    }

    #[inline(always)]
    fn odds(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.evens(a[1], b[1]), self.0.odds(a[1], b[1])]
    }

    #[inline(always)]
    fn to_exponent(self, a: Self::V) -> Self::V {
        [self.0.to_exponent(a[0]), self.0.to_exponent(a[1])]
    }
}
