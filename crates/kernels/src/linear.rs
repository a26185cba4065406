//! Linear layers on one vector: `y[out] = act(w[out, in] · x[in] + b[out])`.

use std::ops::Range;

use margay_core::{Activation, Csr};

use crate::Isa;
use crate::activation::activate;
use crate::layout::{ALIGN, Tensor};
use crate::parallel::Shared;
use crate::simd::Simd;

/// A dense linear layer, packed `[block of 16 rows][in][16]`: the weight is read once, front to back,
/// and every output is summed in the order of the inputs on every instruction set.
#[derive(Clone, Debug)]
pub struct DenseLinear {
    isa: Isa,
    activation: Option<Activation>,
    columns: usize,
    rows: usize,
    /// One per row, padded to whole blocks.
    bias: Vec<f32>,
    packed: Vec<f32>,
}

impl DenseLinear {
    /// Plans the layer; `weight` is row-major `[out, in]`, `bias` `[out]`.
    ///
    /// # Panics
    /// If the weight is not `out · in` long.
    pub fn new(isa: Isa, weight: &[f32], bias: &[f32], activation: Option<Activation>) -> Self {
        let rows = bias.len();
        let columns = weight.len().checked_div(rows).unwrap_or(0);
        assert_eq!(weight.len(), rows * columns, "weight of a linear layer");
        let padded = rows.next_multiple_of(ALIGN);
        let value = |row: usize, k: usize| if row < rows { weight[row * columns + k] } else { 0.0 };
        let block =
            |first: usize| (0..columns).flat_map(move |k| (first..first + ALIGN).map(move |row| (row, k)));
        let packed = (0..padded).step_by(ALIGN).flat_map(block).map(|(row, k)| value(row, k)).collect();
        let bias = (0..padded).map(|row| bias.get(row).copied().unwrap_or(0.0)).collect();
        Self { isa, activation, columns, rows, bias, packed }
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has another length than planned.
    pub fn run(&self, input: &Tensor, output: &mut Tensor, parts: usize) {
        assert_eq!(input.layout().values(), self.columns, "features read");
        assert_eq!(output.layout().values(), self.rows, "features written");
        let (x, y) = (input.as_slice::<f32>(), output.as_mut_slice::<f32>());
        assert!(x.len() >= self.columns && y.len() >= self.bias.len());
        let y = Shared::new(y);
        crate::parallel::run(parts, &|part| {
            let blocks = crate::parallel::share(self.bias.len() / ALIGN, part, parts);
            // SAFETY: the lengths were asserted; parts write different blocks.
            unsafe { linear(self.isa, self, x, y, blocks) }
        });
    }
}

dispatch! {
    /// # Safety
    /// `x` holds the layer's inputs, `y` has room for its rows rounded up to blocks, and nobody else
    /// touches those of `blocks`.
    f32 fn linear(layer: &DenseLinear, x: &[f32], y: Shared<f32>, blocks: Range<usize>) = body
}

#[inline(always)]
unsafe fn body<S: Simd<E = f32>>(s: S, layer: &DenseLinear, x: &[f32], y: Shared<f32>, blocks: Range<usize>) {
    let mut block = blocks.start;
    // SAFETY: same contract as this function.
    unsafe {
        while block < blocks.end {
            let four = blocks.end - block >= 4;
            match (S::LANES, four) {
                (16, true) => rows::<S, 4>(s, layer, x, y, block),
                (8, true) => rows::<S, 8>(s, layer, x, y, block),
                (16, false) => rows::<S, 1>(s, layer, x, y, block),
                (8, false) => rows::<S, 2>(s, layer, x, y, block),
                (_, true) => {
                    for block in block..block + 4 {
                        rows::<S, 4>(s, layer, x, y, block);
                    }
                }
                (_, false) => rows::<S, 4>(s, layer, x, y, block),
            }
            block += if four { 4 } else { 1 };
        }
    }
}

/// `V` vectors of rows from the first of `block`.
#[inline(always)]
unsafe fn rows<S: Simd<E = f32>, const V: usize>(
    s: S,
    layer: &DenseLinear,
    x: &[f32],
    y: Shared<f32>,
    block: usize,
) {
    // SAFETY: the blocks are blocks of the layer; the caller vouches for `x` and `y`.
    unsafe {
        let weight = layer.packed.as_ptr().add(block * ALIGN * layer.columns);
        let mut acc = [s.splat(0.0); V];
        for (v, a) in acc.iter_mut().enumerate() {
            *a = s.load(layer.bias.as_ptr().add(block * ALIGN + v * S::LANES));
        }
        for (k, x) in x.iter().enumerate().take(layer.columns) {
            let x = s.splat(*x);
            for (v, a) in acc.iter_mut().enumerate() {
                let place = v * S::LANES / ALIGN * ALIGN * layer.columns + v * S::LANES % ALIGN;
                *a = s.fma(x, s.load(weight.add(place + k * ALIGN)), *a);
            }
        }
        for (v, a) in acc.into_iter().enumerate() {
            let row = block * ALIGN + v * S::LANES;
            let a = activate(s, layer.activation, a);
            s.store(y.get().add(row), a, first_bits(layer.rows.saturating_sub(row)));
        }
    }
}

/// The lowest `n` bits, of at most one vector.
#[inline(always)]
fn first_bits(n: usize) -> u32 {
    (1 << n.min(ALIGN)) - 1
}

/// A linear layer whose weight is stored as its nonzeros.
#[derive(Clone, Debug)]
pub struct SparseLinear {
    isa: Isa,
    weight: Csr,
    bias: Vec<f32>,
    activation: Option<Activation>,
}

impl SparseLinear {
    /// Plans the layer; `weight` is `[out, in]`, `bias` `[out]`.
    ///
    /// # Panics
    /// If there is not one bias per row.
    pub fn new(isa: Isa, weight: &Csr, bias: &[f32], activation: Option<Activation>) -> Self {
        assert_eq!(weight.rows(), bias.len(), "bias of a linear layer");
        Self { isa, weight: weight.clone(), bias: bias.to_vec(), activation }
    }

    /// Computes one image.
    ///
    /// # Panics
    /// If a tensor has another length than planned.
    pub fn run(&self, input: &Tensor, output: &mut Tensor) {
        assert_eq!(input.layout().values(), self.weight.cols(), "features read");
        assert_eq!(output.layout().values(), self.weight.rows(), "features written");
        let (x, y) = (input.as_slice::<f32>(), output.as_mut_slice::<f32>());
        assert!(y.len() >= self.bias.len().next_multiple_of(ALIGN), "whole vectors");
        for (row, (y, bias)) in y.iter_mut().zip(&self.bias).enumerate() {
            *y = self.weight.row(row).fold(*bias, |sum, (k, w)| sum + w * x[k as usize]);
        }
        // SAFETY: the output has room for whole vectors.
        unsafe { activate_vector(self.isa, self.activation, y, self.bias.len()) };
    }
}

dispatch! {
    /// # Safety
    /// `values` has room for `n` values rounded up to `ALIGN`.
    f32 fn activate_vector(activation: Option<Activation>, values: &mut [f32], n: usize) = activate_body
}

#[inline(always)]
unsafe fn activate_body<S: Simd<E = f32>>(
    s: S,
    activation: Option<Activation>,
    values: &mut [f32],
    n: usize,
) {
    for row in (0..n).step_by(S::LANES) {
        // SAFETY: the vector is within the values rounded up.
        unsafe {
            let place = values.as_mut_ptr().add(row);
            let value = activate(s, activation, s.load(place));
            s.store(place, value, first_bits(n - row));
        }
    }
}
