//! The cluster's DNS server, and the Service in front of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use apiserver::Served;
use docker::Network;
use informer::Informers;
use tracing::warn;

use crate::bootstrap::Outstanding;
use crate::settings::Settings;

/// Starts the server on the bridge, and says in the API that the Service `kube-dns` is served there; later, where the store
/// takes no writes now. Without a server, which is told in the log, pods ask the machine's resolvers.
pub(crate) async fn serve(
    server: &apiserver::Handle,
    informers: &Informers,
    network: &Network,
    settings: &Settings,
    address: Ipv4Addr,
    outstanding: &mut Outstanding,
) -> Option<dns::Handle> {
    let mut config = dns::Config::new(SocketAddr::new(network.gateway.into(), 0));
    config.address = Some(IpAddr::V4(address));
    config.domain.clone_from(&settings.dns_domain);
    config.subnets = vec![settings.pod_subnet.clone(), settings.service_subnet.clone()];
    let handle = match dns::start(config, informers).await {
        Ok(handle) => handle,
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            warn!(%error, source, "there is no cluster DNS");
            return None;
        }
    };
    let ports = [
        Served { name: "dns", protocol: "UDP", at: handle.udp() },
        Served { name: "dns-tcp", protocol: "TCP", at: handle.tcp() },
    ];
    let server = server.server().clone();
    let publish = move || {
        let server = server.clone();
        async move { server.publish_service("kube-system", "kube-dns", &ports).await }
    };
    if let Err(error) = publish().await {
        warn!(%error, "the cluster DNS is not reached until the store takes writes");
        outstanding.add("the endpoints of the cluster DNS", publish);
    }
    Some(handle)
}
