//! The last finetuning: whether it helps, how long it is, and what is done where it diverges.

use std::collections::BTreeMap;

use margay_core::{Mask, Sparsity};

use super::PipelineError;
use super::choose::{can_decide, least_loss};
use super::evaluate::{Score, score};
use super::host::timed;
use super::networks::{Base, Specialist};
use super::sides::{Loss, Sides};
use super::task::Task;
use crate::adapt::{self, Adapter, Merged};
use crate::distill::{Training, train};
use crate::progress::Progress;
use crate::recipe::{Recipe, RecoverySpec, Schedule};
use crate::record::{Choice, Stages};
use crate::torch::{Norms, TorchError, TorchModel};

/// Factor on every learning rate once a training has diverged.
const SLOWER: f64 = 0.1;
/// A pilot makes one of so many passes.
const PILOT: usize = 4;

/// How long and how fast a network is finetuned.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Course {
    /// Passes over its photos.
    epochs: usize,
    /// Factor on every learning rate.
    pace: f64,
}

impl Course {
    /// No finetuning.
    const NONE: Self = Self::of(0);

    const fn of(epochs: usize) -> Self {
        Self { epochs, pace: 1.0 }
    }

    /// The course in a word.
    fn name(self) -> String {
        let Self { epochs, pace } = self;
        match (epochs, pace < 1.0) {
            (0, _) => "none".to_owned(),
            (epochs, false) => epochs.to_string(),
            (epochs, true) => format!("{epochs} at a tenth of the rate"),
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
    let finetuning = recipe.recovery.asks_fold().then_some("whether and how long it is finetuned");
    let what = finetuning.or(recipe.prune.max_drop.map(|_| "how much is pruned"));
    what.is_some_and(|what| can_decide(task, what, progress))
}

/// Decides how a base is finetuned. Its trial, which was made without the held-out fold, is finetuned first, by a pilot or for
/// each number of epochs to try: the network of all the shots takes the course by which the held-out loss of that one fell most.
pub fn decide(
    task: &Task,
    trial: Option<&Base>,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Decision, PipelineError> {
    let course = Course::of(recipe.recovery.epochs);
    let mut decision = Decision { course, choices: Vec::new(), loss: None };
    let Some(trial) = trial else { return Ok(decision) };
    timed(seconds, "decide", || {
        let sides = recipe.prune.max_drop.map(|_| Sides::of(&task.heldout)).transpose()?;
        if recipe.recovery.asks_fold() {
            let Decided { course, choice, right } = decided(task, trial, recipe, sides.as_ref(), progress)?;
            progress.note(&format!("epochs of finetuning by the held-out fold: {}", course.name()));
            if let Some((sides, sparse)) = sides.zip(right) {
                decision.loss = Some(Loss::of(&sides.right(&trial.dense)?, &sparse));
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
    let right = |model: &TorchModel| sides.right(model);
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
    let RecoverySpec { epochs, pilot, .. } = recipe.recovery;
    if !recipe.recovery.asks_fold() || !can_decide(task, "whether and how long it is finetuned", progress) {
        return recovered(base, Course::of(epochs), recipe, seconds, progress);
    }
    let lengths = recipe.recovery.lengths().into_iter().map(Course::of);
    let courses = pilot.then_some(Course::NONE).into_iter().chain(lengths);
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

/// A course, and what the held-out fold says of a trial that was finetuned along it or by its pilot.
struct Way {
    course: Course,
    score: Score,
    /// What it gets right of the fold's sides, if they were asked for and no earlier way is as good.
    right: Option<Vec<f64>>,
}

impl Way {
    /// What the fold says of a network. Its sides are asked only where no `earlier` way is as good.
    fn seen(
        task: &Task,
        course: Course,
        model: &TorchModel,
        sides: Option<&Sides>,
        earlier: &[Self],
    ) -> Result<Self, PipelineError> {
        let score = score(model, &task.heldout)?;
        let beaten = earlier.iter().any(|way| way.score.loss <= score.loss);
        let sides = sides.filter(|_| !beaten);
        Ok(Self { course, score, right: sides.map(|sides| sides.right(model)).transpose()? })
    }
}

/// Numbers of passes that the fold is asked about, and those that its trial makes for each.
pub fn tried(recovery: &RecoverySpec) -> Vec<(usize, usize)> {
    let lengths = recovery.lengths();
    let shorter = if recovery.pilot && lengths.len() == 1 { PILOT } else { 1 };
    let some = lengths.into_iter().filter(|epochs| *epochs > 0);
    some.map(|epochs| (epochs, epochs.div_ceil(shorter))).collect()
}

/// The course after which the held-out loss is least.
fn decided(
    task: &Task,
    trial: &Base,
    recipe: &Recipe,
    sides: Option<&Sides>,
    progress: &mut dyn Progress,
) -> Result<Decided, PipelineError> {
    let mut ways = Vec::new();
    if recipe.recovery.pilot || recipe.recovery.lengths().contains(&0) {
        ways.push(Way::seen(task, Course::NONE, &trial.oneshot, sides, &[])?);
    }
    for (epochs, passes) in tried(&recipe.recovery) {
        let made = steady(1.0, progress, |pace, progress| {
            let course = Course { epochs: passes, pace };
            let specialist = trained(trial, course, recipe, &mut Stages::default(), progress)?;
            let way = Way::seen(task, Course { epochs, pace }, &specialist.model, sides, &ways)?;
            // The last step may have led to weights that are numbers, but huge: no later step is there to tell.
            if way.score.loss.is_finite() {
                Ok(way)
            } else {
                Err(TorchError::Diverged { stage: "pilot".to_owned() }.into())
            }
        })?;
        ways.extend(made);
    }
    if ways.is_empty() {
        ways.push(Way::seen(task, Course::NONE, &trial.oneshot, sides, &[])?);
    }
    let names: Vec<String> = ways.iter().map(|way| way.course.name()).collect();
    let scores: Vec<&Score> = ways.iter().map(|way| &way.score).collect();
    let (taken, choice) = least_loss("epochs of the last finetuning", &names, &scores);
    let Way { course, right, .. } = ways.swap_remove(taken);
    Ok(Decided { course, choice, right })
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
    if recipe.recovery.schedule != Schedule::None && course.epochs > 0 {
        made = steady(course.pace, progress, |pace, progress| {
            trained(base, Course { pace, ..course }, recipe, seconds, progress)
        })?;
    }
    let specialist = match made {
        Some(made) => made,
        None => Specialist { trained: false, ..Specialist::of(base.oneshot.deep_clone()?, &base.masks) },
    };
    check_support(&specialist.model, &specialist.masks)?;
    Ok(specialist)
}

/// Finetunes every surviving weight, or an adapter that is then merged.
fn trained(
    base: &Base,
    course: Course,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let mut recipe = recipe.clone();
    recipe.recovery.epochs = course.epochs;
    let adapter = adapter(&recipe.adapt.method)?;
    if !adapter.trains_weights() {
        return adapted(base, adapter, &recipe, course.pace, seconds, progress);
    }
    let round = Round { number: before(&recipe).len(), pace: course.pace };
    let model = finetuned(base, &recipe, round, seconds, progress)?;
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
        finetuned(base, recipe, Round { number, pace }, seconds, progress)
    })?;
    made.map_or_else(|| Ok(base.oneshot.deep_clone()?), Ok)
}

/// The base finetuned on its shots.
fn finetuned(
    base: &Base,
    recipe: &Recipe,
    Round { number, pace }: Round,
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
    timed(seconds, "finetune", || Ok(train(&mut model, &base.masks, &base.examples, &training, progress)?))?;
    Ok(model)
}

/// The base with a trained adapter merged.
fn adapted(
    base: &Base,
    adapter: &dyn Adapter,
    recipe: &Recipe,
    pace: f64,
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
    let mut merged = timed(seconds, "adapt", || Ok(adapt::adapt(&problem, adapter, progress)?))?;
    if let Some(packed) = &packed {
        merged.rebase(packed, &base.oneshot)?;
    }
    let Merged { model, masks, adapter } = merged;
    Ok(Specialist { model, masks, adapter: Some(adapter), trained: true, choices: Vec::new() })
}

/// Sparsities to pass through before the target: halvings of what remains when gradual.
pub fn before(recipe: &Recipe) -> Vec<Sparsity> {
    if recipe.recovery.schedule != Schedule::Gradual {
        return Vec::new();
    }
    let target = recipe.prune.sparsity;
    let halvings = (1..).map_while(|n| Sparsity::new(1.0 - 0.5_f64.powi(n)).ok());
    halvings.take_while(|level| level.density() > target.density() * 1.05).collect()
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

    fn diverged() -> TorchError {
        TorchError::Diverged { stage: "finetune 1/1".to_owned() }
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
