//! `coracle completion`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::{complete, output};

/// Prints what a shell is to read: it asks the program for the names of clusters, nodes, addons, services and pods.
pub(crate) fn run(shell: Shell) -> Result<ExitCode> {
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).context("this shell cannot be completed for")?;
    let mut script = Vec::new();
    completer.write_registration(complete::VARIABLE, "coracle", "coracle", "coracle", &mut script)?;
    output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
