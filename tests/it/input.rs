//! Files that users name: only `margay_core::input` opens them, and what is no regular file is refused before it is read.

use std::path::{Path, PathBuf};

/// Ways to open or read a file that know neither type nor limit.
const OPENERS: [&str; 7] = [
    "File::open",
    "File::options",
    "OpenOptions",
    "fs::read(",
    "fs_err::read(",
    "::read_to_string(",
    "ImageReader::open",
];

/// Files that may, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("crates/core/src/input.rs", "the one place"),
    ("src/pipeline/host.rs", "/proc/self/status"),
    ("src/torch/cuda.rs", "/proc/self/maps"),
    ("src/experiment/journal.rs", "opens to append, judged before"),
    ("crates/core/src/output/file.rs", "opens to write"),
    ("crates/core/src/output/lock.rs", "opens to lock"),
    ("crates/core/src/output/staging.rs", "makes what is written"),
    ("crates/core/src/output/sync.rs", "opens to sync what was written"),
];

/// Sources of a folder, tests left out.
pub fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            into.push(path);
        }
    }
}

#[test]
fn nothing_else_opens_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "crates/core/src", "crates/kernels/src", "crates/runtime/src"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 150, "the walk found {} files: it proves nothing", files.len());
    let (mut strays, mut met) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        let text = fs_err::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let opens = |line: &&str| {
            let line = line.trim_start();
            !line.starts_with("//")
                && !line.contains("input::")
                && OPENERS.iter().any(|opener| line.contains(opener))
        };
        let lines: Vec<&str> = code.lines().filter(opens).collect();
        if lines.is_empty() {
            continue;
        }
        match ALLOWED.iter().find(|(allowed, _)| *allowed == name) {
            Some((allowed, _)) => met.push(*allowed),
            None => strays.extend(lines.into_iter().map(|line| format!("{name}: {}", line.trim()))),
        }
    }
    assert!(strays.is_empty(), "open files with margay_core::input:\n{}", strays.join("\n"));
    let idle: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).filter(|name| !met.contains(name)).collect();
    assert!(idle.is_empty(), "these need no exception any more: {idle:?}");
}
