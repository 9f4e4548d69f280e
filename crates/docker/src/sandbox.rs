//! Sandboxes: making and ending them, each with a network of its own.
//!
//! | pods | how their network is made |
//! |---|---|
//! | ordinary ones | the pause program leaves the machine's network for a new one, which is connected to the bridge here (`link`) |
//! | with host ports, and all where that cannot be done | by Docker, which knows how to map ports |
//! | with `hostNetwork` | not at all |
//!
//! Docker takes three times as long: it runs itself a second time for each network, and changes the firewall for each pod.
//! Addresses are given out here in either case (`ipam`), and are in a label, so that a restart finds them again.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::models::ContainerSummaryStateEnum;
use runtime::{Error, Sandbox, SandboxConfig, labels};
use tokio::time::Instant;

use crate::create::{self, Networking};
use crate::ipam::{AddressPool, Lease};
use crate::network::{NODE_PREFIX, Network};
use crate::subnet::Subnet;
use crate::veth::{self, Veth};
use crate::{CALL_TIMEOUT, Docker, host, inspect, pause};

/// How long the pause program may take to leave the machine's network. It is the first thing it does.
const ISOLATION: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(1);

/// How to make a sandbox, as far as that depends on what the daemon can do.
#[derive(Debug, Clone, Copy)]
struct Way {
    networking: Networking,
    oom_score: i32,
}

impl Docker {
    pub(crate) async fn make_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox, Error> {
        let lease = match config.host_network {
            true => None,
            false => Some(self.address_pool().await?.take().ok_or_else(|| self.no_address())?),
        };
        let address = lease.as_ref().map(Lease::address);
        let mut way = self.usual_way(config, address);
        let (spared, own) = (self.negative_oom_score().get().copied(), self.direct_networking().get().copied());
        let mut made = self.try_sandbox(config, way).await;
        // What is not known of the daemon shows when it is left out and works without.
        if let Err(Error::StartFailed { message, .. }) = &made
            && spared.is_none()
            && message.contains("OCI runtime create failed")
        {
            way.oom_score = 0;
            made = self.try_sandbox(config, way).await;
        }
        if let (Err(error), Networking::Own(address), None) = (&made, way.networking, own)
            && !matches!(error, Error::Unavailable(_) | Error::Timeout(_))
        {
            let reason = error.to_string();
            way.networking = Networking::Docker(address);
            made = self.try_sandbox(config, way).await;
            if made.is_ok() {
                self.settle_direct_networking(false, &reason);
            }
        }
        let id = made?;
        self.settle_negative_oom_score(way.oom_score < 0);
        if matches!(way.networking, Networking::Own(_)) {
            self.settle_direct_networking(true, "");
        }
        if let Some(lease) = lease {
            lease.keep(&id);
        }
        Ok(Sandbox {
            id,
            pod: config.pod.clone(),
            attempt: config.attempt,
            ready: true,
            ips: address.map(Into::into).into_iter().collect(),
            host_network: config.host_network,
            host_pid: config.host_pid,
            host_ipc: config.host_ipc,
            share_process_namespace: config.share_process_namespace,
            created: Some(jiff::Timestamp::now()),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            ..Sandbox::default()
        })
    }

    /// What has worked so far, or is worth a try.
    fn usual_way(&self, config: &SandboxConfig, address: Option<Ipv4Addr>) -> Way {
        let spared = self.negative_oom_score().get().copied();
        let oom_score = if spared == Some(false) { 0 } else { create::SANDBOX_OOM_SCORE };
        let mapped = config.ports.iter().any(|port| port.host_port != 0);
        let networking = match address {
            None => Networking::Host,
            Some(address) if mapped || self.direct_networking().get() == Some(&false) => Networking::Docker(address),
            Some(address) => Networking::Own(address),
        };
        Way { networking, oom_score }
    }

    /// Creates, starts and connects a sandbox; leaves nothing behind when that fails.
    async fn try_sandbox(&self, config: &SandboxConfig, way: Way) -> Result<String, Error> {
        let name = labels::sandbox_name(&config.pod, config.attempt);
        let body = create::sandbox(self.settings(), config, way.networking, way.oom_score);
        let id = match self.create(&name, &body).await {
            Err(Error::ImageNotFound { .. }) => {
                pause::ensure(self).await?;
                self.create(&name, &body).await?
            }
            created => created?,
        };
        let started = async {
            self.start(&id).await?;
            match way.networking {
                Networking::Own(address) => self.connect_sandbox(&id, address, config).await,
                Networking::Docker(_) | Networking::Host => Ok(()),
            }
        };
        if let Err(failure) = started.await {
            if let Err(error) = self.remove(&id).await {
                tracing::warn!(%error, sandbox = id, "cannot remove a sandbox that did not start");
            }
            return Err(failure);
        }
        Ok(id)
    }

    /// Connects a sandbox that has just started to the bridge.
    async fn connect_sandbox(&self, id: &str, address: Ipv4Addr, config: &SandboxConfig) -> Result<(), Error> {
        let failed = |error: io::Error| Error::StartFailed {
            exit_code: 128,
            message: format!("cannot connect the sandbox to the pod network: {error}"),
        };
        let network = self.present_network().await?;
        let found = self.call(CALL_TIMEOUT, self.client().inspect_container(id, None)).await?;
        let pid = found.state.and_then(|state| state.pid).unwrap_or_default();
        let namespace = isolated(id, pid).await.map_err(failed)?;
        let sysctls = config.sysctls.iter().filter(|(key, _)| create::of_network(key));
        let veth = Veth {
            bridge: network.bridge.clone(),
            gateway: network.gateway,
            address,
            prefix: network.subnet.prefix(),
            alias: format!("{}/{}", config.pod.namespace, config.pod.name),
            sysctls: sysctls.map(|(key, value)| (key.clone(), value.clone())).collect(),
        };
        veth::connect(veth, namespace).await.map_err(failed)
    }

    /// Remembers whether a negative score may be set, and says once when not.
    pub(crate) fn settle_negative_oom_score(&self, allowed: bool) {
        // Fails when another sandbox found out first: it found the same.
        if self.negative_oom_score().set(allowed).is_ok() && !allowed {
            tracing::warn!(
                "Docker may not set a negative oom_score_adj (CAP_SYS_RESOURCE is missing): pods run with 0, so when \
                 memory is short the kernel does not spare the important ones"
            );
        }
    }

    /// Remembers whether sandboxes can be connected here, and says once why not.
    pub(crate) fn settle_direct_networking(&self, possible: bool, reason: &str) {
        if self.direct_networking().set(possible).is_ok() && !possible {
            tracing::warn!(
                reason,
                "Docker connects the pods to their network, for this process cannot: each takes a little longer to start"
            );
        }
    }

    pub(crate) async fn end_sandbox(&self, id: &str) -> Result<(), Error> {
        let running = [ContainerSummaryStateEnum::RUNNING, ContainerSummaryStateEnum::PAUSED];
        for found in self.containers_of(id).await? {
            if let (Some(id), Some(state)) = (found.id, found.state)
                && running.contains(&state)
            {
                self.kill(&id).await?;
            }
        }
        self.kill(id).await?;
        self.free_address(id);
        Ok(())
    }

    pub(crate) async fn delete_sandbox(&self, id: &str) -> Result<(), Error> {
        for found in self.containers_of(id).await? {
            if let Some(id) = found.id {
                self.remove(&id).await?;
            }
        }
        self.remove(id).await?;
        self.free_address(id);
        Ok(())
    }

    /// The addresses of this node. Asked for the first time, after a restart perhaps, it looks which are taken: by pods, by
    /// what others have connected to the network, and by links whose pod is about to go.
    pub(crate) async fn address_pool(&self) -> Result<&AddressPool, Error> {
        self.addresses()
            .get_or_try_init(|| async {
                let network = self.present_network().await?;
                let range = self.range().unwrap_or_else(|| network.subnet.first_part(NODE_PREFIX));
                let mut taken: Vec<(Ipv4Addr, String)> = network.others.clone();
                // Those of all nodes: ranges may have been others before.
                for found in self.list(vec![self.profile_label()]).await? {
                    let address = found.labels.as_ref().and_then(inspect::address);
                    if let (true, Some(address), Some(id)) = (inspect::runs(&found), address, found.id) {
                        taken.push((address, id));
                    }
                }
                Ok(AddressPool::new(range, taken))
            })
            .await
    }

    fn free_address(&self, id: &str) {
        if let Some(pool) = self.addresses().get() {
            pool.free(id);
        }
    }

    fn no_address(&self) -> Error {
        let range = self.addresses().get().map(|pool| pool.range().to_string()).unwrap_or_default();
        Error::Other(format!("no IP addresses available in range set: {range}"))
    }

    /// The network, as it was made or found last.
    async fn present_network(&self) -> Result<Network, Error> {
        if let Some(network) = self.noted_network() {
            return Ok(network);
        }
        let missing = || Error::Other("the pod network is missing: restart coracle".to_owned());
        self.network().await?.ok_or_else(missing)
    }
}

impl Subnet {
    /// Its first part with this prefix; all of it if that is longer.
    pub(crate) fn first_part(self, prefix: u8) -> Self {
        Self::new(self.address(), prefix.max(self.prefix()))
    }
}

/// Waits until a process of a container has left the machine's network; the answer is its own.
async fn isolated(container: &str, pid: i64) -> io::Result<File> {
    let deadline = Instant::now() + ISOLATION;
    loop {
        if let Some(namespace) = host::other_network(container, pid)? {
            return Ok(namespace);
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("it did not leave the machine's network"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
