//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, one after the other, with the compiler that all else is built
//! with.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::steps::{output, root, run_command, say, step, target};

/// What has rustc count the branches that an input takes, as libFuzzer wants it. cargo-fuzz passes the same.
const INSTRUMENTATION: [&str; 6] = [
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The longest input. What is longer finds little more, and takes longer.
const MAX_LENGTH: u32 = 4096;
/// An input that takes so many seconds is one that hangs.
const TIMEOUT: u32 = 15;
/// An input that takes so much memory is a find, in MiB.
const MEMORY: u32 = 2048;

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this target; see `fuzz/src/lib.rs`
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Further options of libFuzzer, behind `--`; see `cargo xtask fuzz NAME -- -help=1`
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let known = targets()?;
    let targets = match &options.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no target {target}; there are: {}", known.join(", ")),
    };
    let programs = step("Build the fuzz targets", || build(&targets))?;
    let mut broken = Vec::new();
    for target in targets {
        // Each of them, whatever the others find.
        if let Err(error) = step(&format!("Fuzz {target}"), || fuzz(&target, &programs, options)) {
            say(format!("{error:#}"));
            broken.push(target);
        }
    }
    if !broken.is_empty() {
        bail!("these break a law: {}; what they were given is in fuzz/artifacts", broken.join(", "));
    }
    Ok(())
}

/// The targets that have a program.
fn targets() -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

/// Builds the programs, and returns the folder in which they are. They have a target directory of their own: everything is
/// compiled anew for them.
fn build(targets: &[String]) -> Result<PathBuf> {
    let versions = output("rustc", &["-vV"])?;
    let host = versions.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    let folder = target()?.join("fuzz");
    let mut command = Command::new("cargo");
    // With a target named, build scripts and macros are left as they are.
    command.args([
        "build",
        "--package",
        "coracle-fuzz",
        "--features",
        "libfuzzer",
        "--profile",
        "fuzz",
        "--target",
        host,
    ]);
    command.args(targets.iter().flat_map(|target| ["--bin", target]));
    command.arg("--target-dir").arg(&folder).env("RUSTFLAGS", INSTRUMENTATION.join(" "));
    run_command(&mut command)?;
    Ok(folder.join(host).join("fuzz"))
}

/// Runs a target for as long as it may, from its seeds and from what earlier runs have found.
fn fuzz(target: &str, programs: &Path, options: &Options) -> Result<()> {
    let fuzz = root().join("fuzz");
    let (corpus, artifacts) = (fuzz.join("corpus").join(target), fuzz.join("artifacts").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(programs.join(target));
    command.arg(corpus).arg(fuzz.join("seeds").join(target));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={}", options.minutes * 60));
    command.arg(format!("-max_len={MAX_LENGTH}")).arg(format!("-timeout={TIMEOUT}"));
    command.arg(format!("-rss_limit_mb={MEMORY}")).arg("-print_final_stats=1");
    let dictionary = fuzz.join("dictionaries").join(format!("{target}.dict"));
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    run_command(command.args(&options.arguments))
}
