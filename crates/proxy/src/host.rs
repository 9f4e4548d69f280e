//! The host's part beside the table: forwarding, the route of the service range, and settings of the bridge.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tracing::{debug, info, warn};

use crate::table::Table;

/// Marks routes as made here.
const ROUTE_PROTOCOL: &str = "211";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const BRIDGE_HOOKS: &str = "/proc/sys/net/bridge";

/// Makes the machine ready. Says whether packets between pods of the bridge pass the hooks; where they do not, translated
/// ones must be masqueraded. Idempotent.
pub(crate) async fn prepare(table: &Table) -> bool {
    if fs::read_to_string(IP_FORWARD).is_ok_and(|value| value.trim() == "0") {
        match fs::write(IP_FORWARD, "1") {
            Ok(()) => info!("set net.ipv4.ip_forward=1 (was 0); it stays, for Docker needs it too"),
            Err(error) => {
                warn!(%error, "cannot set net.ipv4.ip_forward=1: pods may not reach each other or the outside");
            }
        }
    }
    add_route(table).await;
    bridge_hooks(&table.bridge).await
}

/// The range belongs to the bridge, so packets for it take an address of the bridge and never leave by the default route;
/// without a default route (a laptop that is offline) there would be no way at all.
async fn add_route(table: &Table) {
    let source = table.gateway.to_string();
    let arguments = ["replace", &table.service_cidr, "dev", &table.bridge, "src", &source, "protocol", ROUTE_PROTOCOL];
    if let Err(error) = route(&arguments).await {
        warn!(%error, range = table.service_cidr, "cannot route the service range to the pod bridge");
    }
}

/// Removes the route.
pub(crate) async fn remove_route(table: &Table) {
    let arguments = ["delete", &table.service_cidr, "dev", &table.bridge, "protocol", ROUTE_PROTOCOL];
    if let Err(error) = route(&arguments).await {
        // It goes with the bridge, so it may well be gone.
        debug!(%error, "cannot remove the route of the service range");
    }
}

async fn route(arguments: &[&str]) -> io::Result<()> {
    let mut command = Command::new("ip");
    let output = command.args(["-4", "route"]).args(arguments).kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Makes bridged packets pass the hooks, for this bridge alone: no setting of the whole machine changes, and it goes with
/// the bridge.
async fn bridge_hooks(bridge: &str) -> bool {
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
    match fs::write(&path, "1") {
        Ok(()) => true,
        Err(error) => {
            warn!(%error, path = %path.display(), "cannot make packets between pods pass the rules");
            false
        }
    }
}

/// Lets the bridge send packets back where they came from: so a pod reaches itself through its service. New pods have new
/// ports, so this is done again whenever endpoints changed.
pub(crate) fn allow_hairpin(bridge: &str) {
    let Ok(ports) = fs::read_dir(bridge_folder(bridge).join("brif")) else {
        return;
    };
    for port in ports.flatten() {
        let path = port.path().join("hairpin_mode");
        // A port that vanishes meanwhile has no pod behind it.
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "0")
            && let Err(error) = fs::write(&path, "1")
        {
            debug!(%error, path = %path.display(), "cannot set hairpin mode");
        }
    }
}

fn bridge_folder(bridge: &str) -> PathBuf {
    Path::new("/sys/class/net").join(bridge)
}
