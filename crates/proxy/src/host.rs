//! The host's part beside the table: forwarding, the route of the service range, and settings of the bridge.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use crate::table::Table;
use crate::tools::NetworkTools;

/// Marks routes as made here.
const ROUTE_PROTOCOL: &str = "211";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const BRIDGE_HOOKS: &str = "/proc/sys/net/bridge";

/// What the machine is like once it was made ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Whether the service range is routed to the bridge, so that no packet for it leaves the machine.
    pub(crate) routed: bool,
    /// Whether packets between pods of the bridge pass the hooks; where they do not, translated ones must be masqueraded.
    pub(crate) hooked: bool,
}

/// Makes the machine ready. Idempotent.
pub(crate) async fn prepare(table: &Table, tools: &dyn NetworkTools) -> Prepared {
    off_the_workers(allow_forwarding).await;
    Prepared { routed: add_route(table, tools).await, hooked: bridge_hooks(&table.bridge, tools).await }
}

fn allow_forwarding() {
    if fs::read_to_string(IP_FORWARD).is_ok_and(|value| value.trim() == "0") {
        match fs::write(IP_FORWARD, "1") {
            Ok(()) => info!("set net.ipv4.ip_forward=1 (was 0); it stays, for Docker needs it too"),
            Err(error) => {
                warn!(%error, "cannot set net.ipv4.ip_forward=1: pods may not reach each other or the outside");
            }
        }
    }
}

/// Reads or writes settings of the network on a thread of its own: writing waits, and may for seconds, as long as the kernel takes
/// down the networks of others. `None` while the process ends.
async fn off_the_workers<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    spawn_blocking(work).await.ok()
}

/// The range belongs to the bridge, so packets for it take an address of the bridge and never leave by the default route;
/// without a default route (a laptop that is offline) there would be no way at all.
async fn add_route(table: &Table, tools: &dyn NetworkTools) -> bool {
    let source = table.gateway.to_string();
    let arguments = ["replace", &table.service_cidr, "dev", &table.bridge, "src", &source, "protocol", ROUTE_PROTOCOL];
    let added = route(tools, &arguments).await;
    if let Err(error) = &added {
        warn!(%error, range = table.service_cidr, "cannot route the service range to the pod bridge");
    }
    added.is_ok()
}

/// Removes the route.
pub(crate) async fn remove_route(table: &Table, tools: &dyn NetworkTools) {
    let arguments = ["delete", &table.service_cidr, "dev", &table.bridge, "protocol", ROUTE_PROTOCOL];
    if let Err(error) = route(tools, &arguments).await {
        // It goes with the bridge, so it may well be gone.
        debug!(%error, "cannot remove the route of the service range");
    }
}

async fn route(tools: &dyn NetworkTools, arguments: &[&str]) -> io::Result<()> {
    ip(tools, &[&["-4", "route"], arguments].concat()).await
}

async fn ip(tools: &dyn NetworkTools, arguments: &[&str]) -> io::Result<()> {
    let output = tools.run("ip", arguments, "").await?;
    if output.success { Ok(()) } else { Err(io::Error::other(output.stderr)) }
}

/// Makes bridged packets pass the hooks, for this bridge alone: no setting of the whole machine changes, and it goes with
/// the bridge. Answers whether they do.
pub(crate) async fn bridge_hooks(bridge: &str, tools: &dyn NetworkTools) -> bool {
    if !Path::new(BRIDGE_HOOKS).exists() {
        // Its outcome shows in whether the setting exists afterwards.
        let _ = Command::new("modprobe").arg("br_netfilter").kill_on_drop(true).output().await;
    }
    if !Path::new(BRIDGE_HOOKS).exists() {
        info!(
            "the kernel module br_netfilter is missing: pods see the machine's address instead of other pods' when asked through a service"
        );
        return false;
    }
    let path = bridge_folder(bridge).join("bridge/nf_call_iptables");
    let arguments = ["link", "set", "dev", bridge, "type", "bridge", "nf_call_iptables", "1"];
    match write_or_run(&path, tools, &arguments).await {
        Ok(()) => true,
        Err(error) => {
            warn!(%error, path = %path.display(), "cannot make packets between pods pass the rules");
            false
        }
    }
}

/// Sets a setting of a bridge to 1 by its file, or by the program where this process may not write that.
async fn write_or_run(path: &Path, tools: &dyn NetworkTools, arguments: &[&str]) -> io::Result<()> {
    let file = path.to_owned();
    match off_the_workers(move || fs::write(file, "1")).await {
        Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => ip(tools, arguments).await,
        result => result.unwrap_or(Ok(())),
    }
}

/// Lets the bridge send packets back where they came from: so a pod reaches itself through its service. New pods have new
/// ports, so this is done again whenever endpoints changed.
pub(crate) async fn allow_hairpin(bridge: &str, tools: &dyn NetworkTools) {
    let folder = bridge_folder(bridge).join("brif");
    for port in off_the_workers(move || ports_without_hairpin(&folder)).await.unwrap_or_default() {
        let name = port.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let arguments = ["link", "set", "dev", &name, "type", "bridge_slave", "hairpin", "on"];
        if let Err(error) = write_or_run(&port, tools, &arguments).await {
            debug!(%error, path = %port.display(), "cannot set hairpin mode");
        }
    }
}

/// The files of those ports of a bridge that do not send packets back yet.
fn ports_without_hairpin(folder: &Path) -> Vec<PathBuf> {
    let ports = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = ports.map(|port| port.path().join("hairpin_mode"));
    // A port that vanishes meanwhile has no pod behind it.
    files.filter(|file| fs::read_to_string(file).is_ok_and(|value| value.trim() == "0")).collect()
}

fn bridge_folder(bridge: &str) -> PathBuf {
    Path::new("/sys/class/net").join(bridge)
}
