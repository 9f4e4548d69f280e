//! `cargo xtask tidy`: rules of this repository that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::steps::{self, output, root, say};

/// The rows of ARCHITECTURE.md: a crate may import crates of lower rows only.
const ROWS: [&[&str]; 7] = [
    &["machinery", "store", "streaming", "serving", "http-client", "hostfs", "memory"],
    &["registry", "encryption", "informer", "runtime", "addons"],
    &["kinds", "addon-gang", "addon-gateway-api"],
    &["apiserver", "controllers", "scheduler", "kubelet", "docker", "proxy", "dns", "gateway", "metrics"],
    &["addon-lws", "addon-rbg", "explain"],
    &["cluster"],
    &["coracle"],
];

/// Packages beside the program: nothing of it may import them.
const BESIDE: [&str; 6] = ["tests", "bench", "compare", "soak", "fuzz", "dist"];

/// Imports that belong to one crate, so that the rest stays free of it.
const KEPT_IN: [(&str, &[&str]); 2] = [("rocksdb", &["store"]), ("bollard", &["docker"])];

/// Where the compiler's refusal of unsafe code is lifted; nowhere else.
const UNSAFE: &str = "crates/memory/src/kernel.rs";

/// Names that are out of use, with what Kubernetes, etcd or Rust programmers call the thing.
const RETIRED: [(&str, &str); 32] = [
    ("ContainerMemory", "RetryState"),
    ("Expect", "Precondition"),
    ("ExtensionService", "AggregatedService"),
    ("Gate", "EscalationCheck"),
    ("Installed", "KernelState"),
    ("Ledger", "Expectations"),
    ("News", "PodEvent"),
    ("Nudge", "CompactionTrigger"),
    ("Overtaken", "Retry"),
    ("PATIENCE", "…_TIMEOUT"),
    ("PodWish", "DesiredPod"),
    ("Ruleset", "ServiceMap"),
    ("Shelf", "ResourceState"),
    ("Sight", "Expectation"),
    ("Touched", "ChangeTracker"),
    ("Viewed", "AlternateVersion"),
    ("answers_deleted", "returns_deleted_object"),
    ("demux", "stdcopy"),
    ("helped_by", "queueing_hint"),
    ("if_found", "ok_if_not_found"),
    ("keep_page", "cache_snapshot"),
    ("last_words", "termination_message"),
    ("look_again", "requeue_after"),
    ("may_go", "is_finalized"),
    ("merge_keys", "api_types"),
    ("own_networks", "direct_networking"),
    ("paper", "fake node"),
    ("pass_gate", "check_escalation"),
    ("remedy", "unschedulable_hint"),
    ("revise", "guaranteed_update"),
    ("wake_owners", "enqueue_owners"),
    ("wish", "desired"),
];

/// Beyond this a file is asked whether it is still one subject. Tests are data, and may be longer.
const LONG_FILE: usize = 600;

pub(crate) fn run() -> Result<()> {
    let mut faults = imports()?;
    faults.extend(differing_features(&features(&[])?, &features(&steps::BESIDE)?));
    for file in rust_files()? {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        if !text.trim_start().starts_with("//!") {
            faults.push(format!("{name}: has no module documentation"));
        }
        if !file.ends_with(file!()) {
            faults.extend(
                retired(&text).map(|(line, word, now)| format!("{name}:{line}: `{word}` is called {now} here")),
            );
        }
        if text.contains("unsafe_code") && name != UNSAFE && !file.ends_with(file!()) {
            faults.push(format!("{name}: unsafe code belongs into {UNSAFE}, if anywhere"));
        }
        let lines = text.lines().count();
        if lines > LONG_FILE && !name.ends_with("tests.rs") && !name.contains("/tests/") {
            faults.push(format!("{name}: {lines} lines; is it still one subject?"));
        }
    }
    faults.sort();
    for fault in &faults {
        say(fault);
    }
    if !faults.is_empty() {
        bail!("{} faults", faults.len());
    }
    Ok(())
}

/// What is compiled for the program and `beside` it, as cargo lists it: a package and its features in each line.
fn features(beside: &[&str]) -> Result<String> {
    let mut arguments = vec!["tree", "--locked", "--prefix", "none", "--edges", "normal,build", "--format", "{p}\t{f}"];
    arguments.extend(["coracle"].iter().chain(beside).flat_map(|name| ["--package", *name]));
    output("cargo", &arguments)
}

/// The packages of `alone` that would be compiled once more for `all`, since they have other features there.
fn differing_features(alone: &str, all: &str) -> Vec<String> {
    // A package may be there twice, for the program and for what builds it.
    let read = |tree: &str| -> BTreeMap<String, BTreeSet<String>> {
        let mut features: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (package, named) in tree.lines().filter_map(|line| line.split_once('\t')) {
            let named = named.trim_end_matches(" (*)").to_owned();
            features.entry(package.to_owned()).or_default().insert(named);
        }
        features
    };
    let all = read(all);
    let differs = |package: &String, features: &BTreeSet<String>| all.get(package) != Some(features);
    read(alone)
        .iter()
        .filter(|(package, features)| differs(package, features))
        .map(|(package, _)| format!("{package} has other features beside the program, and is compiled twice"))
        .collect()
}

/// Where a text has names that are out of use: line, name, and what it is called now.
fn retired(text: &str) -> impl Iterator<Item = (usize, &str, &'static str)> {
    let words = |line| str::split(line, |letter: char| !letter.is_alphanumeric() && letter != '_');
    text.lines().enumerate().flat_map(move |(number, line)| {
        let found =
            words(line).filter_map(|word| RETIRED.iter().find(|(old, _)| *old == word).map(|(_, now)| (word, *now)));
        found.map(move |(word, now)| (number + 1, word, now))
    })
}

fn imports() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let folder = package.manifest_path.strip_prefix(root()).unwrap_or(&package.manifest_path);
        let Some(importer) = crate_name(&package.name) else {
            if folder.starts_with("addons") || folder.starts_with("crates") {
                faults.push(format!("{}: a crate's package is called coracle-NAME", package.name));
            }
            continue;
        };
        if folder.starts_with("addons") && !importer.starts_with("addon-") {
            faults.push(format!("{importer}: an addon's package is called coracle-addon-NAME"));
        }
        if row(importer).is_none() && !BESIDE.contains(&importer) {
            faults.push(format!("{importer} is in no row of xtask/src/tidy.rs and of ARCHITECTURE.md's code map"));
        }
        let dependencies = package.dependencies.iter();
        for dependency in dependencies.filter(|one| one.kind == DependencyKind::Normal) {
            for (library, owners) in KEPT_IN {
                if dependency.name == library && !owners.contains(&importer) {
                    faults.push(format!("{importer} imports {library}, which only {} may", owners.join(" and ")));
                }
            }
            let Some(imported) = crate_name(&dependency.name) else {
                continue;
            };
            match (row(importer), row(imported)) {
                (Some(from), Some(to)) if to >= from => {
                    faults.push(format!("{importer} (row {}) imports {imported} (row {})", from + 1, to + 1));
                }
                (Some(_), None) => faults.push(format!("{importer} imports {imported}, which is in no row")),
                _ => {}
            }
        }
    }
    Ok(faults)
}

fn crate_name(package: &str) -> Option<&str> {
    if package == "coracle" {
        return Some(package);
    }
    package.strip_prefix("coracle-")
}

fn row(name: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&name))
}

/// All Rust files of the repository's crates.
fn rust_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["addons", "crates", "xtask", "tests", "bench", "compare", "soak", "fuzz", "dist"]
        .iter()
        .map(|folder| root().join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if is_rust(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_names_are_found_as_whole_words() {
        let text = "//! A module.\nlet wish = Gate::Shelf;\n// wishes, gate and `may_going` are none\n";
        let found: Vec<_> = retired(text).map(|(line, word, _)| (line, word)).collect();
        assert_eq!(found, [(2, "wish"), (2, "Gate"), (2, "Shelf")]);
    }
    #[test]
    fn packages_with_other_features_are_found() {
        let alone = "coracle v1 (/src)\t\nserde v1\tderive,std\nsyn v2\tfull\nsyn v2\tfull (*)\n";
        let beside = format!("{alone}rpm v3\t\n");
        assert!(differing_features(alone, &beside).is_empty());
        let more = beside.replace("derive,std", "derive,rc,std");
        let found = differing_features(alone, &more);
        assert!(matches!(&found[..], [one] if one.starts_with("serde v1 ")), "{found:?}");
    }
}
