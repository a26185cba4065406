//! Less pruning where the whole network would lose too much.

use super::PipelineError;
use super::evaluate::Score;
use super::guard::decided;
use super::pruning::Pruner;
use super::recover::{Decision, asks_fold, decide};
use super::sparsify::{Base, of_all_shots, timed, trial};
use super::task::Task;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::record::{Candidate, Choice, Stages};

/// Times that the target is relaxed at most.
const STEPS: u32 = 8;
/// Standard errors by which a loss exceeds what is allowed before it counts: chance alone does so once in twenty times.
const DOUBT: f64 = 1.645;

/// Held-out accuracy that a network loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Fractions that are right, dense and sparse.
    pub top1: [f64; 2],
    /// Standard error of their difference, photo by photo.
    pub error: f64,
    /// Number of photos.
    pub photos: usize,
}

impl Loss {
    /// What the sparse network loses against the dense one on the same photos.
    pub fn of(dense: &Score, sparse: &Score) -> Self {
        let photos = dense.right.len();
        let each: Vec<f64> = dense
            .right
            .iter()
            .zip(&sparse.right)
            .map(|(dense, sparse)| f64::from(u8::from(*dense)) - f64::from(u8::from(*sparse)))
            .collect();
        let mean = each.iter().sum::<f64>() / photos as f64;
        let squares: f64 = each.iter().map(|each| (each - mean).powi(2)).sum();
        let error =
            if photos > 1 { (squares / ((photos - 1) * photos) as f64).sqrt() } else { f64::INFINITY };
        Self { top1: [dense.top1, sparse.top1], error, photos }
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
    let mut step = 0;
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

fn told(name: &str, loss: &Loss, allowed: f64, last: bool) -> String {
    let Loss { top1: [dense, sparse], error, photos } = loss;
    let then = if last { "it is the least that is tried" } else { "less is pruned" };
    format!(
        "at {name} {:.1} % of {photos} held-out photos are right, of the dense network {:.1} %: {:.1} ± {:.1} points are lost, \
         {:.1} are allowed (--max-drop); {then}",
        100.0 * sparse,
        100.0 * dense,
        100.0 * (dense - sparse),
        100.0 * error,
        100.0 * allowed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(right: &[u8]) -> Score {
        let right: Vec<bool> = right.iter().map(|right| *right == 1).collect();
        let top1 = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
        Score { top1, loss: 0.0, right }
    }

    #[test]
    fn a_loss_counts_where_it_is_more_than_chance() {
        let dense = score(&[1, 1, 1, 1, 1, 1, 1, 1]);
        let three = Loss::of(&dense, &score(&[0, 0, 0, 1, 1, 1, 1, 1]));
        assert_eq!(three.top1, [1.0, 0.625]);
        // Variance of three ones of eight: 15/56; of their mean: 15/448.
        assert!((three.error - (15.0_f64 / 448.0).sqrt()).abs() < 1e-12);
        assert!(three.exceeds(0.07) && !three.exceeds(0.08));
        // What is lost on some photos and won on others is no loss.
        let even = Loss::of(&score(&[1, 1, 0, 0]), &score(&[0, 0, 1, 1]));
        assert!(!even.exceeds(0.0));
        let one = Loss::of(&score(&[1]), &score(&[0]));
        assert!(!one.exceeds(0.0), "one photo tells nothing: {one:?}");
    }
}
