//! `coracle delete`.

use std::process::ExitCode;

use anyhow::Result;
use node::Profile;

use super::stop;
use crate::{kubeconfig, output};

pub(crate) fn run(profile: &Profile) -> Result<ExitCode> {
    let existed = profile.exists();
    stop::stop(profile)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Also without state: a cluster whose folder somebody removed may have left containers behind.
    runtime.block_on(node::delete(profile))?;
    kubeconfig::remove(&kubeconfig::path()?, profile.name())?;
    if existed {
        output::note(format!("The cluster {} is deleted.", profile.name()));
    } else {
        output::note(format!("There was no cluster {}.", profile.name()));
    }
    Ok(ExitCode::SUCCESS)
}
