//! Less pruning where the whole network would lose too much.

use margay_core::Graph;

use super::PipelineError;
use super::budget::of_weights;
use super::evaluate::{Answers, on_torch};
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
use crate::torch::{TorchError, TorchModel, to_array};

/// Times that the target is relaxed at most.
const STEPS: u32 = 8;
/// Standard errors that a loss has before it counts: chance alone makes as much once in twenty times.
const DOUBT: f64 = 1.645;
/// Quarters of a doubling up to which temperatures are tried, down and up from 1.
const QUARTERS: i32 = 40;

/// What a network loses on the held-out fold: probability of the right classes, in the mean over the photos.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Mean probabilities of the right class, dense and sparse.
    pub sure: [f64; 2],
    /// Standard error of their difference, photo by photo.
    pub error: f64,
    /// Number of photos.
    pub photos: usize,
}

/// The held-out fold as a limit sees it: every photo from several sides, whose answers tell more than one.
pub struct Sides {
    views: Examples,
    truth: Vec<usize>,
    photos: usize,
}

impl Sides {
    /// The sides of some photos.
    pub fn of(photos: &Examples) -> Result<Self, TorchError> {
        let views = views(photos)?;
        let truth = to_array(&views.classes)?.iter().map(|class| *class as usize).collect();
        Ok(Self { views, truth, photos: photos.len() })
    }

    /// The probability that a network gives each photo's class, in the mean over its sides. Few photos tell more by it than by
    /// right and wrong answers. The network's temperature is set as these photos like it best: to be less sure of all answers
    /// alike is no loss.
    pub fn sure(&self, model: &TorchModel) -> Result<Vec<f64>, PipelineError> {
        let answers = on_torch(model, &self.views)?;
        let tempered =
            (-QUARTERS..=QUARTERS).map(|quarter| answers.tempered((0.25 * f64::from(quarter)).exp2()));
        let loss = |answers: &Answers| answers.losses(&self.truth).iter().sum::<f64>();
        let best = tempered.min_by(|a, b| loss(a).total_cmp(&loss(b))).expect("a temperature of 1 is tried");
        // All photos from one side, then all from the next.
        let mean = |photo: usize| {
            let sides = (photo..self.truth.len()).step_by(self.photos);
            let count = sides.len() as f64;
            sides.map(|side| best.probability(side, self.truth[side])).sum::<f64>() / count
        };
        Ok((0..self.photos).map(mean).collect())
    }
}

impl Loss {
    /// What the sparse network loses against the dense one, by the probability of each photo's class.
    pub fn of(dense: &[f64], sparse: &[f64]) -> Self {
        let photos = dense.len();
        let mean = |of: &[f64]| of.iter().sum::<f64>() / photos as f64;
        let sure = [mean(dense), mean(sparse)];
        let lost = sure[0] - sure[1];
        let squares: f64 =
            dense.iter().zip(sparse).map(|(dense, sparse)| (dense - sparse - lost).powi(2)).sum();
        let error =
            if photos > 1 { (squares / ((photos - 1) * photos) as f64).sqrt() } else { f64::INFINITY };
        Self { sure, error, photos }
    }

    /// Whether more is lost than is allowed, and more than chance alone is likely to make of so few photos. One photo tells nothing.
    pub fn exceeds(&self, allowed: f64) -> bool {
        let lost = self.sure[0] - self.sure[1];
        lost > allowed && lost > DOUBT * self.error
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
        let probability = Some(loss.sure[1]);
        candidates.push(Candidate { name: name.clone(), probability, ..Candidate::default() });
        let last = taken.is_dense() || step == STEPS;
        if exceeds {
            progress.warn(&told(&name, &loss, allowed, last));
        }
        if !exceeds || last {
            let what = format!(
                "compression at which the held-out photos' classes lose at most {:.1} points of probability (dense {:.1} %)",
                100.0 * allowed,
                100.0 * loss.sure[0]
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
    let Loss { sure: [dense, sparse], error, photos } = loss;
    let then = if last { "it is the least that is tried" } else { "less is pruned" };
    format!(
        "at {name} the right class of {photos} held-out photos, ten views of each, has a probability of {:.1} %, with the dense \
         network {:.1} %: {:.1} ± {:.1} points are lost, {:.1} are allowed (--max-drop); {then}",
        100.0 * sparse,
        100.0 * dense,
        100.0 * (dense - sparse),
        100.0 * error,
        100.0 * allowed
    )
}

#[cfg(test)]
mod tests {
    use margay_core::Params;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::models::{Design, build};
    use crate::pipeline::random_params;
    use crate::recipe::Count;

    #[test]
    fn a_loss_counts_where_it_is_more_than_chance() {
        let dense = [1.0; 8];
        let three = Loss::of(&dense, &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(three.sure, [1.0, 0.625]);
        // Variance of three ones of eight: 15/56; of their mean: 15/448.
        assert!((three.error - (15.0_f64 / 448.0).sqrt()).abs() < 1e-12);
        assert!(three.exceeds(0.37) && !three.exceeds(0.38));
        // One of eight may be chance.
        assert!(!Loss::of(&dense, &[0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).exceeds(0.0));
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
    fn a_photo_counts_by_its_sides_and_not_by_the_scale_of_all_answers() {
        let image = [32, 32];
        let design = Design { variant: "resnet18".into(), width: Some(4), depth: None, classes: 3, image };
        let graph = build(&design).unwrap();
        let mut params = random_params(&graph, 5);
        let network = |params: &Params| TorchModel::new(graph.clone(), params, Device::Cpu).unwrap();
        let images = (Tensor::arange(7 * 3 * 32 * 32, (Kind::Float, Device::Cpu)) * 0.37).sin();
        let images = images.reshape([7, 3, 32, 32]);
        let unlabelled = Examples::new(images.shallow_clone(), Tensor::from_slice(&[0_i64; 7]));
        // Right but for two of seven: some temperature between the extremes fits best.
        let mut classes: Vec<i64> = on_torch(&network(&params), &unlabelled)
            .unwrap()
            .predicted()
            .iter()
            .map(|class| *class as i64)
            .collect();
        classes[2] = (classes[2] + 1) % 3;
        classes[5] = (classes[5] + 1) % 3;
        let photos = Examples::new(images, Tensor::from_slice(&classes));
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let sure = Sides::of(&photos).unwrap().sure(&network(&params)).unwrap();
        assert!(sure.len() == 7 && sure.iter().all(|share| (0.0..1.0).contains(share)), "{sure:?}");
        assert!(sure[0] > sure[2] && sure[0] > sure[5], "{sure:?}");
        let backwards = photos.select(&[6, 5, 4, 3, 2, 1, 0]).unwrap();
        let mut again = Sides::of(&backwards).unwrap().sure(&network(&params)).unwrap();
        again.reverse();
        assert!(close(&sure, &again), "{sure:?} {again:?}");
        // Half as sure of everything.
        for name in ["fc.weight", "fc.bias"] {
            params.get_mut(name).unwrap().mapv_inplace(|value| 0.5 * value);
        }
        let halved = Sides::of(&photos).unwrap().sure(&network(&params)).unwrap();
        assert!(close(&sure, &halved), "{sure:?} {halved:?}");
    }
}
