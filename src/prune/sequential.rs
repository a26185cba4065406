use std::collections::BTreeMap;
use std::time::Instant;

use margay_core::{Mask, Node, Op};
use tch::{Kind, Tensor};

use super::{LayerProblem, SolveError, Solver, relative_error};
use crate::calibrate::{Hessian, hessians};
use crate::progress::Progress;
use crate::torch::{TorchModel, stream, tensor_to_mask};

/// What became of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerOutcome {
    /// Node name.
    pub name: String,
    /// Weight matrix `[out, in / groups · kh · kw]`.
    pub matrix: [usize; 2],
    /// Weights kept.
    pub kept: usize,
    /// Share of the layer's output energy lost on the calibration images, 0–1.
    pub error: f64,
    /// Time taken.
    pub seconds: f64,
}

/// Masks by weight name, and what became of each layer in execution order.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Kept weights by canonical weight name.
    pub masks: BTreeMap<String, Mask>,
    /// One entry per pruned layer.
    pub layers: Vec<LayerOutcome>,
}

/// Prunes the layers named in `keep` in place, each on the inputs its pruned predecessors produce.
///
/// `keep` maps node names to the number of weights that stay. Layers that keep all are left alone.
pub fn sequential(
    model: &mut TorchModel,
    batches: &[Tensor],
    solver: &dyn Solver,
    keep: &BTreeMap<String, usize>,
    damping: f64,
    progress: &mut dyn Progress,
) -> Result<Pruned, SolveError> {
    let mut pruned = Pruned::default();
    progress.start("prune", keep.len() as u64);
    stream(model, batches, |id, inputs, model| -> Result<(), SolveError> {
        let node = model.graph.node(id).clone();
        let Some(&kept) = keep.get(&node.name) else { return Ok(()) };
        progress.status(&node.name);
        let started = Instant::now();
        let (mask, error) = prune_layer(model, &node, inputs, solver, kept, damping)?;
        let matrix = node.matrix().unwrap_or_default();
        let seconds = started.elapsed().as_secs_f64();
        pruned.layers.push(LayerOutcome { name: node.name.clone(), matrix, kept, error, seconds });
        pruned.masks.insert(node.weight(), mask);
        progress.advance(1);
        Ok(())
    })?;
    progress.finish();
    Ok(pruned)
}

fn prune_layer(
    model: &mut TorchModel,
    node: &Node,
    inputs: &[Tensor],
    solver: &dyn Solver,
    keep: usize,
    damping: f64,
) -> Result<(Mask, f64), SolveError> {
    let weight = model.get(&node.weight())?.f_flatten(1, -1)?;
    let statistics = hessians(node, inputs)?;
    let groups = match &node.op {
        Op::Conv2d(conv) => conv.groups,
        _ => 1,
    };
    let parts = weight.f_chunk(groups as i64, 0)?;
    let solved = solve_groups(&parts, &statistics, solver, keep, damping)?;
    let new = Tensor::f_cat(&solved.iter().map(|s| &s.0).collect::<Vec<_>>(), 0)?;
    let mask = Tensor::f_cat(&solved.iter().map(|s| &s.1).collect::<Vec<_>>(), 0)?;
    let error = solved.iter().map(|s| s.2).sum::<f64>() / groups as f64;
    model.set(&node.weight(), &new)?;
    Ok((tensor_to_mask(&mask)?, error))
}

fn solve_groups(
    parts: &[Tensor],
    statistics: &[Hessian],
    solver: &dyn Solver,
    keep: usize,
    damping: f64,
) -> Result<Vec<(Tensor, Tensor, f64)>, SolveError> {
    let groups = parts.len();
    let solve = |(g, (weight, hessian)): (usize, (&Tensor, &Hessian))| {
        let keep = keep * (g + 1) / groups - keep * g / groups;
        let problem = LayerProblem { weight, hessian, keep, damping };
        let solution = if keep == weight.numel() {
            let mask = weight.f_ones_like()?.f_to_kind(Kind::Bool)?;
            super::LayerSolution { weight: weight.f_detach_copy()?, mask }
        } else {
            solver.solve(&problem)?
        };
        let error = relative_error(weight, &solution.weight, hessian)?;
        Ok((solution.weight, solution.mask, error))
    };
    parts.iter().zip(statistics).enumerate().map(solve).collect()
}
