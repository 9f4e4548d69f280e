//! The bridge network of a profile: made, verified, removed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use runtime::{Error, labels};

use crate::subnet::{self, Subnet};
use crate::{CALL_TIMEOUT, Docker};

/// Longest name of a network interface the kernel takes.
const INTERFACE_NAME: usize = 15;
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
    pub gateway: std::net::Ipv4Addr,
    /// Pods on it now.
    pub endpoints: usize,
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
            if network.subnet == subnet && network.bridge == bridge_name(self.profile()) {
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
            labels: Some(HashMap::from([(labels::PROFILE.to_owned(), self.profile().to_owned())])),
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
        self.network().await?.ok_or_else(|| Error::Other("the network vanished after it was created".to_owned()))
    }

    /// Removes the profile's network. Idempotent.
    ///
    /// # Errors
    /// [`Error::Conflict`] when containers are on it or it is somebody else's.
    pub async fn remove_network(&self) -> Result<(), Error> {
        let Some(network) = self.network().await? else {
            return Ok(());
        };
        let removed = self.call(Duration::from_secs(60), self.client().remove_network(&network.id)).await;
        match removed {
            Err(Error::NotFound(_)) => Ok(()),
            // Docker says 403 for a network in use.
            Err(Error::Other(message)) if message.contains("active endpoints") => Err(Error::Conflict(message)),
            other => other,
        }
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
            .find_map(|config| Some((config.subnet?.parse::<Subnet>().ok()?, config.gateway)));
        let Some((subnet, gateway)) = config else {
            return Err(Error::Other(format!(
                "the Docker network {name} has no IPv4 subnet: remove it (`docker network rm {name}`)"
            )));
        };
        Ok(Network {
            name,
            id: found.id.unwrap_or_default(),
            bridge: found.options.and_then(|mut options| options.remove(BRIDGE_NAME)).unwrap_or_default(),
            subnet,
            gateway: gateway.and_then(|gateway| gateway.parse().ok()).unwrap_or_else(|| subnet.nth(1)),
            endpoints: found.containers.map_or(0, |containers| containers.len()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
