//! Steps with their times, and running other programs.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::rocksdb;

/// The repository's root: of the clone that cargo runs this for, which need not be the one that it was compiled in.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&package).parent().unwrap_or(Path::new(".")).to_owned()
    });
    &ROOT
}

/// Builds the program for release, and nothing else: all that who only wants to use it waits for.
pub(crate) fn build_program() -> Result<()> {
    rocksdb::ensure()?;
    step("Build coracle", || run("cargo", &["build", "--release", "--package", "coracle"]))
}

/// What is built beside the program: examples, and the clients that measure and torture.
pub(crate) const BESIDE: [&str; 4] = ["operator-rust", "sample-apiserver", "coracle-bench", "coracle-soak"];

/// Builds the program and all of [`BESIDE`] for release.
///
/// The crates that they share have the same features as for the program alone (`cargo xtask tidy` sees to it): else each
/// would be compiled twice, by [`build_program`] and by this.
pub(crate) fn build() -> Result<()> {
    rocksdb::ensure()?;
    let packages = ["coracle"].into_iter().chain(BESIDE).flat_map(|name| ["--package", name]);
    let arguments: Vec<&str> = ["build", "--release"].into_iter().chain(packages).collect();
    step("Build coracle, the examples and the clients", || run("cargo", &arguments))
}

/// Builds what makes releases: by itself, since its libraries want features of others that the program's do not.
pub(crate) fn build_dist() -> Result<()> {
    step("Build what makes releases", || run("cargo", &["build", "--release", "--package", "coracle-dist"]))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// Where downloads and built images' ingredients are kept between runs.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("there is no home directory; set $HOME")?;
    let cache = base.join("coracle");
    std::fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// Prints a line for the person.
pub(crate) fn say(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Does one step, showing that it is under way and how long it took.
pub(crate) fn step<T>(name: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed}")?);
    bar.set_message(name.to_owned());
    if io::stderr().is_terminal() {
        bar.enable_steady_tick(Duration::from_millis(100));
    } else {
        say(format!("… {name}"));
    }
    let started = Instant::now();
    let result = action();
    bar.finish_and_clear();
    let mark = if result.is_ok() { "✔" } else { "✘" };
    say(format!("{mark} {name:<60} {:>6.1} s", started.elapsed().as_secs_f64()));
    result.with_context(|| name.to_owned())
}

/// Runs a program whose output the person sees; fails if it does.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_command(Command::new(program).args(arguments))
}

/// As [`run`], for a command with more to say than its arguments.
pub(crate) fn run_command(command: &mut Command) -> Result<()> {
    forget_package(command);
    let status = command
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` failed: {status}", words(command));
    }
    Ok(())
}

/// What cargo told this program about its own package is not passed on: build scripts that look at it (ring's) would run
/// again, and all that stands on them be compiled again, whenever cargo is called by hand in between.
pub(crate) fn forget_package(command: &mut Command) {
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        command.env_remove(name);
    }
}

/// Runs a program quietly and returns what it printed; its error output is part of the failure.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let output = command
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = error.trim().lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{}` failed: {}\n{}", words(&command), output.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `program` is on the PATH.
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

/// Where `program` is on the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
