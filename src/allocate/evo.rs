use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dp::{damages, least_damage};
use super::{Allocator, Budget, Erk, Failed, Judge, LEVELS, LayerProfile, Nobody, allocate};
use crate::recipe::{EvoSpec, PruneSpec};

/// Evolutionary search (`EvoPress`, arXiv 2410.14649): levels move from one layer to another at equal cost, and the
/// damage of the whole network decides. It starts from the better of `dp` and `erk`.
#[derive(Clone, Copy, Debug)]
pub struct Evo;

impl Allocator for Evo {
    fn name(&self) -> &'static str {
        "evo"
    }

    fn about(&self) -> &'static str {
        "exchanges between layers for as long as the whole network gains (evolutionary, from dp or erk)"
    }

    fn measures(&self) -> bool {
        true
    }

    fn densities(
        &self,
        layers: &[LayerProfile],
        budget: &Budget,
        spec: &PruneSpec,
        judge: &mut dyn Judge,
    ) -> Result<Vec<f64>, Failed> {
        let dp = least_damage(layers, budget, &damages(layers.len(), judge)?);
        let EvoSpec { generations, offspring, exchanges } = spec.evo;
        let erk = nearest(layers, budget, spec)?;
        let mut best = [(judge.whole(&dp)?, dp), (judge.whole(&erk)?, erk)]
            .into_iter()
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .expect("two are compared");
        // Chance only proposes: the judge, who has the run's seed, decides.
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..generations {
            let parent = best.1.clone();
            for _ in 0..offspring {
                let child = mutated(&parent, layers, budget, exchanges, &mut rng);
                let damage = judge.whole(&child)?;
                if damage < best.0 {
                    best = (damage, child);
                }
            }
        }
        Ok(best.1.into_iter().map(|level| LEVELS[level]).collect())
    }
}

/// The levels nearest to what `erk` keeps.
fn nearest(layers: &[LayerProfile], budget: &Budget, spec: &PruneSpec) -> Result<Vec<usize>, Failed> {
    let kept = allocate(&Erk, layers, budget, spec, &mut Nobody)?;
    let level = |(kept, layer): (&usize, &LayerProfile)| {
        let density = layer.density(*kept).max(f64::MIN_POSITIVE);
        let distance = |level: &usize| (LEVELS[*level] / density).ln().abs();
        (0..LEVELS.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("there are levels")
    };
    let mut levels: Vec<usize> = kept.iter().zip(layers).map(level).collect();
    repair(&mut levels, layers, budget, &mut ChaCha8Rng::seed_from_u64(0));
    Ok(levels)
}

/// A few layers go up a level, others down until the budget is met again.
fn mutated(
    parent: &[usize],
    layers: &[LayerProfile],
    budget: &Budget,
    exchanges: usize,
    rng: &mut impl Rng,
) -> Vec<usize> {
    let mut levels = parent.to_vec();
    for _ in 0..rng.random_range(1..=exchanges) {
        let layer = rng.random_range(0..levels.len());
        levels[layer] = levels[layer].saturating_sub(1);
    }
    repair(&mut levels, layers, budget, rng);
    levels
}

/// Takes layers down a level, at random, until the budget is met or nothing is left to take.
fn repair(levels: &mut [usize], layers: &[LayerProfile], budget: &Budget, rng: &mut impl Rng) {
    let last = LEVELS.len() - 1;
    let cost = |levels: &[usize]| -> f64 {
        levels.iter().enumerate().map(|(i, level)| budget.cost(i, &layers[i], LEVELS[*level])).sum()
    };
    while cost(levels) > budget.limit() && levels.iter().any(|level| *level < last) {
        let layer = rng.random_range(0..levels.len());
        levels[layer] = (levels[layer] + 1).min(last);
    }
}
