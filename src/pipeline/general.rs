//! Photos of anything: of many the few that resemble the task.

use std::path::PathBuf;

use margay_core::Preprocess;
use margay_runtime::{Note, PhotoError, Preprocessor};
use tch::{Device, Tensor};

use super::PipelineError;
use super::evaluate::{Answers, on_torch};
use super::images::examples;
use crate::data::{Dataset, Sample, load, load_in_pieces};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::torch::TorchModel;

/// Photos that are looked at together.
const PIECE: usize = 256;

/// Photos of anything, whose statistics steady those of the shots.
pub struct General {
    /// Images `[n, 3, h, w]`.
    pub images: Tensor,
    /// Their files, `[n]`.
    pub photos: Vec<PathBuf>,
    /// Files that were skipped, and why.
    pub bad: Vec<(PathBuf, PhotoError)>,
    /// Files that are truncated or damaged and used nevertheless.
    pub noted: Vec<(PathBuf, Note)>,
}

/// The task's own photos, and how photos become inputs.
#[derive(Clone, Copy)]
pub struct Photos<'a> {
    /// The user's photos.
    pub dataset: &'a Dataset,
    /// How photos become inputs.
    pub preprocess: &'a Preprocess,
    /// Where inputs go.
    pub device: Device,
}

impl General {
    /// Reads the recipe's photos of anything, if it has any. Where more are looked at than are taken, those are taken that
    /// the dense network answers most strongly with one of the task's classes, each class in turns.
    pub fn read(
        task: Photos,
        recipe: &Recipe,
        dense: impl FnOnce() -> Result<TorchModel, PipelineError>,
        progress: &mut dyn Progress,
    ) -> Result<Option<Self>, PipelineError> {
        let Some(folder) = &recipe.general else { return Ok(None) };
        let (most, preprocessor) = (recipe.shots.general, Preprocessor::new(task.preprocess));
        let mut photos =
            task.dataset.unlabelled(folder, recipe.shots.general_pool.max(most), recipe.seed, progress)?;
        let mut bad = Vec::new();
        if photos.len() > most {
            let pool = photos.len();
            photos = nearest(task, &dense()?, &photos, most, &mut bad, progress)?;
            let folder = folder.display();
            progress.note(&format!("of {pool} photos in {folder} the {most} nearest to the task are taken"));
        }
        let loaded = load(&photos, &preprocessor, progress)?;
        let images = examples(&loaded, task.device)?.images;
        bad.extend(loaded.bad);
        Ok(Some(Self { images, photos: loaded.paths, bad, noted: loaded.noted }))
    }
}

/// The `most` photos that look most like the task's classes, in the order of `photos`.
fn nearest(
    task: Photos,
    dense: &TorchModel,
    photos: &[Sample],
    most: usize,
    bad: &mut Vec<(PathBuf, PhotoError)>,
    progress: &mut dyn Progress,
) -> Result<Vec<Sample>, PipelineError> {
    let preprocessor = Preprocessor::new(task.preprocess);
    let (mut readable, mut logits) = (Vec::new(), Vec::new());
    load_in_pieces(photos, PIECE, &preprocessor, progress, |loaded| {
        if !loaded.is_empty() {
            logits.extend(on_torch(dense, &examples(&loaded, task.device)?)?.logits);
        }
        readable.extend(loaded.paths);
        bad.extend(loaded.bad);
        Ok::<_, PipelineError>(())
    })?;
    let answers = Answers { logits, classes: task.dataset.classes.len() };
    let taken = in_turns(&answers, most);
    Ok(taken.into_iter().map(|at| Sample { path: readable[at].clone(), class: 0 }).collect())
}

/// The `most` images with the largest logits, each class taking its next one in turns; ascending.
fn in_turns(answers: &Answers, most: usize) -> Vec<usize> {
    let count = answers.logits.len() / answers.classes;
    let logit = |image: usize, class: usize| answers.logits[image * answers.classes + class];
    let mut queues: Vec<_> = (0..answers.classes)
        .map(|class| {
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|a, b| logit(*b, class).total_cmp(&logit(*a, class)));
            order.into_iter()
        })
        .collect();
    let mut taken = vec![false; count];
    let classes = (0..answers.classes).cycle();
    for class in classes.take(most.min(count)) {
        if let Some(next) = queues[class].find(|image| !taken[*image]) {
            taken[next] = true;
        }
    }
    (0..count).filter(|image| taken[*image]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_take_their_next_image_in_turns() {
        let logits = [[3.0, 9.0], [4.0, 8.0], [1.0, 7.0], [2.0, 0.0], [0.0, 6.0]].concat();
        let answers = Answers { logits, classes: 2 };
        assert_eq!(in_turns(&answers, 1), [1], "the first class's best");
        assert_eq!(in_turns(&answers, 2), [0, 1], "the second class's best, too");
        assert_eq!(in_turns(&answers, 4), [0, 1, 2, 3], "none twice");
        assert_eq!(in_turns(&answers, 9), [0, 1, 2, 3, 4], "no more than there are");
    }
}
