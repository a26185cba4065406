//! What each fuzz target does with any bytes: one function per target, none of which may panic.
//!
//! `fuzz_targets/` hands them to libFuzzer. The test `seeds_and_their_neighbours_do_no_harm` of the main workspace hands
//! them the seeds, without a nightly compiler.

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use margay::checkpoint::Checkpoint;
use margay::data::Dataset;
use margay::experiment::{Experiment, Results};
use margay::labels::read_labels;
use margay::preprocess::{from_hugging_face, from_margay, from_timm};
use margay::recipe::{ClassSpec, Recipe};
use margay_core::adapter::Adapter;
use margay_core::model::{MAGIC, seal};
use margay_core::{
    Conv2d, GraphBuilder, Limits, Linear, Op, Params, Preprocess, Provenance, Role, Shape, SparseModel,
};
use margay_runtime::{Photo, Preprocessor, Session, SessionOptions, decode_bytes};
use ndarray::ArrayD;

/// A target by its name, which is also that of its seeds' folder.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 11] = [
    ("adapter", adapter),
    ("checkpoint", checkpoint),
    ("configs", configs),
    ("folder_names", folder_names),
    ("journal", journal),
    ("labels", labels),
    ("model_file", model_file),
    ("photo", photo),
    ("recipe", recipe),
    ("safetensors", safetensors),
    ("tune_cache", tune_cache),
];

/// So little that a run of any accepted model is short.
const LIMITS: Limits = Limits { memory: 64 << 20, operations: 20_000_000 };

/// A model that reads is written back equal, and a photo goes through its plan and session. Bytes without the magic are
/// the JSON of a header, before sections whose every number is 0.5.
pub fn model_file(bytes: &[u8]) {
    let mut file = if bytes.starts_with(&MAGIC[..4]) { bytes.to_vec() } else { framed(bytes) };
    // As it is, and with length and checksum made right, lest they stop every change.
    for sealed in [false, true] {
        if sealed {
            seal(&mut file);
        }
        if let Ok(model) = SparseModel::from_bytes_within(&file, &LIMITS) {
            let written = model.to_bytes().expect("a model that was read can be written");
            assert!(SparseModel::from_bytes(&written).is_ok_and(|again| again == model));
            classify(&model);
        }
    }
}

/// Where sections start in a framed file.
const SECTIONS: usize = 4096;

fn framed(header: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..8].copy_from_slice(&MAGIC);
    file[8] = 1;
    let length = SECTIONS.max(64 + header.len()) - 64;
    file[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    file.extend_from_slice(header);
    file.resize(64 + length, b' ');
    // The file ends with the last section that its table names.
    let table = serde_json::from_slice(header).unwrap_or(serde_json::Value::Null);
    let end = last_section(&table).filter(|end| *end < 1 << 20).unwrap_or(SECTIONS + 512);
    let half = 0.5_f32.to_le_bytes();
    (file.len()..end).for_each(|place| file.push(half[place % 4]));
    file
}

fn last_section(header: &serde_json::Value) -> Option<usize> {
    let end = |section: &serde_json::Value| {
        let (start, length) = (section.get(0)?.as_u64()?, section.get(1)?.as_u64()?);
        usize::try_from(start.checked_add(length)?).ok()
    };
    let tensors = header.get("tensors")?.as_array()?.iter();
    let ends = tensors.flat_map(|tensor| [tensor.pointer("/form/csr/index"), tensor.get("values")]);
    ends.flatten().filter_map(end).max()
}

fn classify(model: &SparseModel) {
    let options = SessionOptions { threads: 1, limits: LIMITS, ..SessionOptions::default() };
    let Ok(mut session) = Session::new(model, &options) else { return };
    let preprocessor = Preprocessor::new(&model.preprocess);
    let photo = Photo::from_rgb(5, 3, (0..45).collect()).expect("a photo of 5 by 3");
    let mut input = vec![0.0; preprocessor.image_len()];
    preprocessor.run(&photo, &mut input);
    let mut logits = vec![0.0; session.classes()];
    session.run(&input, &mut logits).expect("the model's preprocessing makes the model's input");
}

/// A convolution and a head on 8 × 8 pixels, and its fingerprint.
fn base() -> &'static (SparseModel, String) {
    static BASE: OnceLock<(SparseModel, String)> = OnceLock::new();
    BASE.get_or_init(|| {
        let (mut builder, image) = GraphBuilder::new("tiny", Shape::map(3, 8, 8));
        builder.role(Role::Body);
        let conv = builder.push("c", Op::Conv2d(Conv2d::square([3, 4], 3, 1)), &[image]);
        let pool = builder.push("pool", Op::GlobalAvgPool, &[conv]);
        builder.role(Role::Head);
        builder.push("fc", Op::Linear(Linear { in_features: 4, out_features: 2, bias: false }), &[pool]);
        let graph = builder.finish().expect("the graph is sound");
        let params: Params = graph.params().map(|spec| (spec.name, ArrayD::ones(spec.shape))).collect();
        let mask = margay_core::Mask::from_fn(4 * 27, |i| i % 3 == 0);
        let masks = [("c.weight".to_owned(), mask)].into();
        let labels = vec!["a".to_owned(), "b".to_owned()];
        let (preprocess, provenance) = (Preprocess::squash(8), Provenance::default());
        let model = SparseModel::pack(graph, &params, &masks, labels, preprocess, provenance);
        let model = model.expect("the model is sound");
        let fingerprint = model.fingerprint().expect("the model can be written");
        (model, fingerprint)
    })
}

/// Two bytes of length, margay's file of so many bytes, PEFT's file. What applies gives a sound model.
pub fn adapter(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (own, peft) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    if let Ok(read) = Adapter::from_bytes(own, peft) {
        let (model, fingerprint) = base();
        let adapter = Adapter { base: fingerprint.clone(), ..read };
        if let Ok(merged) = adapter.apply_within(model, &LIMITS) {
            merged.check().expect("a merged model is sound");
            classify(&merged);
        }
    }
}

/// A folder of this process, in memory where TMPDIR says so.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("there is a place for files")).path()
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("there is room for a file");
    path
}

fn open_checkpoint(path: &Path) {
    if let Ok(checkpoint) = Checkpoint::open(path) {
        let _ = checkpoint.preprocess();
        let _ = checkpoint.into_model([32, 32]);
    }
}

/// Any file of a checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    open_checkpoint(&file("input.pth", bytes));
}

/// The same under the name of the other container.
pub fn safetensors(bytes: &[u8]) {
    open_checkpoint(&file("input.safetensors", bytes));
}

/// A recipe is read back as it was written; an experiment unfolds.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(recipe) = Recipe::from_toml(text) {
        let written = recipe.to_toml().expect("a recipe that was read can be written");
        Recipe::from_toml(&written).expect("a recipe that was written can be read");
    }
    if let Ok(experiment) = Experiment::parse(text) {
        let _ = experiment.runs(&["lora", "rosa"]);
    }
}

/// A list of class names.
pub fn labels(bytes: &[u8]) {
    if let Ok(labels) = read_labels(&file("labels", bytes)) {
        assert!(!labels.is_empty());
    }
}

/// A configuration of timm, of Hugging Face or of margay itself: what is taken from it prepares a photo.
pub fn configs(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    for spec in [from_margay(&value), from_hugging_face(&value), from_timm(&value)].into_iter().flatten() {
        spec.check().expect("what is taken is sound");
        let preprocessor = Preprocessor::new(&spec);
        if spec.size.iter().chain(&spec.resized()).all(|side| *side <= 512) {
            let photo = Photo::from_rgb(5, 3, (0..45).collect()).expect("a photo of 5 by 3");
            let mut input = vec![0.0; preprocessor.image_len()];
            preprocessor.run(&photo, &mut input);
            assert!(input.iter().all(|value| value.is_finite()));
        }
    }
}

/// The lines of an experiment's results.
pub fn journal(bytes: &[u8]) {
    let _ = Results::default().extend(Path::new("runs.jsonl"), bytes);
}

/// Times that an earlier opening is said to have kept.
pub fn tune_cache(bytes: &[u8]) {
    margay_runtime::fuzz_tune_cache(bytes);
}

/// Any photo becomes an input.
pub fn photo(bytes: &[u8]) {
    let small = |photo: &Photo| photo.width().max(photo.height()) <= 1024;
    if let Some(photo) = decode_bytes(bytes).ok().filter(small) {
        let preprocessor = Preprocessor::new(&Preprocess::torchvision(32));
        preprocessor.run(&photo, &mut vec![0.0; preprocessor.image_len()]);
    }
}

/// A path a line: each is an empty file below the folder of photos, whatever it is called.
pub fn folder_names(bytes: &[u8]) {
    let root = tempfile::tempdir_in(folder()).expect("there is a place for a folder");
    for line in bytes.split(|byte| *byte == b'\n').take(24) {
        let path = root.path().join(plain(&name(line)));
        let parent = path.parent().filter(|parent| path != root.path() && parent.starts_with(root.path()));
        if parent.is_some_and(|parent| std::fs::create_dir_all(parent).is_ok()) {
            let _ = std::fs::write(&path, b"");
        }
    }
    let _ = Dataset::scan(root.path(), 0, &ClassSpec::default());
    let _ = Dataset::scan_for_evaluation(root.path(), &ClassSpec::default());
}

/// The parts of a path that stay below where it starts.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).take(4).collect()
}

#[cfg(unix)]
fn name(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn name(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}
