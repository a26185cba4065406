use margay_core::Sparsity;

use super::LayerProfile;

/// What the layers may keep or cost together.
#[derive(Clone, Debug, PartialEq)]
pub enum Budget {
    /// So many weights, exactly.
    Weights(usize),
    /// So much of something that a layer costs, such as milliseconds, at most.
    Cost {
        /// The most that all layers may cost together.
        limit: f64,
        /// What each layer costs.
        layers: Vec<Cost>,
    },
}

/// What a layer costs by how much of it stays: points `(density, cost)`, sparse first, up to density 1.
///
/// A sparser layer can always be run as a denser one, so that it never costs more.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost(Vec<(f64, f64)>);

/// The budget is less than what the layers cost at least.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the target is out of reach: {}; relax it", self.why())]
pub struct Unreachable {
    /// What they may cost.
    pub limit: f64,
    /// What they cost at the lowest densities.
    pub least: f64,
}

impl Unreachable {
    fn why(self) -> String {
        let Self { limit, least } = self;
        if limit <= 0.0 {
            return "what cannot be pruned alone costs more than it allows".to_owned();
        }
        format!("it leaves {limit:.3} for the layers that can be pruned, which cost {least:.3} at least")
    }
}

/// Layers keep at least this share of their weights.
const LEAST_DENSITY: f64 = 1e-3;

impl Cost {
    /// From measured points in any order.
    pub fn new(mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        for i in (1..points.len()).rev() {
            points[i - 1].1 = points[i - 1].1.min(points[i].1);
        }
        Self(points)
    }

    /// In proportion to the density.
    pub fn linear(dense: f64) -> Self {
        Self(vec![(0.0, 0.0), (1.0, dense)])
    }

    /// The same in another unit.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self(self.0.into_iter().map(|(density, cost)| (density, factor * cost)).collect())
    }

    /// The cost at a density, by linear interpolation.
    pub fn at(&self, density: f64) -> f64 {
        let after = self.0.partition_point(|(d, _)| *d < density);
        match (after.checked_sub(1).map(|before| self.0[before]), self.0.get(after).copied()) {
            (Some((d0, c0)), Some((d1, c1))) => c0 + (c1 - c0) * (density - d0) / (d1 - d0),
            (Some((_, cost)), None) | (None, Some((_, cost))) => cost,
            (None, None) => 0.0,
        }
    }

    /// By how much it grows with the density where sparse kernels run. Times are uncertain: at least a tenth of the whole cost.
    fn slope(&self) -> f64 {
        let [sparse, denser] = [0.05, 0.2];
        ((self.at(denser) - self.at(sparse)) / (denser - sparse)).max(0.1 * self.at(1.0))
    }

    /// The largest density that costs no more than this one: where sparse kernels gain nothing, all may stay.
    fn for_free(&self, density: f64) -> f64 {
        let cost = self.at(density);
        let same = self.0.iter().rev().find(|(d, c)| *d > density && *c <= cost * (1.0 + 1e-9));
        same.map_or(density, |(d, _)| *d)
    }
}

impl Budget {
    /// Weights that a sparsity leaves.
    pub fn of_weights(layers: &[LayerProfile], sparsity: Sparsity) -> Self {
        Self::Weights(sparsity.kept(layers.iter().map(LayerProfile::weights).sum()))
    }

    /// The most that may be spent.
    pub fn limit(&self) -> f64 {
        match self {
            Self::Weights(kept) => *kept as f64,
            Self::Cost { limit, .. } => *limit,
        }
    }

    /// What a layer costs at a density.
    pub fn cost(&self, index: usize, layer: &LayerProfile, density: f64) -> f64 {
        match self {
            Self::Weights(_) => density * layer.weights() as f64,
            Self::Cost { layers, .. } => layers[index].at(density),
        }
    }

    /// By how much a layer costs more with its density.
    pub fn slope(&self, index: usize, layer: &LayerProfile) -> f64 {
        match self {
            Self::Weights(_) => layer.weights() as f64,
            Self::Cost { layers, .. } => layers[index].slope(),
        }
    }

    /// The same limit, with costs of layers by which `kept` costs `took`.
    fn corrected(self, took: f64, kept: &[usize], layers: &[LayerProfile]) -> Self {
        let cost = |i: usize| self.cost(i, &layers[i], layers[i].density(kept[i]));
        let factor = (took / (0..layers.len()).map(cost).sum::<f64>()).clamp(0.25, 4.0);
        match self {
            Self::Weights(_) => self,
            Self::Cost { limit, layers: costs } => {
                Self::Cost { limit, layers: costs.into_iter().map(|cost| cost.times(factor)).collect() }
            }
        }
    }

    /// Weights each layer keeps: densities times one factor, capped at 1, so that the budget is met.
    pub fn fill(&self, densities: &[f64], layers: &[LayerProfile]) -> Result<Vec<usize>, Unreachable> {
        match self {
            Self::Weights(kept) => Ok(spread(densities, layers, *kept)),
            Self::Cost { limit, layers: costs } => {
                let density = |factor: f64, i: usize| (factor * densities[i]).clamp(LEAST_DENSITY, 1.0);
                let total = |factor| (0..layers.len()).map(|i| costs[i].at(density(factor, i))).sum::<f64>();
                let least = total(0.0);
                if least > *limit {
                    return Err(Unreachable { limit: *limit, least });
                }
                let factor = largest(|factor| total(factor) <= *limit);
                let kept = |i: usize| {
                    let kept = costs[i].for_free(density(factor, i)) * layers[i].weights() as f64;
                    (kept.floor() as usize).max(1)
                };
                Ok((0..layers.len()).map(kept).collect())
            }
        }
    }
}

/// How often a budget is corrected at most.
const CORRECTIONS: usize = 6;
/// Costs that agree to this share are the same.
const SAME: f64 = 0.02;

/// What `spread` makes of a budget where the costs of layers add up only nearly to that of a network: what it makes is measured
/// as a whole by `run`, and the costs are corrected until the two agree. What came nearest to the limit is taken.
pub fn corrected<E>(
    mut budget: Budget,
    layers: &[LayerProfile],
    mut spread: impl FnMut(&Budget) -> Result<Vec<usize>, E>,
    mut run: impl FnMut(&[usize]) -> Result<f64, E>,
) -> Result<Vec<usize>, E> {
    let mut nearest: Option<(f64, Vec<usize>)> = None;
    for _ in 0..CORRECTIONS {
        let kept = match (spread(&budget), &nearest) {
            // By costs that are corrected nothing is within reach, but something was.
            (Err(_), Some((over, _))) if *over <= SAME => break,
            (kept, _) => kept?,
        };
        if nearest.as_ref().is_some_and(|(_, before)| *before == kept) {
            break;
        }
        let took = run(&kept)?;
        let over = took / budget.limit() - 1.0;
        budget = budget.corrected(took, &kept, layers);
        if nearest.as_ref().is_none_or(|(least, _)| over.abs() < least.abs()) {
            nearest = Some((over, kept));
        }
        if over.abs() <= SAME {
            break;
        }
    }
    Ok(nearest.map(|(_, kept)| kept).expect("a first allocation was run"))
}

/// The largest factor that holds, of those from 0 to a million; at 0 it must hold.
pub(super) fn largest(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1e6);
    if holds(high) {
        return high;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

/// Densities times a common factor, capped at 1, total exact.
///
/// The factor is found by water-filling: layers that reach density 1 are fixed there and the remaining budget is
/// spread over the others. Rounding leftovers go to the largest fractions first.
fn spread(densities: &[f64], layers: &[LayerProfile], budget: usize) -> Vec<usize> {
    let wanted: Vec<f64> = densities.iter().map(|d| d.max(f64::MIN_POSITIVE)).collect();
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
