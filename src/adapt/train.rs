use std::collections::BTreeMap;

use margay_core::branch::can_branch;
use margay_core::{Mask, NodeId, ParamRole, ParamSpec, Role};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use super::merge::{branched, merge};
use super::statistics::{principal_inputs, residuals};
use super::{Adapted, Adapter, Lora, Merged, Site, Size, Statistics, gradients, sizes};
use crate::distill::{Examples, Stepper, Training, adopt, fit};
use crate::progress::Progress;
use crate::recipe::{AdaptSpec, AdapterInit, AdapterSchedule, OptimizerChoice, Policy, RecoverySpec};
use crate::torch::{Norms, TorchError, TorchModel, mask_to_tensor, seed_everything, tensor_to_mask};

/// Images at a time when inputs are looked at.
const BATCH: usize = 64;

/// Share of a layer's weights up to which sampling their gradients is cheaper than all (docs/performance.md).
const SAMPLED: f64 = 0.1;

/// What is adapted to what.
pub struct Problem<'a> {
    /// The network to adapt.
    pub base: &'a TorchModel,
    /// Its kept weights by weight name; weights without a mask are dense.
    pub masks: &'a BTreeMap<String, Mask>,
    /// The network that is imitated, if any.
    pub teacher: Option<&'a TorchModel>,
    /// What it is trained on.
    pub examples: &'a Examples,
    /// What to minimise, for how long.
    pub recovery: &'a RecoverySpec,
    /// Options of the adapter.
    pub spec: &'a AdaptSpec,
    /// Seed of starts, order and augmentation.
    pub seed: u64,
    /// Factor on every learning rate.
    pub pace: f64,
}

/// Why a network could not be adapted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdaptError {
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The merged graph does not hold together.
    #[error("the branches do not fit the graph")]
    Graph(#[from] margay_core::GraphError),
}

impl From<tch::TchError> for AdaptError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// Trains an adapter and merges it.
///
/// RoSA's phases: the low-rank part alone for the steps of the warm-up, the gradients that choose the
/// support of the sparse part, then both from a fresh start.
pub fn adapt(
    problem: &Problem,
    adapter: &dyn Adapter,
    progress: &mut dyn Progress,
) -> Result<Merged, AdaptError> {
    seed_everything(problem.seed);
    let sizes = sizes(&problem.base.graph, adapter, problem.spec);
    let mut masks = problem.masks.clone();
    let statistics = collect(problem, adapter, &sizes, progress)?;
    let allowed = allowed(problem, adapter, &sizes, &statistics, &mut masks)?;
    seed_everything(problem.seed);
    let mut model = problem.base.share()?;
    let run = Run { problem, adapter, sizes: &sizes, statistics: &statistics, allowed: &allowed };
    let mut merged = run.train(&mut model, &masks, progress)?;
    if problem.spec.policy == Policy::Branch {
        merged.model = branched(&merged)?;
    }
    Ok(merged)
}

/// How long an adapter is trained.
#[derive(Clone, Copy)]
enum Course {
    /// For the recipe's epochs.
    Whole,
    /// For some steps.
    WarmUp(usize),
}

/// One training of an adapter.
struct Run<'a> {
    problem: &'a Problem<'a>,
    adapter: &'a dyn Adapter,
    sizes: &'a [(NodeId, Size)],
    statistics: &'a BTreeMap<NodeId, Statistics>,
    allowed: &'a BTreeMap<String, Tensor>,
}

impl Run<'_> {
    /// Trains from the base's weights, which `model` has, for the recipe's epochs, and merges.
    fn train(
        &self,
        model: &mut TorchModel,
        masks: &BTreeMap<String, Mask>,
        progress: &mut dyn Progress,
    ) -> Result<Merged, AdaptError> {
        self.with_adapted(model, masks, Course::Whole, progress, |adapted, trained, _| {
            let mut merged = merge(adapted, self.problem.masks, masks)?;
            merged.adapter.trained = trained;
            merged.adapter.method = self.adapter.name();
            Ok(merged)
        })
    }

    /// Trains, then hands over the adapted network and how many parameters its adapters have.
    fn with_adapted<T>(
        &self,
        model: &mut TorchModel,
        masks: &BTreeMap<String, Mask>,
        course: Course,
        progress: &mut dyn Progress,
        then: impl FnOnce(&Adapted, usize, &mut dyn Progress) -> Result<T, AdaptError>,
    ) -> Result<T, AdaptError> {
        let Problem { spec, recovery, examples, pace, .. } = self.problem;
        let store = VarStore::new(model.device());
        adopt(model, &store, |spec| self.trains(&model_head(self.problem.base), spec))?;
        let mut adapted = Adapted::new(model, masks)?;
        let beside = count(&store);
        self.attach(&mut adapted, &store)?;
        if recovery.recompute {
            adapted.sample(SAMPLED)?;
        }
        let trained = count(&store) - beside;
        let base = recovery.learning_rate.unwrap_or(OptimizerChoice::Adamw.learning_rate());
        let optimizer = OptimizerChoice::Adamw.build(&store, base, 0.0)?;
        let peaks = [base, base, spec.lora_lr, spec.spa_lr].map(|peak| peak * pace);
        let optimizer = Stepper::new(optimizer, &store, &peaks);
        let (stage, limit) = match course {
            Course::Whole => ("adapt", None),
            Course::WarmUp(steps) => ("warm up", Some(steps)),
        };
        fit(&mut adapted, optimizer, examples, &self.problem.training(stage), limit, progress)?;
        then(&adapted, trained, progress)
    }

    /// Whether a parameter of the base is trained: head, norms, biases, and what the adapter says.
    fn trains(&self, head: &[String], spec: &ParamSpec) -> bool {
        match spec.role {
            ParamRole::Bias | ParamRole::Norm => true,
            ParamRole::Weight => self.adapter.trains_weights() || head.contains(&spec.name),
            ParamRole::Embedding | ParamRole::Statistic => false,
        }
    }

    fn attach(&self, adapted: &mut Adapted, store: &VarStore) -> Result<(), AdaptError> {
        let none = Statistics::default();
        for (id, size) in self.sizes {
            let node = self.problem.base.graph.node(*id);
            let weight = self.problem.base.get(&node.weight())?.f_flatten(1, -1)?;
            let site = Site {
                weight: &weight,
                allowed: self.allowed.get(&node.weight()),
                size: *size,
                statistics: self.statistics.get(id).unwrap_or(&none),
                seed: self.problem.seed ^ ((id.index() as u64) << 32),
            };
            let path = store.root() / node.name.replace('.', "/");
            if let Some(delta) = self.adapter.attach(&site, self.problem.spec, &path)? {
                let branch = self.problem.spec.policy == Policy::Branch && can_branch(&node.op);
                adapted.attach(&node.name, delta, branch);
            }
        }
        Ok(())
    }
}

impl<'a> Problem<'a> {
    fn training(&self, stage: &'a str) -> Training<'a> {
        let Self { recovery: spec, teacher, seed, pace, .. } = *self;
        Training { spec, teacher, norms: Norms::Stored, seed, stage, pace }
    }

    fn batches(&self) -> Result<Vec<Tensor>, TorchError> {
        self.examples.batches(BATCH)
    }
}

/// Trainable numbers in a store.
fn count(store: &VarStore) -> usize {
    store.trainable_variables().iter().map(Tensor::numel).sum()
}

fn model_head(model: &TorchModel) -> Vec<String> {
    let head = model.graph.nodes().iter().filter(|node| node.role == Role::Head);
    head.map(margay_core::Node::weight).collect()
}

/// Collects what the adapter asks for.
fn collect(
    problem: &Problem,
    adapter: &dyn Adapter,
    sizes: &[(NodeId, Size)],
    progress: &mut dyn Progress,
) -> Result<BTreeMap<NodeId, Statistics>, AdaptError> {
    let mut statistics: BTreeMap<NodeId, Statistics> =
        sizes.iter().map(|(id, _)| (*id, Statistics::default())).collect();
    let ranks: BTreeMap<NodeId, usize> = sizes.iter().map(|(id, size)| (*id, size.rank)).collect();
    if ranks.values().any(|rank| *rank > 0) {
        match (problem.spec.init, problem.teacher) {
            (AdapterInit::Eva, _) => {
                for (id, inputs) in principal_inputs(problem.base, &problem.batches()?, &ranks)? {
                    statistics.entry(id).or_default().inputs = Some(inputs);
                }
            }
            (AdapterInit::Residual, Some(dense)) => {
                let batches = problem.batches()?;
                for (id, residual) in residuals(problem.base, dense, problem.masks, &batches, &ranks)? {
                    statistics.entry(id).or_default().residual = Some(residual);
                }
            }
            _ => {}
        }
    }
    if adapter.needs_gradient() && sizes.iter().any(|(_, size)| size.count > 0) {
        for (id, gradient) in support_gradients(problem, sizes, &statistics, progress)? {
            statistics.entry(id).or_default().gradient = Some(gradient);
        }
    }
    Ok(statistics)
}

/// The gradients that place the sparse part, after the warm-up of the low-rank part if there is one.
fn support_gradients(
    problem: &Problem,
    sizes: &[(NodeId, Size)],
    statistics: &BTreeMap<NodeId, Statistics>,
    progress: &mut dyn Progress,
) -> Result<BTreeMap<NodeId, Tensor>, AdaptError> {
    let spec = problem.spec;
    let names: Vec<String> = sizes.iter().map(|(id, _)| problem.base.graph.node(*id).weight()).collect();
    let images = spec.spa_num_grads * problem.recovery.batch;
    let collect = |adapted: &Adapted, _: usize, progress: &mut dyn Progress| {
        let training = problem.training("choose the support");
        let mode = spec.grad_acc_mode;
        Ok(gradients(adapted, &names, mode, problem.examples, &training, images, progress)?)
    };
    let warm = match spec.schedule {
        AdapterSchedule::WarmUp(steps) if steps > 0 && sizes.iter().any(|(_, size)| size.rank > 0) => steps,
        _ => 0,
    };
    let mut by_name = if warm > 0 {
        let allowed = BTreeMap::new();
        let run = Run { problem, adapter: &Lora, sizes, statistics, allowed: &allowed };
        let mut model = problem.base.share()?;
        run.with_adapted(&mut model, problem.masks, Course::WarmUp(warm), progress, collect)?
    } else {
        collect(&Adapted::new(problem.base, problem.masks)?, 0, progress)?
    };
    Ok(sizes.iter().zip(&names).filter_map(|((id, _), name)| Some((*id, by_name.remove(name)?))).collect())
}

/// Where the sparse part of each layer may lie. With the policy `grow` the masks change: the positions with
/// the largest gradients enter, and as many of the smallest weights leave.
fn allowed(
    problem: &Problem,
    adapter: &dyn Adapter,
    sizes: &[(NodeId, Size)],
    statistics: &BTreeMap<NodeId, Statistics>,
    masks: &mut BTreeMap<String, Mask>,
) -> Result<BTreeMap<String, Tensor>, AdaptError> {
    let _no_grad = tch::no_grad_guard();
    let mut allowed = BTreeMap::new();
    for (id, size) in sizes {
        let name = problem.base.graph.node(*id).weight();
        let Some(mask) = masks.get(&name) else { continue };
        let weight = problem.base.get(&name)?.f_flatten(1, -1)?;
        let mut tensor = mask_to_tensor(mask, &weight.size(), weight.device())?;
        let gradient = statistics.get(id).and_then(|s| s.gradient.as_ref());
        if let (Policy::Grow, true, Some(gradient)) =
            (problem.spec.policy, adapter.needs_gradient(), gradient)
        {
            let chosen = crate::torch::top_k_mask(&gradient.f_abs()?, size.count)?;
            tensor = swapped(&weight, &tensor, &chosen)?;
            masks.insert(name.clone(), tensor_to_mask(&tensor)?);
        }
        allowed.insert(name, tensor);
    }
    Ok(allowed)
}

/// The mask with the chosen positions in it, and as many of its smallest other weights out of it.
fn swapped(weight: &Tensor, mask: &Tensor, chosen: &Tensor) -> Result<Tensor, AdaptError> {
    let kept = mask.f_sum(Kind::Int64)?.int64_value(&[]);
    let stay = kept - chosen.f_sum(Kind::Int64)?.int64_value(&[]);
    let others = mask.f_logical_and(&chosen.f_logical_not()?)?;
    let scores = weight.f_abs()?.f_masked_fill(&others.f_logical_not()?, f64::NEG_INFINITY)?;
    let stays = crate::torch::top_k_mask(&scores, stay.max(0) as usize)?;
    Ok(stays.f_logical_or(chosen)?)
}
