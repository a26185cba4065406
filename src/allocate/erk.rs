use super::{Allocator, Budget, Failed, Judge, LayerProfile};
use crate::recipe::PruneSpec;

/// Erdős–Rényi-kernel densities (RigL, arXiv 1911.11134): `(out + in + kh + kw) / (out · in · kh · kw)`.
///
/// Where no shortcut leads around a layer, such as the downsampling of a `ConvNeXt`, nothing carries the signal past its
/// errors: such a layer is `trunk` times as dense, by default four times. Measured allocations (`dp`) make it three to five times as dense.
///
/// Under a budget of multiply-adds or time a layer is thinned by the root of what its weights cost: if layers do damage `a / d` at
/// densities `d` and cost `c · d`, the least damage for a total cost is at `d` in proportion to `√(a / c)`.
#[derive(Clone, Copy, Debug)]
pub struct Erk;

impl Erk {
    /// The density of a layer up to a common factor.
    fn density(layer: &LayerProfile, spec: &PruneSpec) -> f64 {
        let [kh, kw] = layer.kernel;
        let density = (layer.out + layer.inner + kh + kw) as f64 / layer.weights().max(1) as f64;
        if layer.trunk { spec.erk.trunk * density } else { density }
    }
}

impl Allocator for Erk {
    fn name(&self) -> &'static str {
        "erk"
    }

    fn about(&self) -> &'static str {
        "denser where a layer has few weights: accurate for a given size or time, more multiply-adds"
    }

    fn densities(
        &self,
        layers: &[LayerProfile],
        budget: &Budget,
        spec: &PruneSpec,
        _judge: &mut dyn Judge,
    ) -> Result<Vec<f64>, Failed> {
        let thinned = |(i, layer): (usize, &LayerProfile)| {
            let slope = budget.slope(i, layer) / layer.weights().max(1) as f64;
            Self::density(layer, spec) / slope.max(f64::MIN_POSITIVE).sqrt()
        };
        Ok(layers.iter().enumerate().map(thinned).collect())
    }
}
