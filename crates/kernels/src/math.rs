//! Elementary functions of vectors. Coefficients are minimax fits of the relative error (Lawson's
//! iteration on 2000 Chebyshev nodes), rounded to f32: the same on every instruction set.

use crate::precision::Precision;
use crate::simd::Simd;

/// `1.5 · 2²³ + 127`: added to a value, it leaves the nearest whole number plus 127 in the lowest bits.
const ROUND: f32 = 12_583_039.0;
/// `ln 2` in two parts, the first with so few bits that whole multiples of it are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// `eʳ = 1 + r + r² · (…)` for `|r| ≤ ln 2 / 2`, off by 3e-9.
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_717, 0.001_381_459_9];
/// Where `e` to the power is still a normal number.
const EXP_DOMAIN: [f32; 2] = [-87.0, 88.0];

/// `erf(x / √2) = x · P(x²) / Q(x²)` for `|x|` up to [`ERF_END`], off by 1.3e-8: numerator.
const ERF_P: [f32; 6] =
    [0.797_884_5, 0.066_058_82, 0.009_257_933, 3.213_908_3e-4, 1.264_744_7e-5, 4.718_200_2e-8];
/// Denominator.
const ERF_Q: [f32; 6] = [1.0, 0.249_458_92, 0.028_180_12, 0.001_838_657_2, 7.117_304e-5, 1.219_824_2e-6];
/// From here on it is 1 in f32.
const ERF_END: f32 = 5.4;
/// `erf(x / √2) = x · P(x²)` without a division, for what is then stored in bf16: off by 2.7e-5, and 1 from 4.2 on.
/// GELU is off by 6.2e-5 at most, or by a millionth of `|x|` where that is more.
const ERF_BRIEF: [f32; 9] = [
    0.797_947_4,
    -0.133_010_16,
    0.019_861_368,
    -0.002_293_708_7,
    2.007_068e-4,
    -1.269_802_8e-5,
    5.376_612e-7,
    -1.342_559_9e-8,
    1.479_639_6e-10,
];
/// Where it reaches 1.
const ERF_BRIEF_END: f32 = 4.2;

/// `eˣ`, with `x` clamped to where that is a normal number.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.at_most(s.at_least(x, s.splat(EXP_DOMAIN[0])), s.splat(EXP_DOMAIN[1]));
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN_2[1]), s.fma(n, s.splat(-LN_2[0]), x));
    let tail = s.mul(s.mul(r, r), polynomial(s, &EXP, r));
    s.mul(s.add(s.splat(1.0), s.add(r, tail)), s.to_exponent(shifted))
}

/// `σ(x) = 1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// `x Φ(x) = x / 2 · (1 + erf(x / √2))`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, erf(s, x), half)
}

/// `erf(x / √2)`, as exactly as values are stored.
#[inline(always)]
fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let brief = matches!(S::TARGET.precision, Precision::Bf16);
    let end = if brief { ERF_BRIEF_END } else { ERF_END };
    let x = s.at_most(s.at_least(x, s.splat(-end)), s.splat(end));
    let u = s.mul(x, x);
    if brief {
        return s.mul(x, polynomial(s, &ERF_BRIEF, u));
    }
    s.div(s.mul(x, polynomial(s, &ERF_P, u)), polynomial(s, &ERF_Q, u))
}

/// `c[0] + c[1] x + c[2] x² + …`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, c: &[f32; N], x: S::V) -> S::V {
    let mut sum = s.splat(c[N - 1]);
    for k in (0..N - 1).rev() {
        sum = s.fma(sum, x, s.splat(c[k]));
    }
    sum
}
