//! Which crates, modules and files may name which: the rules of docs/ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[test]
fn core_kernels_and_runtime_cannot_reach_torch() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let name = |id: &str| {
        let packages = metadata["packages"].as_array().unwrap();
        packages.iter().find(|p| p["id"] == id).unwrap()["name"].as_str().unwrap().to_owned()
    };
    let edges: BTreeMap<String, Vec<String>> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let to = node["dependencies"].as_array().unwrap().iter().map(|d| name(d.as_str().unwrap()));
            (name(node["id"].as_str().unwrap()), to.collect())
        })
        .collect();
    for start in ["margay-core", "margay-kernels", "margay-runtime"] {
        let reached = reach(start, &edges);
        assert!(reached.contains("serde"), "{start} is not in the graph: the walk proves nothing");
        assert!(!reached.contains("tch") && !reached.contains("torch-sys"), "{start} reaches libtorch");
    }
    // The walk itself works: the command does reach it.
    assert!(reach("margay", &edges).contains("tch"));
}

fn reach(start: &str, edges: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start.to_owned()];
    while let Some(name) = open.pop() {
        open.extend(edges.get(&name).into_iter().flatten().filter(|to| !reached.contains(*to)).cloned());
        reached.insert(name);
    }
    reached
}

/// Which names stand where, by who names them.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Rust files below a folder that are no tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    crate::input::sources(folder, &mut found);
    found
}

/// The code of a file without comments and without the tests at its end.
fn code(file: &Path) -> String {
    let text = fs_err::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Names that follow `root::` in some code, those in braces, too.
fn named(code: &str, root: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    let starts: Vec<usize> = code.match_indices(root).map(|(at, _)| at).collect();
    for at in starts {
        // `super::super::x` names a file of another folder.
        if code[..at].ends_with("::") || code[..at].ends_with(|c: char| c.is_alphanumeric()) {
            continue;
        }
        let rest = &code[at + root.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut entry) = (1, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    names.insert(word(entry.trim()));
                    entry.clear();
                    continue;
                }
                _ => {}
            }
            if depth == 0 {
                names.insert(word(entry.trim()));
                break;
            }
            entry.push(c);
        }
    }
    names
}

/// Everything that is named, step by step, from `start`; `start` itself only if it names itself in a circle.
fn reached<'a>(start: &'a str, arrows: &'a Arrows) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(name) = open.pop() {
        for next in arrows.get(name).into_iter().flatten() {
            if found.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    found
}

#[test]
fn modules_import_what_the_architecture_says() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let told = fs_err::read_to_string(project.join("docs/ARCHITECTURE.md")).unwrap();
    let mut law = Arrows::new();
    let (_, block) = told.split_once("reads this list):\n\n```text\n").expect("the list is there");
    let (block, _) = block.split_once("```").expect("the list ends");
    for (from, to) in block.lines().filter_map(|line| line.split_once(" → ")) {
        for from in from.split(", ") {
            law.insert(from.to_owned(), to.split(", ").map(str::to_owned).collect());
        }
    }
    let source = project.join("src");
    let mut found = Arrows::new();
    for file in sources(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main", "bin"].contains(&module) {
            continue;
        }
        let mut names = named(&code(&file), "crate::");
        names.remove(module);
        found.entry(module.to_owned()).or_default().extend(names);
    }
    found.retain(|_, names| !names.is_empty());
    assert_eq!(found, law);
    for module in law.keys() {
        assert!(!reached(module, &law).contains(module.as_str()), "{module} imports itself in a circle");
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots =
        ["src", "crates/core/src", "crates/kernels/src", "crates/runtime/src", "crates/options-derive/src"];
    let mut files = 0;
    let mut circles = BTreeSet::new();
    for root in roots {
        let mut folders: BTreeMap<PathBuf, Arrows> = BTreeMap::new();
        for file in sources(&project.join(root)) {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            // A folder's own file may name all that lies in it.
            if !["mod", "lib", "main"].contains(&name.as_str()) {
                let folder = folders.entry(file.parent().unwrap().to_owned()).or_default();
                folder.insert(name, named(&code(&file), "super::"));
                files += 1;
            }
        }
        for (folder, arrows) in &folders {
            for file in arrows.keys().filter(|file| reached(file, arrows).contains(file.as_str())) {
                circles.insert(folder.join(file).strip_prefix(project).unwrap().to_owned());
            }
        }
    }
    assert!(files > 200, "{files} files: the walk proves nothing");
    let allowed = ["calls", "machine"].map(|file| Path::new("src/checkpoint/pickle").join(file));
    assert_eq!(circles, BTreeSet::from(allowed));
}

#[test]
fn names_are_found_in_braces_and_behind_paths() {
    let text = "use crate::{a, b::{c, d}, e as f};\nuse crate::g::h;\nlet x = crate::i(super::j());\nuse super::super::k;";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    assert_eq!(named(text, "crate::"), set(&["a", "b", "e", "g", "i"]));
    assert_eq!(named(text, "super::"), set(&["j", "super"]));
}
