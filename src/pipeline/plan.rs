use margay_core::NodeId;
use serde::Serialize;

use super::footprint::peak_bytes;
use super::images::bad_photo;
use super::limit::first_step;
use super::opening::{head_plan, opened, with_head};
use super::preprocess::prepared;
use super::pruning::method;
use super::{PipelineError, budget};
use crate::allocate::{LayerProfile, profiles};
use crate::data::{Dataset, FewShot, Sample, unreadable};
use crate::labels::HeadPlan;
use crate::progress::Progress;
use crate::recipe::{PruneSpec, Recipe};
use crate::record::{BadPhoto, LeftOutKind, Split};

/// What a run would do, without doing it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Architecture and variant found in the checkpoint.
    pub architecture: String,
    /// Height and width of the input.
    pub image: [usize; 2],
    /// Where the head comes from: `sliced` or `joined` from the checkpoint's, or `fitted`.
    pub head: String,
    /// What there is of each class, and what is taken.
    pub classes: Vec<PlannedClass>,
    /// Images of the final evaluation.
    pub val: usize,
    /// Where the split into train and val comes from.
    pub split: Split,
    /// Photos of both whose header cannot be read.
    pub bad_photos: Vec<BadPhoto>,
    /// What was left out, by kind.
    pub left_out: Vec<LeftOutKind>,
    /// Every prunable layer.
    pub layers: Vec<PlannedLayer>,
    /// Weights before and after, over the prunable ones.
    pub prunable: [usize; 2],
    /// Weights before and after, over all.
    pub all: [usize; 2],
    /// Multiply-adds per image before and after.
    pub macs: [u64; 2],
    /// Estimate of the bytes that the run holds at its peak.
    pub bytes: u64,
}

/// What there is of a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedClass {
    /// Its name.
    pub name: String,
    /// Labels of the checkpoint that it is; none where a head is fitted.
    pub labels: Vec<String>,
    /// Photos to learn from.
    pub train: usize,
    /// Photos to evaluate on.
    pub val: usize,
    /// Shots for calibration.
    pub calibration: usize,
    /// Shots that are held out.
    pub heldout: usize,
}

/// What a run would do to a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedLayer {
    /// Node name.
    pub name: String,
    /// Weights.
    pub weights: usize,
    /// Weights that stay.
    pub kept: usize,
}

/// Resolves names and counts, reads the checkpoint, the labels, the folders and the header of every photo, computes nothing
/// else.
pub fn plan(recipe: &Recipe, progress: &mut dyn Progress) -> Result<Plan, PipelineError> {
    let method = method(recipe)?;
    let dataset = Dataset::scan(&recipe.data, recipe.seed, &recipe.classes)?;
    dataset.tell(progress);
    let checkpoint = opened(&recipe.model, recipe.labels.as_deref(), recipe.input.head.as_deref(), progress)?;
    let preprocess = prepared(&recipe.input, Some(&checkpoint), &dataset.train, progress)?.spec;
    let shots = FewShot::draw(&dataset, recipe.shots.per_class, recipe.shots.holdout, recipe.seed)?;
    shots.tell(progress);
    let pretrained = checkpoint.into_model(preprocess.size)?;
    let head = head_plan(recipe.labels.as_deref(), &pretrained, &dataset, &recipe.classes, progress)?;
    let graph = with_head(pretrained.graph, &head, dataset.classes.len());
    let bad_photos = bad_headers(&dataset, progress);
    let profiles = profiles(&graph);
    if method.allocator.measures() || recipe.prune.target.is_some() {
        progress
            .note("what layers keep is measured in the run; shown is what their shapes and the sparsity say");
    }
    let PruneSpec { count, sparsity, .. } = recipe.relaxed(first_step(&graph, recipe)?).prune;
    let budget = budget::of_weights(&graph, &profiles, count, sparsity)?;
    let kept = method.by_shape(&graph, &budget)?.left;
    let macs = graph.macs().map_err(crate::models::ModelError::from)?;
    let total = graph.parameters();
    let dense: usize = profiles.iter().map(LayerProfile::weights).sum();
    let sparse: usize = kept.iter().sum();
    let saved = |(id, (profile, kept)): (NodeId, (&LayerProfile, &usize))| {
        macs[id.index()] - macs[id.index()] * *kept as u64 / profile.weights().max(1) as u64
    };
    let fewer: u64 = graph.prunable().zip(profiles.iter().zip(&kept)).map(saved).sum();
    let general = recipe.general.as_ref().map_or(0, |_| recipe.shots.general);
    let images = (shots.calibration.len() + shots.heldout.len()) * recipe.prune.views + general;
    dataset.left_out.tell(progress);
    Ok(Plan {
        architecture: graph.architecture.clone(),
        image: preprocess.size,
        head: if matches!(head, HeadPlan::Probe(_)) { "fitted" } else { head.kind() }.to_owned(),
        classes: planned_classes(&dataset, &shots, &head),
        val: dataset.val.len(),
        split: dataset.split.record(),
        bad_photos,
        left_out: dataset.left_out.kinds(),
        prunable: [dense, sparse],
        all: [total, total - dense + sparse],
        macs: [macs.iter().sum(), macs.iter().sum::<u64>() - fewer],
        bytes: peak_bytes(&graph, images, recipe),
        layers: profiles
            .iter()
            .zip(&kept)
            .map(|(p, kept)| PlannedLayer { name: p.name.clone(), weights: p.weights(), kept: *kept })
            .collect(),
    })
}

fn planned_classes(dataset: &Dataset, shots: &FewShot, head: &HeadPlan) -> Vec<PlannedClass> {
    let count = |samples: &[Sample], class| samples.iter().filter(|s| s.class == class).count();
    let planned = dataset.classes.iter().enumerate().map(|(class, name)| PlannedClass {
        name: name.clone(),
        labels: match head {
            HeadPlan::Slice(groups) => groups[class].iter().map(|row| row.name.clone()).collect(),
            HeadPlan::Probe(_) => Vec::new(),
        },
        train: count(&dataset.train, class),
        val: count(&dataset.val, class),
        calibration: count(&shots.calibration, class),
        heldout: count(&shots.heldout, class),
    });
    planned.collect()
}

/// Reads the header of every photo.
fn bad_headers(dataset: &Dataset, progress: &mut dyn Progress) -> Vec<BadPhoto> {
    let all = dataset.all();
    progress.start("read headers", all.len() as u64);
    let bad = unreadable(&all);
    progress.finish();
    bad.iter().map(|(path, error)| bad_photo(dataset, path, error)).collect()
}
