#[allow(clippy::wildcard_imports, reason = "intrinsics are named for what they are")]
use std::arch::x86_64::*;

use half::bf16;

use super::{Halve, Simd, Target};
use crate::Isa;
use crate::precision::Precision;

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
    type E = f32;
    type V = __m256;
    const TARGET: Target = Target { isa: Isa::Avx2, precision: Precision::F32 };

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
    unsafe fn store(self, to: *mut f32, value: Self::V, bits: u32) {
        // SAFETY: the token exists; the caller vouches for eight writes.
        unsafe {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_and_si256(_mm256_set1_epi32(bits as i32), lane);
            let kept = _mm256_and_ps(value, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane)));
            _mm256_storeu_ps(to, kept);
        }
    }

    #[inline(always)]
    unsafe fn fetch(self, from: *const f32) -> Self::V {
        // SAFETY: the token exists; the caller vouches for eight reads.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn spill(self, to: *mut f32, value: Self::V) {
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
    fn evens(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX2. The shuffle goes by halves: a, b, a, b.
        unsafe {
            let mixed = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(mixed))
        }
    }

    #[inline(always)]
    fn odds(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as for `evens`.
        unsafe {
            let mixed = _mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(mixed))
        }
    }

    #[inline(always)]
    fn to_exponent(self, a: Self::V) -> Self::V {
        // SAFETY: the token exists, so the CPU has AVX2.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a))) }
    }
}

impl Halve for Avx2 {
    #[inline(always)]
    unsafe fn load_halves(self, from: *const bf16) -> [Self::V; 2] {
        // SAFETY: the token exists; the caller vouches for sixteen reads.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(UPPER));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(odd)]
        }
    }

    #[inline(always)]
    unsafe fn store_halves(self, to: *mut bf16, value: [Self::V; 2], bits: u32) {
        // SAFETY: the token exists; the caller vouches for sixteen writes.
        unsafe {
            let [even, odd] = [rounded_256(value[0]), rounded_256(value[1])];
            let odd = _mm256_and_si256(odd, _mm256_set1_epi32(UPPER));
            let pairs = _mm256_or_si256(_mm256_srli_epi32::<16>(even), odd);
            let lane = _mm256_setr_epi16(
                1,
                2,
                4,
                8,
                16,
                32,
                64,
                128,
                256,
                512,
                1024,
                2048,
                4096,
                8192,
                16384,
                i16::MIN,
            );
            let set = _mm256_and_si256(_mm256_set1_epi16(bits as i16), lane);
            let kept = _mm256_and_si256(pairs, _mm256_cmpeq_epi16(set, lane));
            _mm256_storeu_si256(to.cast(), kept);
        }
    }
}

/// Sign, exponent and upper mantissa of an f32.
pub(super) const UPPER: i32 = -0x1_0000;

/// The bits of each lane with the upper half rounded to nearest even; the lower half is left over.
#[inline]
#[target_feature(enable = "avx2")]
fn rounded_256(x: __m256) -> __m256i {
    let bits = _mm256_castps_si256(x);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd)
}
