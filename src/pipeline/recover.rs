//! The last finetuning: whether it helps and how far it goes, and what is done where it diverges.

use std::ops::ControlFlow;

use margay_core::{Graph, Mask};
use std::collections::BTreeMap;

use super::PipelineError;
use super::choose::{can_decide, least_loss};
use super::evaluate::{Score, score, score_of};
use super::limit::{Loss, Sides};
use super::sparsify::{Base, Specialist, before, timed};
use super::task::Task;
use crate::adapt::{self, Adapter, Merged};
use crate::distill::{Student, Training, Watch, to_the_end, train};
use crate::progress::Progress;
use crate::recipe::{Recipe, RecoverySpec, Schedule};
use crate::record::{Choice, Stages};
use crate::torch::{Effective, Norms, TorchError, TorchModel};

/// Factor on every learning rate once a training has diverged.
const SLOWER: f64 = 0.1;
/// Parts of a finetuning at whose ends the held-out fold is asked.
const PARTS: usize = 4;

/// How far and how fast a network is finetuned.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Course {
    /// Passes that the schedule of the rates is laid out for.
    epochs: usize,
    /// Passes of these that are made.
    stop: usize,
    /// Factor on every learning rate.
    pace: f64,
}

impl Course {
    /// No finetuning.
    const NONE: Self = Self { epochs: 0, stop: 0, pace: 1.0 };

    const fn whole(epochs: usize) -> Self {
        Self { epochs, stop: epochs, pace: 1.0 }
    }

    /// The course in a word.
    fn name(self) -> String {
        let Self { epochs, stop, pace } = self;
        match (stop, pace < 1.0) {
            (0, _) => "none".to_owned(),
            (stop, false) => format!("{stop} of {epochs}"),
            (stop, true) => format!("{stop} of {epochs} at a tenth of the rate"),
        }
    }
}

/// How a base is finetuned, and what the held-out fold says of it.
pub struct Decision {
    course: Course,
    /// How it was decided.
    pub choices: Vec<Choice>,
    /// What the network loses on the fold, if the recipe limits it.
    pub loss: Option<Loss>,
}

/// Whether the held-out fold is asked what becomes of a network; a warning where it should be and nothing is held out.
pub fn asks_fold(task: &Task, recipe: &Recipe, progress: &mut dyn Progress) -> bool {
    let finetuning = recipe.recovery.asks_fold().then_some("how far finetuning goes");
    let what = finetuning.or(recipe.prune.max_drop.map(|_| "how much is pruned"));
    what.is_some_and(|what| can_decide(task, what, progress))
}

/// Decides how far a base is finetuned. With early stopping, or several numbers of epochs to try, its trial, which was made
/// without the held-out fold, is finetuned first: the network of all the shots goes as far as the held-out loss of that one
/// fell.
pub fn decide(
    task: &Task,
    trial: Option<&Base>,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Decision, PipelineError> {
    let course = Course::whole(recipe.recovery.epochs);
    let mut decision = Decision { course, choices: Vec::new(), loss: None };
    let Some(trial) = trial else { return Ok(decision) };
    timed(seconds, "decide", || {
        let sides = recipe.prune.max_drop.map(|_| Sides::of(&task.heldout)).transpose()?;
        if recipe.recovery.asks_fold() {
            let Decided { course, choice, right } = decided(task, trial, recipe, sides.as_ref(), progress)?;
            progress.note(&format!("epochs of finetuning by the held-out fold: {}", course.name()));
            if let Some((sides, sparse)) = sides.zip(right) {
                decision.loss = Some(Loss::of(&sides.right(&trial.dense.graph, &trial.dense)?, &sparse));
            }
            decision.course = course;
            decision.choices.push(choice);
        } else if let Some((allowed, sides)) = recipe.prune.max_drop.zip(sides) {
            decision.loss = Some(lost(&sides, trial, course, recipe, allowed, progress)?);
        }
        Ok(())
    })?;
    Ok(decision)
}

/// What a trial loses on the fold when it is finetuned along a course, which is spared where no more than `allowed` is lost
/// without it.
fn lost(
    sides: &Sides,
    trial: &Base,
    course: Course,
    recipe: &Recipe,
    allowed: f64,
    progress: &mut dyn Progress,
) -> Result<Loss, PipelineError> {
    let right = |model: &TorchModel| sides.right(&model.graph, model);
    let dense = right(&trial.dense)?;
    let oneshot = Loss::of(&dense, &right(&trial.oneshot)?);
    if !oneshot.exceeds(allowed) {
        return Ok(oneshot);
    }
    let finetuned = recovered(trial, course, recipe, &mut Stages::default(), progress)?;
    Ok(Loss::of(&dense, &right(&finetuned.model)?))
}

/// The last finetuning, as was decided: of every surviving weight, or of an adapter that is then merged.
pub fn recover(
    base: &Base,
    decision: Decision,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let specialist = recovered(base, decision.course, recipe, seconds, progress)?;
    Ok(Specialist { choices: decision.choices, ..specialist })
}

/// A base made without the held-out fold, finetuned or not: what the fold likes best.
pub fn recovered_on_fold(
    task: &Task,
    base: &Base,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let seconds = &mut Stages::default();
    let RecoverySpec { epochs, early_stopping, .. } = recipe.recovery;
    if !recipe.recovery.asks_fold() || !can_decide(task, "how far finetuning goes", progress) {
        return recovered(base, Course::whole(epochs), recipe, seconds, progress);
    }
    let lengths = recipe.recovery.lengths().into_iter().map(Course::whole);
    let courses = early_stopping.then_some(Course::NONE).into_iter().chain(lengths);
    let mut best: Option<(f64, Specialist)> = None;
    for course in courses {
        let specialist = recovered(base, course, recipe, seconds, progress)?;
        let loss = score(&specialist.model, &task.heldout)?.loss;
        if best.as_ref().is_none_or(|(least, _)| loss < *least) {
            best = Some((loss, specialist));
        }
    }
    Ok(best.expect("there is a number of epochs in every recipe").1)
}

/// What was decided.
struct Decided {
    course: Course,
    choice: Choice,
    /// What the network that decided it gets right of the fold's sides, if they were asked for.
    right: Option<Vec<f64>>,
}

/// A trial finetuned along a course.
struct Way {
    course: Course,
    score: Score,
    /// What it gets right of the fold's sides, if they were asked for and no earlier way is as good.
    right: Option<Vec<f64>>,
}

impl Way {
    /// What the fold says of a network after a course. Its sides are asked only where no `earlier` way is as good.
    fn seen(
        task: &Task,
        course: Course,
        (graph, weights): (&Graph, &dyn Effective),
        sides: Option<&Sides>,
        earlier: &[Self],
    ) -> Result<Self, TorchError> {
        let score = score_of(graph, weights, &task.heldout)?;
        let beaten = earlier.iter().any(|way| way.score.loss <= score.loss);
        let sides = sides.filter(|_| !beaten);
        Ok(Self { course, score, right: sides.map(|sides| sides.right(graph, weights)).transpose()? })
    }
}

/// The course after which the held-out loss is least.
fn decided(
    task: &Task,
    trial: &Base,
    recipe: &Recipe,
    sides: Option<&Sides>,
    progress: &mut dyn Progress,
) -> Result<Decided, PipelineError> {
    let lengths = recipe.recovery.lengths();
    let mut ways = Vec::new();
    for epochs in lengths.iter().copied().filter(|epochs| *epochs > 0) {
        ways.extend(followed(task, trial, recipe, epochs, sides, progress)?);
    }
    if recipe.recovery.early_stopping || lengths.contains(&0) || ways.is_empty() {
        let base = &trial.oneshot;
        ways.insert(0, Way::seen(task, Course::NONE, (&base.graph, base), sides, &[])?);
    }
    let names: Vec<String> = ways.iter().map(|way| way.course.name()).collect();
    let scores: Vec<&Score> = ways.iter().map(|way| &way.score).collect();
    let (taken, choice) = least_loss("epochs of the last finetuning", &names, &scores);
    let Way { course, right, .. } = ways.swap_remove(taken);
    Ok(Decided { course, choice, right })
}

/// What the held-out fold says at the ends of the parts of a finetuning; nothing where it diverges.
fn followed(
    task: &Task,
    trial: &Base,
    recipe: &Recipe,
    epochs: usize,
    sides: Option<&Sides>,
    progress: &mut dyn Progress,
) -> Result<Vec<Way>, PipelineError> {
    let ends = if recipe.recovery.early_stopping { ends(epochs) } else { vec![epochs] };
    let seen = steady(1.0, progress, |pace, progress| {
        let course = Course { pace, ..Course::whole(epochs) };
        let mut seen = Vec::with_capacity(ends.len());
        let mut look = |epoch: usize, student: &dyn Student| {
            if ends.contains(&epoch) {
                let course = Course { stop: epoch, ..course };
                seen.push(Way::seen(task, course, (student.graph(), student), sides, &seen)?);
            }
            Ok(ControlFlow::Continue(()))
        };
        trained(trial, course, recipe, &mut look, &mut Stages::default(), progress)?;
        Ok(seen)
    })?;
    Ok(seen.unwrap_or_default())
}

/// Last epochs of equal parts.
fn ends(epochs: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = (1..=PARTS).map(|part| (epochs * part).div_ceil(PARTS)).collect();
    ends.dedup();
    ends
}

/// The base finetuned along a course; the base itself where that diverges.
fn recovered(
    base: &Base,
    course: Course,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let mut made = None;
    if recipe.recovery.schedule != Schedule::None && course.stop > 0 {
        made = steady(course.pace, progress, |pace, progress| {
            let mut stop = |epoch: usize, _: &dyn Student| {
                Ok(if epoch < course.stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            };
            trained(base, Course { pace, ..course }, recipe, &mut stop, seconds, progress)
        })?;
    }
    let specialist = match made {
        Some(made) => made,
        None => Specialist { trained: false, ..Specialist::of(base.oneshot.deep_clone()?, &base.masks) },
    };
    check_support(&specialist.model, &specialist.masks)?;
    Ok(specialist)
}

/// Finetunes every surviving weight, or an adapter that is then merged, as far as `watch` lets it go on.
fn trained(
    base: &Base,
    course: Course,
    recipe: &Recipe,
    watch: &mut Watch,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let mut recipe = recipe.clone();
    recipe.recovery.epochs = course.epochs;
    let adapter = adapter(&recipe.adapt.method)?;
    if !adapter.trains_weights() {
        return adapted(base, adapter, &recipe, course.pace, watch, seconds, progress);
    }
    let round = Round { number: before(&recipe).len(), pace: course.pace };
    let model = finetuned(base, &recipe, round, watch, seconds, progress)?;
    Ok(Specialist::of(model, &base.masks))
}

/// Trains with a factor on every learning rate; where that diverges, once more with a tenth of it. Nothing comes of it
/// where that diverges as well.
pub fn steady<T>(
    pace: f64,
    progress: &mut dyn Progress,
    mut train: impl FnMut(f64, &mut dyn Progress) -> Result<T, PipelineError>,
) -> Result<Option<T>, PipelineError> {
    for (pace, then) in [
        (pace, "diverged: it begins again at a tenth of the learning rate"),
        (
            SLOWER * pace,
            "diverged again: the network stays as it was before (a lower --learning-rate may help)",
        ),
    ] {
        let made = train(pace, progress);
        let Some(stage) = made.as_ref().err().and_then(PipelineError::diverged) else {
            return made.map(Some);
        };
        progress.warn(&format!("{stage} {then}"));
    }
    Ok(None)
}

/// A finetuning of a gradual schedule.
#[derive(Clone, Copy)]
struct Round {
    number: usize,
    /// Factor on every learning rate.
    pace: f64,
}

/// The base finetuned on the way to the target; the base itself where that diverges.
pub fn finetuned_on_the_way(
    base: &Base,
    recipe: &Recipe,
    number: usize,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<TorchModel, PipelineError> {
    let made = steady(1.0, progress, |pace, progress| {
        finetuned(base, recipe, Round { number, pace }, &mut to_the_end, seconds, progress)
    })?;
    made.map_or_else(|| Ok(base.oneshot.deep_clone()?), Ok)
}

/// The base finetuned on its shots.
fn finetuned(
    base: &Base,
    recipe: &Recipe,
    Round { number, pace }: Round,
    watch: &mut Watch,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<TorchModel, PipelineError> {
    let mut model = base.oneshot.deep_clone()?;
    let stage = format!("finetune {}/{}", number + 1, before(recipe).len() + 1);
    let training = Training {
        spec: &recipe.recovery,
        teacher: Some(&base.dense),
        norms: Norms::Stored,
        seed: recipe.seed.wrapping_add(number as u64),
        stage: &stage,
        pace,
    };
    timed(seconds, "finetune", || {
        Ok(train(&mut model, &base.masks, &base.examples, &training, watch, progress)?)
    })?;
    Ok(model)
}

/// The base with a trained adapter merged.
fn adapted(
    base: &Base,
    adapter: &dyn Adapter,
    recipe: &Recipe,
    pace: f64,
    watch: &mut Watch,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let packed = base.packed(recipe.adapt.base_bits)?;
    let problem = adapt::Problem {
        base: packed.as_ref().unwrap_or(&base.oneshot),
        masks: &base.masks,
        teacher: Some(&base.dense),
        examples: &base.examples,
        recovery: &recipe.recovery,
        spec: &recipe.adapt,
        seed: recipe.seed,
        pace,
    };
    let mut merged = timed(seconds, "adapt", || Ok(adapt::adapt(&problem, adapter, watch, progress)?))?;
    if let Some(packed) = &packed {
        merged.rebase(packed, &base.oneshot)?;
    }
    let Merged { model, masks, adapter } = merged;
    Ok(Specialist { model, masks, adapter: Some(adapter), trained: true, choices: Vec::new() })
}

/// Share of the multiply-adds at the network's start that its finetuning leaves as they are. Adapters leave nothing.
pub fn frozen_share(recipe: &Recipe) -> f64 {
    let trains_weights = adapt::find(&recipe.adapt.method).is_some_and(Adapter::trains_weights);
    if trains_weights { recipe.recovery.freeze } else { 0.0 }
}

/// Looks up the adapter.
pub fn adapter(name: &str) -> Result<&'static dyn Adapter, PipelineError> {
    adapt::find(name).ok_or_else(|| PipelineError::Unknown {
        kind: "adapter",
        name: name.to_owned(),
        nearest: adapt::nearest(name),
    })
}

/// Finetuning may not bring a pruned weight back.
fn check_support(model: &TorchModel, masks: &BTreeMap<String, Mask>) -> Result<(), PipelineError> {
    for (name, mask) in masks {
        let weight = crate::torch::to_array(&model.get(name)?)?;
        if weight.iter().zip(mask.iter()).any(|(value, kept)| !kept && *value != 0.0) {
            return Err(PipelineError::Support(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::AdaptError;
    use crate::progress::{Recorder, Silent};
    use crate::torch::TorchError;

    fn diverged() -> TorchError {
        TorchError::Diverged { stage: "finetune 1/1".to_owned() }
    }

    #[test]
    fn parts_end_where_all_passes_do() {
        assert_eq!(
            [ends(60), ends(3), ends(1), ends(6)],
            [vec![15, 30, 45, 60], vec![1, 2, 3], vec![1], vec![2, 3, 5, 6]]
        );
    }

    #[test]
    fn what_diverges_is_slowed_down_once_and_then_left() {
        let mut silent = Silent;
        let mut recorder = Recorder::new(&mut silent);
        let mut paces = Vec::new();
        let mut run = |failures: usize, recorder: &mut Recorder| {
            paces.clear();
            let made = steady(1.0, recorder, |pace, _| {
                paces.push(pace);
                if paces.len() <= failures { Err(AdaptError::from(diverged()).into()) } else { Ok(pace) }
            });
            (made.unwrap(), paces.clone(), std::mem::take(&mut recorder.warnings).len())
        };
        assert_eq!(run(0, &mut recorder), (Some(1.0), vec![1.0], 0));
        assert_eq!(run(1, &mut recorder), (Some(0.1), vec![1.0, 0.1], 1));
        assert_eq!(run(2, &mut recorder), (None, vec![1.0, 0.1], 2));
        let other = steady(1.0, &mut recorder, |_, _| Err::<(), _>(PipelineError::NoTarget));
        assert!(matches!(other, Err(PipelineError::NoTarget)));
    }
}
