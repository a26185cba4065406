use super::{Allocator, LayerProfile};

/// One density for all layers, as in the TACO paper (arXiv 2303.14409).
#[derive(Clone, Copy, Debug)]
pub struct Uniform;

impl Allocator for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn about(&self) -> &'static str {
        "the same density in every layer: fewest multiply-adds for a given size"
    }

    fn density(&self, _layer: &LayerProfile) -> f64 {
        1.0
    }
}
