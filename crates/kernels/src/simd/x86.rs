#[allow(clippy::wildcard_imports, reason = "intrinsics are named for what they are")]
use std::arch::x86_64::*;

use super::Simd;

/// AVX2 and FMA: 8 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, if the CPU has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Self(()))
    }
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the token exists; the caller vouches for eight reads.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::V) {
        // SAFETY: the token exists; the caller vouches for eight writes.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX.
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn at_least(self, a: Self::V, bound: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX. The second operand wins when it is NaN.
        unsafe { _mm256_max_ps(bound, a) }
    }

    #[inline(always)]
    fn at_most(self, a: Self::V, bound: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX. The second operand wins when it is NaN.
        unsafe { _mm256_min_ps(bound, a) }
    }

    #[inline(always)]
    fn to_exponent(self, a: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX2.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a))) }
    }

    #[inline(always)]
    fn keep(self, a: Self::V, bits: u32) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX2.
        unsafe {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_and_si256(_mm256_set1_epi32(bits as i32), lane);
            _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane)))
        }
    }
}

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
    type V = __m512;
    const LANES: usize = 16;

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
    unsafe fn store(self, to: *mut f32, value: Self::V) {
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
    fn to_exponent(self, a: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a))) }
    }

    #[inline(always)]
    fn keep(self, a: Self::V, bits: u32) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX-512F.
        unsafe { _mm512_maskz_mov_ps(bits as __mmask16, a) }
    }
}
