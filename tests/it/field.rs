//! The torch-free commands on a real model file and real photos.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use image::{Rgb, RgbImage};
use margay::models::{Design, build};
use margay_core::{Mask, ParamRole, Params, Preprocess, Provenance, SparseModel, fold};
use ndarray::{ArrayD, IxDyn};

/// A narrow network with weights of its own, nine of ten of them pruned.
fn write_model(path: &Path) {
    let design =
        Design { variant: "resnet18".into(), width: Some(4), depth: None, classes: 2, image: [32, 32] };
    let graph = build(&design).unwrap();
    let mut params = Params::new();
    for (i, spec) in graph.params().enumerate() {
        let value = |j: usize| match spec.role {
            ParamRole::Weight | ParamRole::Embedding => (((i * 31 + j * 17) % 29) as f32 - 14.0) / 40.0,
            ParamRole::Norm | ParamRole::Statistic => 1.0,
            ParamRole::Bias => 0.0,
        };
        let length = spec.shape.iter().product::<usize>();
        let values = (0..length).map(value).collect();
        params.insert(spec.name, ArrayD::from_shape_vec(IxDyn(&spec.shape), values).unwrap());
    }
    let (graph, params) = fold::all(&graph, &params).unwrap();
    let mut masks = BTreeMap::new();
    for id in graph.prunable() {
        let name = graph.node(id).weight();
        let mask = Mask::from_fn(params.get(&name).unwrap().len(), |j| j % 10 == 0);
        masks.insert(name, mask);
    }
    let labels = vec!["dark".to_owned(), "light".to_owned()];
    let origin = Provenance { generator: "test".into(), ..Provenance::default() };
    let model = SparseModel::pack(graph, &params, &masks, labels, Preprocess::squash(32), origin).unwrap();
    model.write(path).unwrap();
}

fn write_photos(root: &Path) {
    for (class, shade) in [("dark", 20), ("light", 220)] {
        let folder = root.join("photos").join(class);
        fs_err::create_dir_all(&folder).unwrap();
        for i in 0..3u8 {
            let photo = RgbImage::from_fn(40, 30, |x, y| Rgb([shade, (x as u8) << 2, (y as u8) + i]));
            photo.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    fs_err::write(root.join("photos/dark/broken, é.jpg"), b"").unwrap();
}

pub fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(&dir.path().join("m.margay"));
    write_photos(dir.path());
    dir
}

fn margay(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("margay").unwrap();
    command
        .current_dir(folder)
        .args(args)
        .env("MARGAY_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn predict_lists_every_photo_and_goes_on_after_a_bad_one() {
    let dir = scene();
    let output = margay(dir.path(), &["predict", "m.margay", "photos", "--top", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "path,label,probability,label_2,probability_2,error,note");
    assert_eq!(lines.len(), 8);
    let bad: Vec<&&str> =
        lines.iter().filter(|line| line.starts_with("\"dark/broken, é.jpg\",,,,,")).collect();
    assert_eq!(bad.len(), 1, "{text}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("warning: "));
    let strict = margay(dir.path(), &["predict", "m.margay", "photos", "--strict", "-o", "labels.json"]);
    assert_eq!(strict.status.code(), Some(4));
    let list: serde_json::Value =
        serde_json::from_str(&fs_err::read_to_string(dir.path().join("labels.json")).unwrap()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 7);
}

#[test]
fn predictions_do_not_depend_on_the_number_of_threads() {
    let dir = scene();
    let with = |n| margay(dir.path(), &["predict", "m.margay", "photos", "--json", "--threads", n]).stdout;
    assert_eq!(with("1"), with("2"));
}

#[test]
fn eval_measures_and_holds_against_the_bar() {
    let dir = scene();
    let measured = json(&margay(dir.path(), &["eval", "m.margay", "photos", "--json"]));
    assert_eq!(measured["total"], 6);
    assert_eq!(measured["classes"][1]["total"], 3);
    assert_eq!(measured["bad_photos"].as_array().unwrap().len(), 1);
    let top1 = measured["top1"].as_f64().unwrap();
    let bar = margay(dir.path(), &["eval", "m.margay", "photos", "--min-top1", "1"]);
    assert_eq!(bar.status.code(), Some(i32::from(top1 < 1.0)));
}

#[test]
fn bench_compares_with_the_dense_twin() {
    let dir = scene();
    let measured = json(&margay(dir.path(), &["bench", "m.margay", "--runs", "3", "--profile", "--json"]));
    for which in ["sparse", "dense"] {
        let spread = &measured["latency_ms"][which];
        assert!(spread["min"].as_f64() <= spread["median"].as_f64(), "{measured}");
        assert!(spread["median"].as_f64() <= spread["max"].as_f64(), "{measured}");
    }
    assert!(!measured["profile"]["steps"].as_array().unwrap().is_empty());
}

#[test]
fn engines_that_are_missing_are_told_and_the_rest_goes_on() {
    let dir = scene();
    let against = "onnxruntime=/nowhere/python,libtorch";
    let command = ["bench", "m.margay", "--runs", "3", "--against", against, "--plot", "bars.svg", "--json"];
    let measured = json(&margay(dir.path(), &command));
    let missing = &measured["against"][0];
    assert!(missing["error"].as_str().unwrap().contains("/nowhere/python"), "{missing}");
    assert!(missing["error"].as_str().unwrap().contains("pip install onnxruntime"), "{missing}");
    assert!(missing["ratio"].is_null());
    let libtorch = &measured["against"][1];
    if cfg!(feature = "torch") {
        assert_eq!(libtorch["agrees"], true, "{libtorch}");
        assert!(libtorch["ratio"]["median"].as_f64().unwrap() > 0.0);
    } else {
        assert_eq!(libtorch["error"], "this program has no libtorch");
    }
    let plot = fs_err::read_to_string(dir.path().join("bars.svg")).unwrap();
    assert_eq!(plot.matches("<rect").count(), if cfg!(feature = "torch") { 3 } else { 2 });
}

/// A program in the place of Python that speaks as `engine.py` does, with answers of its own.
#[cfg(unix)]
#[test]
fn engines_with_other_answers_are_caught() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = scene();
    let engine = dir.path().join("engine");
    let script =
        "#!/bin/sh\necho '{\"version\": \"9\", \"logits\": [1e3, 0]}'\nwhile read line; do echo 2.5; done\n";
    fs_err::write(&engine, script).unwrap();
    fs_err::set_permissions(&engine, std::fs::Permissions::from_mode(0o755)).unwrap();
    let against = format!("openvino={}", engine.display());
    let command = ["bench", "m.margay", "--runs", "3", "--against", &against];
    let measured = json(&margay(dir.path(), &[&command[..], &["--json"]].concat()));
    let standing = &measured["against"][0];
    assert_eq!((&standing["agrees"], &standing["version"]), (&false.into(), &"9".into()), "{standing}");
    assert_eq!(standing["latency_ms"]["median"], 2.5);
    let table = margay(dir.path(), &command);
    assert!(String::from_utf8_lossy(&table.stdout).contains("DIFFER"), "{table:?}");
}

#[test]
fn exported_networks_hold_labels_and_every_weight() {
    let dir = scene();
    let told = json(&margay(dir.path(), &["export", "m.margay", "-o", "m.onnx", "--json"]));
    let bytes = fs_err::read(dir.path().join("m.onnx")).unwrap();
    assert_eq!(told["bytes"], bytes.len());
    let facts = json(&margay(dir.path(), &["inspect", "m.margay", "--json"]));
    assert!(bytes.len() as u64 > 4 * facts["parameters"].as_u64().unwrap(), "zeros are stored");
    assert!(bytes.windows(5).any(|window| window == b"light"), "labels");
    let refused = margay(dir.path(), &["export", "m.margay", "-o", "m.onnx", "--opset", "12"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn inspect_counts_what_is_stored() {
    let dir = scene();
    let facts = json(&margay(dir.path(), &["inspect", "m.margay", "--json"]));
    assert_eq!(facts["labels"][1], "light");
    let (stay, all) = (&facts["prunable"]["nonzeros"], &facts["prunable"]["weights"]);
    assert!((stay.as_f64().unwrap() / all.as_f64().unwrap() - 0.1).abs() < 0.01, "{stay} of {all}");
}

#[test]
fn an_unwritable_output_is_an_io_error() {
    let dir = scene();
    fs_err::write(dir.path().join("file"), "").unwrap();
    let output = margay(dir.path(), &["predict", "m.margay", "photos", "-o", "file/labels.csv"]);
    assert_eq!(output.status.code(), Some(5));
}
