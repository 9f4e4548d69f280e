//! `coracle delete`.

use std::process::ExitCode;

use anyhow::Result;
use cluster::Profile;

use super::stop;
use crate::{kubeconfig, output};

pub(crate) fn run(profile: &Profile) -> Result<ExitCode> {
    let existed = profile.exists();
    // What tells its entries in the kubeconfig goes with its state.
    let cluster = kubeconfig::Cluster::of(profile);
    stop::stop(profile)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Also without state: a cluster whose folder somebody removed may have left containers behind.
    let other = runtime.block_on(cluster::delete(profile))?;
    for path in kubeconfig::paths()? {
        kubeconfig::remove(&path, &cluster)?;
    }
    if existed {
        output::note(format!("The cluster {} is deleted.", profile.name()));
    } else {
        output::note(format!("There was no cluster {}.", profile.name()));
    }
    if let Some(home) = other {
        output::note(format!(
            "Another cluster of this name, in the home {0}, is left as it is; to delete it: coracle delete --home {0} -p {1}",
            home.display(),
            profile.name()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
