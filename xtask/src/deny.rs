//! The dependencies' licences, sources and doubles, by cargo-deny and `deny.toml`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::steps::{cache, find, run_command};

/// The release that is built where there is none.
const RELEASE: &str = "cargo-deny@0.20.2";

/// Checks all that needs no network. Advisories do.
pub(crate) fn check() -> Result<()> {
    let arguments = ["--locked", "--workspace", "--log-level", "warn", "check", "bans", "licenses", "sources"];
    run_command(Command::new(program()?).args(arguments))
}

/// The one on the PATH, or one that is built once and kept.
fn program() -> Result<PathBuf> {
    if let Some(program) = find("cargo-deny") {
        return Ok(program);
    }
    let root = cache()?.join("tools");
    let program = root.join("bin/cargo-deny");
    if !program.exists() {
        // Not optimised: it runs for a second, and would be compiled for minutes.
        run_command(
            Command::new("cargo")
                .args(["install", "--quiet", "--locked", "--debug", "--no-default-features"])
                .args(["--config", "profile.dev.debug=false", RELEASE, "--root"])
                .arg(&root)
                .env_remove("CARGO_TARGET_DIR"),
        )?;
    }
    Ok(program)
}
