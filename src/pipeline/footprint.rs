//! What a run will hold in memory, before it begins.

use margay_core::{Graph, NodeId, Shape};

use super::recover::frozen_share;
use crate::allocate::{LayerProfile, profiles};
use crate::calibrate::AT_A_TIME;
use crate::distill::frozen_nodes;
use crate::recipe::{Recipe, RecoverySpec, Schedule};

/// Bytes of a number.
const NUMBER: usize = 4;
/// Bytes of libtorch itself.
const LIBTORCH: usize = 350 << 20;
/// Copies of the weights: the dense network, the pruned one, and the one that is made.
const NETWORKS: usize = 3;
/// Copies of the shots: split, together, and shuffled into calibration batches.
const SHOTS: usize = 3;
/// Values of a layer's size that are there while a batch passes it.
const PASSING: usize = 3;
/// Values that a pass for gradients holds, for each that it makes.
const GRADIENTS: usize = 2;

/// Estimate of the bytes that a run holds at its peak, which is one of three: the pass for the gradients by which outputs
/// count, the layer with the most columns and what flows past it, or a step of finetuning.
pub fn peak_bytes(graph: &Graph, images: usize, recipe: &Recipe) -> u64 {
    let sizes: Vec<usize> =
        graph.shapes().expect("a model's graph was checked").into_iter().map(Shape::len).collect();
    let weights: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let base = NETWORKS * weights + SHOTS * images * graph.input.len();
    let all: usize = sizes.iter().sum();
    let stages = [
        GRADIENTS * AT_A_TIME * all,
        pruning(graph, &sizes, images, recipe),
        training(graph, &sizes, recipe),
    ];
    let most = stages.into_iter().max().expect("there are three stages");
    (LIBTORCH + NUMBER * (base + most)) as u64
}

/// Numbers that pruning holds: what flows past a layer, of the dense network, too, if that goes beside, one batch on its way,
/// and moments of the widest layer with a factor and work space.
fn pruning(graph: &Graph, sizes: &[usize], images: usize, recipe: &Recipe) -> usize {
    let flows = if recipe.prune.correction > 0.0 { 2 } else { 1 };
    let largest = sizes.iter().copied().fold(0, usize::max);
    let columns = |layer: &LayerProfile| layer.weights() / layer.out;
    let moments = (6 + 4 * flows) * profiles(graph).iter().map(columns).fold(0, usize::max).pow(2);
    flows * images * live(graph, sizes) + PASSING * recipe.prune.batch.min(images) * largest + moments
}

/// The most values of an image that layers which are pruned, or anything behind them, have yet to read.
fn live(graph: &Graph, sizes: &[usize]) -> usize {
    let last_reader = graph.last_readers();
    let at = |id: NodeId| -> usize {
        (0..id.index()).filter(|node| last_reader[*node] >= id.index()).map(|node| sizes[node]).sum()
    };
    graph.prunable().map(at).fold(0, usize::max)
}

/// Numbers that a step of finetuning holds.
fn training(graph: &Graph, sizes: &[usize], recipe: &Recipe) -> usize {
    let RecoverySpec { schedule, batch, recompute, .. } = recipe.recovery;
    let trained: usize = sizes[frozen_nodes(graph, frozen_share(recipe))..].iter().sum();
    match (schedule, recompute) {
        (Schedule::None, _) => 0,
        // What passes between parts and one part: far less, as in `segments`.
        (_, true) => batch * trained / 4,
        (_, false) => batch * trained,
    }
}
