//! Less pruning where the whole network would lose too much.

use margay_core::Graph;

use super::PipelineError;
use super::budget::of_weights;
use super::guard::decided;
use super::host::timed;
use super::networks::Base;
use super::pruning::Pruner;
use super::recover::{Decision, asks_fold, decide};
use super::sides::Loss;
use super::sparsify::{of_all_shots, trial};
use super::task::Task;
use crate::allocate::profiles;
use crate::progress::Progress;
use crate::recipe::{PruneSpec, Recipe};
use crate::record::{Candidate, Choice, Stages};

/// Times that the target is relaxed at most.
const STEPS: u32 = 8;
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
    use super::*;
    use crate::models::{Design, build};
    use crate::recipe::Count;

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
}
