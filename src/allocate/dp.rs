use super::{Allocator, Budget, Failed, Judge, LEVELS, LayerProfile};
use crate::recipe::PruneSpec;

/// The levels whose damages, each measured with all other layers dense, have the least sum (SPDY, arXiv
/// 2201.13096), by dynamic programming over the budget.
#[derive(Clone, Copy, Debug)]
pub struct Dp;

/// Parts that the budget is cut into.
const PARTS: usize = 4096;

impl Allocator for Dp {
    fn name(&self) -> &'static str {
        "dp"
    }

    fn about(&self) -> &'static str {
        "least sum of the damages measured layer by layer (dynamic programming)"
    }

    fn measures(&self) -> bool {
        true
    }

    fn densities(
        &self,
        layers: &[LayerProfile],
        budget: &Budget,
        _spec: &PruneSpec,
        judge: &mut dyn Judge,
    ) -> Result<Vec<f64>, Failed> {
        let levels = least_damage(layers, budget, &damages(layers.len(), judge)?);
        Ok(levels.into_iter().map(|level| LEVELS[level]).collect())
    }
}

/// Damage by layer and level; a sparser level does no less.
pub(super) fn damages(layers: usize, judge: &mut dyn Judge) -> Result<Vec<Vec<f64>>, Failed> {
    let of_layer = |layer: usize, judge: &mut dyn Judge| {
        let mut worst = 0.0_f64;
        let mut damages = vec![0.0];
        for level in 1..LEVELS.len() {
            worst = worst.max(judge.single(layer, level)?);
            damages.push(worst);
        }
        Ok(damages)
    };
    (0..layers).map(|layer| of_layer(layer, judge)).collect()
}

/// The level of each layer with the least sum of damages within the budget; the lowest ones if none is.
///
/// ```text
/// best[l][b] = min over levels j of damage[l][j] + best[l − 1][b − cost[l][j]]
/// ```
pub(super) fn least_damage(layers: &[LayerProfile], budget: &Budget, damages: &[Vec<f64>]) -> Vec<usize> {
    let part = budget.limit() / PARTS as f64;
    let parts = |layer: usize, level: usize| {
        (budget.cost(layer, &layers[layer], LEVELS[level]) / part).ceil() as usize
    };
    let mut best = vec![0.0; PARTS + 1];
    let mut taken: Vec<Vec<usize>> = Vec::with_capacity(layers.len());
    for (layer, damages) in damages.iter().enumerate() {
        let costs: Vec<usize> = (0..LEVELS.len()).map(|level| parts(layer, level)).collect();
        let choose = |spent: usize| {
            let possible = (0..LEVELS.len()).filter(|level| costs[*level] <= spent);
            let total = |level: usize| damages[level] + best[spent - costs[level]];
            possible.map(|level| (total(level), level)).min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let chosen: Vec<(f64, usize)> =
            (0..=PARTS).map(|spent| choose(spent).unwrap_or((f64::INFINITY, LEVELS.len() - 1))).collect();
        best = chosen.iter().map(|(total, _)| *total).collect();
        taken.push(chosen.into_iter().map(|(_, level)| level).collect());
    }
    let (mut left, mut levels) = (PARTS, vec![0; layers.len()]);
    for layer in (0..layers.len()).rev() {
        levels[layer] = taken[layer][left];
        left = left.saturating_sub(parts(layer, levels[layer]));
    }
    levels
}
