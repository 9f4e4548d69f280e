//! What the program is made of: a bill of materials (CycloneDX 1.6), and the licences of other people's work in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use serde_json::{Value, json};

use crate::elf::Arch;
use crate::{Release, hash};

/// The package that a release is made of.
const PROGRAM: &str = "coracle";

/// How files with a licence's text, or with what it wants to be told, begin.
const LICENCES: [&str; 5] = ["license", "licence", "copying", "notice", "copyright"];

/// The packages that are linked into the program.
pub(crate) struct Materials {
    metadata: Metadata,
    linked: BTreeSet<PackageId>,
    /// By name and version, from the lock file.
    checksums: BTreeMap<(String, String), String>,
}

impl Materials {
    /// Asks cargo, in the repository `root`, what is linked into a program for this processor.
    pub(crate) fn of(root: &Path, arch: Arch) -> Result<Self> {
        let target = format!("{}-unknown-linux-gnu", arch.name());
        let options = ["--filter-platform", &target, "--locked"].map(str::to_owned);
        let metadata = MetadataCommand::new().current_dir(root).other_options(options).exec()?;
        // Which of the optional ones are linked, the metadata of a workspace do not say.
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root)
            .args(["tree", "--locked", "--package", PROGRAM, "--target", &target, "--prefix", "none"])
            .args(["--edges", "normal,no-proc-macro", "--format", "{p}"])
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!("cargo tree fails: {}", String::from_utf8_lossy(&output.stderr));
        }
        let names = linked(&String::from_utf8_lossy(&output.stdout));
        let is_linked = |package: &&Package| names.contains(&(package.name.to_string(), package.version.to_string()));
        let linked = metadata.packages.iter().filter(is_linked).map(|package| package.id.clone()).collect();
        let lock = root.join("Cargo.lock");
        let lock = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
        Ok(Self { metadata, linked, checksums: checksums(&lock) })
    }

    fn packages(&self) -> impl Iterator<Item = &Package> {
        self.metadata.packages.iter().filter(|package| self.linked.contains(&package.id))
    }

    /// The bill of materials.
    pub(crate) fn bill(&self, release: &Release) -> Result<Vec<u8>> {
        let program = self.packages().find(|package| package.name.as_str() == PROGRAM);
        let program = program.with_context(|| format!("cargo knows no {PROGRAM}"))?;
        let mut root = self.component(program);
        root["type"] = json!("application");
        root["version"] = json!(release.version);
        root["hashes"] = json!([{ "alg": "SHA-256", "content": hash(&release.program) }]);
        let mut components: Vec<Value> =
            self.packages().filter(|package| package.id != program.id).map(|package| self.component(package)).collect();
        components.sort_by_key(reference_of);
        let bill = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "timestamp": release.date()?,
                "component": root,
                "properties": [{ "name": "coracle:processor", "value": release.needs.arch.name() }],
            },
            "components": components,
            "dependencies": self.dependencies(),
        });
        Ok(serde_json::to_vec_pretty(&bill)?)
    }

    fn component(&self, package: &Package) -> Value {
        let version = package.version.to_string();
        let mut component = json!({
            "type": "library",
            "bom-ref": reference(package),
            "name": package.name.as_str(),
            "version": version,
        });
        if let Some(licence) = &package.license {
            // Before it was SPDX's, a slash was cargo's way to say "or".
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ").replace("  ", " ") }]);
        }
        if package.source.is_some() {
            component["purl"] = json!(reference(package));
        }
        if let Some(checksum) = self.checksums.get(&(package.name.to_string(), version.clone())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        if let Some(url) = &package.repository {
            component["externalReferences"] = json!([{ "type": "vcs", "url": url }]);
        }
        if let Some((name, version)) = bundled(&package.name, &version) {
            component["components"] = json!([{ "type": "library", "name": name, "version": version }]);
        }
        component
    }

    fn dependencies(&self) -> Vec<Value> {
        let references: BTreeMap<&PackageId, String> =
            self.packages().map(|package| (&package.id, reference(package))).collect();
        let nodes = self.metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let mut all: Vec<(String, BTreeSet<&String>)> = nodes
            .filter_map(|node| {
                let normal =
                    node.deps.iter().filter(|one| one.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
                Some((references.get(&node.id)?.clone(), normal.filter_map(|one| references.get(&one.pkg)).collect()))
            })
            .collect();
        all.sort();
        all.into_iter().map(|(from, to)| json!({ "ref": from, "dependsOn": to })).collect()
    }

    /// The licences of what others wrote, each text once, with the packages that are under it.
    pub(crate) fn licences(&self) -> Result<String> {
        let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for package in self.packages().filter(|package| package.source.is_some()) {
            let name = format!("{} {}", package.name, package.version);
            let terms = package.license.as_deref().unwrap_or("see its source");
            let files = licence_files(package)?;
            if files.is_empty() {
                named.insert(format!("{name}: {terms}"));
            }
            for file in files {
                let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
                texts.entry(text.trim().to_owned()).or_default().insert(name.clone());
            }
        }
        let mut sorted: Vec<(BTreeSet<String>, String)> =
            texts.into_iter().map(|(text, names)| (names, text)).collect();
        sorted.sort();
        let mut all = "coracle is linked with the work of others, which is under these licences.\n".to_owned();
        if !named.is_empty() {
            all.push_str("\nWithout a text of their own, under the licences of these names:\n");
            named.iter().try_for_each(|line| writeln!(all, "  {line}"))?;
        }
        for (names, text) in sorted {
            let names: Vec<String> = names.into_iter().collect();
            write!(all, "\n{}\n{}\n\n{text}\n", "=".repeat(80), names.join(", "))?;
        }
        Ok(all)
    }
}

/// The names and versions in what `cargo tree` prints.
fn linked(tree: &str) -> BTreeSet<(String, String)> {
    let words = tree.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
    let packages = words.filter_map(|words| match words[..] {
        [name, version] => Some((name.to_owned(), version.strip_prefix('v')?.to_owned())),
        _ => None,
    });
    packages.collect()
}

/// The checksums in a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |entry: &str, name: &str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
        line.and_then(|value| value.strip_suffix('"')).map(str::to_owned)
    };
    let entries = lock.split("[[package]]");
    let known = entries
        .filter_map(|entry| Some(((field(entry, "name")?, field(entry, "version")?), field(entry, "checksum")?)));
    known.collect()
}

/// What a package is called in the bill: its package URL (purl), if cargo gets it from somewhere.
fn reference(package: &Package) -> String {
    let (name, version) = (&package.name, package.version.to_string().replace('+', "%2B"));
    match package.source {
        Some(_) => format!("pkg:cargo/{name}@{version}"),
        None => format!("{name}@{version}"),
    }
}

fn reference_of(component: &Value) -> String {
    component["bom-ref"].as_str().unwrap_or_default().to_owned()
}

/// The library in another language that a package brings, which it names behind a plus in its version.
fn bundled(name: &str, version: &str) -> Option<(String, String)> {
    let name = name.strip_suffix("-sys")?;
    let (_, version) = version.split_once('+')?;
    let name = name.strip_prefix("lib").or_else(|| name.strip_prefix("tikv-")).unwrap_or(name);
    let version = version.strip_prefix(&format!("{name}-")).unwrap_or(version);
    Some((name.to_owned(), version.to_owned()))
}

/// The files with licences in a package, and in the folders of what it brings from elsewhere.
fn licence_files(package: &Package) -> Result<Vec<PathBuf>> {
    let folder = package.manifest_path.parent().context("a package is in a folder")?.as_std_path();
    let entries = |folder: &Path| -> Result<Vec<PathBuf>> {
        let read = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        Ok(read.flatten().map(|entry| entry.path()).collect())
    };
    let mut paths = entries(folder)?;
    if package.name.ends_with("-sys") {
        for path in paths.clone().iter().filter(|path| path.is_dir()) {
            paths.extend(entries(path)?);
        }
    }
    let names_licence = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_text = !name.ends_with(".rs") && !name.ends_with(".py");
        is_text && LICENCES.iter().any(|start| name.starts_with(start)) && path.is_file()
    };
    paths.retain(names_licence);
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::release;

    #[test]
    fn names_of_what_is_linked_are_read() {
        let tree =
            "coracle v0.1.0 (/src/crates/coracle)\nserde v1.0.2\nserde v1.0.2 (*)\n\nlz4-sys v1.1.0+lz4-1.10.0\n";
        let expected = [("coracle", "0.1.0"), ("lz4-sys", "1.1.0+lz4-1.10.0"), ("serde", "1.0.2")];
        assert_eq!(linked(tree), expected.map(|(name, version)| (name.to_owned(), version.to_owned())).into());
    }

    #[test]
    fn checksums_are_those_of_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"12ab\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), [(("a".to_owned(), "1.0.0".to_owned()), "12ab".to_owned())].into());
    }

    #[test]
    fn libraries_in_other_languages_are_named() {
        let check = |name: &str, version: &str, expected: Option<(&str, &str)>| {
            assert_eq!(bundled(name, version), expected.map(|(name, version)| (name.into(), version.into())));
        };
        check("librocksdb-sys", "0.19.0+11.8.1", Some(("rocksdb", "11.8.1")));
        check("lz4-sys", "1.11.1+lz4-1.10.0", Some(("lz4", "1.10.0")));
        check("tikv-jemalloc-sys", "0.7.0+5.3.0", Some(("jemalloc", "5.3.0")));
        check("linux-raw-sys", "0.9.4", None);
        check("serde", "1.0.0+x", None);
    }

    #[test]
    fn the_bill_has_what_is_linked_and_nothing_else() {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        let root = Path::new(&package).parent().expect("the repository");
        let release = release();
        let materials = Materials::of(root, release.needs.arch).expect("cargo knows");
        let bill: Value = serde_json::from_slice(&materials.bill(&release).expect("a bill")).expect("JSON");
        let components = bill["components"].as_array().expect("a list");
        let find = |name: &str| components.iter().find(|component| component["name"] == name);
        let rocksdb = find("librocksdb-sys").expect("it is linked");
        assert_eq!(rocksdb["components"][0]["name"], "rocksdb");
        assert_eq!(rocksdb["hashes"][0]["content"].as_str().map(str::len), Some(64));
        assert!(find("coracle-store").is_some_and(|own| own.get("purl").is_none()), "one of this repository");
        // Of the tests alone, of a build script, of the compiler, and of the makers of packages.
        for name in ["proptest", "bindgen", "serde_derive", "rpm", "coracle-dist"] {
            assert!(find(name).is_none(), "{name}");
        }
        let references: BTreeSet<String> = components.iter().map(reference_of).collect();
        assert_eq!(references.len(), components.len(), "each once");
        let dependencies = bill["dependencies"].as_array().expect("a list");
        assert_eq!(dependencies.len(), components.len() + 1, "of each, and of the program");
        let licences = materials.licences().expect("texts");
        assert!(licences.contains("rustls 0.") && licences.contains("Permission is hereby granted"));
    }
}
