//! The bridge network of a profile: made, verified, removed.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt;
use runtime::{Error, labels};
use tokio::task::spawn_blocking;

use crate::subnet::{self, Subnet};
use crate::{CALL_TIMEOUT, Docker, veth};

/// Length of the prefix of a node's range: as many addresses as a node has use for.
pub(crate) const NODE_PREFIX: u8 = 24;

/// Longest name of a network interface the kernel takes.
const INTERFACE_NAME: usize = 15;
/// How long to wait for a daemon that went away.
const PAUSE: Duration = Duration::from_secs(2);
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// The network a profile's pods are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Docker's name of it, `coracle-PROFILE`.
    pub name: String,
    /// Docker's id of it.
    pub id: String,
    /// Its bridge interface on the machine.
    pub bridge: String,
    /// Where pods get their addresses from.
    pub subnet: Subnet,
    /// The bridge's own address, by which pods reach the machine.
    pub gateway: Ipv4Addr,
    /// Pods on it now.
    pub endpoints: usize,
    /// Where Docker takes addresses from when nobody says which.
    pub(crate) docker_range: Option<Subnet>,
    /// What Docker has connected to it, with its address.
    pub(crate) others: Vec<(Ipv4Addr, String)>,
}

impl Network {
    /// The part of the subnet that Docker may take addresses from by itself, for containers of the user's own that join the
    /// network: the last, so that the first ones are the nodes'. A small subnet is not divided.
    fn spare(subnet: Subnet) -> Option<Subnet> {
        let last = subnet.nth(u32::MAX.checked_shr(subnet.prefix().into()).unwrap_or(0));
        (subnet.prefix() < NODE_PREFIX).then(|| Subnet::new(last, NODE_PREFIX))
    }

    /// The range of a node by its number; the first, whose node is the profile's own, has number 0. `None` beyond the last:
    /// that one is left to Docker.
    #[must_use]
    pub fn node_range(&self, number: u32) -> Option<Subnet> {
        let range = self.subnet.first_part(NODE_PREFIX);
        let parts = 1_u32.checked_shl(u32::from(range.prefix() - self.subnet.prefix()))?;
        // One that is not divided is the first node's.
        let fits = number == 0 || number < parts.saturating_sub(1);
        fits.then(|| Subnet::new(range.nth(number << (32 - range.prefix())), range.prefix()))
    }
}

/// Name of a profile's network.
#[must_use]
pub fn network_name(profile: &str) -> String {
    format!("coracle-{profile}")
}

/// Name of a profile's bridge interface: readable while it fits, else with a hash.
#[must_use]
pub fn bridge_name(profile: &str) -> String {
    let plain = !profile.is_empty()
        && profile.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let name = format!("cor-{profile}");
    if plain && name.len() <= INTERFACE_NAME {
        return name;
    }
    // FNV-1a: stable for ever, unlike the standard library's hasher. The other prefix keeps hashes apart from names.
    let hash = profile
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("coh-{:011x}", hash & 0xfff_ffff_ffff)
}

impl Docker {
    /// The profile's network, if it exists.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken by a network of somebody else's.
    pub async fn network(&self) -> Result<Option<Network>, Error> {
        let name = network_name(self.profile());
        let found = self.call(CALL_TIMEOUT, self.client().inspect_network(&name, None)).await;
        match found {
            Ok(found) => self.ours(found).map(Some),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the profile's network with this subnet, or verifies that it is there. One that is there with another
    /// subnet is made anew, unless pods are on it.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name or the subnet is taken, or pods hold on to the old subnet.
    pub async fn ensure_network(&self, subnet: Subnet) -> Result<Network, Error> {
        if let Some(network) = self.network().await? {
            let same = network.subnet == subnet && network.bridge == bridge_name(self.profile());
            let dated = network.docker_range != Network::spare(subnet);
            if same && (!dated || network.endpoints > 0) {
                self.note_network(Some(&network));
                return Ok(network);
            }
            if network.endpoints > 0 {
                return Err(Error::Conflict(format!(
                    "the network {} has the subnet {}, not {subnet}, and pods are on it: stop them, or keep the subnet",
                    network.name, network.subnet
                )));
            }
            self.remove_network().await?;
        }
        let option = |key: &str, value: &str| (format!("com.docker.network.{key}"), value.to_owned());
        let request = NetworkCreateRequest {
            name: network_name(self.profile()),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(subnet.to_string()),
                    gateway: Some(subnet.nth(1).to_string()),
                    ip_range: Network::spare(subnet).map(|range| range.to_string()),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            options: Some(HashMap::from([
                (BRIDGE_NAME.to_owned(), bridge_name(self.profile())),
                option("bridge.enable_icc", "true"),
                option("bridge.enable_ip_masquerade", "true"),
                option("bridge.host_binding_ipv4", "127.0.0.1"),
            ])),
            labels: Some(self.profile_labels()),
            ..NetworkCreateRequest::default()
        };
        let created = self.call(CALL_TIMEOUT, self.client().create_network(request)).await;
        if let Err(error) = created {
            return Err(match error {
                Error::Other(message) | Error::Invalid(message) if message.contains("overlap") => {
                    Error::Conflict(format!("the subnet {subnet} is taken: choose another one"))
                }
                error => error,
            });
        }
        let network = self.network().await?;
        let network = network.ok_or_else(|| Error::Other("the network vanished after it was created".to_owned()))?;
        self.note_network(Some(&network));
        Ok(network)
    }

    /// Removes the profile's network. Idempotent.
    ///
    /// # Errors
    /// [`Error::Conflict`] when containers are on it or it is somebody else's.
    pub async fn remove_network(&self) -> Result<(), Error> {
        let Some(network) = self.network().await? else {
            return Ok(());
        };
        self.note_network(None);
        let removed = self.call(Duration::from_secs(60), self.client().remove_network(&network.id)).await;
        match removed {
            Err(Error::NotFound(_)) => Ok(()),
            // Docker says 403 for a network in use.
            Err(Error::Other(message)) if message.contains("active endpoints") => Err(Error::Conflict(message)),
            other => other,
        }
    }

    /// Gives the bridge a further address, for a further node; or takes it away. Answers whether it has it, which it never
    /// gets where this process may not change the bridge.
    pub async fn set_node_address(&self, address: Ipv4Addr, wanted: bool) -> bool {
        let Some(network) = self.noted_network().filter(|_| self.direct_networking().get() != Some(&false)) else {
            return false;
        };
        let set = spawn_blocking(move || veth::set_address(&network.bridge, address, wanted)).await;
        let set = set.map_err(std::io::Error::other).flatten();
        if let Err(error) = &set {
            tracing::debug!(%error, %address, wanted, "cannot set an address of the bridge");
        }
        self.note_node_address(address, wanted && set.is_ok());
        wanted && set.is_ok()
    }

    /// Makes the network again whenever somebody removes it, and calls `again` then; for ever. Docker does not know of pods
    /// that it did not connect itself, so to `docker network prune` the network looks unused.
    pub async fn keep_network(&self, again: impl Fn()) {
        let Some(subnet) = self.noted_network().map(|network| network.subnet) else {
            return;
        };
        let filters = HashMap::from([("type", vec!["network".to_owned()]), ("event", vec!["destroy".to_owned()])]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        loop {
            let mut events = self.client().events(Some(options.clone()));
            // What happened while nobody listened shows in a look.
            let mut look = Some(());
            loop {
                if look.take().is_some() {
                    match self.repair_network(subnet).await {
                        Ok(true) => again(),
                        Ok(false) => {}
                        Err(error) => tracing::debug!(%error, "cannot look after the pod network"),
                    }
                }
                match events.next().await {
                    Some(Ok(_)) => look = Some(()),
                    Some(Err(_)) | None => break,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes the network if it is missing, and connects the pods to it. Answers whether it was.
    async fn repair_network(&self, subnet: Subnet) -> Result<bool, Error> {
        if self.network().await?.is_some() {
            return Ok(false);
        }
        tracing::warn!("the pod network was removed: making it again");
        let network = self.ensure_network(subnet).await?;
        if self.direct_networking().get() != Some(&false) {
            let (bridge, addresses) = (network.bridge, self.node_addresses());
            let connect = move || {
                veth::reconnect(&bridge, subnet)?;
                addresses.into_iter().try_for_each(|address| veth::set_address(&bridge, address, true))
            };
            let connected = spawn_blocking(connect).await.map_err(std::io::Error::other).flatten();
            connected.map_err(|error| Error::Other(error.to_string()))?;
        }
        Ok(true)
    }

    /// The subnets that a new one must not overlap: of all Docker networks but the profile's own, and of this machine's
    /// routes. Choose with [`subnet::first_free`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Docker cannot be reached.
    pub async fn taken_subnets(&self) -> Result<Vec<Subnet>, Error> {
        let networks = self.call(CALL_TIMEOUT, self.client().list_networks(None)).await?;
        let own = network_name(self.profile());
        let mut own_subnets = Vec::new();
        let mut taken = Vec::new();
        for network in networks {
            let is_own = network.name.as_deref() == Some(&own);
            let configs = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
            let subnets = configs.iter().filter_map(|config| config.subnet.as_deref()?.parse::<Subnet>().ok());
            if is_own {
                own_subnets.extend(subnets);
            } else {
                taken.extend(subnets);
            }
        }
        // Not there on another kind of machine, or unreadable in a sandbox: Docker then refuses what overlaps.
        let table = tokio::fs::read_to_string("/proc/net/route").await.unwrap_or_default();
        taken.extend(subnet::routes(&table).into_iter().filter(|route| !own_subnets.contains(route)));
        Ok(taken)
    }

    fn ours(&self, found: NetworkInspect) -> Result<Network, Error> {
        let name = found.name.unwrap_or_default();
        let label = found.labels.as_ref().and_then(|all| all.get(labels::PROFILE));
        if label.map(String::as_str) != Some(self.profile()) {
            return Err(Error::Conflict(format!(
                "there is a Docker network {name} that coracle did not make: rename it, or choose another profile name"
            )));
        }
        let config = found
            .ipam
            .and_then(|ipam| ipam.config)
            .unwrap_or_default()
            .into_iter()
            .find_map(|config| Some((config.subnet?.parse::<Subnet>().ok()?, config.gateway, config.ip_range)));
        let Some((subnet, gateway, docker_range)) = config else {
            return Err(Error::Other(format!(
                "the Docker network {name} has no IPv4 subnet: remove it (`docker network rm {name}`)"
            )));
        };
        let bridge = found.options.and_then(|mut options| options.remove(BRIDGE_NAME)).unwrap_or_default();
        let containers = found.containers.unwrap_or_default();
        let others = containers.iter().filter_map(|(id, endpoint)| {
            let (address, _) = endpoint.ipv4_address.as_deref()?.split_once('/')?;
            Some((address.parse().ok()?, id.clone()))
        });
        Ok(Network {
            name,
            id: found.id.unwrap_or_default(),
            subnet,
            gateway: gateway.and_then(|gateway| gateway.parse().ok()).unwrap_or_else(|| subnet.nth(1)),
            // Docker does not know of the pods that were connected here.
            endpoints: containers.len().max(veth::ports(&bridge)),
            docker_range: docker_range.and_then(|range| range.parse().ok()),
            others: others.collect(),
            bridge,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_divided_among_the_nodes() {
        let check = |subnet: &str, spare: Option<&str>, ranges: &[(u32, Option<&str>)]| {
            let subnet: Subnet = subnet.parse().unwrap();
            assert_eq!(Network::spare(subnet).map(|range| range.to_string()).as_deref(), spare, "{subnet}");
            let network = Network {
                name: String::new(),
                id: String::new(),
                bridge: String::new(),
                subnet,
                gateway: subnet.nth(1),
                endpoints: 0,
                docker_range: None,
                others: Vec::new(),
            };
            for (number, expected) in ranges {
                let range = network.node_range(*number).map(|range| range.to_string());
                assert_eq!(range.as_deref(), *expected, "{subnet} {number}");
            }
        };
        let ranges = [
            (0, Some("10.244.0.0/24")),
            (1, Some("10.244.1.0/24")),
            (254, Some("10.244.254.0/24")),
            (255, None),
            (u32::MAX, None),
        ];
        check("10.244.0.0/16", Some("10.244.255.0/24"), &ranges);
        check("10.1.2.0/24", None, &[(0, Some("10.1.2.0/24")), (1, None)]);
        check("10.1.2.128/25", None, &[(0, Some("10.1.2.128/25")), (1, None)]);
    }

    #[test]
    fn bridge_names_fit_and_differ() {
        assert_eq!(bridge_name("coracle"), "cor-coracle");
        assert_eq!(bridge_name("elevenchars"), "cor-elevenchars");
        let long = ["a-name-longer-than-that", "a-name-longer-than-this", "Upper", ""];
        for profile in long {
            let name = bridge_name(profile);
            assert_eq!(name.len(), INTERFACE_NAME, "{name}");
            assert!(name.starts_with("coh-"), "{name}");
        }
        assert_ne!(bridge_name(long[0]), bridge_name(long[1]));
    }
}
