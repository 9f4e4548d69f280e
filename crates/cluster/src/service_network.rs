//! The service network: who may change the kernel for it, and who is told whether it works.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use docker::Docker;
use kubelet::NetworkState;
use proxy::{ClusterIps, LocalTools, NetworkTools, ToolOutput};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The tools for the machine's network: this process's own where it has the privilege, else those of a container.
pub(crate) fn tools(docker: &Docker) -> Arc<dyn NetworkTools> {
    if docker::may_change_network() { Arc::new(LocalTools) } else { Arc::new(HelperTools(docker.clone())) }
}

/// Runs the tools in a container that Docker starts: for members of the group docker, who are not root.
struct HelperTools(Docker);

impl std::fmt::Debug for HelperTools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HelperTools").field(&self.0.profile()).finish()
    }
}

#[async_trait]
impl NetworkTools for HelperTools {
    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<ToolOutput> {
        match self.0.run_in_helper(program, arguments, input).await {
            Ok(output) => Ok(ToolOutput { success: output.exit_code == 0, stderr: output.stderr }),
            Err(runtime::Error::NotFound(why)) => Err(io::Error::new(io::ErrorKind::NotFound, why)),
            // Docker may be there again in a moment.
            Err(error @ (runtime::Error::Unavailable(_) | runtime::Error::Timeout(_))) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it needs root (CAP_NET_ADMIN), or a container that may do it: {error}"),
            )),
        }
    }
}

/// Tells the kubelets whether the service network works, as long as there is a proxy that knows.
pub(crate) fn tell(mut known: watch::Receiver<ClusterIps>, state: watch::Sender<NetworkState>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            state.send_replace(match &*known.borrow_and_update() {
                ClusterIps::Unknown => NetworkState::Unknown,
                ClusterIps::Working => NetworkState::Available,
                ClusterIps::Failing(why) => NetworkState::Unavailable(why.clone()),
            });
            if known.changed().await.is_err() {
                return;
            }
        }
    })
}
