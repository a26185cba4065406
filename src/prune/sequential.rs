use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use margay_core::{Hidden, Mask, Node, NodeId, Op, Pattern};
use tch::{Kind, Tensor};

use super::branch::Branch;
use super::{LayerProblem, LayerSolution, SolveError, Solver, corrected, relative_error};
use crate::calibrate::{Calibration, Hessian, Influence, Seen};
use crate::progress::Progress;
use crate::recipe::PruneSpec;
use crate::torch::{Flow, Norms, TorchModel, apply, mask_to_tensor, tensor_to_mask};

/// How layers are pruned, beside how many weights each keeps.
#[derive(Debug)]
pub struct Pruning<'a> {
    /// Chooses masks and values.
    pub solver: &'a dyn Solver,
    /// What stays or goes as one, what is compensated for, and options of the solvers.
    pub spec: PruneSpec,
    /// Added to the diagonal of `H`: what `spec` may leave to the held-out fold.
    pub damping: f64,
    /// How much the outputs of a layer count; absent layers: all the same.
    pub influence: Influence,
    /// Masks chosen before, by weight name: of these layers the values alone are sought, if the solver can.
    pub masks: BTreeMap<String, Mask>,
}

/// What a layer may keep.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Number of weights, as near as the pattern allows.
    pub keep: usize,
    /// Which supports it may have.
    pub pattern: Pattern,
}

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
/// `keep` maps node names to the number of weights that stay. With correction the dense network runs beside, from the
/// first pruned layer on.
pub fn sequential(
    model: &mut TorchModel,
    calibration: &Calibration,
    pruning: &Pruning,
    keep: &BTreeMap<String, usize>,
    progress: &mut dyn Progress,
) -> Result<Pruned, SolveError> {
    let _no_grad = tch::no_grad_guard();
    let mut pruned = Pruned::default();
    let graph = model.graph.clone();
    let mut flow = Flow::new(&graph, &calibration.batches);
    let mut dense: Option<(TorchModel, Flow)> = None;
    let hidden = pruning.spec.pattern.hidden(&graph);
    progress.start("prune", keep.len() as u64);
    for id in graph.ids() {
        let node = graph.node(id);
        let Some(&kept) = keep.get(&node.name) else { continue };
        progress.status(&node.name);
        let started = Instant::now();
        let matrix = node.matrix().expect("only layers with a weight matrix are pruned");
        if dense.is_none() && kept == matrix[0] * matrix[1] {
            // Whole, and nothing before it is to be made good.
            pruned.masks.insert(node.weight(), Mask::ones(kept));
            pruned.layers.push(LayerOutcome {
                name: node.name.clone(),
                matrix,
                kept,
                error: 0.0,
                seconds: 0.0,
            });
            progress.advance(1);
            continue;
        }
        flow.advance(id.index(), model)?;
        if let Some((dense, beside)) = &mut dense {
            beside.advance(id.index(), dense)?;
        }
        let hessians =
            moments(model, id, &flow, dense.as_ref().map(|(_, beside)| beside), calibration, pruning)?;
        if dense.is_none() && pruning.spec.correction > 0.0 {
            dense = Some((model.deep_clone()?, flow.fork()));
        }
        let read = hidden.iter().find(|hidden| hidden.reader == id);
        let quota = Quota { keep: kept, pattern: pruning.spec.pattern.pattern(node, read) };
        let (mask, error) = prune_layer(model, node, &hessians, pruning, quota)?;
        let seconds = started.elapsed().as_secs_f64();
        let kept = mask.count();
        pruned.layers.push(LayerOutcome { name: node.name.clone(), matrix, kept, error, seconds });
        if let Some(hidden) = read {
            forget(model, hidden, &mask, &mut pruned)?;
        }
        pruned.masks.insert(node.weight(), mask);
        progress.advance(1);
    }
    progress.finish();
    Ok(pruned)
}

/// The Hessian of each group of a layer that comes next in the pruned network, with what its outputs lack for those of the
/// dense network, if that runs beside.
fn moments(
    model: &TorchModel,
    id: NodeId,
    flow: &Flow,
    beside: Option<&Flow>,
    calibration: &Calibration,
    pruning: &Pruning,
) -> Result<Vec<Hessian>, SolveError> {
    let node = model.graph.node(id);
    let inputs = flow.inputs();
    let mut seen =
        Seen { positions: pruning.influence.positions.get(&node.name), ..Seen::plain(node, &inputs) };
    let Some(beside) = beside else { return Ok(calibration.hessians(&seen)?) };
    let wanted = beside.inputs();
    let branch = pruning.spec.stream.then(|| Branch::ending(model, id)).transpose()?.flatten();
    let without_bias = unbiased(node);
    let gap = |batch: usize| {
        let lost = wanted[batch].f_sub(&inputs[batch])?;
        let lost = apply(&without_bias, model, Norms::Stored, &[&lost])?;
        Ok(match &branch {
            Some(branch) => lost.f_add(&branch.lacks(flow, beside, batch)?)?,
            None => lost,
        })
    };
    seen.gap = Some(&gap);
    Ok(calibration.hessians(&seen)?)
}

/// The layer without its bias: what it makes of a difference of inputs.
fn unbiased(node: &Node) -> Node {
    let mut node = node.clone();
    match &mut node.op {
        Op::Conv2d(conv) => conv.bias = false,
        Op::Linear(linear) => linear.bias = false,
        _ => unreachable!("only layers with a weight matrix are pruned"),
    }
    node
}

fn prune_layer(
    model: &mut TorchModel,
    node: &Node,
    hessians: &[Hessian],
    pruning: &Pruning,
    quota: Quota,
) -> Result<(Mask, f64), SolveError> {
    let weight = model.get(&node.weight())?.f_flatten(1, -1)?;
    let solution = solve_layer(&weight, node, hessians, pruning, quota)?;
    let groups = hessians.len() as i64;
    let parts = weight.f_chunk(groups, 0)?.into_iter().zip(solution.weight.f_chunk(groups, 0)?);
    let mut error = 0.0;
    for ((before, after), hessian) in parts.zip(hessians) {
        error += relative_error(&before, &after, hessian)? / groups as f64;
    }
    model.set(&node.weight(), &solution.weight)?;
    Ok((tensor_to_mask(&solution.mask)?, error))
}

/// Takes the rows that write hidden channels which their reader's mask has given up out of the producer.
fn forget(
    model: &mut TorchModel,
    hidden: &Hidden,
    read: &Mask,
    pruned: &mut Pruned,
) -> Result<(), SolveError> {
    let name = model.graph.node(hidden.producer).weight();
    let Some(mask) = pruned.masks.get_mut(&name) else { return Ok(()) };
    // Columns stay or go for all rows at once: the first row tells.
    let gone = (0..hidden.channels).filter(|channel| !read.get(channel * hidden.columns));
    let gone: BTreeSet<usize> = gone.flat_map(|channel| hidden.rows(channel)).collect();
    let weight = model.get(&name)?;
    let row = mask.len() / weight.size()[0] as usize;
    *mask = Mask::from_fn(mask.len(), |at| mask.get(at) && !gone.contains(&(at / row)));
    let kept = mask_to_tensor(mask, &weight.size(), weight.device())?;
    model.set(&name, &weight.f_mul(&kept)?)?;
    let producer = &model.graph.node(hidden.producer).name;
    if let Some(layer) = pruned.layers.iter_mut().find(|layer| layer.name == *producer) {
        layer.kept = mask.count();
    }
    Ok(())
}

/// Solves a layer's weight `[out, …]` group by group, each with its Hessian and its share of the quota.
pub fn solve_layer(
    weight: &Tensor,
    node: &Node,
    hessians: &[Hessian],
    pruning: &Pruning,
    Quota { keep, pattern }: Quota,
) -> Result<LayerSolution, SolveError> {
    let parts = weight.f_flatten(1, -1)?.f_chunk(hessians.len() as i64, 0)?;
    let power = pruning.influence.features.get(&node.name).map(|power| power.f_unsqueeze(1)).transpose()?;
    let powers = power.map(|power| power.f_chunk(hessians.len() as i64, 0)).transpose()?;
    let matrix = weight.f_flatten(1, -1)?.size();
    let mask = pruning.masks.get(&node.weight());
    let mask = mask.map(|mask| mask_to_tensor(mask, &matrix, weight.device())).transpose()?;
    let masks = mask.map(|mask| mask.f_chunk(hessians.len() as i64, 0)).transpose()?;
    let mut solved = Vec::with_capacity(parts.len());
    for (group, (weight, hessian)) in parts.iter().zip(hessians).enumerate() {
        let keep = keep * (group + 1) / parts.len() - keep * group / parts.len();
        let [power, mask] = [&powers, &masks].map(|of| of.as_ref().map(|of| &of[group]));
        solved.push(solve_group(weight, hessian, pruning, [power, mask], Quota { keep, pattern })?);
    }
    let joined =
        |of: fn(&LayerSolution) -> &Tensor| Tensor::f_cat(&solved.iter().map(of).collect::<Vec<_>>(), 0);
    Ok(LayerSolution { weight: joined(|s| &s.weight)?, mask: joined(|s| &s.mask)? })
}

/// One group of a layer: corrected for what happened before it, its rows scaled by how much they count, on a mask if one
/// was chosen before.
fn solve_group(
    weight: &Tensor,
    hessian: &Hessian,
    pruning: &Pruning,
    [power, mask]: [Option<&Tensor>; 2],
    Quota { keep, pattern }: Quota,
) -> Result<LayerSolution, SolveError> {
    let Pruning { solver, damping, ref spec, .. } = *pruning;
    let target = corrected(weight, hessian, damping, spec.correction)?;
    if keep == weight.numel() {
        let mask = weight.f_ones_like()?.f_to_kind(Kind::Bool)?;
        return Ok(LayerSolution { weight: target, mask });
    }
    let roots = power.map(Tensor::f_sqrt).transpose()?;
    let scaled = match &roots {
        Some(roots) => target.f_mul(roots)?,
        None => target,
    };
    let problem = LayerProblem { weight: &scaled, hessian, keep, pattern, damping, spec };
    let refitted = mask.map(|mask| solver.on_mask(&problem, mask)).transpose()?.flatten();
    let solution = refitted.map_or_else(|| solver.solve(&problem), Ok)?;
    Ok(match &roots {
        Some(roots) => LayerSolution { weight: solution.weight.f_div(roots)?, ..solution },
        None => solution,
    })
}
