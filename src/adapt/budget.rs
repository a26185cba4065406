use margay_core::{Graph, NodeId};

use super::Adapter;
use crate::recipe::AdaptSpec;

/// How large the adapter of a layer may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rank of the low-rank part.
    pub rank: usize,
    /// Entries of the sparse part, or coefficients where the adapter mixes fixed matrices.
    pub count: usize,
}

/// Number of parameters of a low-rank part on one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Whatever the rank, unless it is zero.
    pub fixed: usize,
    /// For each rank.
    pub per_rank: usize,
}

/// The size of the adapter of each prunable layer.
///
/// Without a budget each layer gets rank `r` and `d · m · n` entries, as in RoSA. A budget is a share of
/// all weights of the network. Entries are spread by size, ranks evenly; what a layer cannot use, because it
/// is full or because ranks are whole numbers, goes to other layers.
pub fn sizes(graph: &Graph, adapter: &dyn Adapter, spec: &AdaptSpec) -> Vec<(NodeId, Size)> {
    let sites: Vec<(NodeId, [usize; 2])> =
        graph.prunable().filter_map(|id| Some((id, graph.node(id).matrix()?))).collect();
    let matrices: Vec<[usize; 2]> = sites.iter().map(|(_, matrix)| *matrix).collect();
    let sizes = match spec.budget {
        Some(budget) => {
            let all: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
            within(budget * all as f64, &matrices, adapter, spec)
        }
        None => matrices.iter().map(|matrix| plain(*matrix, adapter, spec)).collect(),
    };
    sites.into_iter().zip(sizes).map(|((id, _), size)| (id, size)).collect()
}

/// The size by `r` and `d`.
fn plain([m, n]: [usize; 2], adapter: &dyn Adapter, spec: &AdaptSpec) -> Size {
    let (split, room) = (adapter.split(spec), adapter.room([m, n]));
    let count = (spec.d * (m * n) as f64).round() as usize;
    Size {
        rank: if split.low_rank > 0.0 { spec.r.min(room.rank) } else { 0 },
        count: if split.sparse > 0.0 { count.min(room.count) } else { 0 },
    }
}

/// Sizes that have `total` parameters together, or just below.
fn within(total: f64, matrices: &[[usize; 2]], adapter: &dyn Adapter, spec: &AdaptSpec) -> Vec<Size> {
    let split = adapter.split(spec);
    let (low_rank, sparse) = (total * split.low_rank, total * split.sparse);
    let costs: Vec<Cost> = matrices.iter().map(|matrix| adapter.cost(*matrix)).collect();
    let fixed: usize = costs.iter().map(|cost| cost.fixed).sum();
    let per_rank: usize = costs.iter().map(|cost| cost.per_rank).sum();
    let rank = ((low_rank - fixed as f64) / per_rank.max(1) as f64).max(1.0);
    let ranks: Vec<Demand> = matrices
        .iter()
        .zip(&costs)
        .map(|(matrix, cost)| Demand {
            weight: cost.fixed as f64 + rank * cost.per_rank as f64,
            cost: *cost,
            // A cheap layer could spend on itself what a dear one left over: no layer is far above the mean.
            room: adapter.room(*matrix).rank.min(rank.ceil() as usize),
        })
        .collect();
    let counts: Vec<Demand> = matrices
        .iter()
        .map(|[m, n]| Demand {
            weight: (m * n) as f64,
            cost: Cost { fixed: 0, per_rank: 1 },
            room: adapter.room([*m, *n]).count,
        })
        .collect();
    let pairs = spread(low_rank, &ranks).into_iter().zip(spread(sparse, &counts));
    pairs.map(|(rank, count)| Size { rank, count }).collect()
}

/// What a layer asks of a budget.
struct Demand {
    /// Its share of the budget, up to a common factor.
    weight: f64,
    cost: Cost,
    /// Units that it can use.
    room: usize,
}

impl Demand {
    /// Units for `money`, on top of those that it has, and their price.
    fn buy(&self, has: usize, money: f64) -> (usize, f64) {
        let fixed = if has == 0 { self.cost.fixed as f64 } else { 0.0 };
        let unit = self.cost.per_rank as f64;
        let affordable = ((money - fixed) / unit + 1e-9).floor().max(0.0) as usize;
        let units = affordable.min(self.room - has);
        (units, if units == 0 { 0.0 } else { fixed + units as f64 * unit })
    }
}

/// Units of each layer: by weight, each layer taking what those before it have left over; what is left at the
/// end goes to the layers whose units cost most.
fn spread(total: f64, demands: &[Demand]) -> Vec<usize> {
    let weights: f64 = demands.iter().map(|demand| demand.weight).sum();
    let mut left = 0.0;
    let mut units: Vec<usize> = Vec::with_capacity(demands.len());
    for demand in demands {
        left += total * demand.weight / weights;
        let (bought, price) = demand.buy(0, left);
        left -= price;
        units.push(bought);
    }
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(demands[*i].cost.per_rank));
    for i in order {
        let (bought, price) = demands[i].buy(units[i], left);
        left -= price;
        units[i] += bought;
    }
    units
}
