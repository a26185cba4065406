//! The main job on a small world: the same code path as `margay compress`, on the shipped generalist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use margay::checkpoint::{Pretrained, load_model, write_safetensors};
use margay::pipeline::{CompressOptions, compress};
use margay::progress::Silent;
use margay::recipe::{Recalibration, Recipe, Schedule};
use margay::record::RunRecord;
use margay::torch::{Norms, TorchModel, forward};
use margay::world::{SPECIES, Survey, World};
use margay_core::{Mask, Normalization, Preprocess, Provenance, SparseModel, Weight, fold};
use margay_runtime::{KernelChoice, Precision, Session, SessionOptions};
use tch::{Device, Tensor};

pub const GENERALIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/world-resnet18-w16.safetensors");

/// Three species, few photos, cameras that the generalist does not know.
pub fn photos(root: &Path) -> PathBuf {
    let species = SPECIES.iter().filter(|s| ["fox", "deer", "empty"].contains(&s.name)).collect();
    let mut survey = Survey { species, cameras: 200..204, per_species: 10 };
    World::new(1).write_dataset(&root.join("train"), &survey, &mut Silent).unwrap();
    survey.cameras = 204..208;
    World::new(1).write_dataset(&root.join("val"), &survey, &mut Silent).unwrap();
    root.to_owned()
}

fn recipe(data: PathBuf) -> Recipe {
    let mut recipe = Recipe::new(GENERALIST.into(), data);
    recipe.threads = 2;
    recipe.device = "cpu".into();
    recipe.shots.per_class = 8;
    recipe.input.image_size = Some(64);
    recipe.recovery.epochs = 3;
    recipe
}

pub fn run(recipe: &Recipe, out: &Path) -> RunRecord {
    fs_err::create_dir_all(out).unwrap();
    compress(recipe, out, &CompressOptions::default(), &mut Silent).unwrap()
}

#[test]
fn a_recipe_makes_the_same_specialist_twice() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    let record = run(&recipe, &a);
    recipe = toml::from_str(&fs_err::read_to_string(a.join("recipe.toml")).unwrap()).unwrap();
    run(&recipe, &b);
    for file in ["specialist.margay", "model.safetensors", "recipe.toml"] {
        assert!(fs_err::read(a.join(file)).unwrap() == fs_err::read(b.join(file)).unwrap(), "{file}");
    }
    check_record(&record, &a);
}

#[test]
fn the_threads_that_ran_are_saved() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.shots.per_class = 4;
    recipe.recovery.epochs = 1;
    let cores = std::thread::available_parallelism().unwrap().get();
    for (asked, ran) in [(1, 1), (0, cores)] {
        recipe.threads = asked;
        let [first, again] = ["first", "again"].map(|name| root.path().join(format!("{name}-{asked}")));
        let record = run(&recipe, &first);
        let saved: Recipe =
            toml::from_str(&fs_err::read_to_string(first.join("recipe.toml")).unwrap()).unwrap();
        assert_eq!((saved.threads, record.machine.threads), (ran, ran));
        assert_eq!(saved.device, record.machine.device);
        // The process has been left with another number in between, as a new one begins with all cores.
        margay::torch::set_threads(0);
        run(&saved, &again);
        let [first, again] = [first, again].map(|out| fs_err::read(out.join("specialist.margay")).unwrap());
        assert!(first == again, "{asked} threads");
    }
}

#[test]
fn labels_count_by_where_the_head_is_from_unless_told() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.shots.per_class = 4;
    recipe.recovery.epochs = 1;
    let mut labels = |fit_head: bool, told: Option<f64>| {
        recipe.classes.fit_head = fit_head;
        recipe.recovery.cross_entropy = told;
        let out = root.path().join(format!("{fit_head}-{}", told.is_some()));
        run(&recipe, &out);
        let saved: Recipe =
            toml::from_str(&fs_err::read_to_string(out.join("recipe.toml")).unwrap()).unwrap();
        let written = fs_err::read(out.join("specialist.margay")).unwrap();
        (saved.recovery.cross_entropy, saved.recovery.label_smoothing, written)
    };
    let (weight, smoothing, fitted) = labels(true, None);
    assert_eq!((weight, smoothing), (Some(1.0), Some(0.0)));
    let (weight, smoothing, sliced) = labels(false, None);
    assert_eq!((weight, smoothing), (Some(0.1), Some(0.1)));
    let (weight, smoothing, told) = labels(false, Some(3.0));
    assert_eq!((weight, smoothing), (Some(3.0), Some(0.1)));
    assert!(sliced != told && sliced != fitted, "the loss takes no notice");
}

fn check_record(record: &RunRecord, out: &Path) {
    let json = fs_err::read_to_string(out.join("run.json")).unwrap();
    assert_eq!(&RunRecord::from_json(&json).unwrap(), record);
    let nonzeros = record.nonzeros;
    assert_eq!(nonzeros.sparse, (nonzeros.dense as f64 / 20.0).round() as u64);
    let parity = record.parity;
    assert!(parity.max_abs_logit_difference <= 1e-4 * parity.max_abs_logit);
    assert_eq!((parity.argmax_agreement, parity.images), (1.0, 30));
    assert!(record.specialist.top1.unwrap() > 0.5, "chance is a third");
    assert_eq!(record.bytes.sparse, fs_err::metadata(out.join("specialist.margay")).unwrap().len());
    let model = SparseModel::read(out.join("specialist.margay")).unwrap();
    let stored: usize =
        model.weights.values().filter(|w| matches!(w, Weight::Csr(_))).map(Weight::stored).sum();
    let kept: usize = record.layers.iter().filter(|l| l.sparsity > 0.0).map(|l| l.nonzeros).sum();
    let dense: usize = record.layers.iter().filter(|l| l.sparsity == 0.0).map(|l| l.nonzeros).sum();
    assert_eq!((kept + dense) as u64, nonzeros.prunable.sparse);
    assert!(stored == kept || stored == kept + dense, "{stored} {kept} {dense}");
    assert!(fs_err::read_to_string(out.join("report.html")).unwrap().contains("</html>"));
}

#[test]
fn the_checkpoint_written_has_the_specialists_zeros() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.prune.allocation = "uniform".into();
    recipe.recovery.schedule = Schedule::None;
    let out = root.path().join("out");
    let record = run(&recipe, &out);
    let written = load_model(out.join("model.safetensors"), [64, 64]).unwrap();
    assert_eq!(written.labels.as_deref(), Some(["deer", "empty", "fox"].map(String::from).as_slice()));
    let nonzero = |name: &str| written.params.get(name).unwrap().iter().filter(|v| **v != 0.0).count();
    for layer in &record.layers {
        assert!(nonzero(&format!("{}.weight", layer.name)) <= layer.nonzeros, "{}", layer.name);
        assert!((layer.sparsity - 0.95).abs() < 0.01, "{}", layer.name);
    }
}

#[test]
fn gradual_schedules_halve_and_end_at_the_target() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.prune.solver = "sparsegpt".into();
    recipe.recovery.schedule = Schedule::Gradual;
    recipe.recovery.epochs = 1;
    let record = run(&recipe, &root.path().join("out"));
    assert_eq!(record.nonzeros.sparse, (record.nonzeros.dense as f64 / 20.0).round() as u64);
}

#[test]
fn a_bad_photo_is_skipped_and_listed() {
    let root = tempfile::tempdir().unwrap();
    let data = photos(&root.path().join("photos"));
    fs_err::write(data.join("val/fox/broken.jpg"), b"\xff\xd8\xff\xe0 not a photo").unwrap();
    let mut recipe = recipe(data);
    recipe.prune.solver = "magnitude".into();
    recipe.recovery.schedule = Schedule::None;
    let record = run(&recipe, &root.path().join("out"));
    let bad: Vec<&str> = record.bad_photos.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(bad, ["val/fox/broken.jpg"]);
    assert_eq!(record.specialist.total, 30);
}

/// The generalist without its stored preprocessing, made for images from 0 to 1 if `other`.
fn unlabelled(path: &Path, other: bool) {
    let Pretrained { graph, mut params, names, labels, .. } = load_model(GENERALIST, [64, 64]).unwrap();
    if other {
        let Normalization { mean, std } = Normalization::IMAGENET;
        let weight = params.get("conv1.weight").unwrap().clone();
        let mut means = params.get("bn1.running_mean").unwrap().clone();
        for (index, value) in weight.indexed_iter() {
            means[[index[0]].as_slice()] -= value * -mean[index[1]] / std[index[1]];
        }
        let mut folded = weight;
        for (index, value) in folded.indexed_iter_mut() {
            *value /= std[index[1]];
        }
        params.insert("conv1.weight".to_owned(), folded);
        params.insert("bn1.running_mean".to_owned(), means);
    }
    write_safetensors(path, &graph, &params, &names, &labels.unwrap(), None).unwrap();
}

#[test]
fn assumed_constants_are_tried_and_better_ones_are_named() {
    let root = tempfile::tempdir().unwrap();
    let mut recipe = recipe(photos(&root.path().join("photos")));
    recipe.prune.solver = "magnitude".into();
    recipe.recovery.schedule = Schedule::None;
    recipe.recovery.recalibrate = Recalibration::Off;
    for other in [false, true] {
        recipe.model = root.path().join("network.safetensors");
        unlabelled(&recipe.model, other);
        let out = root.path().join(if other { "other" } else { "own" });
        let RunRecord { warnings, choices, .. } = run(&recipe, &out);
        assert!(warnings[0].contains("nothing says") && warnings[0].contains("--preprocess"), "{warnings:?}");
        let against = warnings.iter().find(|text| text.contains("speak against"));
        assert_eq!(against.is_some(), other, "{warnings:?} {choices:?}");
        assert!(
            against.is_none_or(|text| text.contains("--preprocess speciesnet --image-size 64")),
            "{against:?}"
        );
        assert_eq!((choices.len(), choices[0].candidates.len()), (1, 5));
        assert_eq!(choices[0].taken, choices[0].candidates[0].name);
    }
    recipe.input.preprocess = Some("speciesnet".to_owned());
    let record = run(&recipe, &root.path().join("named"));
    assert_eq!((record.choices, record.warnings), (vec![], vec![]));
}

/// Every value the runtime holds, against the same node of the torch executor.
#[test]
fn torch_and_runtime_agree_node_by_node() {
    let pretrained = load_model(GENERALIST, [64, 64]).unwrap();
    let labels = pretrained.labels.clone().unwrap();
    let (graph, mut params) = fold::all(&pretrained.graph, &pretrained.params).unwrap();
    let mut masks = BTreeMap::new();
    for id in graph.prunable() {
        let value = params.get_mut(&graph.node(id).weight()).unwrap();
        let scores: Vec<f32> = value.iter().map(|v| v.abs()).collect();
        let mask = Mask::top_k(&scores, scores.len() / 10);
        value.iter_mut().zip(mask.iter()).filter(|(_, kept)| !kept).for_each(|(v, _)| *v = 0.0);
        masks.insert(graph.node(id).weight(), mask);
    }
    let preprocess = Preprocess::squash(64);
    let model = TorchModel::new(graph.clone(), &params, Device::Cpu).unwrap();
    let sparse =
        SparseModel::pack(graph.clone(), &params, &masks, labels, preprocess, Provenance::default()).unwrap();
    let photo = |index| World::new(1).photo(&SPECIES[index], 300, index as u32);
    let preprocessor = margay_runtime::Preprocessor::new(&sparse.preprocess);
    let mut images = vec![0.0; 3 * preprocessor.image_len()];
    for (index, out) in images.chunks_mut(preprocessor.image_len()).enumerate() {
        let photo = photo(index);
        let (width, height) = (photo.width() as usize, photo.height() as usize);
        let photo = margay_runtime::Photo::from_rgb(width, height, photo.into_raw()).unwrap();
        preprocessor.run(&photo, out);
    }
    let input = Tensor::from_slice(&images).reshape([3, 3, 64, 64]);
    let nodes: Vec<_> = graph.ids().collect();
    let expected = forward(&graph, &model, Norms::Stored, &input, &nodes).unwrap().kept;
    for kernel in [KernelChoice::Auto, KernelChoice::Sparse, KernelChoice::Dense] {
        let options =
            SessionOptions { threads: 2, kernel, precision: Precision::F32, ..SessionOptions::default() };
        let trace = Session::new(&sparse, &options).unwrap().trace(&images).unwrap();
        assert!(trace.len() > 20, "{}", trace.len());
        for (id, got) in &trace {
            let wanted = Vec::<f32>::try_from(expected[id.index()].reshape([-1])).unwrap();
            let scale = wanted.iter().map(|v| v.abs()).fold(1e-6, f32::max);
            let gap = wanted.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert_eq!(wanted.len(), got.len(), "{}", graph.node(*id).name);
            assert!(gap <= 1e-4 * scale, "{kernel:?} {}: {gap} of {scale}", graph.node(*id).name);
        }
    }
}
