//! The packages: the Rust versions that they build with, and how many crates a build of them
//! compiles.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use serde_json::Value;

/// `1.88` and `1.88.0` alike, as numbers.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap_or(0))
}

/// The target platform: dependencies of other platforms may not have been downloaded.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let output = Command::new(rustc).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

#[test]
fn no_dependency_of_a_user_needs_a_newer_rust_than_declared() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--all-features", "--filter-platform", &host()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages: HashMap<&str, &Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package))
        .collect();
    let nodes: HashMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    for member in metadata["workspace_members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        let Some(declared) = packages[member]["rust_version"].as_str().map(version) else {
            // Not published.
            continue;
        };
        let (mut seen, mut open) = (HashSet::new(), vec![member]);
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if let Some(needed) = packages[id]["rust_version"].as_str() {
                let (of, name) = (&packages[member]["name"], &packages[id]["name"]);
                assert!(version(needed) <= declared, "{name} of {of} needs Rust {needed}");
            }
            for dependency in nodes[id]["deps"].as_array().unwrap() {
                let kinds = dependency["dep_kinds"].as_array().unwrap();
                if kinds.iter().any(|kind| kind["kind"] != "dev") {
                    open.push(dependency["pkg"].as_str().unwrap());
                }
            }
        }
        assert!(seen.len() > 3, "the walk from {member} found only {} packages", seen.len());
    }
}

/// How many crates a build of a package compiles with its default features, itself included.
fn crates(package: &str) -> usize {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", package, "-e", "normal,build"])
        .args(["--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end_matches(" (*)")).collect::<HashSet<_>>().len()
}

#[test]
fn an_extension_and_its_test_build_few_crates() {
    for (package, most) in [("gofer-sdk", 102), ("gofer-core", 119)] {
        let count = crates(package);
        assert!(count > 3 && count <= most, "{package} builds {count} crates, {most} allowed");
    }
}
