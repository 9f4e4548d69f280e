//! `cargo xtask compare`: builds and runs the differential test of `compare/`.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::rocksdb;
use crate::steps::run_command;

/// Options of `cargo xtask compare`: they are those of `compare/`; see `cargo xtask compare -- --help`.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    rocksdb::ensure()?;
    // With the program, so that what they share has the same features and is not built anew.
    let build = ["run", "--quiet", "-p", "coracle", "-p", "coracle-compare", "--bin", "coracle-compare", "--"];
    run_command(Command::new("cargo").args(build).args(&options.arguments))
}
