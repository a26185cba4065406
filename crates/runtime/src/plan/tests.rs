use margay_core::SparseModel;
use margay_kernels::{Isa, Precision};

use super::tune::{Clock, Place};
use super::{Kernel, KernelChoice, Plan};
use crate::SessionOptions;

#[path = "../../tests/it/nets/mod.rs"]
mod nets;

fn model(sparsity: f64) -> SparseModel {
    nets::pack(&nets::resnet::graph(&nets::resnet::Spec::tiny()).unwrap(), sparsity).unwrap()
}

/// A clock that is told what takes how long, and counts how often it is asked.
struct Told {
    dense: f64,
    /// Of a strip of so many vectors.
    sparse: fn(usize) -> f64,
    asked: usize,
}

impl Told {
    fn new(dense: f64, sparse: fn(usize) -> f64) -> Self {
        Self { dense, sparse, asked: 0 }
    }
}

impl Clock for Told {
    fn time(&mut self, _: &Place, kernel: &Kernel, _: f64) -> f64 {
        self.asked += 1;
        kernel.strip().map_or(self.dense, self.sparse)
    }
}

fn plan(
    model: &SparseModel,
    options: &SessionOptions,
    clock: &mut Told,
) -> Vec<(&'static str, Option<usize>)> {
    let plan = Plan::with_clock(model, Isa::Portable, options, 1, clock).unwrap();
    let convs = plan.steps.iter().filter(|step| {
        matches!(step.kernel, Kernel::SparseConv(_) | Kernel::BlockConv(_) | Kernel::DenseConv(_))
    });
    convs
        .filter(|step| step.density < Some(1.0))
        .map(|step| (step.kernel.name(), step.kernel.strip()))
        .collect()
}

#[test]
fn no_sparse_layer_is_slower_than_dense() {
    let options = SessionOptions::default();
    for sparsity in [0.5, 0.8, 0.95, 0.99] {
        let model = model(sparsity);
        let slow = plan(&model, &options, &mut Told::new(1.0, |_| 1.1));
        assert!(
            slow.len() > 3 && slow.iter().all(|(kernel, _)| *kernel == "dense_conv"),
            "{sparsity}: {slow:?}"
        );
    }
    let forced = SessionOptions { kernel: KernelChoice::Sparse, ..options };
    let sparse = plan(&model(0.9), &forced, &mut Told::new(1.0, |_| 1.1));
    assert!(sparse.iter().all(|(kernel, _)| *kernel == "sparse_conv"), "{sparse:?}");
}

#[test]
fn the_fastest_strip_is_taken() {
    let model = model(0.95);
    let widest = plan(&model, &SessionOptions::default(), &mut Told::new(1.0, |width| 0.5 / width as f64));
    let narrowest =
        plan(&model, &SessionOptions::default(), &mut Told::new(1.0, |width| 0.01 * width as f64));
    assert!(widest.iter().chain(&narrowest).all(|(kernel, _)| *kernel == "sparse_conv"));
    assert!(widest.iter().zip(&narrowest).all(|(wide, narrow)| wide.1 >= narrow.1));
    assert!(widest.iter().zip(&narrowest).any(|(wide, narrow)| wide.1 > narrow.1));
}

/// Options with a cache in a new folder.
fn cached() -> (tempfile::TempDir, SessionOptions) {
    let folder = tempfile::tempdir().unwrap();
    let tune_cache = Some(folder.path().join("margay"));
    (folder, SessionOptions { tune_cache, ..SessionOptions::default() })
}

fn files(options: &SessionOptions) -> Vec<std::path::PathBuf> {
    let folder = options.tune_cache.as_ref().unwrap();
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_second_opening_times_nothing_and_chooses_the_same() {
    let (_folder, options) = cached();
    let model = model(0.9);
    let mut clock = Told::new(0.3, |width| 1.0 / width as f64);
    let first = plan(&model, &options, &mut clock);
    assert!(clock.asked > 0 && files(&options).len() == 1);
    // Had it timed anything, it would have chosen otherwise.
    let mut other = Told::new(1.0, |width| width as f64);
    assert_eq!((plan(&model, &options, &mut other), other.asked), (first, 0));
}

#[test]
fn another_model_or_precision_is_timed_by_itself() {
    let (_folder, options) = cached();
    let exact = SessionOptions { precision: Precision::F32, ..options.clone() };
    for (model, options) in [(model(0.9), &options), (model(0.8), &options), (model(0.9), &exact)] {
        let mut clock = Told::new(0.3, |width| 1.0 / width as f64);
        plan(&model, options, &mut clock);
        assert!(clock.asked > 0);
    }
    assert_eq!(files(&options).len(), 3);
}

#[test]
fn a_damaged_file_is_measured_anew_and_replaced() {
    let (_folder, options) = cached();
    let model = model(0.9);
    let clock = || Told::new(0.3, |width| 1.0 / width as f64);
    let first = plan(&model, &options, &mut clock());
    let path = files(&options).remove(0);
    let sound = std::fs::read(&path).unwrap();
    let text = String::from_utf8(sound.clone()).unwrap();
    let foreign = text.replacen("\"id\":\"", "\"id\":\"0", 1);
    let negative = text.replacen("0.3", "-0.3", 1);
    let huge = format!("{text}{}", " ".repeat(1 << 20)).replacen('{', "{ \"more\": 1,", 1);
    for damaged in ["", "[1, 2", &text[..text.len() / 2], &foreign, &negative, &huge] {
        std::fs::write(&path, damaged).unwrap();
        let mut clock = clock();
        assert_eq!(plan(&model, &options, &mut clock), first);
        assert!(clock.asked > 0);
        assert_eq!(std::fs::read(&path).unwrap(), sound);
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_no_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = SessionOptions { tune_cache: Some(file.path().join("x")), ..SessionOptions::default() };
    assert!(!plan(&model(0.9), &options, &mut Told::new(0.3, |_| 1.0)).is_empty());
}
