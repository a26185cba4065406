use std::path::Path;

use super::evaluate::{Answers, on_torch};
use super::export::{nonzeros, packed};
use super::host::timed;
use super::images::examples;
use super::latency::{latency, own_session};
use super::limit::pruned;
use super::networks::{Base, Specialist};
use super::recover::{decide, recover};
use super::task::Task;
use super::{PipelineError, host};
use crate::distill::Examples;
use crate::experiment::{ClassChange, Line, Measured, Outcome, Run, Trainable};
use crate::progress::{Progress, Recorder};
use crate::recipe::{PruneSpec, Recipe};
use crate::record::{Evaluation, Latency, Nonzeros, Stages};

/// How the runs of an experiment are carried out; nothing here changes a network.
#[derive(Clone, Copy, Debug)]
pub struct ExperimentOptions<'a> {
    /// Where the files of the recipes are.
    pub root: &'a Path,
    /// Whether the time per image is measured.
    pub latency: bool,
}

/// Carries out runs that start from the same pruned network, which is made once.
///
/// `finished` gets each result as soon as it is there; only its errors end the group. A run that fails gives a
/// line that says why.
pub fn experiment<E>(
    runs: &[Run],
    options: &ExperimentOptions,
    progress: &mut dyn Progress,
    finished: &mut dyn FnMut(Line) -> Result<(), E>,
) -> Result<(), E> {
    let Some(first) = runs.first() else { return Ok(()) };
    let progress = &mut Recorder::new(progress);
    let mut shared = Shared::prepare(&first.recipe_in(options.root), progress);
    for run in runs {
        let outcome = match &mut shared {
            Ok(shared) => shared
                .measure(&run.recipe_in(options.root), options, progress)
                .map_or_else(|error| failed(&error), |measured| Outcome::Measured(Box::new(measured))),
            Err(error) => failed(error),
        };
        finished(Line::new(run, outcome))?;
    }
    Ok(())
}

/// An error with its causes, without the stack of calls that libtorch appends.
fn failed(error: &PipelineError) -> Outcome {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let lines = causes.map(|error| error.to_string().lines().next().unwrap_or_default().to_owned());
    Outcome::Error(lines.collect::<Vec<_>>().join(": "))
}

/// What the runs of a group have in common.
struct Shared {
    task: Task,
    /// As it was after all that may be lost was seen to.
    prune: PruneSpec,
    base: Base,
    seconds: Stages,
    /// Read when the first run has its final network.
    val: Option<Val>,
    warnings: Vec<String>,
}

/// Val, and what the networks that all runs share say of it.
struct Val {
    images: Examples,
    classes: Vec<usize>,
    /// What the dense network answers.
    answers: Answers,
    dense: Evaluation,
    oneshot: Evaluation,
}

impl Shared {
    fn prepare(recipe: &Recipe, progress: &mut Recorder) -> Result<Self, PipelineError> {
        let mut seconds = Stages::default();
        let task = timed(&mut seconds, "read", || Task::prepare(recipe, progress))?;
        task.dataset.left_out.tell(progress);
        let (recipe, base, _) = pruned(&task, &task.ran(recipe), &mut seconds, progress)?;
        let prune = PruneSpec { max_drop: None, ..recipe.prune };
        let warnings = std::mem::take(&mut progress.warnings);
        Ok(Self { task, prune, base, seconds, val: None, warnings })
    }

    /// Recovers from the pruned network as the recipe says, then measures the outcome on val.
    fn measure(
        &mut self,
        recipe: &Recipe,
        options: &ExperimentOptions,
        progress: &mut Recorder,
    ) -> Result<Measured, PipelineError> {
        host::reset_peak_rss();
        progress.warnings.clear();
        let mut seconds = Stages::default();
        let recipe = &Recipe { prune: self.prune.clone(), ..self.task.ran(recipe) };
        let trial = self.base.trial.as_deref();
        let decision = decide(&self.task, trial, recipe, &mut seconds, progress)?;
        let specialist = recover(&self.base, decision, recipe, &mut seconds, progress)?;
        let val = match self.val.take() {
            Some(val) => val,
            None => self.read_val(progress)?,
        };
        let evaluation = timed(&mut seconds, "evaluate", || {
            let answers = on_torch(&specialist.model, &val.images)?;
            Ok(brief(answers.evaluate_against(&val.answers, &self.task.dataset.classes, &val.classes)))
        })?;
        let latency_ms = options.latency.then(|| self.latency(recipe, &specialist)).transpose()?;
        let [worst, largest_drop] = ClassChange::of(&val.dense, &evaluation);
        let nonzeros = nonzeros(&specialist.model, &specialist.masks, recipe.prune.count);
        let measured = Measured {
            dense: val.dense.clone(),
            oneshot: val.oneshot.clone(),
            specialist: evaluation,
            worst,
            largest_drop,
            trainable: trainable(&specialist, &nonzeros),
            nonzeros,
            same_support: specialist.masks == self.base.masks,
            choices: [&self.task.choices[..], &self.base.chosen.choices, &specialist.choices].concat(),
            latency_ms,
            seconds,
            shared_seconds: self.seconds.clone(),
            peak_rss_bytes: host::peak_rss_bytes(),
            warnings: [self.warnings.as_slice(), &progress.warnings].concat(),
        };
        self.val = Some(val);
        Ok(measured)
    }

    fn read_val(&mut self, progress: &mut Recorder) -> Result<Val, PipelineError> {
        let mut seconds = std::mem::take(&mut self.seconds);
        let loaded = timed(&mut seconds, "read val", || self.task.load_val(progress))?;
        let (images, classes) = (examples(&loaded, self.task.device)?, loaded.classes);
        let val = timed(&mut seconds, "evaluate", || {
            let [answers, oneshot] =
                [&self.base.dense, &self.base.oneshot].map(|model| on_torch(model, &images));
            let (answers, labels) = (answers?, &self.task.dataset.classes);
            let dense = brief(answers.evaluate(labels, &classes));
            let oneshot = brief(oneshot?.evaluate_against(&answers, labels, &classes));
            Ok(Val { images, classes, answers, dense, oneshot })
        })?;
        self.seconds = seconds;
        Ok(val)
    }

    fn latency(&self, recipe: &Recipe, specialist: &Specialist) -> Result<Latency, PipelineError> {
        let options = own_session(self.task.threads);
        let exported = packed(&self.task, recipe, &self.base.dense, specialist)?;
        latency(&exported.dense, &exported.sparse, &options)
    }
}

/// Without the confusion matrix.
fn brief(evaluation: Evaluation) -> Evaluation {
    Evaluation { confusion: Vec::new(), ..evaluation }
}

/// Counts what recovery trained. Without an adapter it is every surviving parameter, or none.
fn trainable(specialist: &Specialist, nonzeros: &Nonzeros) -> Trainable {
    let (layers, beside) = match &specialist.adapter {
        Some(adapter) => (adapter.trained as u64, adapter.beside as u64),
        None if !specialist.trained => (0, 0),
        None => (nonzeros.prunable.sparse, nonzeros.all.dense - nonzeros.prunable.dense),
    };
    Trainable { layers, beside, all: nonzeros.all.dense }
}
