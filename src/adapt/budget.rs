use margay_core::{Graph, NodeId};

use super::Adapter;
use crate::recipe::AdaptSpec;

/// How large the adapter of a layer may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rank of the low-rank part.
    pub rank: usize,
    /// Entries of the sparse part.
    pub count: usize,
}

/// The size of the adapter of each prunable layer.
///
/// Without a budget each layer gets rank `r` and `d · m · n` entries, as in RoSA. A budget is a share of
/// all weights of the network: the sparse part's is spread by size; ranks, which are whole numbers, are spread
/// evenly, each layer taking what the layers before it have left over.
pub fn sizes(graph: &Graph, adapter: &dyn Adapter, spec: &AdaptSpec) -> Vec<(NodeId, Size)> {
    let sites: Vec<(NodeId, [usize; 2])> =
        graph.prunable().filter_map(|id| Some((id, graph.node(id).matrix()?))).collect();
    let split = adapter.split(spec);
    let Some(budget) = spec.budget else {
        let part = |share: f64, size: f64| if share > 0.0 { size.round() as usize } else { 0 };
        let size = |[m, n]: [usize; 2]| Size {
            rank: part(split.low_rank, spec.r as f64),
            count: part(split.sparse, spec.d * (m * n) as f64),
        };
        return sites.into_iter().map(|(id, matrix)| (id, size(matrix))).collect();
    };
    let all: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let total = budget * all as f64;
    let weights: usize = sites.iter().map(|(_, [m, n])| m * n).sum();
    let cost: usize = sites.iter().map(|(_, matrix)| adapter.rank_cost(*matrix)).sum();
    let rank = total * split.low_rank / cost.max(1) as f64;
    let density = total * split.sparse / weights.max(1) as f64;
    let (mut owed, mut due) = (0.0, 0.0);
    let mut size = |matrix: [usize; 2]| {
        let one = adapter.rank_cost(matrix) as f64;
        owed += rank * one;
        let whole = (owed / one + 1e-9).floor();
        owed -= whole * one;
        due += density * (matrix[0] * matrix[1]) as f64;
        let count = (due + 1e-9).floor();
        due -= count;
        Size { rank: whole as usize, count: count as usize }
    };
    sites.into_iter().map(|(id, matrix)| (id, size(matrix))).collect()
}
