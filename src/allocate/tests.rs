use margay_core::Sparsity;
use proptest::prelude::*;

use super::dp::least_damage;
use super::*;
use crate::models::Design;
use crate::recipe::PruneSpec;

fn layer(out: usize, inner: usize, k: usize) -> LayerProfile {
    LayerProfile { name: format!("{out}x{inner}x{k}"), out, inner, kernel: [k, k], trunk: false }
}

/// Each layer does its own damage, the more the less is kept of it.
struct Additive(Vec<f64>);

impl Judge for Additive {
    fn single(&mut self, layer: usize, level: usize) -> Result<f64, Failed> {
        Ok(self.0[layer] * -LEVELS[level].ln())
    }

    fn whole(&mut self, levels: &[usize]) -> Result<f64, Failed> {
        levels.iter().enumerate().map(|(layer, level)| self.single(layer, *level)).sum()
    }
}

proptest! {
    #[test]
    fn every_allocator_meets_the_total_exactly(
        shapes in prop::collection::vec((1_usize..80, 1_usize..80, 1_usize..4), 1..6),
        fraction in 0.0_f64..0.999,
    ) {
        let layers: Vec<_> = shapes.iter().map(|(o, i, k)| layer(*o, *i, *k)).collect();
        let total: usize = layers.iter().map(LayerProfile::weights).sum();
        let sparsity = Sparsity::new(fraction).unwrap();
        let budget = Budget::of_weights(&layers, sparsity);
        for allocator in ALLOCATORS {
            let mut judge = Additive((0..layers.len()).map(|i| 1.0 + i as f64).collect());
            let kept = allocate(*allocator, &layers, &budget, &PruneSpec::default(), &mut judge).unwrap();
            prop_assert_eq!(kept.iter().sum::<usize>(), sparsity.kept(total), "{}", allocator.name());
            prop_assert!(kept.iter().zip(&layers).all(|(k, l)| *k <= l.weights()));
        }
    }

    #[test]
    fn every_allocator_stays_within_a_cost(
        shapes in prop::collection::vec((8_usize..80, 8_usize..80, 1_usize..4), 2..6),
        share in 0.2_f64..1.0,
    ) {
        let layers: Vec<_> = shapes.iter().map(|(o, i, k)| layer(*o, *i, *k)).collect();
        // A sparse kernel that gains nothing above a density of a half.
        let cost = |l: &LayerProfile| {
            let dense = l.weights() as f64;
            Cost::new(vec![(0.0, 0.1 * dense), (0.5, dense), (0.9, 1.5 * dense), (1.0, dense)])
        };
        let costs: Vec<Cost> = layers.iter().map(cost).collect();
        let limit = share * layers.iter().map(|l| l.weights() as f64).sum::<f64>();
        let budget = Budget::Cost { limit, layers: costs.clone() };
        for allocator in ALLOCATORS {
            let mut judge = Additive(vec![1.0; layers.len()]);
            let kept = allocate(*allocator, &layers, &budget, &PruneSpec::default(), &mut judge).unwrap();
            let density = |i: usize| kept[i] as f64 / layers[i].weights() as f64;
            let spent: f64 = (0..layers.len()).map(|i| costs[i].at(density(i))).sum();
            prop_assert!(spent <= limit * 1.001, "{}: {spent} of {limit}", allocator.name());
            // Between a half and 1 nothing is won by pruning.
            prop_assert!((0..layers.len()).all(|i| density(i) < 0.51 || kept[i] == layers[i].weights()));
        }
    }
}

#[test]
fn erk_follows_its_formula_below_the_cap() {
    let layers = [layer(64, 64, 3), layer(512, 512, 3)];
    let budget = Budget::of_weights(&layers, Sparsity::new(0.95).unwrap());
    let kept = allocate(&Erk, &layers, &budget, &PruneSpec::default(), &mut Nobody).unwrap();
    let density: Vec<f64> = kept.iter().zip(&layers).map(|(k, l)| *k as f64 / l.weights() as f64).collect();
    let raw = |c: f64| (c + c + 6.0) / (c * c * 9.0);
    assert!((density[0] / density[1] - raw(64.0) / raw(512.0)).abs() < 1e-2, "{density:?}");
}

#[test]
fn erk_thins_layers_by_the_root_of_what_a_weight_costs() {
    let layers = [layer(64, 64, 3), layer(64, 64, 3)];
    let costs = vec![Cost::linear(16.0), Cost::linear(1.0)];
    let kept = allocate(
        &Erk,
        &layers,
        &Budget::Cost { limit: 2.0, layers: costs },
        &PruneSpec::default(),
        &mut Nobody,
    )
    .unwrap();
    // 16 · d + 4 · d = 2, of which the layer that costs less keeps 4 · d.
    let density = [0, 1].map(|i| layers[i].density(kept[i]));
    assert!((density[0] - 0.1).abs() < 1e-3 && (density[1] - 0.4).abs() < 1e-3, "{density:?}");
}

#[test]
fn erk_caps_small_layers_at_dense() {
    let layers = [layer(8, 8, 1), layer(512, 512, 3)];
    let budget = Budget::of_weights(&layers, Sparsity::new(0.9).unwrap());
    assert_eq!(allocate(&Erk, &layers, &budget, &PruneSpec::default(), &mut Nobody).unwrap()[0], 64);
}

/// The least sum of damages by trying every combination.
fn by_trying(layers: &[LayerProfile], budget: &Budget, damages: &[Vec<f64>]) -> f64 {
    let mut least = f64::INFINITY;
    for code in 0..LEVELS.len().pow(layers.len() as u32) {
        let level = |i: usize| code / LEVELS.len().pow(i as u32) % LEVELS.len();
        let cost: f64 = (0..layers.len()).map(|i| budget.cost(i, &layers[i], LEVELS[level(i)])).sum();
        if cost <= budget.limit() {
            least = least.min((0..layers.len()).map(|i| damages[i][level(i)]).sum());
        }
    }
    least
}

#[test]
fn dp_finds_the_least_damage_there_is() {
    let layers = [layer(40, 30, 3), layer(64, 64, 1), layer(100, 20, 3)];
    for (fraction, weights) in [(0.5, [1.0, 2.0, 0.1]), (0.9, [0.2, 5.0, 1.0]), (0.97, [1.0, 1.0, 1.0])] {
        let budget = Budget::of_weights(&layers, Sparsity::new(fraction).unwrap());
        let damages: Vec<Vec<f64>> =
            weights.iter().map(|w| LEVELS.iter().map(|d| w * (1.0 / d - 1.0).powf(0.7)).collect()).collect();
        let levels = least_damage(&layers, &budget, &damages);
        let found: f64 = levels.iter().enumerate().map(|(i, level)| damages[i][*level]).sum();
        let least = by_trying(&layers, &budget, &damages);
        // Costs are rounded up to a part of the budget.
        assert!(found <= least * 1.02 && found >= least, "{fraction}: {found} against {least}");
    }
}

#[test]
fn evo_is_never_worse_than_what_it_starts_from() {
    /// What the first two layers lose adds up to more than its parts.
    struct Entangled;
    impl Judge for Entangled {
        fn single(&mut self, _layer: usize, level: usize) -> Result<f64, Failed> {
            Ok(-LEVELS[level].ln())
        }
        fn whole(&mut self, levels: &[usize]) -> Result<f64, Failed> {
            let lost = |i: usize| -LEVELS[levels[i]].ln();
            Ok(lost(0) * lost(1) + lost(2))
        }
    }
    let layers = [layer(60, 60, 1), layer(60, 60, 1), layer(60, 60, 1)];
    let budget = Budget::of_weights(&layers, Sparsity::new(0.9).unwrap());
    let damage = |allocator: &dyn Allocator| {
        let densities = allocator.densities(&layers, &budget, &PruneSpec::default(), &mut Entangled).unwrap();
        let level = |d: &f64| LEVELS.iter().position(|level| level == d).unwrap();
        Entangled.whole(&densities.iter().map(level).collect::<Vec<_>>()).unwrap()
    };
    assert!(damage(&Evo) < damage(&Dp), "{} against {}", damage(&Evo), damage(&Dp));
}

#[test]
fn a_target_below_the_least_cost_is_refused() {
    let layers = [layer(10, 10, 1)];
    let budget = Budget::Cost { limit: 1.0, layers: vec![Cost::new(vec![(0.0, 2.0), (1.0, 5.0)])] };
    let error = allocate(&Uniform, &layers, &budget, &PruneSpec::default(), &mut Nobody).unwrap_err();
    assert!(error.to_string().contains("out of reach"), "{error}");
}

/// Layers of a network that no shortcut leads around.
fn trunk(variant: &str) -> Vec<String> {
    let design = Design { variant: variant.into(), width: None, depth: None, classes: 5, image: [64, 64] };
    let layers = profiles(&crate::models::build(&design).unwrap());
    layers.into_iter().filter(|layer| layer.trunk).map(|layer| layer.name).collect()
}

#[test]
fn only_layers_without_a_way_around_are_trunk() {
    let downsamplings = [1, 2, 3].map(|stage| format!("stages.{stage}.downsample.1"));
    assert_eq!(trunk("convnext_atto"), downsamplings);
    for variant in ["resnet18", "resnet50", "vit_tiny_patch16"] {
        assert_eq!(trunk(variant), Vec::<String>::new(), "{variant}");
    }
}

#[test]
fn trunk_layers_are_denser_under_erk() {
    let [inside, mut trunk] = [layer(64, 64, 1), layer(64, 64, 1)];
    trunk.trunk = true;
    let layers = [inside, trunk];
    let budget = Budget::of_weights(&layers, Sparsity::new(0.9).unwrap());
    let kept = allocate(&Erk, &layers, &budget, &PruneSpec::default(), &mut Nobody).unwrap();
    assert_eq!(kept.iter().sum::<usize>(), 819);
    assert!((3.9..4.1).contains(&(kept[1] as f64 / kept[0] as f64)), "{kept:?}");
}

/// Three layers that cost as much as their weights, and a budget of some of that.
fn linear(share: f64) -> (Vec<LayerProfile>, Budget) {
    let layers = vec![layer(64, 64, 3), layer(128, 64, 1), layer(256, 128, 3)];
    let costs: Vec<Cost> = layers.iter().map(|l| Cost::linear(l.weights() as f64)).collect();
    let limit = share * layers.iter().map(|l| l.weights() as f64).sum::<f64>();
    (layers, Budget::Cost { limit, layers: costs })
}

#[test]
fn what_a_network_takes_as_a_whole_corrects_the_costs_of_its_layers() {
    for (more, each) in [(1.3, 0.0), (0.6, 0.0), (1.0, 900.0), (1.2, -500.0)] {
        let (layers, budget) = linear(0.1);
        let limit = budget.limit();
        let took = |kept: &[usize]| more * kept.iter().sum::<usize>() as f64 + each * kept.len() as f64;
        let mut runs = 0;
        let spread = |budget: &Budget| allocate(&Erk, &layers, budget, &PruneSpec::default(), &mut Nobody);
        let run = |kept: &[usize]| {
            runs += 1;
            Ok(took(kept))
        };
        let kept = corrected(budget, &layers, spread, run).unwrap();
        assert!((took(&kept) / limit - 1.0).abs() <= 0.02, "{more}, {each}: {} of {limit}", took(&kept));
        assert!((2..=4).contains(&runs), "{more}, {each}: {runs} runs");
    }
}

#[test]
fn a_network_that_takes_too_long_whatever_it_keeps_is_told() {
    let (layers, budget) = linear(0.1);
    let limit = budget.limit();
    let spread = |budget: &Budget| allocate(&Erk, &layers, budget, &PruneSpec::default(), &mut Nobody);
    assert!(corrected(budget, &layers, spread, |_| Ok(3.9 * limit)).is_err());
}
