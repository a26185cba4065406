#[allow(clippy::wildcard_imports, reason = "intrinsics are named for what they are")]
use std::arch::x86_64::*;

use half::bf16;

use super::avx2::UPPER;
use super::{Avx2, Halve, Simd, Target};
use crate::Isa;
use crate::precision::Precision;

/// AVX-512: 16 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The token, if the CPU has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && Avx2::new().is_some();
        has.then_some(Self(()))
    }
}

impl Simd for Avx512 {
    type E = f32;
    type V = __m512;
    const TARGET: Target = Target { isa: Isa::Avx512, precision: Precision::F32 };

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the token exists; the caller vouches for sixteen reads.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::V, bits: u32) {
        // SAFETY: the token exists; the caller vouches for sixteen writes.
        unsafe { _mm512_storeu_ps(to, _mm512_maskz_mov_ps(bits as __mmask16, value)) }
    }

    #[inline(always)]
    unsafe fn fetch(self, from: *const f32) -> Self::V {
        // SAFETY: the token exists; the caller vouches for sixteen reads.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn spill(self, to: *mut f32, value: Self::V) {
        // SAFETY: the token exists; the caller vouches for sixteen writes.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn at_least(self, a: Self::V, bound: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F. The second operand wins when it is NaN.
        unsafe { _mm512_max_ps(bound, a) }
    }

    #[inline(always)]
    fn at_most(self, a: Self::V, bound: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F. The second operand wins when it is NaN.
        unsafe { _mm512_min_ps(bound, a) }
    }

    #[inline(always)]
    fn evens(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe {
            let places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_ps(a, places, b)
        }
    }

    #[inline(always)]
    fn odds(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe {
            let places = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            _mm512_permutex2var_ps(a, places, b)
        }
    }

    #[inline(always)]
    fn to_exponent(self, a: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a))) }
    }
}

impl Halve for Avx512 {
    #[inline(always)]
    unsafe fn load_halves(self, from: *const bf16) -> [Self::V; 2] {
        // SAFETY: the token exists; the caller vouches for 32 reads.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(odd)]
        }
    }

    #[inline(always)]
    unsafe fn store_halves(self, to: *mut bf16, value: [Self::V; 2], bits: u32) {
        // SAFETY: the token exists; the caller vouches for 32 writes.
        unsafe {
            let [even, odd] = [rounded_512(value[0]), rounded_512(value[1])];
            let odd = _mm512_and_si512(odd, _mm512_set1_epi32(UPPER));
            let pairs = _mm512_or_si512(_mm512_srli_epi32::<16>(even), odd);
            _mm512_storeu_si512(to.cast(), _mm512_maskz_mov_epi16(bits, pairs));
        }
    }
}

/// The bits of each lane with the upper half rounded to nearest even; the lower half is left over.
#[inline]
#[target_feature(enable = "avx512f")]
fn rounded_512(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd)
}
