//! What happens to outputs when runs are killed, collide, or find something at their goal.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
#[cfg(unix)]
use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::field::scene;

/// Long enough to be met while it runs.
#[cfg(unix)]
const LONG: &[&str] = &["bench", "m.margay", "--plot", "bars.svg", "--runs", "2000000", "--no-progress"];

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margay"));
    command.current_dir(folder).args(args).env("MARGAY_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn margay(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

/// Exit code and stderr.
fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn refused(folder: &Path, args: &[&str], why: &str) {
    let (code, stderr) = told(&margay(folder, args));
    assert!(code == Some(5) && stderr.contains(why), "{args:?}: {code:?}\n{stderr}");
}

/// Temporary names in a folder.
fn partial(folder: &Path) -> Vec<PathBuf> {
    let paths = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().ends_with(".margay-partial")).collect()
}

/// Starts a command and waits until it has begun its output.
#[cfg(unix)]
fn begun(folder: &Path, mut command: Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while partial(folder).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "no output was begun");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[cfg(unix)]
fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The signals that this process ignores, and so its children: a bit each.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap())
}

#[test]
fn results_are_not_replaced_without_force() {
    let dir = scene();
    let root = dir.path();
    let commands: [(&str, &[&str]); 4] = [
        ("labels.csv", &["predict", "m.margay", "photos", "-o"]),
        ("labels.json", &["predict", "m.margay", "photos", "--out"]),
        ("m.onnx", &["export", "m.margay", "-o"]),
        ("bars.svg", &["bench", "m.margay", "--runs", "1", "--plot"]),
    ];
    for (file, args) in commands {
        let path = root.join(file);
        let with = |more: &[&'static str]| [args, &[file], more].concat();
        fs_err::write(&path, "theirs").unwrap();
        refused(root, &with(&[]), "pass --force to replace it");
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "theirs");
        assert!(margay(root, &with(&["--force"])).status.success());
        let made = fs_err::read(&path).unwrap();
        // What is empty is no result.
        fs_err::write(&path, "").unwrap();
        assert!(margay(root, &with(&[])).status.success());
        assert!(!fs_err::read(&path).unwrap().is_empty() && made != b"theirs");
    }
    assert!(partial(root).is_empty());
}

#[test]
fn a_mistyped_path_makes_no_folders() {
    let dir = scene();
    let root = dir.path();
    let hint = "mkdir -p 'no such'";
    refused(root, &["predict", "m.margay", "photos", "-o", "no such/labels.csv"], hint);
    refused(root, &["export", "m.margay", "-o", "no such/m.onnx"], hint);
    refused(root, &["bench", "m.margay", "--plot", "no such/bars.svg"], hint);
    refused(root, &["predict", "m.margay", "photos", "-o", "labels/"], "is a folder, but a file");
    #[cfg(feature = "torch")]
    {
        let generalist = crate::pipeline::GENERALIST;
        let data = ["--data", "photos", "--image-size", "32"];
        let compress = ["compress", "--model", generalist, "--out", "no such/a/b"];
        refused(root, &[&compress[..], &data].concat(), "mkdir -p 'no such/a'");
        let adapt = ["adapt", "m.margay", "--data", "photos", "--out", "no such/a"];
        refused(root, &adapt, hint);
        let train = ["train", "--arch", "resnet18", "--out", "no such/a.safetensors"];
        refused(root, &[&train[..], &data].concat(), hint);
        refused(root, &["demo", "--out", "no such/demo"], hint);
    }
    assert!(!root.join("no such").exists() && !root.join("labels").exists());
}

#[cfg(unix)]
#[test]
fn signals_leave_nothing_and_end_with_their_number() {
    let dir = scene();
    // Started in the background of a script, or under nohup, even the tests ignore some.
    let ignored = ignored();
    let signals = [("INT", 2, 130), ("TERM", 15, 143), ("HUP", 1, 129)];
    for (name, _, code) in signals.into_iter().filter(|(_, number, _)| ignored >> (number - 1) & 1 == 0) {
        let child = begun(dir.path(), command(dir.path(), LONG));
        signal(name, &child);
        let (got, stderr) = told(&child.wait_with_output().unwrap());
        assert!(got == Some(code) && stderr.contains("interrupted"), "{name}: {got:?}\n{stderr}");
        assert!(partial(dir.path()).is_empty() && !dir.path().join("bars.svg").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_signal_that_is_ignored_at_the_start_stays_so() {
    let dir = scene();
    let mut shell = Command::new("sh");
    let script = format!("trap '' HUP INT; exec {} \"$@\"", env!("CARGO_BIN_EXE_margay"));
    shell.current_dir(dir.path()).args(["-c", &script, "sh"]).args(LONG);
    let mut child = begun(dir.path(), shell);
    signal("HUP", &child);
    signal("INT", &child);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it went on");
    signal("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(partial(dir.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn what_a_kill_leaves_is_named_and_removed_and_what_lives_stays() {
    let dir = scene();
    let root = dir.path();
    let mut child = begun(root, command(root, LONG));
    let short = ["bench", "m.margay", "--plot", "bars.svg", "--runs", "1"];
    refused(root, &short, "another margay is writing bars.svg");
    // Another goal is another matter.
    assert!(margay(root, &["bench", "m.margay", "--plot", "other.svg", "--runs", "1"]).status.success());
    child.kill().unwrap();
    child.wait().unwrap();
    let left = partial(root);
    assert_eq!(left.len(), 1);
    let (code, stderr) = told(&margay(root, &short));
    let name = left[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(code == Some(0) && stderr.contains(&format!("removed {name}")), "{code:?}\n{stderr}");
    assert!(partial(root).is_empty() && root.join("bars.svg").exists());
}

#[cfg(unix)]
#[test]
fn a_goal_that_appears_meanwhile_stays() {
    let dir = scene();
    let root = dir.path();
    let short = ["bench", "m.margay", "--plot", "bars.svg", "--runs", "2000", "--no-progress"];
    let child = begun(root, command(root, &short));
    signal("STOP", &child);
    fs_err::write(root.join("bars.svg"), "theirs").unwrap();
    signal("CONT", &child);
    let (code, stderr) = told(&child.wait_with_output().unwrap());
    assert!(code == Some(5) && stderr.contains("bars.svg has appeared meanwhile"), "{code:?}\n{stderr}");
    assert!(stderr.contains("the result is in bars-2.svg"), "{stderr}");
    assert_eq!(fs_err::read_to_string(root.join("bars.svg")).unwrap(), "theirs");
    assert!(fs_err::read_to_string(root.join("bars-2.svg")).unwrap().contains("<svg"));
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_written_as_they_stand() {
    let dir = scene();
    let root = dir.path();
    let plain = margay(root, &["predict", "m.margay", "photos"]).stdout;
    let predict = |goal: &str| margay(root, &["predict", "m.margay", "photos", "-o", goal]);
    assert_eq!(predict("/dev/stdout").stdout, plain);
    let redirected = fs_err::File::create(root.join("redirected.csv")).unwrap();
    let mut command = command(root, &["predict", "m.margay", "photos", "-o", "/dev/stdout"]);
    assert!(command.stdout(redirected.into_parts().0).status().unwrap().success());
    assert_eq!(fs_err::read(root.join("redirected.csv")).unwrap(), plain);
    let pipe = root.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn(move || std::fs::read(pipe).unwrap());
    assert!(predict("pipe").status.success());
    assert_eq!(reader.join().unwrap(), plain);
    #[cfg(target_os = "linux")]
    refused(root, &["predict", "m.margay", "photos", "-o", "/dev/full"], "No space left");
}

/// A limit on the size of files is met like a full disk.
#[cfg(target_os = "linux")]
#[test]
fn what_does_not_fit_leaves_nothing() {
    let dir = scene();
    let mut shell = Command::new("sh");
    let script = format!("ulimit -f 8; exec {} export m.margay -o m.onnx", env!("CARGO_BIN_EXE_margay"));
    let (code, stderr) = told(&shell.current_dir(dir.path()).args(["-c", &script]).output().unwrap());
    assert!(code == Some(5) && stderr.contains("too large"), "{code:?}\n{stderr}");
    assert!(partial(dir.path()).is_empty() && !dir.path().join("m.onnx").exists());
}

/// Process numbers recur in containers: what an earlier version of this program has left under such a name must not
/// get into a result.
#[cfg(all(unix, feature = "torch"))]
#[test]
fn stale_folders_stay_out_of_results() {
    let dir = scene();
    let root = dir.path();
    for process in 1..400 {
        fs_err::create_dir(root.join(format!(".out.{process}.tmp"))).unwrap();
        fs_err::write(root.join(format!(".out.{process}.tmp/stale")), "stale").unwrap();
    }
    let data = crate::pipeline::photos(&root.join("camera"));
    let data = data.to_str().unwrap();
    let compress = [
        "compress",
        "--model",
        crate::pipeline::GENERALIST,
        "--data",
        data,
        "--image-size",
        "64",
        "--shots",
        "2",
        "--solver",
        "magnitude",
        "--allocation",
        "uniform",
        "--epochs",
        "0",
        "--recalibrate",
        "off",
        "--out",
        "out",
    ];
    fs_err::create_dir(root.join("out")).unwrap();
    let (code, stderr) = told(&margay(root, &compress));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!root.join("out/stale").exists() && root.join("out/specialist.margay").exists());
    refused(root, &compress, "out exists and is not an empty folder");
    // An earlier output is replaced, but nothing else.
    assert!(margay(root, &[&compress[..], &["--force"]].concat()).status.success());
    fs_err::remove_file(root.join("out/run.json")).unwrap();
    refused(root, &[&compress[..], &["--force"]].concat(), "there is no `run.json` in it");
    // It appears while another run is at work.
    fs_err::remove_dir_all(root.join("out")).unwrap();
    let child = begun(root, command(root, &compress));
    signal("STOP", &child);
    fs_err::create_dir(root.join("out")).unwrap();
    fs_err::write(root.join("out/notes.txt"), "x").unwrap();
    signal("CONT", &child);
    let (code, stderr) = told(&child.wait_with_output().unwrap());
    assert!(code == Some(5) && stderr.contains("the result is in out-2"), "{code:?}\n{stderr}");
    assert_eq!(fs_err::read_to_string(root.join("out/notes.txt")).unwrap(), "x");
    assert!(root.join("out-2/specialist.margay").exists());
    assert!(partial(root).is_empty());
}
