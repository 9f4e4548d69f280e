//! RocksDB, compiled once for a machine: in release mode, for dev, test and release builds of every clone.
//!
//! It takes longer than all the rest, and cargo compiles it anew for each profile and target directory. So its library is
//! kept in the cache, and cargo is told where by `.cargo/machine.toml`, which `.cargo/config.toml` includes if it is
//! there: cargo that is called by hand is told the same, and compiles nothing twice either.

use std::env::consts::ARCH;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, MetadataCommand};

use crate::steps::{cache, forget_package, root, step};

/// The package that compiles it.
const PACKAGE: &str = "librocksdb-sys";

const LIBRARY: &str = "librocksdb.a";

/// What the build script of [`PACKAGE`] looks at, and with which a person says more than this does.
const SETTINGS: [&str; 4] = ["ROCKSDB_COMPILE", "ROCKSDB_LIB_DIR", "CFLAGS", "CXXFLAGS"];

/// Makes sure that the library is in the cache and that cargo uses it, unless the environment says otherwise.
pub(crate) fn ensure() -> Result<()> {
    if SETTINGS.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let folder = folder()?;
    let settings = root().join(".cargo/machine.toml");
    if !folder.join(LIBRARY).exists() {
        // What it says is not true any more, and cargo would fail on it.
        let _ = fs::remove_file(&settings);
        step("Compile RocksDB, once for this machine", || compile(&folder))?;
    }
    let path = folder.to_str().context("the cache's path is no UTF-8")?;
    let text = format!(
        "# Written by xtask/src/rocksdb.rs: RocksDB is compiled once for this machine.\n\
         [env]\nROCKSDB_LIB_DIR = {path:?}\nROCKSDB_STATIC = \"1\"\n"
    );
    if fs::read_to_string(&settings).is_ok_and(|present| present == text) {
        return Ok(());
    }
    replace(&settings, text.as_bytes())
}

/// Where the library is kept, by all that it depends on.
fn folder() -> Result<PathBuf> {
    let metadata = MetadataCommand::new().current_dir(root()).exec()?;
    let package = metadata.packages.iter().find(|package| package.name.as_str() == PACKAGE);
    let package = package.with_context(|| format!("no {PACKAGE} is among the dependencies"))?;
    let nodes = metadata.resolve.map(|resolve| resolve.nodes).unwrap_or_default();
    let node = nodes.iter().find(|node| node.id == package.id).context("cargo resolves no dependencies")?;
    let features: Vec<String> = node.features.iter().map(ToString::to_string).collect();
    Ok(cache()?.join("rocksdb").join(format!("{}-{ARCH}-{}", package.version, features.join("-"))))
}

/// Lets cargo compile it where a release build would, so that what its bindings need is compiled once as well, and keeps
/// what came of it in `folder`.
fn compile(folder: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    // Of `rocksdb`, since that asks for the features; a build script's folder is told even when nothing is to be done.
    command.args(["build", "--release", "--package", "rocksdb", "--message-format", "json-render-diagnostics"]);
    forget_package(&mut command);
    let mut cargo = command.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = cargo.stdout.take().context("cargo's output is not read")?;
    let mut compiled = None;
    for message in Message::parse_stream(BufReader::new(output)) {
        if let Message::BuildScriptExecuted(script) = message?
            && script.package_id.repr.contains(PACKAGE)
        {
            compiled = Some(script.out_dir.into_std_path_buf().join(LIBRARY));
        }
    }
    let status = cargo.wait()?;
    if !status.success() {
        bail!("RocksDB does not compile: {status}");
    }
    let compiled = compiled.with_context(|| format!("cargo ran no build script of {PACKAGE}"))?;
    let library = fs::read(&compiled).with_context(|| format!("cannot read {}", compiled.display()))?;
    fs::create_dir_all(folder)?;
    replace(&folder.join(LIBRARY), &library)
}

/// Writes a file as a whole: others may do so, or read it, at the same time.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let parent = path.parent().context("a file has a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    std::io::Write::write_all(&mut file, content)?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
