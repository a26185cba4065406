use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::axes::{METHOD, axis_of};
use super::facts::{COMPRESSION, Facts, SHOTS, differing, facts, is_shared};
use super::run::Run;
use super::{Estimate, Experiment, ExperimentError, Measured, Outcome, Results};

/// What an experiment found: figures over seeds, by what was pruned and how it was recovered.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Name of the experiment.
    pub name: String,
    /// Its purpose.
    pub description: String,
    /// The adapter that the others are compared with.
    pub reference: Option<String>,
    /// Runs that the file describes.
    pub runs: usize,
    /// Runs with figures.
    pub done: usize,
    /// Title and error of the runs that failed.
    pub failed: Vec<(String, String)>,
    /// Names of what varies between the rows of a group, in the order of the columns.
    pub columns: Vec<String>,
    /// The one of them along which accuracy is drawn, if it is drawn as a curve.
    pub curve: Option<String>,
    /// Whatever shares a table.
    pub groups: Vec<Group>,
}

/// Runs on the same pruned networks, one per seed; where sweeps have names, all runs of a task.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Name of the task.
    pub task: String,
    /// Images per class; 0 is all. Absent where rows differ in it.
    pub shots: Option<usize>,
    /// Weights before for each weight after. Absent where rows differ in it.
    pub compression: Option<f64>,
    /// What else is particular to this group, by axis.
    pub settings: BTreeMap<String, String>,
    /// One row per way of recovery.
    pub rows: Vec<Row>,
}

/// One way of recovery over all seeds; accuracies are fractions.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What varies, by axis; absent where an axis has no effect.
    pub settings: BTreeMap<String, String>,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// Top-1 of the dense network.
    pub dense: Estimate,
    /// Top-1 after pruning.
    pub oneshot: Estimate,
    /// Top-1 of the final network.
    pub top1: Estimate,
    /// Top-1 minus that of the reference with the same seed.
    pub difference: Option<Estimate>,
    /// Top-1 of the final network minus that of the dense one, image by image; absent where a run is too old to tell.
    pub against_dense: Option<Estimate>,
    /// Recall of the class that is known worst.
    pub worst_recall: Option<Estimate>,
    /// Recall that the class lost which lost most.
    pub largest_drop: Option<Estimate>,
    /// Milliseconds an image of the dense and of the final network on the runtime, if every run was timed.
    pub latency_ms: Option<[f64; 2]>,
    /// Parameters trained in layers, as a fraction of all.
    pub trained: f64,
    /// Parameters trained beside them, as a fraction of all.
    pub beside: f64,
    /// Seconds of recovery.
    pub seconds: Estimate,
    #[serde(skip)]
    by_seed: BTreeMap<u64, f64>,
}

/// A finished run beside what tells it from others.
struct Finished<'a> {
    run: &'a Run,
    measured: &'a Measured,
    facts: Facts,
}

impl Summary {
    /// Sorts the results of an experiment into tables.
    pub fn new(experiment: &Experiment, runs: &[Run], results: &Results) -> Result<Self, ExperimentError> {
        let about = &experiment.about;
        let mut summary = Self {
            name: about.name.clone(),
            description: about.description.clone(),
            reference: about.reference.clone(),
            runs: runs.len(),
            done: 0,
            failed: Vec::new(),
            columns: Vec::new(),
            curve: about.curve.clone(),
            groups: Vec::new(),
        };
        let mut finished = Vec::new();
        for run in runs {
            match results.get(&run.key) {
                Some(Outcome::Measured(measured)) => {
                    finished.push(Finished { run, measured, facts: facts(run)? });
                }
                Some(Outcome::Error(error)) => summary.failed.push((run.title(), error.clone())),
                None => {}
            }
        }
        summary.done = finished.len();
        let (shared, own) = varied(&finished);
        summary.columns = own.iter().map(|key| axis_of(key).to_owned()).collect();
        summary.groups = collect(&finished, |run| (run.name(), run.pick(&shared)))
            .into_iter()
            .map(|group| Group::new(&group, &shared, &own, about.reference.as_deref()))
            .collect();
        Ok(summary)
    }
}

impl Finished<'_> {
    fn name(&self) -> [&str; 2] {
        [&self.run.checkpoint, &self.run.task]
    }

    fn pick(&self, keys: &[String]) -> Facts {
        keys.iter().filter_map(|key| Some((axis_of(key).to_owned(), self.facts.get(key)?.clone()))).collect()
    }
}

/// Finished runs by key, keys in the order of their first appearance.
fn collect<'f, 'r, K: PartialEq>(
    finished: impl IntoIterator<Item = &'f Finished<'r>>,
    key: impl Fn(&'f Finished<'r>) -> K,
) -> Vec<Vec<&'f Finished<'r>>> {
    let mut groups: Vec<(K, Vec<&Finished>)> = Vec::new();
    for run in finished {
        let key = key(run);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => group.push(run),
            None => groups.push((key, vec![run])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

impl Group {
    fn new(runs: &[&Finished], shared: &[String], own: &[String], reference: Option<&str>) -> Self {
        let first = runs[0];
        let mut rows: Vec<Row> = collect(runs.iter().copied(), |run| run.pick(own))
            .iter()
            .filter_map(|runs| Row::new(runs, runs[0].pick(own)))
            .collect();
        let differences: Vec<_> = rows.iter().map(|row| row.against(reference?, &rows)).collect();
        for (row, difference) in rows.iter_mut().zip(differences) {
            row.difference = difference;
        }
        let mut settings = first.pick(shared);
        settings.retain(|axis, _| !["shots", "compression"].contains(&axis.as_str()));
        let recipe = &first.run.recipe;
        let agreed = |key: &str| runs.iter().all(|run| run.facts.get(key) == first.facts.get(key));
        Self {
            checkpoint: first.run.checkpoint.clone(),
            task: first.run.task.clone(),
            shots: agreed(SHOTS).then_some(recipe.shots.per_class),
            compression: agreed(COMPRESSION).then(|| recipe.prune.sparsity.compression()),
            settings,
            rows,
        }
    }
}

impl Row {
    fn new(runs: &[&Finished], settings: BTreeMap<String, String>) -> Option<Self> {
        let over = |figure: &dyn Fn(&Measured) -> Option<f64>| {
            let values: Option<Vec<f64>> = runs.iter().map(|run| figure(run.measured)).collect();
            values.as_deref().and_then(Estimate::of)
        };
        let share = |part: fn(&super::Trainable) -> u64| {
            let share = |run: &&Finished| {
                part(&run.measured.trainable) as f64 / run.measured.trainable.all.max(1) as f64
            };
            runs.iter().map(share).sum::<f64>() / runs.len() as f64
        };
        Some(Self {
            settings,
            seeds: runs.iter().map(|run| run.run.recipe.seed).collect(),
            dense: over(&|m| m.dense.top1)?,
            oneshot: over(&|m| m.oneshot.top1)?,
            top1: over(&|m| m.specialist.top1)?,
            difference: None,
            against_dense: paired(runs),
            worst_recall: over(&|m| Some(m.worst.as_ref()?.specialist)),
            largest_drop: over(&|m| Some(m.largest_drop.as_ref()?.loss())),
            latency_ms: over(&|m| Some(m.latency_ms?.dense))
                .zip(over(&|m| Some(m.latency_ms?.sparse)))
                .map(|(dense, sparse)| [dense.mean, sparse.mean]),
            trained: share(|t| t.layers),
            beside: share(|t| t.beside),
            seconds: over(&|m| Some(recovery(m)))?,
            by_seed: runs
                .iter()
                .filter_map(|run| Some((run.run.recipe.seed, run.measured.specialist.top1?)))
                .collect(),
        })
    }

    /// Seed by seed against the row of the reference that is most like this one in everything else.
    fn against(&self, reference: &str, rows: &[Self]) -> Option<Estimate> {
        let unlike = |row: &&Self| {
            let differs = |(axis, value): (&String, &String)| {
                axis != "adapter" && row.settings.get(axis).is_some_and(|other| other != value)
            };
            self.settings.iter().filter(|setting| differs(*setting)).count()
        };
        let other = rows.iter().filter(|row| row.adapter() == Some(reference)).min_by_key(unlike)?;
        if other.settings == self.settings {
            return None;
        }
        let difference = |(seed, top1): (&u64, &f64)| Some(top1 - other.by_seed.get(seed)?);
        let differences: Vec<f64> = self.by_seed.iter().filter_map(difference).collect();
        Estimate::of(&differences)
    }

    /// Name of the adapter, if it varies.
    fn adapter(&self) -> Option<&str> {
        self.settings.get("adapter").map(String::as_str)
    }
}

/// What the final networks of some runs lose or win against the dense ones. All runs of a row see the same images of val, so their
/// doubts about these do not average out: the mean of their squares counts beside the spread over seeds.
fn paired(runs: &[&Finished]) -> Option<Estimate> {
    let of = |run: &&Finished| run.measured.specialist.against_dense.map(|paired| paired.top1);
    let all = runs.iter().map(of).collect::<Option<Vec<_>>>()?;
    let of_images = all.iter().map(|top1| top1.error().powi(2)).sum::<f64>() / all.len() as f64;
    let means: Vec<f64> = all.iter().map(|top1| top1.mean).collect();
    Some(Estimate::of(&means)?.with_error(of_images.sqrt()))
}

fn recovery(measured: &Measured) -> f64 {
    let trained = measured.seconds.iter().filter(|(stage, _)| ["adapt", "finetune"].contains(stage));
    trained.map(|(_, seconds)| seconds).fold(0.0, std::ops::Add::add)
}

/// Keys that tell tables apart, and keys that tell the rows of a table apart, the adapter first.
///
/// Rows differ in how they are recovered. Where methods have names, rows differ in everything: in their methods, and in
/// what varies within one, as the name says the rest.
fn varied(finished: &[Finished]) -> (Vec<String>, Vec<String>) {
    if finished.iter().any(|run| run.run.method.is_some()) {
        let methods = collect(finished, |run| &run.run.method);
        let within: BTreeSet<&str> =
            methods.iter().flat_map(|method| differing(method.iter().map(|run| &run.facts))).collect();
        let own = std::iter::once(METHOD).chain(within).map(str::to_owned).collect();
        return (Vec::new(), own);
    }
    let keys = differing(finished.iter().map(|run| &run.facts)).into_iter().map(str::to_owned);
    let (shared, mut own): (Vec<String>, Vec<String>) = keys.partition(|key| is_shared(key));
    own.sort_by_key(|key| key != "adapt.method");
    (shared, own)
}

#[cfg(test)]
mod tests;
