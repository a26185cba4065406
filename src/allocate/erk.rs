use super::{Allocator, LayerProfile};

/// Erdős–Rényi-kernel densities (RigL, arXiv 1911.11134): `(out + in + kh + kw) / (out · in · kh · kw)`.
#[derive(Clone, Copy, Debug)]
pub struct Erk;

impl Allocator for Erk {
    fn name(&self) -> &'static str {
        "erk"
    }

    fn about(&self) -> &'static str {
        "denser where a layer has few weights: most accurate for a given size, more multiply-adds"
    }

    fn density(&self, layer: &LayerProfile) -> f64 {
        let [kh, kw] = layer.kernel;
        (layer.out + layer.inner + kh + kw) as f64 / layer.weights().max(1) as f64
    }
}
