//! Vectors of `f32` behind one trait; a value of a token type proves that the CPU has its instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[macro_use]
mod dispatch;
mod half;
mod portable;

use ::half::bf16;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use half::Half;
pub(crate) use portable::Portable;

use crate::Isa;
use crate::precision::{Element, Precision};

/// What a kernel is compiled for: an instruction set and how values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) isa: Isa,
    pub(crate) precision: Precision,
}

impl Target {
    /// Values that a kernel handles at once: [`Simd::LANES`].
    pub(crate) const fn lanes(self) -> usize {
        match self.precision {
            Precision::F32 => self.isa.lanes(),
            Precision::Bf16 => 2 * self.isa.lanes(),
        }
    }

    /// Rows and vectors of a register tile. Accumulators, one column of the source and a broadcast weight must
    /// fit the registers: 24 + 3 + 1 of 32, or 12 + 2 + 1 of 16. By halves, rows that divide the channels of most
    /// networks count for more than full registers, and six rows on AVX2 spill: three times as slow as four.
    pub(crate) const fn tile(self) -> [usize; 2] {
        let [[rows, vectors], halved] = match self.isa {
            Isa::Avx512 => [[8, 3], [8, 1]],
            Isa::Avx2 => [[6, 2], [4, 1]],
            Isa::Portable => [[4, 2], [4, 1]],
        };
        match self.precision {
            Precision::F32 => [rows, vectors],
            Precision::Bf16 => halved,
        }
    }
}

/// Operations on vectors of `LANES` values. Every method is inlined into an entry function that
/// enables the instruction set, so that a kernel written once compiles to each of them.
pub(crate) trait Simd: Copy {
    /// How values are stored.
    type E: Element;
    /// One vector.
    type V: Copy;
    /// What this is compiled for.
    const TARGET: Target;
    /// Values in a vector: divides those of a cache line.
    const LANES: usize = Self::TARGET.lanes();

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;

    /// Reads `LANES` stored values.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` reads.
    unsafe fn load(self, from: *const Self::E) -> Self::V;

    /// Stores the lanes whose bit is set, lowest first, and zeros in place of the others.
    ///
    /// # Safety
    /// `to` must be valid for `LANES` writes.
    unsafe fn store(self, to: *mut Self::E, value: Self::V, bits: u32);

    /// Reads what [`Simd::spill`] wrote.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` reads.
    unsafe fn fetch(self, from: *const f32) -> Self::V;

    /// Writes `LANES` values in full precision and an order of its own.
    ///
    /// # Safety
    /// `to` must be valid for `LANES` writes.
    unsafe fn spill(self, to: *mut f32, value: Self::V);

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

    /// The values at even places of `a`, then those of `b`.
    fn evens(self, a: Self::V, b: Self::V) -> Self::V;

    /// The values at odd places of `a`, then those of `b`.
    fn odds(self, a: Self::V, b: Self::V) -> Self::V;

    /// `max(a, 0)`; NaN stays NaN.
    #[inline(always)]
    fn relu(self, a: Self::V) -> Self::V {
        self.at_least(a, self.splat(0.0))
    }
}

/// Vectors of `f32` that can be stored by halves: pairs of them hold the even and the odd places.
pub(crate) trait Halve: Simd<E = f32> {
    /// Reads `2 · LANES` halves: those at even places, those at odd ones.
    ///
    /// # Safety
    /// `from` must be valid for `2 · LANES` reads.
    unsafe fn load_halves(self, from: *const bf16) -> [Self::V; 2];

    /// Rounds to nearest even and stores `2 · LANES` halves, zero where a bit is not set.
    ///
    /// A NaN must have no bits set in its lower half, as those computed from halves and from whole numbers
    /// have: a carry out of it would end in its sign.
    ///
    /// # Safety
    /// `to` must be valid for `2 · LANES` writes.
    unsafe fn store_halves(self, to: *mut bf16, value: [Self::V; 2], bits: u32);
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
