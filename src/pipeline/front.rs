//! `margay front`: specialists at several targets, judged on the held-out fold.

use super::PipelineError;
use super::evaluate::score;
use super::export::{macs, nonzeros, packed};
use super::guard::{held_out_recall, largest_drop, tried};
use super::latency::{latency, own_session};
use super::task::Task;
use crate::front::{Front, Point};
use crate::progress::Progress;
use crate::recipe::Recipe;

/// Makes a specialist for each recipe from the calibration part of the shots. The recipes differ in their targets only.
pub fn front(recipes: &[Recipe], progress: &mut dyn Progress) -> Result<Front, PipelineError> {
    let Some(first) = recipes.first() else { return Err(PipelineError::NoTarget) };
    let task = Task::prepare(first, progress)?;
    if task.heldout.is_empty() {
        return Err(PipelineError::NoImages("the held-out fold"));
    }
    let dense = task.dense(&task.calibration)?;
    let recall = held_out_recall(&task, &dense)?;
    let options = own_session(task.threads);
    let judged = score(&dense, &task.heldout)?;
    let mut front = Front {
        model: first.model.to_string_lossy().into_owned(),
        heldout: task.heldout.len(),
        threads: task.threads,
        dense: Point {
            target: "dense".to_owned(),
            compression: 1.0,
            macs: 1.0,
            ms: f64::NAN,
            top1: judged.top1,
            loss: judged.loss,
            class_drop: 0.0,
            best: false,
        },
        points: Vec::new(),
    };
    let mut dense_times = Vec::new();
    for recipe in recipes {
        let recipe = &task.ran(recipe);
        progress.note(&format!("target {}", recipe.cost()));
        let specialist = match tried(&task, recipe, progress) {
            Ok(specialist) => specialist,
            // One target out of reach does not end the others.
            Err(
                error @ (PipelineError::Allocate(_)
                | PipelineError::OutOfTime { .. }
                | PipelineError::OutOfWeights { .. }),
            ) if recipes.len() > 1 => {
                progress.warn(&format!("{}: {error}", recipe.cost()));
                continue;
            }
            Err(error) => return Err(error),
        };
        let judged = score(&specialist.model, &task.heldout)?;
        let exported = packed(&task, recipe, &dense, &specialist)?;
        let times = latency(&exported.dense, &exported.sparse, &options)?;
        let kept = nonzeros(&specialist.model, &specialist.masks, recipe.prune.count);
        let work = macs(&specialist.model, &specialist.masks);
        let (class_drop, _) = largest_drop(&recall, &held_out_recall(&task, &specialist.model)?);
        dense_times.push(times.dense);
        front.points.push(Point {
            target: recipe.cost(),
            compression: kept.dense as f64 / kept.sparse.max(1) as f64,
            macs: work.sparse as f64 / work.dense.max(1) as f64,
            ms: times.sparse,
            top1: judged.top1,
            loss: judged.loss,
            class_drop,
            best: false,
        });
    }
    // Timed beside every specialist: the median is steadier than any.
    dense_times.sort_by(f64::total_cmp);
    front.dense.ms = *dense_times.get(dense_times.len() / 2).ok_or(PipelineError::NoTarget)?;
    front.mark();
    task.dataset.left_out.tell(progress);
    Ok(front)
}
