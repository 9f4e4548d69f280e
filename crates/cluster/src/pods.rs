//! What becomes of the pods' containers while the cluster does not run.

use std::time::Duration;

use docker::Docker;

use crate::cluster::docker_config;
use crate::snapshot::thaw_left;
use crate::{Error, Profile, descriptors};

/// Stops the containers of a cluster whose daemon has ended, and keeps them; answers how many there were. All have `grace`
/// together, as in a node's shutdown. The next start finds them as after a reboot of the machine: the kubelet makes new
/// sandboxes, and starts what the pods' restart policies say.
///
/// # Errors
/// [`Error::Running`] when somebody has started the cluster again; else when Docker cannot be reached.
pub async fn stop_pods(profile: &Profile, grace: Duration) -> Result<usize, Error> {
    // Whoever starts the cluster meanwhile waits for the end.
    let mut lock = profile.lock()?;
    lock.stopping();
    descriptors::raise_limit();
    let docker = Docker::connect(docker_config(profile)).await?;
    // What is held does not end.
    thaw_left(profile, &docker).await;
    Ok(docker.stop_profile(grace).await?)
}

/// How many containers of the cluster's pods run.
///
/// # Errors
/// When Docker cannot be reached.
pub async fn running_containers(profile: &Profile) -> Result<usize, Error> {
    let docker = Docker::connect(docker_config(profile)).await?;
    Ok(docker.count_running().await?)
}

/// Where the Docker daemon listens that clusters use, as `DOCKER_HOST` has it.
pub fn docker_host() -> String {
    docker::default_host()
}
