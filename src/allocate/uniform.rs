use super::{Allocator, Budget, Failed, Judge, LayerProfile};
use crate::recipe::PruneSpec;

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

    fn densities(
        &self,
        layers: &[LayerProfile],
        _budget: &Budget,
        _spec: &PruneSpec,
        _judge: &mut dyn Judge,
    ) -> Result<Vec<f64>, Failed> {
        Ok(vec![1.0; layers.len()])
    }
}
