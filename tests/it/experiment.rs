//! `margay experiment` on the small world: groups, a kill in the middle, failures, tables.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

use crate::pipeline::{GENERALIST, photos};

/// Two seeds of three ways of recovery on a network pruned by magnitude.
fn recipe(root: &Path, sweep: &str) -> String {
    photos(&root.join("data/photos"));
    fs_err::copy(GENERALIST, root.join("data/generalist.safetensors")).unwrap();
    let text = format!(
        "[experiment]\nname = 'try'\nreference = 'none'\n[checkpoints.generalist]\nmodel = 'generalist.safetensors'\n
         [tasks.forest]\ndata = 'photos'\n[recipe]\ndevice = 'cpu'\n[recipe.shots]\nper-class = 4\n
         [recipe.input]\nimage-size = 64\n[recipe.prune]\nsolver = 'magnitude'\n
         [recipe.recovery]\nepochs = 1\nrecalibrate = 'off'\n
         [[sweep]]\ncheckpoint = 'generalist'\ntask = 'forest'\n{sweep}\n"
    );
    let path = root.join("try.toml");
    fs_err::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn margay(root: &Path, recipe: &str, more: &[&str]) -> Output {
    let mut command = Command::cargo_bin("margay").expect("the binary is built");
    command.current_dir(root).args([
        "--threads",
        "1",
        "experiment",
        recipe,
        "--data",
        "data",
        "--out",
        "out",
    ]);
    command.args(more).env_remove("MARGAY_DEVICE").output().expect("the binary starts")
}

fn lines(root: &Path) -> Vec<Value> {
    let text = fs_err::read_to_string(root.join("out/runs.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a line says, without what time and machine say.
fn figures(mut line: Value) -> Value {
    for measured in ["seconds", "shared_seconds", "peak_rss_bytes"] {
        line["measured"].as_object_mut().unwrap().remove(measured);
    }
    line
}

fn ends_with(output: &Output, code: i32) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
}

#[test]
fn a_killed_experiment_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let recipe = recipe(root, "adapter = ['none', 'full', 'rosa']\nbudget = 0.01\nseed = [0, 1]");
    ends_with(&margay(root, &recipe, &[]), 0);
    let whole = lines(root);
    assert_eq!(whole.len(), 6);
    assert!(whole.iter().all(|line| line["measured"]["same_support"] == true), "{whole:?}");

    // Killed in the middle of the fifth line, and so in the middle of a group.
    let text = fs_err::read(root.join("out/runs.jsonl")).unwrap();
    let ends: Vec<usize> =
        text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
    fs_err::write(root.join("out/runs.jsonl"), &text[..ends[3] + 100]).unwrap();
    let plan: Value =
        serde_json::from_slice(&margay(root, &recipe, &["--dry-run", "--json"]).stdout).unwrap();
    assert_eq!((&plan["done"], plan["left"].as_array().unwrap().len()), (&4.into(), 2));
    assert!(plan["seconds_left"].as_f64().unwrap() > 0.0);

    ends_with(&margay(root, &recipe, &[]), 0);
    let again = lines(root);
    assert_eq!(again[..4], whole[..4], "finished runs are not done again");
    assert_eq!(
        again.into_iter().map(figures).collect::<Vec<_>>(),
        whole.into_iter().map(figures).collect::<Vec<_>>()
    );
    assert!(root.join("out/plots/try-generalist-forest-4-shots-20x.svg").exists());
}

#[test]
fn shards_share_a_folder_and_the_tables() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let recipe = recipe(root, "adapter = 'none'\ncompression = ['1x', '20x']\nseed = [0, 1]");
    for shard in ["1/2", "2/2"] {
        ends_with(&margay(root, &recipe, &["--shard", shard]), 0);
    }
    fs_err::write(root.join("text.md"), "<!-- experiment: try -->\n<!-- end experiment: try -->\n").unwrap();
    let output = margay(root, &recipe, &["--tables", "--splice", "text.md", "--json"]);
    ends_with(&output, 0);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["done"], &summary["runs"]), (&4.into(), &4.into()));
    let groups = summary["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    let row = &groups[0]["rows"][0];
    assert_eq!((&row["dense"]["mean"], groups[0]["compression"].as_f64()), (&row["top1"]["mean"], Some(1.0)));
    let text = fs_err::read_to_string(root.join("text.md")).unwrap();
    assert!(
        text.contains("### generalist · forest · 4 shots · 20×") && text.contains("(images/try-"),
        "{text}"
    );
    assert!(root.join("images/try-generalist-forest-4-shots-1x.svg").exists());
}

#[test]
fn a_run_that_fails_is_a_line_and_the_rest_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let recipe = recipe(root, "adapter = 'none'\n'prune.target' = ['0.000001ms', '2x-macs']");
    ends_with(&margay(root, &recipe, &[]), 1);
    let whole = lines(root);
    assert_eq!(whole.len(), 2);
    assert!(whole[0]["error"].as_str().unwrap().contains("out of reach"), "{}", whole[0]);
    assert!(whole[1]["measured"].is_object());
    ends_with(&margay(root, &recipe, &[]), 1);
    assert_eq!(lines(root).len(), 2, "a failure is not tried again by itself");
    ends_with(&margay(root, &recipe, &["--retry-failed"]), 1);
    assert_eq!(lines(root).len(), 3);
}

#[test]
fn what_would_spoil_the_tables_is_told_before_any_run() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let recipe = recipe(root, "adapter = 'none'\nseed = [0, 1]");
    let refused = |more: &[&str], why: &str| {
        let output = margay(root, &recipe, more);
        ends_with(&output, 2);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(why), "{stderr}");
        assert!(!root.join("out").exists(), "nothing was run");
    };
    fs_err::write(root.join("text.md"), "no marks\n").unwrap();
    refused(&["--splice", "text.md"], "<!-- experiment: try -->");
    refused(&["--splice", "absent.md"], "absent.md");
    let text = fs_err::read_to_string(&recipe).unwrap();
    fs_err::write(&recipe, text.replace("[checkpoints", "curve = 'shots'\n[checkpoints")).unwrap();
    refused(&[], "which no sweep varies");
    refused(&["--dry-run"], "which no sweep varies");
}
