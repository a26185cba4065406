//! Model files, adapters and paths that were made to do harm: refused with exit 3 and by name, before anything is allocated.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use margay_core::adapter::file::Modules;
use margay_core::adapter::{Adapter, Change};
use margay_core::model::seal;
use margay_core::{
    Conv2d, GraphBuilder, Linear, Op, Params, Preprocess, Provenance, Role, Shape, SparseModel,
};
use ndarray::{ArrayD, Ix2, IxDyn};
use serde_json::{Value, json};

/// Three planes of 8 × 8, a convolution, a mean, two classes; the header has room to grow.
fn sane() -> SparseModel {
    let (mut builder, image) = GraphBuilder::new("tiny", Shape::map(3, 8, 8));
    builder.role(Role::Body);
    let conv = builder.push("c", Op::Conv2d(Conv2d::square([3, 4], 3, 1)), &[image]);
    let pool = builder.push("pool", Op::GlobalAvgPool, &[conv]);
    builder.role(Role::Head);
    builder.push("fc", Op::Linear(Linear { in_features: 4, out_features: 2, bias: false }), &[pool]);
    let graph = builder.finish().unwrap();
    let params: Params =
        graph.params().map(|spec| (spec.name, ArrayD::from_elem(IxDyn(&spec.shape), 0.5))).collect();
    let labels = vec!["a".to_owned(), "b".to_owned()];
    let provenance = Provenance { recipe: " ".repeat(8000), ..Provenance::default() };
    let preprocess = Preprocess::squash(8);
    SparseModel::pack(graph, &params, &BTreeMap::new(), labels, preprocess, provenance).unwrap()
}

/// A file with the model's header changed.
fn write(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut bytes = sane().to_bytes().unwrap();
    let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[64..64 + length]).unwrap();
    header["provenance"]["recipe"] = json!("");
    change(&mut header);
    let mut json = serde_json::to_vec(&header).unwrap();
    assert!(json.len() <= length, "{} bytes do not fit {length}", json.len());
    json.resize(length, b' ');
    bytes[64..64 + length].copy_from_slice(&json);
    seal(&mut bytes);
    fs_err::write(path, bytes).unwrap();
}

fn node(name: &str, op: &Value, input: usize) -> Value {
    json!({"name": name, "op": op, "inputs": [input], "role": "body"})
}

/// An image of 2 × 2 that same-padding makes large in so many steps, then further nodes, mean and head.
fn grown(header: &mut Value, steps: usize, rest: &[Value]) {
    let pad = json!({"kind": "same_pad", "kernel": [1024, 1024], "stride": [1, 1]});
    let nodes = header["graph"]["nodes"].as_array_mut().unwrap();
    let [image, conv, pool, head] = [0, 1, 2, 3].map(|index: usize| nodes[index].clone());
    *nodes = vec![image];
    (0..steps).for_each(|i| nodes.push(node(&format!("p{i}"), &pad, i)));
    nodes.extend(rest.iter().cloned());
    for mut node in [conv, pool, head] {
        node["inputs"] = json!([nodes.len() - 1]);
        nodes.push(node);
    }
}

type Hostile = (&'static str, fn(&mut Value), &'static str);

const FILES: &[Hostile] = &[
    (
        "squash_to_huge",
        |h| h["preprocess"]["resize"] = json!({"squash_to": [200_000, 200_000]}),
        "resizes to 200000 x 200000 pixels for an input of 8 x 8",
    ),
    (
        "squash_to_u64",
        |h| h["preprocess"]["resize"] = json!({"squash_to": [1_u64 << 63, 1_u64 << 63]}),
        "for an input of 8 x 8",
    ),
    (
        "short_100000",
        |h| h["preprocess"]["resize"] = json!({"short_side": 100_000}),
        "resizes to 100000 x 100000 pixels for an input of 8 x 8",
    ),
    (
        "image_9000",
        |h| {
            h["graph"]["input"] = json!({"map": {"channels": 3, "height": 9000, "width": 9000}});
            h["preprocess"]["size"] = json!([9000, 9000]);
        },
        "an input of 9000 x 9000 pixels",
    ),
    (
        "grey",
        |h| h["graph"]["input"] = json!({"map": {"channels": 1, "height": 8, "width": 8}}),
        "convolution reads 3 channels",
    ),
    ("large_values", |h| grown(h, 8, &[]), "MB of memory"),
    (
        "slow_pools",
        |h| {
            let pool =
                json!({"kind": "max_pool2d", "kernel": [1001, 15], "stride": [1, 1], "padding": [500, 7]});
            let pools: Vec<Value> = (0..9).map(|i| node(&format!("m{i}"), &pool, 4 + i)).collect();
            grown(h, 4, &pools);
        },
        "multiply-adds; at most 4.0e12",
    ),
    ("std_tiny", |h| h["preprocess"]["normalization"]["std"] = json!([1e-45, 1e-45, 1e-45]), "divides by"),
    ("mean_huge", |h| h["preprocess"]["normalization"]["mean"] = json!([3e38, 0.5, 0.5]), "subtracts"),
    (
        "eps_negative",
        |h| {
            let norm = json!({"kind": "layer_norm", "features": 4, "eps": -2.0});
            let nodes = h["graph"]["nodes"].as_array_mut().unwrap();
            nodes.insert(2, node("norm", &norm, 1));
            (nodes[3]["inputs"], nodes[4]["inputs"]) = (json!([2]), json!([3]));
        },
        "eps of -2",
    ),
];

/// Runs the command with 8 GB of address space.
fn margay(folder: &Path, args: &[&str]) -> Output {
    let script = "ulimit -v 8000000; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_margay")]).args(args).current_dir(folder);
    command
        .env("MARGAY_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))
        .env_remove("MARGAY_THREADS")
        .output()
        .unwrap()
}

fn refused(folder: &Path, args: &[&str], reason: &str) {
    let output = margay(folder, args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{args:?}: {text}");
    assert!(text.contains(reason) && output.stdout.is_empty(), "{args:?} says\n{text}");
}

fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let photo = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 90]));
    for class in ["a", "b"] {
        fs_err::create_dir_all(folder.path().join("photos").join(class)).unwrap();
        photo.save(folder.path().join("photos").join(class).join("1.png")).unwrap();
    }
    sane().write(folder.path().join("sane.margay")).unwrap();
    folder
}

#[test]
fn model_files_are_judged_by_every_command() {
    let folder = scene();
    let path = folder.path().join("m.margay");
    for (name, change, reason) in FILES {
        write(&path, change);
        let commands: [&[&str]; 5] = [
            &["inspect", "m.margay"],
            &["predict", "m.margay", "photos"],
            &["eval", "m.margay", "photos"],
            &["bench", "m.margay", "--runs", "1"],
            &["export", "m.margay", "-o", "m.onnx"],
        ];
        for command in commands {
            eprintln!("{name}");
            refused(folder.path(), command, reason);
        }
    }
    assert!(!folder.path().join("m.onnx").exists());
    write(&path, |_| ());
    assert!(margay(folder.path(), &["predict", "m.margay", "photos"]).status.success());
}

#[test]
fn more_memory_can_be_allowed_and_less() {
    let folder = scene();
    let output = margay(folder.path(), &["predict", "sane.margay", "photos", "--max-memory", "1K"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("hint: ") && text.contains("--max-memory"), "{text}");
    // Dead nodes have no buffers: 40 of them behind 100 MB take no more than none.
    let path = folder.path().join("m.margay");
    write(&path, |header| {
        grown(header, 2, &[]);
        let dead = json!({"kind": "activation", "function": "relu"});
        let nodes = header["graph"]["nodes"].as_array_mut().unwrap();
        let last = nodes.pop().unwrap();
        (0..40).for_each(|i| nodes.push(node(&format!("d{i}"), &dead, 3)));
        nodes.push(last);
    });
    let output = margay(folder.path(), &["predict", "m.margay", "photos", "--max-memory", "500M"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Labels, node names and provenance of a model file are its author's; so are a checkpoint's path and a photo's name.
#[test]
fn no_control_character_reaches_the_terminal() {
    let folder = scene();
    let evil = "\u{1b}]0;x\u{7}\u{202e}z";
    write(&folder.path().join("m.margay"), |header| {
        header["labels"][0] = json!(evil);
        header["graph"]["nodes"][1]["name"] = json!(format!("p{evil}"));
        header["provenance"]["recipe"] = json!(format!("model = '{evil}'"));
    });
    let photo = format!("photos/a/{evil}.png");
    fs_err::copy(folder.path().join("photos/a/1.png"), folder.path().join(&photo)).unwrap();
    fs_err::write(folder.path().join(format!("{evil}.margay")), "nothing").unwrap();
    let broken = format!("{evil}.margay");
    let commands: [&[&str]; 8] = [
        &["predict", "m.margay", "photos"],
        &["predict", "m.margay", "photos", "--json"],
        &["predict", &broken, "photos"],
        &["eval", "m.margay", "photos"],
        &["inspect", "m.margay", "--layers"],
        &["inspect", &broken],
        &["bench", "m.margay", "--runs", "1", "--profile"],
        &["export", "m.margay", "-o", "m.onnx"],
    ];
    for command in commands {
        let output = margay(folder.path(), command);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).expect("what is told is text");
        let obeyed = |letter: &char| (letter.is_control() && *letter != '\n') || *letter == '\u{202e}';
        assert!(!told.is_empty() && told.chars().find(obeyed).is_none(), "{command:?}: {told:?}");
    }
}

#[test]
fn what_is_no_number_is_never_a_label() {
    let folder = scene();
    let mut model = sane();
    let largest = ArrayD::from_elem(IxDyn(&[4, 3, 3, 3]), f32::MAX);
    model.weights.insert("c.weight".to_owned(), margay_core::Weight::Dense(largest));
    model.write(folder.path().join("m.margay")).unwrap();
    let output = margay(folder.path(), &["predict", "m.margay", "photos", "--strict"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert_eq!(text.matches("the network's answer is not a number").count(), 2, "{text}");
    assert!(text.contains("a/1.png,,,"), "{text}");
    let output = margay(folder.path(), &["eval", "m.margay", "photos"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a number"));
    refused(folder.path(), &["bench", "m.margay", "--runs", "1"], "not a number");
}

#[test]
fn adapters_fit_their_own_base_only_and_stay_finite() {
    let folder = scene();
    let model = sane();
    let change = Change { entries: Some((vec![0], vec![1.0])), ..Change::default() };
    let own = Adapter {
        method: "rosa".to_owned(),
        base: model.fingerprint().unwrap(),
        labels: model.labels.clone(),
        layers: [("c.weight".to_owned(), change)].into(),
        ..Adapter::default()
    };
    let write = |adapter: &Adapter| {
        let path = folder.path().join("adapter");
        let _ = fs_err::remove_dir_all(&path);
        fs_err::create_dir(&path).unwrap();
        adapter.write(&path, &model.graph, &Modules::new()).unwrap();
    };
    let commands: [&[&str]; 4] = [
        &["predict", "sane.margay", "photos", "--adapter", "adapter"],
        &["eval", "sane.margay", "photos", "--adapter", "adapter"],
        &["bench", "sane.margay", "--runs", "1", "--adapter", "adapter"],
        &["export", "sane.margay", "-o", "m.onnx", "--adapter", "adapter"],
    ];
    write(&own);
    for command in commands {
        let output = margay(folder.path(), command);
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let all = |adapter: &Adapter, reason: &str| {
        write(adapter);
        for command in commands {
            refused(folder.path(), command, reason);
        }
    };
    all(&Adapter { base: "0".repeat(64), ..own.clone() }, "trained on another model");
    all(&Adapter { base: String::new(), ..own.clone() }, "trained on a checkpoint");
    let mut overflows = own.clone();
    let factor = |shape: [usize; 2], value: f32| {
        ArrayD::from_elem(IxDyn(&shape), value).into_dimensionality::<Ix2>().unwrap()
    };
    let change = overflows.layers.get_mut("c.weight").unwrap();
    change.factors = Some([factor([4, 1], 1e30), factor([1, 27], 1e30)]);
    all(&overflows, "NaN or infinite");
    fs_err::rename(folder.path().join("adapter"), folder.path().join("other")).unwrap();
    fs_err::remove_file(folder.path().join("other/margay_adapter.safetensors")).unwrap();
    refused(
        folder.path(),
        &["predict", "sane.margay", "photos", "--adapter", "other"],
        "adapter of another program",
    );
}

#[test]
fn what_is_no_regular_file_is_refused_before_it_is_read() {
    let folder = scene();
    let root = folder.path();
    let _listener = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let pipe = |name: &str| {
        let made = Command::new("mkfifo").arg(root.join(name)).status().unwrap();
        assert!(made.success());
    };
    pipe("pipe");
    fs_err::create_dir(root.join("adapter")).unwrap();
    pipe("adapter/margay_adapter.safetensors");
    fs_err::create_dir(root.join("runs")).unwrap();
    pipe("runs/runs.jsonl");
    let reason = "is not a regular file";
    for path in ["pipe", "socket", "/dev/zero", "/dev/null"] {
        refused(root, &["predict", path, "photos"], reason);
        refused(root, &["eval", path, "photos"], reason);
        refused(root, &["report", path], reason);
        refused(root, &["experiment", path, "--dry-run"], reason);
        refused(root, &["compress", "--recipe", path, "--dry-run"], reason);
    }
    refused(root, &["predict", "sane.margay", "photos", "--adapter", "adapter"], reason);
}
