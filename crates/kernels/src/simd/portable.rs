use half::bf16;

use super::{Halve, Simd, Target};
use crate::Isa;
use crate::precision::{Element, Precision};

/// Four lanes of plain Rust, which every target's compiler knows how to vectorise.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Simd for Portable {
    type E = f32;
    type V = [f32; 4];
    const TARGET: Target = Target { isa: Isa::Portable, precision: Precision::F32 };

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for four reads; the read may be unaligned.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::V, bits: u32) {
        let kept = std::array::from_fn(|i| if bits >> i & 1 == 1 { value[i] } else { 0.0 });
        // SAFETY: the caller vouches for four writes; the write may be unaligned.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(kept) }
    }

    #[inline(always)]
    unsafe fn fetch(self, from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for four reads; the read may be unaligned.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn spill(self, to: *mut f32, value: Self::V) {
        // SAFETY: the caller vouches for four writes; the write may be unaligned.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(value) }
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        zip(zip(a, b, |a, b| a * b), c, |ab, c| ab + c)
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    fn at_least(self, a: Self::V, bound: Self::V) -> Self::V {
        zip(a, bound, |a, bound| if a < bound { bound } else { a })
    }

    #[inline(always)]
    fn at_most(self, a: Self::V, bound: Self::V) -> Self::V {
        zip(a, bound, |a, bound| if a > bound { bound } else { a })
    }

    #[inline(always)]
    fn evens(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0], a[2], b[0], b[2]]
    }

    #[inline(always)]
    fn odds(self, a: Self::V, b: Self::V) -> Self::V {
        [a[1], a[3], b[1], b[3]]
    }

    #[inline(always)]
    fn to_exponent(self, a: Self::V) -> Self::V {
        a.map(|x| f32::from_bits(x.to_bits() << 23))
    }
}

impl Halve for Portable {
    #[inline(always)]
    unsafe fn load_halves(self, from: *const bf16) -> [Self::V; 2] {
        // SAFETY: the caller vouches for eight reads; the read may be unaligned.
        let pairs = unsafe { from.cast::<[[bf16; 2]; 4]>().read_unaligned() };
        [pairs.map(|pair| pair[0].widen()), pairs.map(|pair| pair[1].widen())]
    }

    #[inline(always)]
    unsafe fn store_halves(self, to: *mut bf16, value: [Self::V; 2], bits: u32) {
        let half = |i: usize| if bits >> i & 1 == 1 { bf16::narrow(value[i % 2][i / 2]) } else { bf16::ZERO };
        let halves: [bf16; 8] = std::array::from_fn(half);
        // SAFETY: the caller vouches for eight writes; the write may be unaligned.
        unsafe { to.cast::<[bf16; 8]>().write_unaligned(halves) }
    }
}
