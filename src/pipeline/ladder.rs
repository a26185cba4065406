//! Every layer at every level of density, solved once: what allocators ask.

use margay_core::NodeId;
use tch::{Kind, Tensor};

use super::PipelineError;
use super::task::Task;
use crate::allocate::{Failed, Judge, LEVELS, LayerProfile};
use crate::calibrate::{Calibration, Seen};
use crate::progress::Progress;
use crate::prune::{Pruning, Quota, solve_layer};
use crate::torch::{Flow, TorchError, TorchModel};

/// Images per forward pass.
const BATCH: usize = 64;

/// Solved layers, each on the inputs of the dense network, and the images on which networks put together from them
/// are held against the dense one.
pub struct Ladder {
    model: TorchModel,
    layers: Vec<NodeId>,
    /// Dense weight first.
    solved: Vec<Vec<Compact>>,
    /// The images on their way through the dense network, up to the layer that was changed last.
    flow: Flow,
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
    /// Solves every layer at every level on the images of `calibration`. The held-out fold judges, with the
    /// general photos if there are any; without either the shots themselves.
    pub fn solve(
        task: &Task,
        dense: &TorchModel,
        layers: &[LayerProfile],
        (pruning, calibration): (&Pruning, &Calibration),
        progress: &mut dyn Progress,
    ) -> Result<Self, PipelineError> {
        let solved = solve(dense, layers, pruning, calibration, progress)?;
        let mut images =
            if task.heldout.is_empty() { &task.calibration } else { &task.heldout }.batches(BATCH)?;
        if let Some(general) = &task.general {
            images.extend(general.images.f_split(BATCH as i64, 0).map_err(TorchError::from)?);
        }
        let flow = Flow::new(&dense.graph, &images);
        let teacher = answers(dense, flow.fork())?;
        let layers = dense.graph.prunable().collect();
        Ok(Self { model: dense.share()?, layers, solved, flow, images, teacher })
    }

    /// The network with some layers, each at a level of its own.
    fn changed(&self, levels: impl Iterator<Item = (usize, usize)>) -> Result<TorchModel, TorchError> {
        let mut model = self.model.share()?;
        for (layer, level) in levels {
            let name = model.graph.node(self.layers[layer]).weight();
            model.set(&name, &self.solved[layer][level].weight()?)?;
        }
        Ok(model)
    }

    /// Divergence of the dense network's answers from others.
    fn divergence(&self, answers: &Tensor) -> Result<f64, TorchError> {
        let gap = self.teacher.f_sub(answers)?.f_mul(&self.teacher.f_exp()?)?;
        let each = gap.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
        Ok(each.f_mean(Kind::Double)?.double_value(&[]))
    }

    /// Brings the dense network's flow to just before a node.
    fn advance_to(&mut self, node: usize) -> Result<(), TorchError> {
        let _no_grad = tch::no_grad_guard();
        if self.flow.passed() > node {
            self.flow = Flow::new(&self.model.graph, &self.images);
        }
        self.flow.advance(node, &self.model)
    }
}

impl Judge for Ladder {
    fn single(&mut self, layer: usize, level: usize) -> Result<f64, Failed> {
        let node = self.layers[layer].index();
        self.advance_to(node)?;
        let model = self.changed(std::iter::once((layer, level)))?;
        Ok(self.divergence(&answers(&model, self.flow.fork())?)?)
    }

    fn whole(&mut self, levels: &[usize]) -> Result<f64, Failed> {
        let model = self.changed(levels.iter().copied().enumerate())?;
        Ok(self.divergence(&answers(&model, Flow::new(&model.graph, &self.images))?)?)
    }
}

/// Log-probabilities of a network, from where the flow is on.
fn answers(model: &TorchModel, flow: Flow) -> Result<Tensor, TorchError> {
    let _no_grad = tch::no_grad_guard();
    Ok(Tensor::f_cat(&flow.logits(model)?, 0)?.f_log_softmax(1, Kind::Float)?)
}

fn solve(
    dense: &TorchModel,
    layers: &[LayerProfile],
    pruning: &Pruning,
    calibration: &Calibration,
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<Compact>>, PipelineError> {
    let _no_grad = tch::no_grad_guard();
    let mut flow = Flow::new(&dense.graph, &calibration.batches);
    let mut solved = Vec::with_capacity(layers.len());
    progress.start("try densities", layers.len() as u64);
    for (id, layer) in dense.graph.prunable().zip(layers) {
        let node = dense.graph.node(id);
        progress.status(&node.name);
        flow.advance(id.index(), dense)?;
        let inputs = flow.inputs();
        let positions = pruning.influence.positions.get(&node.name);
        let hessians = calibration.hessians(&Seen { positions, ..Seen::plain(node, &inputs) })?;
        let weight = dense.get(&node.weight())?;
        let whole =
            weight.f_ones_like().and_then(|ones| ones.f_to_kind(Kind::Bool)).map_err(TorchError::from)?;
        let mut levels = vec![Compact::new(&weight, &whole).map_err(TorchError::from)?];
        let pattern = pruning.spec.pattern.pattern(node, None);
        for level in 1..LEVELS.len() {
            let quota = Quota { keep: layer.kept(level), pattern };
            let solution = solve_layer(&weight, node, &hessians, pruning, quota)?;
            let shape = weight.size();
            let compact =
                || Compact::new(&solution.weight.f_reshape(&shape)?, &solution.mask.f_reshape(&shape)?);
            levels.push(compact().map_err(TorchError::from)?);
        }
        solved.push(levels);
        progress.advance(1);
    }
    progress.finish();
    Ok(solved)
}
