//! A first real run: few bursts of fixed cameras, whose frames are nearly the same photo.

use std::path::{Path, PathBuf};

use margay::progress::Silent;
use margay::recipe::{OptimizerChoice, Recipe, Schedule};
use margay::record::{Choice, RunRecord};
use margay::world::{Bursts, Species, World};

use crate::pipeline::{GENERALIST, run};

/// Two classes of which the generalist has no names, by three cameras.
fn bursts(root: &Path, seed: u64) -> PathBuf {
    let species = |name| Species::named(name).unwrap();
    let classes = vec![("nothing", species("empty")), ("visitor", species("hare"))];
    let mut survey = Bursts { classes, cameras: 500..503, bursts: 0..2, frames: 4 };
    World::new(seed).write_bursts(&root.join("train"), &survey, &mut Silent).unwrap();
    (survey.bursts, survey.frames) = (2..6, 2);
    World::new(seed).write_bursts(&root.join("val"), &survey, &mut Silent).unwrap();
    root.to_owned()
}

fn recipe(data: PathBuf) -> Recipe {
    let mut recipe = Recipe::new(GENERALIST.into(), data);
    (recipe.threads, recipe.device) = (2, "cpu".into());
    recipe.input.image_size = Some(64);
    recipe
}

/// Held-out losses of what was tried.
fn losses(choice: &Choice) -> Vec<f64> {
    choice.candidates.iter().map(|candidate| candidate.loss.unwrap()).collect()
}

fn top1(record: &RunRecord) -> [f64; 2] {
    [&record.oneshot, &record.specialist].map(|evaluation| evaluation.top1.unwrap())
}

#[test]
fn twins_are_held_out_together_and_no_answer_is_surer_than_the_shots() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(bursts(&root.path().join("photos"), 1));
    recipe.recovery.epochs = 8;
    let record = run(&recipe, &root.path().join("out"));
    // 16 shots per class, of which whole bursts are held out.
    assert_eq!(record.data.calibration + record.data.holdout, 32);
    assert!(record.choices.iter().flat_map(losses).all(|loss| loss < 5.0), "{:?}", record.choices);
    let epochs = record.choices.iter().find(|choice| choice.what.contains("epochs")).unwrap();
    let names: Vec<&str> = epochs.candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    assert_eq!(names, ["none", "8"]);
    let [oneshot, specialist] = top1(&record);
    assert!(specialist > oneshot - 0.05, "{oneshot} {specialist} {:?}", record.choices);
}

#[test]
fn a_finetuning_that_diverges_ends_no_run() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(bursts(&root.path().join("photos"), 2));
    recipe.prune.solver = "magnitude".into();
    recipe.shots.per_class = 6;
    (recipe.recovery.optimizer, recipe.recovery.epochs) = (OptimizerChoice::Sgd, 4);
    // Off the numbers even at a tenth.
    (recipe.recovery.learning_rate, recipe.recovery.max_grad_norm) = (Some(1e30), 0.0);
    for (pilot, schedule) in
        [(true, Schedule::OneShot), (false, Schedule::OneShot), (false, Schedule::Gradual)]
    {
        (recipe.recovery.pilot, recipe.recovery.schedule) = (pilot, schedule);
        let record = run(&recipe, &root.path().join(format!("{pilot}-{schedule:?}")));
        let warned = record.warnings.iter().filter(|text| text.contains("diverged")).count();
        assert!(warned >= 2 && warned % 2 == 0, "{:?}", record.warnings);
        let [oneshot, specialist] = top1(&record);
        // A runtime in 16 bits may tell a photo of 24 otherwise.
        assert!((oneshot - specialist).abs() < 0.05, "{oneshot} {specialist}");
    }
    // A rate ten times too high is slowed down.
    (recipe.recovery.learning_rate, recipe.recovery.epochs) = (Some(20.0), 8);
    (recipe.recovery.pilot, recipe.recovery.schedule) = (false, Schedule::OneShot);
    let record = run(&recipe, &root.path().join("slower"));
    assert!(record.warnings.iter().any(|text| text.contains("begins again")), "{:?}", record.warnings);
}
