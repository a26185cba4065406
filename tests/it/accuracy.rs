//! What wins accuracy: choices on the held-out fold, budgets other than weights, patterns, rare classes.

use std::path::{Path, PathBuf};

use margay::pipeline::{CompressOptions, PipelineError, compress};
use margay::progress::{Progress, Silent};
use margay::recipe::{Count, Recalibration, Recipe, Schedule, Target, Tuned};
use margay::record::RunRecord;
use margay::world::{SPECIES, Survey, World};
use margay_core::{Granularity, Pattern, SparseModel, Weight};

use crate::pipeline::{GENERALIST, photos, run};

fn recipe(data: PathBuf) -> Recipe {
    let mut recipe = Recipe::new(GENERALIST.into(), data);
    recipe.threads = 2;
    recipe.device = "cpu".into();
    recipe.shots.per_class = 6;
    recipe.input.image_size = Some(64);
    recipe.recovery.schedule = Schedule::None;
    recipe
}

/// Photos of val that cannot be read until they are decoded as a whole, and the stages that began before.
struct Hidden {
    photos: Vec<(PathBuf, Vec<u8>)>,
    stages: Vec<String>,
    shown_after: Option<usize>,
}

impl Hidden {
    fn hide(val: &Path) -> Self {
        let mut photos = Vec::new();
        for class in fs_err::read_dir(val).unwrap() {
            for photo in fs_err::read_dir(class.unwrap().path()).unwrap() {
                let path = photo.unwrap().path();
                photos.push((path.clone(), fs_err::read(&path).unwrap()));
                fs_err::write(&path, "not yet").unwrap();
            }
        }
        Self { photos, stages: Vec::new(), shown_after: None }
    }
}

impl Progress for Hidden {
    fn start(&mut self, stage: &str, total: u64) {
        if stage == "decode photos" && total == self.photos.len() as u64 {
            self.photos.iter().for_each(|(path, bytes)| fs_err::write(path, bytes).unwrap());
            self.shown_after = Some(self.stages.len());
        }
        self.stages.push(stage.to_owned());
    }
    fn advance(&mut self, _steps: u64) {}
    fn status(&mut self, _text: &str) {}
    fn finish(&mut self) {}
    fn note(&mut self, _text: &str) {}
    fn warn(&mut self, _text: &str) {}
}

#[test]
fn no_choice_sees_val() {
    let root = tempfile::tempdir().unwrap();
    let data = photos(&root.path().join("photos"));
    let mut recipe = recipe(data.clone());
    // Val lies in these folders and is left out.
    (recipe.general, recipe.unlabelled) = (Some(data.clone()), Some(data.clone()));
    (recipe.shots.general, recipe.shots.general_pool, recipe.shots.unlabelled) = (11, 20, 13);
    recipe.prune.allocation = "dp".into();
    recipe.prune.damping = Tuned::Auto;
    (recipe.prune.max_class_drop, recipe.prune.max_drop) = (Some(1.0), Some(1.0));
    recipe.recovery.schedule = Schedule::OneShot;
    recipe.recovery.try_epochs = vec![1, 2];
    (recipe.recovery.freeze, recipe.recovery.fixed_views) = (0.3, 2);
    let out = root.path().join("out");
    fs_err::create_dir_all(&out).unwrap();
    let mut hidden = Hidden::hide(&data.join("val"));
    let record = compress(&recipe, &out, &CompressOptions::default(), &mut hidden).unwrap();
    assert_eq!((record.specialist.total, record.bad_photos.len()), (30, 0));
    let last = hidden.stages.iter().rposition(|stage| stage.starts_with("finetune")).unwrap();
    assert!(hidden.shown_after.unwrap() > last, "{:?}", hidden.stages);
    let decided: Vec<&str> = record.choices.iter().map(|choice| choice.what.as_str()).collect();
    for what in ["no class loses", "held-out accuracy falls", "damping", "general photos", "epochs"] {
        assert!(decided.iter().any(|decided| decided.contains(what)), "{what} in {decided:?}");
    }
    assert!(record.choices.iter().all(|choice| choice.candidates.iter().any(|c| c.name == choice.taken)));
    let epochs = record.choices.iter().find(|choice| choice.what.contains("epochs")).unwrap();
    let names: Vec<&str> = epochs.candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    assert_eq!(names, ["none", "1", "2"]);
}

#[test]
fn recalibration_without_correction_is_chosen_without_val() {
    let root = tempfile::tempdir().unwrap();
    let data = photos(&root.path().join("photos"));
    let mut recipe = recipe(data.clone());
    recipe.prune.solver = "magnitude".into();
    recipe.prune.count = Count::All;
    recipe.recovery.recalibrate = Recalibration::Auto;
    let mut choices = |correction: f64| {
        recipe.prune.correction = correction;
        let out = root.path().join(correction.to_string());
        fs_err::create_dir_all(&out).unwrap();
        let mut hidden = Hidden::hide(&data.join("val"));
        let record = compress(&recipe, &out, &CompressOptions::default(), &mut hidden).unwrap();
        let last = hidden.stages.iter().rposition(|stage| stage == "prune").unwrap();
        assert!(hidden.shown_after.unwrap() > last, "{:?}", hidden.stages);
        // Statistics of norms are in the record's count of all, but are not counted by the compression.
        let kept = record.nonzeros.all.sparse as f64 / record.nonzeros.all.dense as f64;
        assert!((kept * recipe.prune.sparsity.compression() - 1.0).abs() < 0.1, "{:?}", record.nonzeros);
        record.choices.iter().map(|choice| choice.what.clone()).collect::<Vec<_>>()
    };
    assert!(choices(0.0).iter().any(|what| what.contains("batch-norm")));
    assert!(
        choices(1.0).iter().all(|what| !what.contains("batch-norm")),
        "the weights were solved for the stored ones"
    );
}

#[test]
fn of_photos_of_anything_those_that_resemble_the_task_are_taken() {
    let root = tempfile::tempdir().unwrap();
    let anything = root.path().join("anything");
    let survey = Survey { species: SPECIES.iter().collect(), cameras: 300..306, per_species: 6 };
    World::new(2).write_dataset(&anything, &survey, &mut Silent).unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.prune.solver = "magnitude".into();
    recipe.prune.general_share = Tuned::Value(0.5);
    (recipe.general, recipe.shots.general) = (Some(anything), 12);
    let taken = |recipe: &Recipe, out: &str| run(recipe, &root.path().join(out)).data.general;
    let of_task = |taken: &[String]| {
        let species =
            |photo: &&String| ["/fox/", "/deer/", "/empty/"].iter().any(|name| photo.contains(name));
        taken.iter().filter(species).count()
    };
    let nearest = taken(&recipe, "nearest");
    assert_eq!((nearest.len(), of_task(&nearest) >= 10), (12, true), "{nearest:?}");
    recipe.shots.general_pool = 0;
    let any = taken(&recipe, "any");
    assert_eq!((any.len(), of_task(&any) < 9), (12, true), "{any:?}");
}

#[test]
fn targets_other_than_weights_are_met() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.prune.solver = "magnitude".into();
    for allocation in ["erk", "uniform"] {
        recipe.prune.allocation = allocation.into();
        recipe.prune.target = Some(Target::Macs(3.0));
        let record = run(&recipe, &root.path().join(allocation));
        let share = record.macs.sparse as f64 / record.macs.dense as f64;
        assert!((0.30..0.3334).contains(&share), "{allocation}: {share}");
    }
    // Two threads wait for each other where the machine is busy, and what cannot be pruned may take all the time.
    (recipe.prune.target, recipe.threads) = (Some(Target::Speedup(1.3)), 1);
    let record = run(&recipe, &root.path().join("speedup"));
    assert!(record.nonzeros.sparse < record.nonzeros.dense);
    recipe.prune.target = Some(Target::Milliseconds(1e-6));
    let out = root.path().join("never");
    fs_err::create_dir_all(&out).unwrap();
    let error = compress(&recipe, &out, &CompressOptions::default(), &mut Silent).unwrap_err();
    assert!(
        matches!(error, PipelineError::OutOfTime { .. }) && error.to_string().contains("out of reach"),
        "{error}"
    );
}

#[test]
fn patterns_reach_the_file() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.prune.allocation = "uniform".into();
    recipe.prune.sparsity = margay_core::Sparsity::new(0.5).unwrap();
    let mut bytes = Vec::new();
    for name in ["unstructured", "2:4", "4x1"] {
        recipe.prune.pattern = name.parse().unwrap();
        let out = root.path().join(name.replace(':', "-"));
        let record = run(&recipe, &out);
        bytes.push(record.bytes.sparse);
        let model = SparseModel::read(out.join("specialist.margay")).unwrap();
        let patterns: Vec<Pattern> = model
            .weights
            .values()
            .filter_map(|weight| match weight {
                Weight::Csr(csr) => Some(csr.pattern()),
                Weight::Dense(_) => None,
            })
            .collect();
        assert!(!patterns.is_empty() && patterns.iter().all(|p| p.to_string() == name), "{name}");
        assert!((record.nonzeros.sparse as f64 / record.nonzeros.dense as f64 - 0.5).abs() < 0.01);
    }
    assert!(bytes[2] < bytes[0], "one position for four weights: {bytes:?}");
}

#[test]
fn whole_channels_leave_a_smaller_dense_network() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.prune.pattern = Granularity::Channels;
    recipe.prune.target = Some(Target::Macs(1.6));
    (recipe.recovery.schedule, recipe.recovery.epochs) = (Schedule::OneShot, 1);
    let out = root.path().join("out");
    let record = run(&recipe, &out);
    let model = SparseModel::read(out.join("specialist.margay")).unwrap();
    assert!(model.weights.values().all(|weight| matches!(weight, Weight::Dense(_))));
    let macs: u64 = model.graph.macs().unwrap().iter().sum();
    let share = macs as f64 / record.macs.dense as f64;
    assert!(share <= 1.0 / 1.6 && share > 0.55, "{share}");
    assert!((macs as f64 / record.macs.sparse as f64 - 1.0).abs() < 1e-3, "{macs} {:?}", record.macs);
    assert!(record.bytes.sparse < record.bytes.dense * 3 / 4, "{:?}", record.bytes);
    // The checkpoint keeps the shapes that other libraries expect.
    let checkpoint = fs_err::metadata(out.join("model.safetensors")).unwrap().len();
    assert!(checkpoint > record.bytes.sparse * 5 / 4);
    recipe.prune.target = Some(Target::Milliseconds(1.0));
    let refused = |recipe: &Recipe| margay::pipeline::plan(recipe, &mut Silent).unwrap_err().to_string();
    assert!(refused(&recipe).contains("does not go with --target 1ms"), "{}", refused(&recipe));
    (recipe.prune.target, recipe.prune.allocation) = (None, "dp".into());
    assert!(refused(&recipe).contains("--allocation dp"), "{}", refused(&recipe));
}

#[test]
fn less_is_pruned_where_a_class_would_pay_too_much() {
    let root = tempfile::tempdir().unwrap();
    let data = photos(&root.path().join("photos"));
    // Three shots of foxes among ten of the others.
    let foxes = fs_err::read_dir(data.join("train/fox")).unwrap().map(|entry| entry.unwrap().path());
    foxes.skip(3).for_each(|path| fs_err::remove_file(path).unwrap());
    let mut recipe = recipe(data);
    recipe.shots.per_class = 10;
    recipe.prune.solver = "magnitude".into();
    recipe.prune.sparsity = margay_core::Sparsity::new(0.99).unwrap();
    let kept = |record: &RunRecord| record.nonzeros.sparse as f64 / record.nonzeros.dense as f64;
    let without = run(&recipe, &root.path().join("without"));
    assert!((kept(&without) - 0.01).abs() < 1e-3 && without.recipe.contains("balance = true"));
    recipe.prune.max_class_drop = Some(0.1);
    let with = run(&recipe, &root.path().join("with"));
    let choice = with.choices.iter().find(|choice| choice.what.contains("no class loses")).unwrap();
    assert!(choice.candidates.len() > 1 && choice.taken != choice.candidates[0].name, "{choice:?}");
    let drops: Vec<f64> = choice.candidates.iter().map(|c| c.class_drop.unwrap()).collect();
    assert!(drops[0] > 0.1 && *drops.last().unwrap() <= 0.1, "{drops:?}");
    assert!(kept(&with) > kept(&without));
}

#[test]
fn less_is_pruned_where_the_network_would_be_ruined_and_said_before_val_is_read() {
    let root = tempfile::tempdir().unwrap();
    let data = photos(&root.path().join("photos"));
    let mut recipe = recipe(data.clone());
    (recipe.shots.per_class, recipe.shots.holdout) = (10, 0.4);
    recipe.prune.solver = "magnitude".into();
    recipe.prune.sparsity = margay_core::Sparsity::new(0.99).unwrap();
    recipe.prune.max_drop = Some(0.03);
    let compressed = |recipe: &Recipe, out: &str| {
        let out = root.path().join(out);
        fs_err::create_dir_all(&out).unwrap();
        let mut hidden = Hidden::hide(&data.join("val"));
        let record = compress(recipe, &out, &CompressOptions::default(), &mut hidden).unwrap();
        let last = hidden.stages.iter().rposition(|stage| stage == "prune").unwrap();
        assert!(hidden.shown_after.unwrap() > last, "{:?}", hidden.stages);
        record
    };
    let record = compressed(&recipe, "limited");
    let choice = record.choices.iter().find(|choice| choice.what.contains("held-out accuracy")).unwrap();
    assert!(choice.candidates.len() > 1 && choice.candidates[0].name == "100.0x", "{choice:?}");
    assert_eq!(choice.taken, choice.candidates.last().unwrap().name);
    let told = record.warnings.iter().filter(|warning| warning.contains("--max-drop")).count();
    assert_eq!(told, choice.candidates.len() - 1, "{:?}", record.warnings);
    let kept = record.nonzeros.sparse as f64 / record.nonzeros.dense as f64;
    let fold: f64 = choice.taken.trim_end_matches('x').parse().unwrap();
    assert!(kept > 0.012 && (kept * fold - 1.0).abs() < 0.02, "{kept} of {}", choice.taken);
    // The recipe that was written makes the same network again, with nothing left to relax.
    let again = compressed(&Recipe::from_toml(&record.recipe).unwrap(), "again");
    assert_eq!((again.nonzeros, again.specialist), (record.nonzeros, record.specialist));
    recipe.prune.max_drop = Some(1.0);
    let ruined = compressed(&recipe, "ruined");
    assert!((ruined.nonzeros.sparse as f64 / ruined.nonzeros.dense as f64) < 0.011);
}

#[test]
fn a_front_compares_targets_without_val() {
    let root = tempfile::tempdir().unwrap();
    let data = photos(&root.path().join("photos"));
    let _hidden = Hidden::hide(&data.join("val"));
    let mut recipe = recipe(data);
    recipe.prune.solver = "magnitude".into();
    let sparser = |fold: f64| {
        let mut recipe = recipe.clone();
        recipe.prune.sparsity = margay_core::Sparsity::from_compression(fold).unwrap();
        recipe
    };
    let front = margay::pipeline::front(&[sparser(2.0), sparser(50.0)], &mut Silent).unwrap();
    let names: Vec<&str> = front.all().map(|point| point.target.as_str()).collect();
    assert_eq!(names, ["dense", "2.0x", "50.0x"]);
    // One of each class, and its twins.
    assert!((3..=6).contains(&front.heldout), "{}", front.heldout);
    let [gentle, harsh] = [&front.points[0], &front.points[1]];
    assert!((gentle.compression - 2.0).abs() < 0.01 && (harsh.compression - 50.0).abs() < 0.5);
    assert!(harsh.macs < gentle.macs && harsh.loss > gentle.loss && front.dense.ms > 0.0);
    assert!(front.all().any(|point| point.best));
}
