//! Convolution of u8 maps by i8 weights, four channels at a time.
//!
//! A map is planes of *quads*: the u32 at a place holds four channels. A block of four weights is one u32 too, and
//! `vpdpbusd` adds its four products to an i32 at 16 places. Four rows make a quad of the output, so that what is
//! written is what the next layer reads.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32,
    _mm512_loadu_si512, _mm512_max_epi32, _mm512_min_epi32, _mm512_mul_ps, _mm512_or_si512,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_sll_epi32, _mm512_slli_epi32,
    _mm512_storeu_si512,
};

/// Values of a vector.
pub const LANES: usize = 16;

/// Whether the processor has the instructions.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// Four weights and where their quad is, from the first place of the output.
#[derive(Clone, Copy)]
pub struct Block {
    pub offset: u32,
    pub weights: i32,
}

/// A layer: the blocks of row `r` are `row_ptr[r] .. row_ptr[r + 1]`.
pub struct Blocks {
    pub row_ptr: Vec<usize>,
    pub stored: Vec<Block>,
    /// What an i32 is multiplied by, one per row, and what is added, both in units of the output.
    pub scale: Vec<f32>,
    pub bias: Vec<f32>,
    /// Distance of two planes of the output.
    pub plane: usize,
    /// Vectors that cover a plane.
    pub vectors: usize,
}

/// Computes every row with strips of at most `width` vectors, from place `origin` of both maps.
///
/// # Panics
/// If the processor lacks VNNI, or a map is too short.
pub fn run(layer: &Blocks, source: &[u32], output: &mut [u32], origin: usize, width: usize) {
    let span = layer.vectors * LANES;
    let farthest = layer.stored.iter().map(|block| block.offset as usize).max().unwrap_or(0);
    assert!(is_available() && farthest + span <= source.len());
    assert!(origin + (layer.bias.len() / 4 - 1) * layer.plane + span <= output.len());
    let strips = layer.vectors.div_ceil(width);
    for strip in 0..strips {
        let (first, end) = (layer.vectors * strip / strips, layer.vectors * (strip + 1) / strips);
        // SAFETY: the processor has the instructions, and every read and write was just checked.
        unsafe {
            match end - first {
                1 => rows::<1>(layer, source, output, origin, first * LANES),
                2 => rows::<2>(layer, source, output, origin, first * LANES),
                3 => rows::<3>(layer, source, output, origin, first * LANES),
                4 => rows::<4>(layer, source, output, origin, first * LANES),
                5 => rows::<5>(layer, source, output, origin, first * LANES),
                6 => rows::<6>(layer, source, output, origin, first * LANES),
                _ => rows::<7>(layer, source, output, origin, first * LANES),
            }
        }
    }
}

/// Every row of the strip at place `at`.
///
/// # Safety
/// The processor has the instructions; `V` vectors from `at` stay within both maps.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rows<const V: usize>(layer: &Blocks, source: &[u32], output: &mut [u32], origin: usize, at: usize) {
    for quad in 0..layer.bias.len() / 4 {
        let mut packed = [_mm512_setzero_si512(); V];
        for lane in 0..4 {
            // SAFETY: same contract.
            let sums = unsafe { row::<V>(layer, source, at, 4 * quad + lane) };
            pack(&mut packed, sums, layer.scale[4 * quad + lane], layer.bias[4 * quad + lane], lane);
        }
        for (v, packed) in packed.into_iter().enumerate() {
            let place = origin + quad * layer.plane + at + v * LANES;
            // SAFETY: same contract.
            unsafe { _mm512_storeu_si512(output.as_mut_ptr().add(place).cast(), packed) };
        }
    }
}

/// # Safety
/// As for [`rows`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn row<const V: usize>(layer: &Blocks, source: &[u32], at: usize, row: usize) -> [__m512i; V] {
    let mut sums = [_mm512_setzero_si512(); V];
    for block in &layer.stored[layer.row_ptr[row]..layer.row_ptr[row + 1]] {
        let weights = _mm512_set1_epi32(block.weights);
        for (v, sum) in sums.iter_mut().enumerate() {
            // SAFETY: same contract.
            unsafe {
                let quads = source.as_ptr().add(block.offset as usize + at + v * LANES);
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_loadu_si512(quads.cast()), weights);
            }
        }
    }
    sums
}

/// Rectifies, quantises and puts a row into byte `lane` of the quads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pack<const V: usize>(packed: &mut [__m512i; V], sums: [__m512i; V], scale: f32, bias: f32, lane: usize) {
    let (scale, bias) = (_mm512_set1_ps(scale), _mm512_set1_ps(bias));
    let (zero, most) = (_mm512_setzero_si512(), _mm512_set1_epi32(255));
    let shift = _mm_cvtsi32_si128(8 * lane as i32);
    for (packed, sum) in packed.iter_mut().zip(sums) {
        let value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), bias);
        let byte = _mm512_min_epi32(_mm512_max_epi32(_mm512_cvtps_epi32(value), zero), most);
        *packed = _mm512_or_si512(*packed, _mm512_sll_epi32(byte, shift));
    }
}

/// Quantises four planes of bf16 values, as bits, to quads: what a layer that reads another's bf16 map has to do.
///
/// # Panics
/// If the processor lacks AVX-512, or a plane is shorter than the quads.
pub fn quantise(planes: [&[u16]; 4], scale: f32, quads: &mut [u32]) {
    assert!(is_available() && planes.iter().all(|plane| plane.len() >= quads.len()));
    // SAFETY: the processor has the instructions; lengths were just checked.
    unsafe { quantise_vectors(planes, scale, quads) }
}

/// # Safety
/// The processor has the instructions; every plane is as long as the quads.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn quantise_vectors(planes: [&[u16]; 4], scale: f32, quads: &mut [u32]) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32};
    let (zero, most, scale) = (_mm512_setzero_si512(), _mm512_set1_epi32(255), _mm512_set1_ps(scale));
    for at in (0..quads.len() / LANES).map(|vector| vector * LANES) {
        let mut packed = zero;
        for (lane, plane) in planes.iter().enumerate() {
            // SAFETY: same contract.
            let halves = unsafe { _mm256_loadu_si256(plane.as_ptr().add(at).cast()) };
            let value = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)));
            let byte = _mm512_cvtps_epi32(_mm512_mul_ps(value, scale));
            let byte = _mm512_min_epi32(_mm512_max_epi32(byte, zero), most);
            packed = _mm512_or_si512(packed, _mm512_sll_epi32(byte, _mm_cvtsi32_si128(8 * lane as i32)));
        }
        // SAFETY: same contract.
        unsafe { _mm512_storeu_si512(quads.as_mut_ptr().add(at).cast(), packed) };
    }
}
