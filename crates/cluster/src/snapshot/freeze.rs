//! Holding the pods' processes while their volumes are read.

use std::fs;
use std::time::Duration;

use docker::Docker;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::Error;
use crate::profile::{Profile, write_private};

/// How often, and with what pauses, it is tried to let them go on: a daemon that hangs may come back.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

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

    /// Lets them go on, as soon as Docker does that.
    pub(super) async fn thaw(self) {
        let mut tries = 0;
        while let Err(error) = self.docker.thaw(&self.containers).await {
            warn!(%error, "cannot let all pods go on that were held for a snapshot");
            tries += 1;
            if tries == TRIES {
                warn!("pods are still held; the next start tries again");
                self.tell.send_replace(false);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        forget(&self.profile);
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
