//! `cargo xtask tidy`: rules of this repository that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::steps::{root, say};

/// The rows of ARCHITECTURE.md: a crate may import crates of lower rows only.
const ROWS: [&[&str]; 5] = [
    &["machinery", "store", "streaming", "hostfs"],
    &["registry", "informer", "runtime"],
    &["apiserver", "controllers", "scheduler", "kubelet", "docker", "proxy", "dns", "metrics", "addons"],
    &["node"],
    &["coracle"],
];

/// Packages beside the program: nothing of it may import them.
const BESIDE: [&str; 2] = ["tests", "bench"];

/// Imports that belong to one crate, so that the rest stays free of it.
const KEPT_IN: [(&str, &[&str]); 2] = [("rocksdb", &["store"]), ("bollard", &["docker"])];

/// Beyond this a file is asked whether it is still one subject. Tests are data, and may be longer.
const LONG_FILE: usize = 600;

pub(crate) fn run() -> Result<()> {
    let mut faults = imports()?;
    for file in rust_files()? {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        if !text.trim_start().starts_with("//!") {
            faults.push(format!("{name}: has no module documentation"));
        }
        let lines = text.lines().count();
        if lines > LONG_FILE && !name.ends_with("tests.rs") && !name.contains("/tests/") {
            faults.push(format!("{name}: {lines} lines; is it still one subject?"));
        }
    }
    for fault in &faults {
        say(fault);
    }
    if !faults.is_empty() {
        bail!("{} faults", faults.len());
    }
    Ok(())
}

fn imports() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some(importer) = crate_name(&package.name) else {
            continue;
        };
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
    let mut folders: Vec<PathBuf> =
        ["crates", "xtask", "tests", "bench"].iter().map(|folder| root().join(folder)).collect();
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
