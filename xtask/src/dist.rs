//! `cargo xtask dist`: builds the program, and makes a release of it with `dist/`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::steps::{self, output, root, run_command, step, target};

/// Options of `cargo xtask dist`.
#[derive(Args)]
pub(crate) struct Options {
    /// A program that is built already
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The same program for this machine, which writes the manual, where --binary is for another processor
    #[arg(long, requires = "binary", value_name = "FILE")]
    local_binary: Option<PathBuf>,
    /// The address that the release will have, such as `https://example.com/coracle/v1.0.0`: for the installation script,
    /// the Homebrew formula and the GitHub Action; the last two are not made without it
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let release = target()?.join("release");
    let binary = match &options.binary {
        // As the person means it, and not as seen from the repository's root, where what follows runs.
        Some(binary) => std::path::absolute(binary)?,
        None => {
            steps::build_program()?;
            release.join("coracle")
        }
    };
    steps::build_dist()?;
    step("Make the release", || {
        let mut dist = Command::new(release.join("coracle-dist"));
        dist.arg("--binary").arg(binary).arg("--output").arg(target()?.join("dist")).arg("--root").arg(root());
        if let Some(local) = &options.local_binary {
            dist.arg("--local-binary").arg(std::path::absolute(local)?);
        }
        if let Some(url) = &options.base_url {
            dist.args(["--base-url", url]);
        }
        // Who wants another time says so by this name: reproducible-builds.org, "SOURCE_DATE_EPOCH".
        if std::env::var_os("SOURCE_DATE_EPOCH").is_none() {
            let time =
                output("git", &["log", "-1", "--format=%ct"]).context("the time of the last commit is not known")?;
            dist.env("SOURCE_DATE_EPOCH", time.trim());
        }
        run_command(&mut dist)
    })
}
