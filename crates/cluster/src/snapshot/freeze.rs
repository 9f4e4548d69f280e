//! Holding the pods' processes while their volumes are read.

use std::fs;

use docker::Docker;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::Error;
use crate::profile::{Profile, write_private};

/// The pods' processes, held until [`Frozen::thaw`].
pub(super) struct Frozen {
    profile: Profile,
    docker: Docker,
    containers: Vec<String>,
    tell: watch::Sender<bool>,
}

impl Frozen {
    /// Holds them, and says so. Which ones is noted first: whoever starts the cluster next lets them go if this process cannot.
    pub(super) async fn freeze(profile: &Profile, docker: &Docker, tell: watch::Sender<bool>) -> Result<Self, Error> {
        let containers = docker.freezable().await?;
        if !containers.is_empty() {
            write_private(&profile.frozen(), &containers.join("\n"))?;
        }
        tell.send_replace(true);
        let frozen = Self { profile: profile.clone(), docker: docker.clone(), containers, tell };
        match frozen.docker.freeze(&frozen.containers).await {
            Ok(()) => Ok(frozen),
            Err(error) => {
                frozen.thaw().await;
                Err(error.into())
            }
        }
    }

    /// Lets them go on.
    pub(super) async fn thaw(self) {
        match self.docker.thaw(&self.containers).await {
            Ok(()) => forget(&self.profile),
            Err(error) => {
                warn!(%error, "cannot let all pods go on that were held for a snapshot; the next start tries again");
            }
        }
        self.tell.send_replace(false);
    }
}

/// Lets those go on that a snapshot held whose process has ended.
pub(crate) async fn thaw_left(profile: &Profile, docker: &Docker) {
    let Ok(text) = fs::read_to_string(profile.frozen()) else { return };
    let containers: Vec<String> = text.lines().map(str::to_owned).collect();
    match docker.thaw(&containers).await {
        Ok(()) => {
            info!(count = containers.len(), "let pods go on that were held for a snapshot");
            forget(profile);
        }
        Err(error) => warn!(%error, "cannot let pods go on that were held for a snapshot"),
    }
}

fn forget(profile: &Profile) {
    let path = profile.frozen();
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(path = %path.display(), %error, "cannot remove a file");
    }
}
