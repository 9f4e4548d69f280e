//! `coracle completion`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::{complete, output};

/// As a file of a folder in zsh's `fpath`, the script is the body of the function that completes: the first time it is asked
/// it has to answer, too, and not only to say who will from then on.
const ZSH_AUTOLOADED: &str =
    "\nif [[ ${funcstack[1]} == _coracle ]]; then\n    _clap_dynamic_completer_coracle \"$@\"\nfi";

/// Prints what a shell is to read: it asks the program for the names of clusters, nodes, addons, services and pods.
pub(crate) fn run(shell: Shell) -> Result<ExitCode> {
    output::line(script(shell)?)?;
    Ok(ExitCode::SUCCESS)
}

/// What a shell is to read.
pub(super) fn script(shell: Shell) -> Result<String> {
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).context("this shell cannot be completed for")?;
    let mut script = Vec::new();
    completer.write_registration(complete::VARIABLE, "coracle", "coracle", "coracle", &mut script)?;
    let script = String::from_utf8_lossy(&script).trim_end().to_owned();
    Ok(match shell {
        Shell::Zsh => script + ZSH_AUTOLOADED,
        _ => script,
    })
}
