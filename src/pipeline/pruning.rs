//! Pruning as a recipe says it: which images it goes by, how much each layer keeps.

use std::collections::BTreeMap;

use margay_core::{Granularity, Graph, Mask, Sparsity, nearest_name};
use tch::{Kind, Tensor};

use super::ladder::Ladder;
use super::networks::{Keep, Settled, Sparse};
use super::task::Task;
use super::{PipelineError, budget};
use crate::allocate::{
    self, ALLOCATORS, Allocator, Budget, Erk, Failed, LayerProfile, Nobody, Slim, allocate, profiles, slim,
};
use crate::calibrate::{Calibration, Influence, influence};
use crate::data::stride;
use crate::distill::{Examples, varied};
use crate::progress::Progress;
use crate::prune::{self, Pruned, Pruning, SOLVERS, Solver, sequential};
use crate::recipe::{PruneSpec, Recipe, Target};
use crate::torch::{TorchError, TorchModel};

/// How layers are pruned, resolved from a recipe.
pub struct Method {
    /// Chooses masks and values.
    pub solver: &'static dyn Solver,
    /// Spreads the budget.
    pub allocator: &'static dyn Allocator,
    /// What stays or goes as one, and options of both.
    pub spec: PruneSpec,
}

impl Method {
    /// What layers keep by their shapes: all that there is to know where the allocator does not measure, a stand-in
    /// before it has measured.
    pub fn by_shape(&self, graph: &Graph, budget: &Budget) -> Result<Slim, Failed> {
        let allocator = if self.allocator.measures() { &Erk } else { self.allocator };
        let layers = profiles(graph);
        match self.spec.pattern {
            Granularity::Channels => slim(allocator, graph, &layers, budget, &self.spec),
            Granularity::Weights(_) => {
                let kept = allocate(allocator, &layers, budget, &self.spec, &mut Nobody)?;
                Ok(Slim { solved: kept.clone(), left: kept })
            }
        }
    }
}

/// Looks up solver and allocator, and whether they go with what is pruned as one.
pub fn method(recipe: &Recipe) -> Result<Method, PipelineError> {
    let unknown = |kind, name: &str, names: &[&str]| PipelineError::Unknown {
        kind,
        name: name.to_owned(),
        nearest: nearest_name(name, names.iter().copied()),
    };
    let (solver, allocation) = (&recipe.prune.solver, &recipe.prune.allocation);
    let solvers: Vec<&str> = SOLVERS.iter().map(|s| s.name()).collect();
    let allocators: Vec<&str> = ALLOCATORS.iter().map(|a| a.name()).collect();
    let PruneSpec { target, pattern, .. } = recipe.prune;
    let method = Method {
        spec: recipe.prune.clone(),
        solver: prune::find(solver).ok_or_else(|| unknown("solver", solver, &solvers))?,
        allocator: allocate::find(allocation).ok_or_else(|| unknown("allocator", allocation, &allocators))?,
    };
    let timed = matches!(target, Some(Target::Speedup(_) | Target::Milliseconds(_)));
    match pattern {
        Granularity::Channels if method.allocator.measures() => {
            Err(PipelineError::Channels(format!("--allocation {allocation}")))
        }
        Granularity::Channels if timed => Err(PipelineError::Channels(format!("--target {}", recipe.cost()))),
        Granularity::Channels | Granularity::Weights(_) => Ok(method),
    }
}

/// Prunes a task's network.
pub struct Pruner<'a> {
    /// The task.
    pub task: &'a Task,
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Solver and allocator.
    pub method: Method,
}

impl<'a> Pruner<'a> {
    /// Looks up what the recipe names.
    pub fn new(task: &'a Task, recipe: &'a Recipe) -> Result<Self, PipelineError> {
        Ok(Self { task, recipe, method: method(recipe)? })
    }

    /// Prunes a network on some shots, on masks chosen before if there are any.
    pub fn sparse(
        &self,
        mut model: TorchModel,
        shots: &Examples,
        keep: &Keep,
        settled: &Settled,
        masks: Option<&BTreeMap<String, Mask>>,
        progress: &mut dyn Progress,
    ) -> Result<Sparse, PipelineError> {
        let calibration = self.calibration(shots, settled)?;
        let mut pruning = self.pruning(&model, shots, settled)?;
        if let (Granularity::Weights(_), Some(masks)) = (self.method.spec.pattern, masks) {
            pruning.masks.clone_from(masks);
        }
        let Pruned { masks, layers } = sequential(&mut model, &calibration, &pruning, keep, progress)?;
        Ok(Sparse { model, masks, layers })
    }

    /// How layers are pruned, what their outputs count by what the loss of `model` makes of them.
    pub fn pruning(
        &self,
        model: &TorchModel,
        shots: &Examples,
        settled: &Settled,
    ) -> Result<Pruning<'static>, PipelineError> {
        Ok(Pruning {
            solver: self.method.solver,
            spec: self.method.spec.clone(),
            damping: settled.damping,
            influence: influences(model, shots, &self.recipe.prune)?,
            masks: BTreeMap::new(),
        })
    }

    /// The images that layers are judged on.
    pub fn calibration(&self, shots: &Examples, settled: &Settled) -> Result<Calibration, PipelineError> {
        let batch = self.recipe.prune.batch;
        let (images, weights) = self.views(shots)?;
        let task = Calibration::new(&images, weights.as_ref(), batch)?;
        Ok(match &self.task.general {
            Some(general) if settled.general_share > 0.0 => {
                task.with_general(&general.images, settled.general_share, batch)?
            }
            _ => task,
        })
    }

    /// The shots as they are and then as training shows them, as often as the recipe says, with their weights.
    fn views(&self, shots: &Examples) -> Result<(Tensor, Option<Tensor>), TorchError> {
        let Recipe { prune, recovery, seed, .. } = self.recipe;
        let more =
            (1..prune.views as u64).map(|view| varied(&shots.images, recovery.crop, seed.wrapping_add(view)));
        let mut images = vec![shots.images.shallow_clone()];
        images.extend(more.collect::<Result<Vec<_>, _>>()?);
        let weights = shots.weights.as_ref().map(|weights| weights.f_repeat([images.len() as i64]));
        Ok((Tensor::f_cat(&images, 0)?, weights.transpose()?))
    }

    /// Whether what layers keep depends on measurements, not on their shapes only.
    pub fn measures(&self) -> bool {
        self.recipe.prune.target.is_some() || self.method.allocator.measures()
    }

    /// How many weights each layer keeps at the recipe's sparsity, or within its target if that is no number of
    /// weights. What is measured for it is measured on the calibration part of the shots and the held-out fold.
    pub fn keep(
        &self,
        dense: &TorchModel,
        settled: &Settled,
        progress: &mut dyn Progress,
    ) -> Result<Keep, PipelineError> {
        let layers = profiles(&dense.graph);
        let budget = budget::budget(self.task, self.recipe, dense, &layers, progress)?;
        let measures = self.method.allocator.measures();
        let ladder = measures.then(|| {
            let shots = &self.task.calibration;
            let (pruning, calibration) =
                (self.pruning(dense, shots, settled)?, self.calibration(shots, settled)?);
            Ladder::solve(self.task, dense, &layers, (&pruning, &calibration), progress)
        });
        let mut ladder = ladder.transpose()?;
        progress.start("allocate", 0);
        let spread = |budget: &Budget| match &mut ladder {
            Some(ladder) => allocate(self.method.allocator, &layers, budget, &self.method.spec, ladder),
            None => Ok(self.method.by_shape(&dense.graph, budget)?.solved),
        };
        let kept = budget::within(self.task, self.recipe, budget, &layers, spread)?;
        progress.finish();
        Ok(by_name(&layers, kept))
    }

    /// What layers keep by their shapes at the recipe's sparsity: a stand-in where that is to be measured.
    pub fn rough_keep(&self) -> Result<Keep, PipelineError> {
        let graph = self.task.graph();
        let layers = profiles(&graph);
        let PruneSpec { count, sparsity, .. } = self.recipe.prune;
        let budget = budget::of_weights(&graph, &layers, count, sparsity)?;
        Ok(by_name(&layers, self.method.by_shape(&graph, &budget)?.solved))
    }

    /// What layers keep on the way to `keep`, at a sparsity: more, in the same proportions.
    pub fn keep_before(
        &self,
        dense: &TorchModel,
        keep: &Keep,
        sparsity: Sparsity,
    ) -> Result<Keep, PipelineError> {
        let layers = profiles(&dense.graph);
        let budget = budget::of_weights(&dense.graph, &layers, self.recipe.prune.count, sparsity)?;
        let kept = if !self.measures() || self.method.spec.pattern == Granularity::Channels {
            self.method.by_shape(&dense.graph, &budget)?.solved
        } else {
            let density = |l: &LayerProfile| l.density(keep[&l.name]);
            budget.fill(&layers.iter().map(density).collect::<Vec<_>>(), &layers).map_err(Failed::from)?
        };
        Ok(by_name(&layers, kept))
    }
}

/// Counts by node name.
fn by_name(layers: &[LayerProfile], kept: Vec<usize>) -> Keep {
    layers.iter().map(|layer| layer.name.clone()).zip(kept).collect()
}

/// How much the outputs of layers count: what the loss makes of their features and positions, each to a power.
fn influences(
    model: &TorchModel,
    shots: &Examples,
    &PruneSpec { fisher, positions, .. }: &PruneSpec,
) -> Result<Influence, PipelineError> {
    if fisher == 0.0 && positions == 0.0 {
        return Ok(Influence::default());
    }
    let found = influence(model, &few(shots)?)?;
    let raised = |all: BTreeMap<String, Tensor>, exponent: f64| {
        if exponent == 0.0 {
            return Ok(BTreeMap::new());
        }
        let power = |(name, power): (String, Tensor)| Ok((name, power.f_pow_tensor_scalar(exponent)?));
        all.into_iter().map(power).collect::<Result<_, tch::TchError>>().map_err(TorchError::from)
    };
    let features = raised(found.features, fisher)?;
    let positions = raised(found.positions, positions)?;
    let normed = |(name, power): (String, Tensor)| Ok((name, power.f_div(&power.f_mean(Kind::Float)?)?));
    let positions =
        positions.into_iter().map(normed).collect::<Result<_, tch::TchError>>().map_err(TorchError::from)?;
    Ok(Influence { features, positions })
}

/// Shots whose gradients are asked for, spread over all.
const ASKED: usize = 64;

fn few(shots: &Examples) -> Result<Examples, TorchError> {
    shots.select(&(0..shots.len() as i64).step_by(stride(shots.len(), ASKED)).collect::<Vec<_>>())
}
