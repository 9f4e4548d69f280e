//! `coracle kubectl`: kubectl with this cluster's own kubeconfig, whatever the user's says.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};
use cluster::Profile;

use super::require_running;
use crate::cli;

pub(crate) fn run(profile: &Profile, kubectl: &cli::Kubectl) -> Result<ExitCode> {
    require_running(profile)?;
    // Becomes kubectl: its exit code and its handling of signals and terminals are the user's without a middleman.
    let error = Command::new("kubectl").args(&kubectl.arguments).env("KUBECONFIG", profile.kubeconfig()).exec();
    Err(match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("kubectl is not on the PATH; install it as https://kubernetes.io/docs/tasks/tools says")
        }
        _ => anyhow!(error).context("cannot run kubectl"),
    })
}
