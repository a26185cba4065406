//! The crates that run on a field machine must not reach libtorch.

use std::collections::{BTreeMap, BTreeSet};
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
