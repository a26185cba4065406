//! How many weights each layer keeps, so that the whole meets one sparsity.

mod erk;
mod uniform;

use margay_core::{Graph, Node, Op, Sparsity};

pub use erk::Erk;
pub use uniform::Uniform;

/// Every allocator; a new one is a file and a line here.
pub static ALLOCATORS: &[&dyn Allocator] = &[&Erk, &Uniform];

/// What an allocator may know of a prunable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProfile {
    /// Node name.
    pub name: String,
    /// Rows of the weight matrix.
    pub out: usize,
    /// Input channels per group.
    pub inner: usize,
    /// Kernel height and width; `[1, 1]` for a linear layer.
    pub kernel: [usize; 2],
}

/// Spreads a sparsity over layers.
pub trait Allocator: Sync {
    /// Name on the command line and in recipes.
    fn name(&self) -> &'static str;
    /// One line for `margay list`.
    fn about(&self) -> &'static str;
    /// A preferred density per layer, up to a common factor.
    fn density(&self, layer: &LayerProfile) -> f64;
}

impl LayerProfile {
    /// Profile of a node that has a weight matrix.
    pub fn of(node: &Node) -> Option<Self> {
        let [out, columns] = node.matrix()?;
        let kernel = match &node.op {
            Op::Conv2d(conv) => conv.kernel,
            _ => [1, 1],
        };
        Some(Self { name: node.name.clone(), out, inner: columns / (kernel[0] * kernel[1]), kernel })
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.out * self.inner * self.kernel[0] * self.kernel[1]
    }
}

/// Profiles of every prunable layer of a graph, in execution order.
pub fn profiles(graph: &Graph) -> Vec<LayerProfile> {
    graph.prunable().filter_map(|id| LayerProfile::of(graph.node(id))).collect()
}

/// The allocator of this name.
pub fn find(name: &str) -> Option<&'static dyn Allocator> {
    ALLOCATORS.iter().copied().find(|a| a.name() == name)
}

/// Weights each layer keeps: densities proportional to the allocator's, capped at 1, total exact.
///
/// The common factor is found by water-filling: layers that reach density 1 are fixed there and the
/// remaining budget is spread over the others. Rounding leftovers go to the largest fractions first.
pub fn allocate(allocator: &dyn Allocator, layers: &[LayerProfile], sparsity: Sparsity) -> Vec<usize> {
    let total: usize = layers.iter().map(LayerProfile::weights).sum();
    let budget = sparsity.kept(total);
    let wanted: Vec<f64> = layers.iter().map(|l| allocator.density(l).max(f64::MIN_POSITIVE)).collect();
    let mut full = vec![false; layers.len()];
    let factor = loop {
        let (mut fixed, mut open) = (0.0, 0.0);
        for (i, layer) in layers.iter().enumerate() {
            let weights = layer.weights() as f64;
            if full[i] { fixed += weights } else { open += weights * wanted[i] }
        }
        let factor = if open > 0.0 { (budget as f64 - fixed) / open } else { 0.0 };
        let over: Vec<usize> =
            (0..layers.len()).filter(|i| !full[*i] && factor * wanted[*i] >= 1.0).collect();
        if over.is_empty() {
            break factor;
        }
        for i in over {
            full[i] = true;
        }
    };
    let share = |i: usize| {
        let weights = layers[i].weights() as f64;
        if full[i] { weights } else { (factor * wanted[i] * weights).clamp(0.0, weights) }
    };
    round_to_total(&(0..layers.len()).map(share).collect::<Vec<_>>(), layers, budget)
}

fn round_to_total(shares: &[f64], layers: &[LayerProfile], budget: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = shares.iter().map(|s| s.floor() as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| shares[*b].fract().total_cmp(&shares[*a].fract()).then(a.cmp(b)));
    let mut missing = budget.saturating_sub(kept.iter().sum());
    for &i in order.iter().cycle().take(2 * order.len()) {
        if missing > 0 && kept[i] < layers[i].weights() {
            kept[i] += 1;
            missing -= 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(out: usize, inner: usize, k: usize) -> LayerProfile {
        LayerProfile { name: format!("{out}x{inner}x{k}"), out, inner, kernel: [k, k] }
    }

    proptest! {
        #[test]
        fn every_allocator_meets_the_total_exactly(
            shapes in prop::collection::vec((1_usize..80, 1_usize..80, 1_usize..4), 1..12),
            fraction in 0.0_f64..0.999,
        ) {
            let layers: Vec<_> = shapes.iter().map(|(o, i, k)| layer(*o, *i, *k)).collect();
            let total: usize = layers.iter().map(LayerProfile::weights).sum();
            let sparsity = Sparsity::new(fraction).unwrap();
            for allocator in ALLOCATORS {
                let kept = allocate(*allocator, &layers, sparsity);
                prop_assert_eq!(kept.iter().sum::<usize>(), sparsity.kept(total), "{}", allocator.name());
                prop_assert!(kept.iter().zip(&layers).all(|(k, l)| *k <= l.weights()));
            }
        }
    }

    #[test]
    fn erk_follows_its_formula_below_the_cap() {
        let layers = [layer(64, 64, 3), layer(512, 512, 3)];
        let kept = allocate(&Erk, &layers, Sparsity::new(0.95).unwrap());
        let density: Vec<f64> =
            kept.iter().zip(&layers).map(|(k, l)| *k as f64 / l.weights() as f64).collect();
        let raw = |c: f64| (c + c + 6.0) / (c * c * 9.0);
        assert!((density[0] / density[1] - raw(64.0) / raw(512.0)).abs() < 1e-2, "{density:?}");
    }

    #[test]
    fn erk_caps_small_layers_at_dense() {
        let layers = [layer(8, 8, 1), layer(512, 512, 3)];
        assert_eq!(allocate(&Erk, &layers, Sparsity::new(0.9).unwrap())[0], 64);
    }
}
