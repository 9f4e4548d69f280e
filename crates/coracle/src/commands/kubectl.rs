//! `coracle kubectl`: kubectl with this cluster's own kubeconfig, whatever the user's says.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow, bail};
use cluster::Profile;

use super::require_running;
use crate::cli;

pub(crate) fn run(profile: &Profile, kubectl: &cli::Kubectl) -> Result<ExitCode> {
    require_running(profile)?;
    // Becomes kubectl: its exit code and its handling of signals and terminals are the user's without a middleman.
    Err(explained(command(profile).args(&kubectl.arguments).exec()))
}

/// Applies a file, a folder or what is at a URL.
pub(super) fn apply(profile: &Profile, path: &str) -> Result<()> {
    // Standard output is for the answer of the command that applies it.
    let status = command(profile).args(["apply", "-f", path]).stdout(io::stderr()).status().map_err(explained)?;
    if !status.success() {
        bail!(
            "the cluster {0} runs, but {path} was not applied whole; mend it, and: coracle kubectl -p {0} -- apply -f {path}",
            profile.name()
        );
    }
    Ok(())
}

fn command(profile: &Profile) -> Command {
    let mut command = Command::new("kubectl");
    command.env("KUBECONFIG", profile.kubeconfig());
    command
}

fn explained(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("kubectl is not on the PATH; install it as https://kubernetes.io/docs/tasks/tools says")
        }
        _ => anyhow!(error).context("cannot run kubectl"),
    }
}
