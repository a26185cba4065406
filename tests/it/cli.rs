//! The command line as its users meet it: help texts, errors, exit codes.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

fn margay(args: &[&str]) -> Output {
    run(Path::new("."), args)
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("margay").expect("the binary is built");
    command.current_dir(folder).args(args).env("MARGAY_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
    for name in ["MARGAY_THREADS", "MARGAY_DEVICE", "MARGAY_ISA"] {
        command.env_remove(name);
    }
    command.output().expect("the binary starts")
}

/// Exit code, stdout and stderr as one text.
fn told(output: &Output) -> String {
    let code = output.status.code().expect("no signal");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("exit {code}\n--- stdout\n{out}--- stderr\n{err}")
}

#[test]
fn help_texts() {
    insta::assert_snapshot!("help", told(&margay(&["--help"])));
    let commands = [
        "compress",
        "front",
        "train",
        "predict",
        "eval",
        "adapt",
        "bench",
        "export",
        "inspect",
        "report",
        "list",
        "experiment",
        "demo",
        "completions",
    ];
    for command in commands {
        insta::assert_snapshot!(format!("help_{command}"), told(&margay(&[command, "--help"])));
    }
}

#[test]
fn typos_and_missing_choices_are_usage_errors() {
    let cases: &[&[&str]] = &[
        &["pedict"],
        &["compress", "--model", "a.pth"],
        &["compress", "--model", "a.pth", "--data", "b", "--sparsity", "95"],
        &["compress", "--model", "a.pth", "--data", "b", "--sparsity", "0.9", "--compression", "10x"],
        &["compress", "--model", "a.pth", "--data", "b", "--allocation", "unifrom"],
        &["compress", "--model", "a.pth", "--data", "b", "--device", "gpu"],
        &["compress", "--recipe", "nowhere.toml"],
        &["train", "--data", "b"],
        &["compress", "a.pth", "b"],
        &["compress", "--model", "a.pth", "src"],
    ];
    let all: Vec<String> =
        cases.iter().map(|args| format!("$ margay {}\n{}", args.join(" "), told(&margay(args)))).collect();
    insta::assert_snapshot!("usage_errors", all.join("\n"));
}

#[test]
fn bad_inputs_say_what_and_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("noise.margay"), b"no model at all").unwrap();
    fs_err::write(dir.path().join("noise.pth"), b"no checkpoint at all").unwrap();
    fs_err::write(dir.path().join("noise.json"), b"{").unwrap();
    fs_err::create_dir(dir.path().join("empty")).unwrap();
    fs_err::create_dir(dir.path().join("result")).unwrap();
    fs_err::write(dir.path().join("result/specialist.margay"), b"").unwrap();
    let cases: &[&[&str]] = &[
        &["predict", "missing.margay", "empty"],
        &["predict", "noise.pth", "empty"],
        &["predict", "result", "empty"],
        &["predict", "empty", "empty"],
        &["eval", "noise.margay", "empty"],
        &["bench", "noise.margay"],
        &["inspect", "noise.pth"],
        &["report", "noise.json"],
    ];
    let all: Vec<String> = cases
        .iter()
        .map(|args| format!("$ margay {}\n{}", args.join(" "), told(&run(dir.path(), args))))
        .collect();
    insta::assert_snapshot!("bad_inputs", all.join("\n"));
}

#[test]
fn unknown_recipe_keys_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = "model = 'a.pth'\ndata = 'b'\n[prune]\nsparsty = 0.9\n";
    fs_err::write(dir.path().join("recipe.toml"), recipe).unwrap();
    insta::assert_snapshot!("unknown_key", told(&run(dir.path(), &["compress", "--recipe", "recipe.toml"])));
}

/// Loading libtorch takes half a second: only `margay-torch` pays it.
#[cfg(all(feature = "torch", target_os = "linux", target_env = "gnu"))]
#[test]
fn the_command_starts_without_libtorch() {
    // The dynamic loader lists what it would load.
    let loads_torch = |program: &str| {
        let mut command = Command::cargo_bin(program).expect("the binary is built");
        let output = command.env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(listed.contains("libc.so"), "nothing is listed: {listed}");
        listed.contains("libtorch") || listed.contains("libc10")
    };
    assert!(!loads_torch("margay"));
    assert!(loads_torch("margay-torch"));
}

#[test]
fn completions_are_data() {
    let output = margay(&["completions", "bash"]);
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(String::from_utf8_lossy(&output.stdout).contains("_margay"));
}

#[test]
fn list_prints_json_with_every_table() {
    let output = margay(&["list", "--json"]);
    let lists: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lists["architectures"][0]["name"], "resnet");
    assert!(lists["allocators"].as_array().unwrap().iter().any(|a| a["name"] == "erk"));
    let adapters = lists["adapters"].as_array().unwrap();
    assert_eq!(adapters.iter().any(|a| a["name"] == "rosa"), cfg!(feature = "torch"));
    assert!(lists["instruction_sets"].as_array().unwrap().iter().any(|isa| isa == "portable"));
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_build_without_libtorch_says_so() {
    let output = margay(&["demo"]);
    insta::assert_snapshot!("without_torch", told(&output));
}
