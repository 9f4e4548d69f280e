//! `coracle update-context`: points kubectl at a cluster.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cluster::Profile;

use crate::{kubeconfig, output};

pub(crate) fn run(profile: &Profile) -> Result<ExitCode> {
    if !profile.kubeconfig().exists() {
        bail!("there is no cluster {0}; start it with: coracle start -p {0}", profile.name());
    }
    point_kubectl(profile)?;
    output::note(format!("kubectl now uses the context \"{}\".", profile.name()));
    Ok(ExitCode::SUCCESS)
}

/// Writes the cluster's entries into the user's kubeconfig, and makes its context current.
pub(super) fn point_kubectl(profile: &Profile) -> Result<()> {
    let own = fs::read_to_string(profile.kubeconfig()).context("cannot read the cluster's kubeconfig")?;
    kubeconfig::merge(&kubeconfig::path()?, &kubeconfig::Cluster::of(profile), &own)
}
