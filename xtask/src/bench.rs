//! `cargo xtask bench`: builds and runs the benchmark client of `bench/`.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::steps::{build, run_command, target};
use crate::{images, setup};

/// Options of `cargo xtask bench`: they are the benchmark client's own; see `cargo xtask bench -- --help`.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::machine()?;
    images::ensure()?;
    // The client in release too: on a small machine its own cost is part of what is measured.
    build()?;
    let release = target()?.join("release");
    run_command(
        Command::new(release.join("coracle-bench"))
            .args(&options.arguments)
            .env("CORACLE_BINARY", release.join("coracle")),
    )
}
