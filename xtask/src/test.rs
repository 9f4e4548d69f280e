//! `cargo xtask test`: everything that CI checks, cheapest first.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::steps::{self, run_command, step, target};
use crate::{deny, images, kubectl, rocksdb, setup, soak, tidy};

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the tests whose names contain this
    filter: Option<String>,
    /// Only the black-box tests, with the real binary, kubectl and Docker
    #[arg(long)]
    black_box: bool,
}

fn lint() -> Result<()> {
    step("Check the repository's rules", tidy::run)?;
    step("Check the format", || steps::run("cargo", &["fmt", "--all", "--check"]))?;
    step("Check the dependencies", deny::check)?;
    step("Check with clippy", || {
        steps::run("cargo", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    step("Check the documentation", || {
        let arguments = ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"];
        run_command(Command::new("cargo").args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
    })
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::test_machine()?;
    let filter: Vec<&str> = options.filter.as_deref().into_iter().collect();
    step("Get the images", images::ensure)?;
    rocksdb::ensure()?;
    if !options.black_box {
        if options.filter.is_none() {
            lint()?;
        }
        step("Test the crates", || {
            let arguments = ["test", "--workspace", "--exclude", "coracle-tests"];
            run_command(Command::new("cargo").args(arguments).args(&filter))
        })?;
    }
    let kubectls = step("Get kubectl", kubectl::ensure)?;
    steps::build()?;
    if options.filter.is_none() {
        // The same faults each time: what is new is looked for by `cargo xtask soak`.
        let short = ["--minutes", "2", "--seed", "7"].map(Into::into);
        step("Torture the program for a little while", || soak::torture(&short))?;
    }
    step("Test the program", || {
        run_command(
            Command::new("cargo")
                .args(["test", "--package", "coracle-tests"])
                .args(&filter)
                .env("CORACLE_BINARY", target()?.join("release/coracle"))
                .env("CORACLE_OPERATOR", target()?.join("release/operator-rust"))
                .env("CORACLE_SAMPLE_APISERVER", target()?.join("release/sample-apiserver"))
                .env("CORACLE_KUBECTL", &kubectls.newest)
                .env("CORACLE_KUBECTL_OLDEST", &kubectls.oldest),
        )
    })
}
