//! `cargo xtask soak`: builds and runs the torture of `soak/`.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::steps::{build, run_command, target};
use crate::{images, setup};

/// Options of `cargo xtask soak`: they are those of `soak/`; see `cargo xtask soak -- --help`.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::test_machine()?;
    images::ensure()?;
    build()?;
    torture(&options.arguments)
}

/// Tortures the release binary, which has been built.
pub(crate) fn torture(arguments: &[OsString]) -> Result<()> {
    let release = target()?.join("release");
    run_command(
        Command::new(release.join("coracle-soak")).args(arguments).env("CORACLE_BINARY", release.join("coracle")),
    )
}
