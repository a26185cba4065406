//! Less pruning where the whole network would lose too much.

use margay_core::Graph;

use super::PipelineError;
use super::budget::of_weights;
use super::evaluate::score;
use super::guard::{decided, views};
use super::pruning::Pruner;
use super::recover::{Decision, asks_fold, decide};
use super::sparsify::{Base, of_all_shots, timed, trial};
use super::task::Task;
use crate::allocate::profiles;
use crate::distill::Examples;
use crate::progress::Progress;
use crate::recipe::{PruneSpec, Recipe};
use crate::record::{Candidate, Choice, Stages};
use crate::torch::{TorchError, TorchModel};

/// Times that the target is relaxed at most.
const STEPS: u32 = 8;
/// Standard errors by which a loss exceeds what is allowed before it counts: chance alone does so once in twenty times.
const DOUBT: f64 = 1.645;

/// Held-out accuracy that a network loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Fractions that are right, dense and sparse, over photos and their sides.
    pub top1: [f64; 2],
    /// Standard error of their difference, photo by photo.
    pub error: f64,
    /// Number of photos.
    pub photos: usize,
}

/// The held-out fold as a limit sees it: every photo from several sides, whose answers tell more than one.
pub struct Sides {
    views: Examples,
    photos: usize,
}

impl Sides {
    /// The sides of some photos.
    pub fn of(photos: &Examples) -> Result<Self, TorchError> {
        Ok(Self { views: views(photos)?, photos: photos.len() })
    }

    /// The share of each photo's sides that a network answers right.
    pub fn right(&self, model: &TorchModel) -> Result<Vec<f64>, PipelineError> {
        let right = score(model, &self.views)?.right;
        let sides = right.len() / self.photos;
        // All photos from one side, then all from the next.
        let share = |photo: usize| {
            let right = right.iter().skip(photo).step_by(self.photos).filter(|right| **right).count();
            right as f64 / sides as f64
        };
        Ok((0..self.photos).map(share).collect())
    }
}

impl Loss {
    /// What the sparse network loses against the dense one, by the share of each photo's sides that are right.
    pub fn of(dense: &[f64], sparse: &[f64]) -> Self {
        let photos = dense.len();
        let mean = |of: &[f64]| of.iter().sum::<f64>() / photos as f64;
        let top1 = [mean(dense), mean(sparse)];
        let lost = top1[0] - top1[1];
        let squares: f64 =
            dense.iter().zip(sparse).map(|(dense, sparse)| (dense - sparse - lost).powi(2)).sum();
        let error =
            if photos > 1 { (squares / ((photos - 1) * photos) as f64).sqrt() } else { f64::INFINITY };
        Self { top1, error, photos }
    }

    /// Whether more is lost than is allowed, by more than chance is likely to make of the photos. One photo tells nothing.
    pub fn exceeds(&self, allowed: f64) -> bool {
        self.top1[0] - self.top1[1] - DOUBT * self.error > allowed
    }
}

/// The network of all the shots, pruned as far as the recipe says, or less where the held-out fold says that this would lose
/// more accuracy than the recipe allows. Returns the recipe that made it, and how it is to be finetuned if that was asked.
pub fn pruned(
    task: &Task,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<(Recipe, Base, Option<Decision>), PipelineError> {
    let mut candidates = Vec::new();
    let mut step = first_step(&task.graph(), recipe)?;
    if step > 0 {
        let (asked, first) = (recipe.cost(), recipe.relaxed(step).cost());
        progress
            .warn(&format!("{asked} of all weights is out of reach (--count all): {first} is tried first"));
    }
    loop {
        let wanted = if step == 0 { recipe.clone() } else { recipe.relaxed(step) };
        let (taken, chosen) = timed(seconds, "choose", || decided(task, &wanted, progress))?;
        let pruner = Pruner::new(task, &taken)?;
        let asked = asks_fold(task, &taken, progress);
        let trial = asked.then(|| timed(seconds, "try", || trial(&pruner, chosen.clone(), progress)));
        let trial = trial.transpose()?;
        let limit = recipe.prune.max_drop.zip(trial.as_ref());
        let Some((allowed, tried)) = limit else {
            return Ok((taken.clone(), of_all_shots(&pruner, chosen, trial, seconds, progress)?, None));
        };
        let mut decision = decide(task, Some(tried), &taken, seconds, progress)?;
        let loss = decision.loss.expect("a limit asks for the loss");
        let (name, exceeds) = (taken.cost(), loss.exceeds(allowed));
        let top1 = Some(loss.top1[1]);
        candidates.push(Candidate { name: name.clone(), top1, loss: None, class_drop: None });
        let last = taken.is_dense() || step == STEPS;
        if exceeds {
            progress.warn(&told(&name, &loss, allowed, last));
        }
        if !exceeds || last {
            let what = format!(
                "compression at which held-out accuracy falls by at most {:.1} points (dense {:.1} %)",
                100.0 * allowed,
                100.0 * loss.top1[0]
            );
            decision.choices.insert(0, Choice { what, candidates, taken: name });
            let base = of_all_shots(&pruner, chosen, trial, seconds, progress)?;
            return Ok((taken.clone(), base, Some(decision)));
        }
        step += 1;
    }
}

/// Steps by which the recipe is relaxed before anything is tried: none, or with a limit as many as what cannot be pruned asks for.
pub fn first_step(graph: &Graph, recipe: &Recipe) -> Result<u32, PipelineError> {
    if recipe.prune.target.is_some() {
        return Ok(0);
    }
    let layers = profiles(graph);
    let within_reach = |step: u32| {
        let PruneSpec { count, sparsity, .. } = recipe.relaxed(step).prune;
        of_weights(graph, &layers, count, sparsity)
    };
    let last = if recipe.prune.max_drop.is_some() { STEPS } else { 0 };
    let mut step = 0;
    while let Err(error) = within_reach(step) {
        if step == last {
            return Err(error);
        }
        step += 1;
    }
    Ok(step)
}

fn told(name: &str, loss: &Loss, allowed: f64, last: bool) -> String {
    let Loss { top1: [dense, sparse], error, photos } = loss;
    let then = if last { "it is the least that is tried" } else { "less is pruned" };
    format!(
        "at {name} {:.1} % of {photos} held-out photos are right, ten views of each, of the dense network {:.1} %: {:.1} ± {:.1} \
         points are lost, {:.1} are allowed (--max-drop); {then}",
        100.0 * sparse,
        100.0 * dense,
        100.0 * (dense - sparse),
        100.0 * error,
        100.0 * allowed
    )
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::models::{Design, build};
    use crate::pipeline::random_params;
    use crate::recipe::Count;

    #[test]
    fn a_loss_counts_where_it_is_more_than_chance() {
        let dense = [1.0; 8];
        let three = Loss::of(&dense, &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(three.top1, [1.0, 0.625]);
        // Variance of three ones of eight: 15/56; of their mean: 15/448.
        assert!((three.error - (15.0_f64 / 448.0).sqrt()).abs() < 1e-12);
        assert!(three.exceeds(0.07) && !three.exceeds(0.08));
        // What is lost on some photos and won on others is no loss.
        let even = Loss::of(&[1.0, 1.0, 0.0, 0.0], &[0.0, 0.0, 1.0, 1.0]);
        assert!(!even.exceeds(0.0));
        // As much is lost everywhere: the same loss is told by fewer photos.
        let everywhere = Loss::of(&[1.0, 0.8, 0.6, 0.4], &[0.8, 0.6, 0.4, 0.2]);
        assert!(everywhere.error < 1e-9 && everywhere.exceeds(0.19) && !everywhere.exceeds(0.21));
        let one = Loss::of(&[1.0], &[0.0]);
        assert!(!one.exceeds(0.0), "one photo tells nothing: {one:?}");
    }

    #[test]
    fn what_cannot_be_pruned_relaxes_the_target_only_under_a_limit() {
        let (variant, image) = ("vit_tiny_patch16".to_owned(), [64, 64]);
        let graph = build(&Design { variant, width: Some(64), depth: Some(2), classes: 3, image }).unwrap();
        let mut recipe = Recipe::new("model".into(), "data".into());
        assert!(matches!(first_step(&graph, &recipe), Err(PipelineError::OutOfWeights { .. })));
        recipe.prune.max_drop = Some(0.03);
        let step = first_step(&graph, &recipe).unwrap();
        let reaches = |step| {
            let PruneSpec { count, sparsity, .. } = recipe.relaxed(step).prune;
            of_weights(&graph, &profiles(&graph), count, sparsity).is_ok()
        };
        assert!(step > 0 && reaches(step) && !reaches(step - 1), "{step}");
        recipe.prune.count = Count::Prunable;
        assert_eq!(first_step(&graph, &recipe).unwrap(), 0);
    }

    #[test]
    fn a_photo_counts_by_the_share_of_its_sides() {
        let image = [32, 32];
        let design = Design { variant: "resnet18".into(), width: Some(4), depth: None, classes: 3, image };
        let graph = build(&design).unwrap();
        let model = TorchModel::new(graph.clone(), &random_params(&graph, 5), Device::Cpu).unwrap();
        let images = (Tensor::arange(7 * 3 * 32 * 32, (Kind::Float, Device::Cpu)) * 0.37).sin();
        let photos =
            Examples::new(images.reshape([7, 3, 32, 32]), Tensor::from_slice(&[0_i64, 1, 2, 0, 1, 2, 0]));
        let shares = Sides::of(&photos).unwrap().right(&model).unwrap();
        for (photo, share) in shares.iter().enumerate() {
            let alone = Sides::of(&photos.select(&[photo as i64]).unwrap()).unwrap();
            let own = alone.right(&model).unwrap();
            let tenths = (10.0 * share).round() / 10.0;
            assert!(
                (own[0] - share).abs() < 1e-9 && (tenths - share).abs() < 1e-9,
                "{photo}: {own:?} {share}"
            );
        }
    }
}
