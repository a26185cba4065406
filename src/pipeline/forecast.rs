//! How long finetuning will take, told before the long stages begin.

use std::time::Instant;

use margay_core::Graph;

use super::PipelineError;
use super::evaluate::logits;
use super::recover::{before, frozen_share, tried};
use super::task::Task;
use crate::distill::frozen_nodes;
use crate::progress::Progress;
use crate::recipe::{Recipe, RecoverySpec, Schedule};
use crate::torch::TorchModel;

/// Photos whose answers are timed.
const TIMED: i64 = 8;
/// Shorter finetunings are not worth a word.
const WORTH_TELLING: f64 = 60.0;
/// A pass for gradients takes about two of those for answers.
const GRADIENTS: f64 = 2.0;

/// Times the network on a few photos, and tells how long finetuning will take if that is long.
pub fn forecast(task: &Task, recipe: &Recipe, progress: &mut dyn Progress) -> Result<(), PipelineError> {
    let Task { pretrained, calibration, heldout, unlabelled, device, .. } = task;
    let unlabelled = unlabelled.as_ref().map_or(0, |images| images.size()[0] as usize);
    let photos = Photos { calibration: calibration.len(), heldout: heldout.len(), unlabelled };
    let passes = passes(&pretrained.graph, photos, recipe);
    if passes == 0.0 {
        return Ok(());
    }
    let model = TorchModel::new(pretrained.graph.clone(), &pretrained.params, *device)?;
    let some = calibration.images.f_narrow(0, 0, TIMED.min(calibration.len() as i64));
    let batch = [some.map_err(crate::torch::TorchError::from)?];
    // The first pass pays for what libtorch sets up once.
    let mut seconds = f64::INFINITY;
    for _ in 0..2 {
        let started = Instant::now();
        drop(logits(&model, &batch)?);
        seconds = seconds.min(started.elapsed().as_secs_f64());
    }
    let total = passes * seconds / batch[0].size()[0] as f64;
    if total > WORTH_TELLING {
        progress.note(&format!(
            "finetuning will take about {:.0} minutes on this machine; --recovery none does without, --epochs and --freeze shorten it",
            (total / 60.0).ceil()
        ));
    }
    Ok(())
}

/// Numbers of photos that finetuning shows.
#[derive(Clone, Copy)]
struct Photos {
    calibration: usize,
    heldout: usize,
    unlabelled: usize,
}

/// Passes of a photo that finetuning makes at most, each as long as an answer.
fn passes(graph: &Graph, photos: Photos, recipe: &Recipe) -> f64 {
    let RecoverySpec { fixed_views, square_head, recompute, .. } = recipe.recovery;
    let macs = graph.macs().expect("a model's graph was checked");
    let start: u64 = macs[..frozen_nodes(graph, frozen_share(recipe))].iter().sum();
    let frozen = start as f64 / macs.iter().sum::<u64>() as f64;
    let shown = shown(photos, recipe) as f64;
    let trained = (1.0 - frozen) * (1.0 + GRADIENTS + if recompute { 1.0 } else { 0.0 });
    let views = (fixed_views * (photos.calibration + photos.heldout + photos.unlabelled)) as f64;
    let of = |remembered: bool| if remembered { shown.min(views) } else { shown };
    shown * trained + of(fixed_views > 0) * frozen + of(fixed_views > 0 && square_head == 0.0)
}

/// Photos shown at most: all shots to the end, and before that those of the trial.
fn shown(Photos { calibration, heldout, unlabelled }: Photos, recipe: &Recipe) -> usize {
    if recipe.recovery.schedule == Schedule::None {
        return 0;
    }
    let (levels, lengths) = (before(recipe).len(), recipe.recovery.lengths());
    let longest = lengths.iter().copied().fold(0, usize::max);
    let trial = if recipe.recovery.asks_fold() && heldout > 0 { calibration } else { 0 };
    let all = (levels + 1) * longest * (calibration + heldout);
    let tried: usize = tried(&recipe.recovery).iter().map(|(_, passes)| passes).sum();
    let shots = all + (levels * longest + tried) * trial;
    // As many of the unlabelled photos are shown beside them.
    if unlabelled > 0 { 2 * shots } else { shots }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Design, build};

    #[test]
    fn passes_are_counted_as_finetuning_makes_them() {
        let (variant, image) = ("resnet18".to_owned(), [32, 32]);
        let graph = build(&Design { variant, width: Some(8), depth: None, classes: 4, image }).unwrap();
        let photos = Photos { calibration: 80, heldout: 20, unlabelled: 0 };
        let passes = |change: &dyn Fn(&mut RecoverySpec)| {
            let mut recipe = Recipe::new("model".into(), "data".into());
            (recipe.recovery.epochs, recipe.recovery.pilot) = (10, false);
            (recipe.recovery.fixed_views, recipe.recovery.square_head, recipe.recovery.freeze) =
                (0, 1.0, 0.0);
            change(&mut recipe.recovery);
            super::passes(&graph, photos, &recipe)
        };
        // Each photo once for the teacher, once for the student, and about twice for its gradients.
        assert_eq!(passes(&|_| ()), 10.0 * 100.0 * 4.0);
        assert_eq!(passes(&|recovery| recovery.pilot = true), (10.0 * 100.0 + 3.0 * 80.0) * 4.0);
        assert_eq!(passes(&|recovery| recovery.schedule = Schedule::None), 0.0);
        assert_eq!(passes(&|recovery| recovery.try_epochs = vec![5, 10]), (10.0 * 100.0 + 15.0 * 80.0) * 4.0);
        // Four halvings before 20x.
        assert_eq!(passes(&|recovery| recovery.schedule = Schedule::Gradual), 5.0 * 10.0 * 100.0 * 4.0);
        let remembered = passes(&|recovery| (recovery.fixed_views, recovery.square_head) = (2, 0.0));
        assert_eq!(remembered, 10.0 * 100.0 * 3.0 + 2.0 * 100.0);
        let frozen = passes(&|recovery| {
            (recovery.fixed_views, recovery.square_head, recovery.freeze) = (2, 0.0, 0.5);
        });
        assert!((0.5 * remembered..0.7 * remembered).contains(&frozen), "{frozen} of {remembered}");
    }
}
