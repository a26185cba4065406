//! Every layer at every level of density, solved once: what allocators ask.

use tch::{Kind, Tensor};

use super::PipelineError;
use super::pruning::{Pruner, Settled};
use super::sparsify::logits;
use crate::allocate::{Failed, Judge, LEVELS, LayerProfile};
use crate::distill::Examples;
use crate::progress::Progress;
use crate::prune::solve_layer;
use crate::torch::{Flow, TorchError, TorchModel};

/// Images per forward pass.
const BATCH: usize = 64;

/// Solved layers, each on the inputs of the dense network, and the images on which networks put together from them
/// are held against the dense one.
pub struct Ladder {
    model: TorchModel,
    weights: Vec<String>,
    /// Dense weight first.
    solved: Vec<Vec<Compact>>,
    images: Vec<Tensor>,
    /// Log-probabilities of the dense network.
    teacher: Tensor,
}

/// A sparse tensor in little memory.
struct Compact {
    mask: Tensor,
    values: Tensor,
}

impl Compact {
    fn new(weight: &Tensor, mask: &Tensor) -> Result<Self, tch::TchError> {
        Ok(Self { mask: mask.shallow_clone(), values: weight.f_masked_select(mask)? })
    }

    fn weight(&self) -> Result<Tensor, tch::TchError> {
        self.mask.f_zeros_like()?.f_to_kind(Kind::Float)?.f_masked_scatter(&self.mask, &self.values)
    }
}

impl Ladder {
    /// Solves every layer at every level on the calibration part of the shots. The held-out fold judges, with the
    /// general photos if there are any; without either the shots themselves.
    pub fn solve(
        pruner: &Pruner,
        dense: &TorchModel,
        layers: &[LayerProfile],
        settled: &Settled,
        progress: &mut dyn Progress,
    ) -> Result<Self, PipelineError> {
        let task = pruner.task;
        let solved = solve(pruner, dense, layers, &task.calibration, settled, progress)?;
        let mut images =
            if task.heldout.is_empty() { &task.calibration } else { &task.heldout }.batches(BATCH)?;
        if let Some(general) = &task.general {
            images.extend(general.f_split(BATCH as i64, 0).map_err(TorchError::from)?);
        }
        let teacher = log_probabilities(dense, &images)?;
        progress.start("allocate", 0);
        let weights = layers.iter().map(|layer| format!("{}.weight", layer.name)).collect();
        Ok(Self { model: dense.share()?, weights, solved, images, teacher })
    }

    /// Ends the progress of measuring.
    pub fn done(self, progress: &mut dyn Progress) {
        progress.finish();
    }

    /// Divergence of the dense network's answers from those with some layers at a level of theirs.
    fn damage(&mut self, changed: impl Iterator<Item = (usize, usize)>) -> Result<f64, PipelineError> {
        let mut model = self.model.share()?;
        for (layer, level) in changed {
            let weight = self.solved[layer][level].weight().map_err(TorchError::from)?;
            model.set(&self.weights[layer], &weight)?;
        }
        let answers = log_probabilities(&model, &self.images)?;
        let divergence = || -> Result<f64, tch::TchError> {
            let gap = self.teacher.f_sub(&answers)?.f_mul(&self.teacher.f_exp()?)?;
            let each = gap.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
            Ok(each.f_mean(Kind::Double)?.double_value(&[]))
        };
        Ok(divergence().map_err(TorchError::from)?)
    }
}

impl Judge for Ladder {
    fn single(&mut self, layer: usize, level: usize) -> Result<f64, Failed> {
        Ok(self.damage(std::iter::once((layer, level)))?)
    }

    fn whole(&mut self, levels: &[usize]) -> Result<f64, Failed> {
        Ok(self.damage(levels.iter().copied().enumerate())?)
    }
}

fn log_probabilities(model: &TorchModel, images: &[Tensor]) -> Result<Tensor, PipelineError> {
    let _no_grad = tch::no_grad_guard();
    Ok(logits(model, images)?.f_log_softmax(1, Kind::Float).map_err(TorchError::from)?)
}

fn solve(
    pruner: &Pruner,
    dense: &TorchModel,
    layers: &[LayerProfile],
    shots: &Examples,
    settled: &Settled,
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<Compact>>, PipelineError> {
    let pruning = pruner.pruning(dense, shots, settled)?;
    let calibration = pruner.calibration(shots, settled)?;
    let _no_grad = tch::no_grad_guard();
    let mut flow = Flow::new(&dense.graph, &calibration.batches);
    let mut solved = Vec::with_capacity(layers.len());
    progress.start("try densities", layers.len() as u64);
    for id in dense.graph.ids() {
        let node = dense.graph.node(id);
        if let Some(layer) = layers.get(solved.len()).filter(|layer| layer.name == node.name) {
            progress.status(&node.name);
            let hessians = calibration.hessians(node, flow.inputs(id), None)?;
            let weight = dense.get(&node.weight())?;
            let whole =
                weight.f_ones_like().and_then(|ones| ones.f_to_kind(Kind::Bool)).map_err(TorchError::from)?;
            let mut levels = vec![Compact::new(&weight, &whole).map_err(TorchError::from)?];
            for level in 1..LEVELS.len() {
                let solution = solve_layer(&weight, node, &hessians, &pruning, layer.kept(level))?;
                let shape = weight.size();
                let compact =
                    || Compact::new(&solution.weight.f_reshape(&shape)?, &solution.mask.f_reshape(&shape)?);
                levels.push(compact().map_err(TorchError::from)?);
            }
            solved.push(levels);
            progress.advance(1);
        }
        flow.pass(id, dense)?;
    }
    progress.finish();
    Ok(solved)
}
