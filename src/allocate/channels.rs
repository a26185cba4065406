//! How many hidden channels stay, so that the whole meets one budget.

use margay_core::{Graph, Hidden};

use super::budget::largest;
use super::{Allocator, Budget, Failed, LayerProfile, Nobody, Unreachable};
use crate::recipe::PruneSpec;

/// Layers on both sides of hidden channels, as positions among the prunable layers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Between {
    producer: usize,
    reader: usize,
    channels: usize,
}

/// Weights that each layer keeps when whole channels go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slim {
    /// What the layer's solver is told: columns of channels that stay.
    pub solved: Vec<usize>,
    /// What is left when the rows that write the other channels have gone, too.
    pub left: Vec<usize>,
}

/// Keeps of each layer's hidden channels the density that an allocator which goes by shape gives their reader, up to a
/// common factor that meets the budget. At least one channel stays of each.
pub fn slim(
    allocator: &dyn Allocator,
    graph: &Graph,
    layers: &[LayerProfile],
    budget: &Budget,
    spec: &PruneSpec,
) -> Result<Slim, Failed> {
    let hidden: Vec<Between> =
        graph.hidden().iter().filter_map(|hidden| between(graph, layers, hidden)).collect();
    let readers: Vec<LayerProfile> = hidden.iter().map(|hidden| layers[hidden.reader].clone()).collect();
    let densities = allocator.densities(&readers, budget, spec, &mut Nobody)?;
    let wanted = |factor: f64| -> Vec<f64> {
        let share = |(hidden, density): (&Between, &f64)| {
            let channels = hidden.channels as f64;
            (factor * density * channels).clamp(1.0, channels)
        };
        hidden.iter().zip(&densities).map(share).collect()
    };
    let cost = |widths: &[f64]| -> f64 {
        let costs = layers.iter().zip(shares(&hidden, widths, layers.len())).enumerate();
        costs.map(|(i, (layer, [columns, rows]))| budget.cost(i, layer, columns * rows)).sum()
    };
    // Shares of weights are products of fractions: a budget that is met exactly may seem to be missed by a rounding.
    let limit = budget.limit() + 0.5;
    let least = cost(&wanted(0.0));
    if least > limit {
        return Err(Unreachable { limit: budget.limit(), least }.into());
    }
    let wanted = wanted(largest(|factor| cost(&wanted(factor)) <= limit));
    let widths = whole(&wanted, &hidden, |widths| cost(widths) <= limit);
    let shares = shares(&hidden, &widths, layers.len());
    let kept = |share: fn([f64; 2]) -> f64| {
        let weights = layers.iter().map(|layer| layer.weights() as f64);
        weights.zip(&shares).map(|(weights, of)| (weights * share(*of)).round() as usize).collect()
    };
    Ok(Slim { solved: kept(|[columns, _]| columns), left: kept(|[columns, rows]| columns * rows) })
}

/// Whole channels: rounded down, then up again while it fits, first where the largest share is missing.
fn whole(wanted: &[f64], hidden: &[Between], fits: impl Fn(&[f64]) -> bool) -> Vec<f64> {
    let mut widths: Vec<f64> = wanted.iter().map(|width| width.floor()).collect();
    let missing = |i: &usize| (wanted[*i] - wanted[*i].floor()) / hidden[*i].channels as f64;
    let mut order: Vec<usize> = (0..wanted.len()).filter(|i| missing(i) > 0.0).collect();
    order.sort_by(|a, b| missing(b).total_cmp(&missing(a)));
    for i in order {
        widths[i] += 1.0;
        if !fits(&widths) {
            widths[i] -= 1.0;
        }
    }
    widths
}

fn between(graph: &Graph, layers: &[LayerProfile], hidden: &Hidden) -> Option<Between> {
    let at = |id| layers.iter().position(|layer| layer.name == graph.node(id).name);
    Some(Between { producer: at(hidden.producer)?, reader: at(hidden.reader)?, channels: hidden.channels })
}

/// Shares of columns and rows that stay of each layer.
fn shares(hidden: &[Between], widths: &[f64], layers: usize) -> Vec<[f64; 2]> {
    let mut shares = vec![[1.0; 2]; layers];
    for (hidden, width) in hidden.iter().zip(widths) {
        let share = width / hidden.channels as f64;
        shares[hidden.reader][0] = share;
        shares[hidden.producer][1] = share;
    }
    shares
}

#[cfg(test)]
mod tests {
    use margay_core::Sparsity;

    use super::*;
    use crate::allocate::{Cost, Erk, Uniform, profiles};
    use crate::models::{Design, build};

    fn graph(variant: &str) -> Graph {
        let (variant, image) = (variant.to_owned(), [64, 64]);
        build(&Design { variant, width: None, depth: None, classes: 10, image }).unwrap()
    }

    #[test]
    fn networks_are_as_small_as_asked() {
        for variant in ["resnet18", "resnet50", "vit_tiny_patch16", "convnext_atto"] {
            let graph = graph(variant);
            let layers = profiles(&graph);
            let all: usize = layers.iter().map(LayerProfile::weights).sum();
            for allocator in [&Erk as &dyn Allocator, &Uniform] {
                let budget = Budget::of_weights(&layers, Sparsity::new(0.5).unwrap());
                let Slim { solved, left } =
                    slim(allocator, &graph, &layers, &budget, &PruneSpec::default()).unwrap();
                let share = left.iter().sum::<usize>() as f64 / all as f64;
                // Channels are whole.
                assert!((0.49..=0.5).contains(&share), "{variant} {}: {share}", allocator.name());
                assert!(solved.iter().zip(&left).all(|(solved, left)| left <= solved));
            }
        }
    }

    #[test]
    fn what_no_channel_can_give_is_told() {
        let graph = graph("resnet18");
        let layers = profiles(&graph);
        let limit = 0.001 * layers.iter().map(LayerProfile::weights).sum::<usize>() as f64;
        let error = slim(&Uniform, &graph, &layers, &Budget::Weights(limit as usize), &PruneSpec::default())
            .unwrap_err();
        assert!(error.to_string().contains("out of reach"), "{error}");
        let costs = layers.iter().map(|layer| Cost::linear(layer.weights() as f64)).collect();
        let budget = Budget::Cost { limit: 500.0 * limit, layers: costs };
        assert!(slim(&Uniform, &graph, &layers, &budget, &PruneSpec::default()).is_ok());
    }
}
