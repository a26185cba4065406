//! Vectors of `f32` behind one trait; a value of a token type proves that the CPU has its instructions.

#[macro_use]
mod dispatch;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Operations on vectors of `LANES` values. Every method is inlined into an entry function that
/// enables the instruction set, so that a kernel written once compiles to each of them.
pub(crate) trait Simd: Copy {
    /// One vector.
    type V: Copy;
    /// Values in a vector: divides [`crate::ALIGN`].
    const LANES: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;

    /// Reads `LANES` values.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` reads.
    unsafe fn load(self, from: *const f32) -> Self::V;

    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `to` must be valid for `LANES` writes.
    unsafe fn store(self, to: *mut f32, value: Self::V);

    /// `a · b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a − b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;

    /// `√a`.
    fn sqrt(self, a: Self::V) -> Self::V;

    /// The larger of `a` and `bound`; where `a` is NaN, NaN.
    fn at_least(self, a: Self::V, bound: Self::V) -> Self::V;

    /// The smaller of `a` and `bound`; where `a` is NaN, NaN.
    fn at_most(self, a: Self::V, bound: Self::V) -> Self::V;

    /// The bits of each lane moved 23 places up: what was in the lowest nine becomes sign and exponent.
    fn to_exponent(self, a: Self::V) -> Self::V;

    /// `max(a, 0)`; NaN stays NaN.
    #[inline(always)]
    fn relu(self, a: Self::V) -> Self::V {
        self.at_least(a, self.splat(0.0))
    }

    /// Lane `i` of `a` where bit `i` is set, else zero.
    fn keep(self, a: Self::V, bits: u32) -> Self::V;
}

/// Whether the CPU has AVX2 and FMA.
pub(crate) fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Avx2::new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether the CPU has the AVX-512 extensions used here.
pub(crate) fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Avx512::new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}
