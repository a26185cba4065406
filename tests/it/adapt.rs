//! `margay adapt` on the small world: one sparse base, two regions.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use margay::recipe::{Recipe, Schedule};
use margay_core::adapter::Adapter;
use margay_core::{SparseModel, Weight};
use serde_json::Value;

use crate::pipeline::{GENERALIST, photos, run};

fn margay(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("margay").expect("the binary is built");
    command.current_dir(root).args(["--threads", "1", "-q"]).args(args);
    command
        .env_remove("MARGAY_DEVICE")
        .env("MARGAY_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the binary starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A base pruned by magnitude, and the folder of its photos.
fn base(root: &Path) {
    let mut recipe = Recipe::new(GENERALIST.into(), photos(&root.join("photos")));
    recipe.threads = 1;
    recipe.device = "cpu".into();
    recipe.shots.per_class = 4;
    recipe.input.image_size = Some(64);
    recipe.prune.solver = "magnitude".into();
    recipe.recovery.schedule = Schedule::None;
    run(&recipe, &root.join("base"));
}

fn adapted(root: &Path, out: &str, more: &[&str]) -> Value {
    let args = ["adapt", "base/specialist.margay", "--data", "photos", "--shots", "4", "--epochs", "2"];
    let output = margay(root, &[&args[..], &["--device", "cpu", "--json", "--out", out], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn supports(model: &SparseModel) -> Vec<margay_core::Mask> {
    let mask = |weight: &Weight| match weight {
        Weight::Csr(csr) => Some(csr.mask()),
        Weight::Dense(_) => None,
    };
    model.weights.values().filter_map(mask).collect()
}

#[test]
fn an_adapter_on_its_base_is_the_merged_model() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    base(root);
    let record = adapted(root, "keep", &["--budget", "0.01"]);
    assert_eq!(record["support_unchanged"], true);
    let model = |path: &str| SparseModel::read(root.join(path)).unwrap();
    let (before, merged) = (model("base/specialist.margay"), model("keep/specialist.margay"));
    assert_eq!(supports(&before), supports(&merged));
    let adapter = Adapter::read(&root.join("keep/adapter")).unwrap();
    assert_eq!(adapter.apply(&before).unwrap(), merged);
    assert!(adapter.values() < before.weights.values().map(Weight::stored).sum());
    // The recipe that it wrote makes the same adapter again, and is no recipe of another command.
    let again = margay(root, &["adapt", "--recipe", "keep/recipe.toml", "--out", "again"]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    let bytes = |path: &str| fs_err::read(root.join(path)).unwrap();
    assert!(bytes("keep/specialist.margay") == bytes("again/specialist.margay"));
    let other = said(&margay(root, &["compress", "--recipe", "keep/recipe.toml", "--out", "other"]));
    assert!(other.contains("is a recipe of `margay adapt`"), "{other}");
    // The command says the same of base with adapter as of the merged file, and something else of the base.
    let predicted =
        |args: &[&str]| said(&margay(root, &[&["predict", args[0], "photos/val"], &args[1..]].concat()));
    let with = predicted(&["base/specialist.margay", "--adapter", "keep/adapter"]);
    assert_eq!(with, predicted(&["keep/specialist.margay"]));
    assert_ne!(with, predicted(&["base/specialist.margay"]));
}

#[test]
fn growing_keeps_the_count_and_a_branch_keeps_the_support() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    base(root);
    let stored = |path: &str| {
        let model = SparseModel::read(root.join(path)).unwrap();
        let count = |weight: &Weight| match weight {
            Weight::Csr(csr) => csr.nnz(),
            Weight::Dense(_) => 0,
        };
        model.weights.values().map(count).sum::<usize>()
    };
    let grown = adapted(root, "grow", &["--budget", "0.01", "--policy", "grow"]);
    assert_eq!(grown["support_unchanged"], false);
    assert_eq!(stored("grow/specialist.margay"), stored("base/specialist.margay"));
    let branch = adapted(root, "branch", &["--budget", "0.02", "--policy", "branch", "--method", "lora"]);
    assert_eq!(branch["support_unchanged"], true);
    let model = SparseModel::read(root.join("branch/specialist.margay")).unwrap();
    assert!(model.weights.keys().any(|name| name.contains("lora_A")), "there is a branch");
    for out in ["grow", "branch"] {
        let adapter = Adapter::read(&root.join(out).join("adapter")).unwrap();
        let merged = SparseModel::read(root.join(out).join("specialist.margay")).unwrap();
        let base = SparseModel::read(root.join("base/specialist.margay")).unwrap();
        assert_eq!(adapter.apply(&base).unwrap(), merged, "{out}");
    }
}

#[test]
fn adapters_that_do_not_fit_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    base(root);
    adapted(root, "keep", &["--budget", "0.01"]);
    let other =
        margay(root, &["predict", "keep/specialist.margay", "--adapter", "keep/adapter", "photos/val"]);
    assert_eq!(other.status.code(), Some(3), "{}", said(&other));
    assert!(said(&other).contains("trained on another model"), "{}", said(&other));
    let missing = margay(root, &["predict", "keep/specialist.margay", "--adapter", "nowhere", "photos/val"]);
    assert_eq!(missing.status.code(), Some(3), "{}", said(&missing));
    assert!(said(&missing).contains("margay_adapter.safetensors"), "{}", said(&missing));
    let args = ["adapt", "base/specialist.margay", "--data", "photos", "--method", "rossa"];
    let unknown = margay(root, &args);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    assert!(said(&unknown).contains("did you mean `rosa`"), "{}", said(&unknown));
}
