//! The API server of a cluster: where it listens, and what every cluster has from its first moment.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Dependencies};
use docker::Network;
use store::Health;
use tracing::warn;

use crate::addresses::Addresses;
use crate::bootstrap::{self, Outstanding};
use crate::profile::{Profile, write_private};
use crate::settings::Settings;
use crate::{Error, descriptors, kubeconfig};

/// Starts the API server on loopback and on the bridge, and writes what every cluster has from its first moment.
pub(crate) async fn serve(
    profile: &Profile,
    (mut settings, asked): (Settings, &Addresses),
    dependencies: Dependencies,
    pki: &Arc<Pki>,
    network: &Network,
    outstanding: &mut Outstanding,
) -> Result<apiserver::Handle, Error> {
    let service_ip = settings.service_subnet(profile)?.nth(1);
    let registry = dependencies.registry.clone();
    let is_new = registry.store().revision() == 0;
    let server = ApiServer::new(dependencies);
    let limits = apiserver::Limits {
        connections: descriptors::api_connections(descriptors::limit()),
        ..apiserver::Limits::default()
    };
    let config = |port| apiserver::Config {
        listen: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)],
        names: vec![
            service_ip.to_string(),
            network.gateway.to_string(),
            profile.name().to_owned(),
            format!("kubernetes.default.svc.{}", settings.dns_domain),
        ],
        limits: limits.clone(),
    };
    // The port of last time, so that a kubeconfig stays right; another one if somebody took it, unless it was asked for.
    let wanted = asked.api_port.unwrap_or(settings.api_port);
    let handle = match server.clone().serve(config(wanted), Arc::clone(pki)).await {
        Err(apiserver::StartError::Listen { address, source }) if asked.api_port.is_some() => {
            return Err(Error::Listen { address, reason: source.to_string(), option: "--api-port" });
        }
        Err(apiserver::StartError::Listen { .. }) if wanted != 0 => server.serve(config(0), Arc::clone(pki)).await?,
        result => result?,
    };
    let port = api_port(&handle);
    for address in &asked.listen {
        handle.listen(SocketAddr::new(*address, port)).await.map_err(|error| match error {
            apiserver::StartError::Listen { address, source } => {
                Error::Listen { address, reason: source.to_string(), option: "--listen" }
            }
            error => error.into(),
        })?;
    }
    let for_pods = match handle.listen(SocketAddr::new(network.gateway.into(), port)).await {
        Ok(address) => Some(address),
        Err(error) => {
            warn!(%error, "pods cannot reach the API");
            None
        }
    };
    let written = bootstrap::write(&registry, handle.server(), pki, port, for_pods).await;
    let health = registry.store().health();
    match written {
        // What there was before does, and there is no way to make space without the API.
        Err(error) if !is_new && health != Health::Healthy => {
            warn!(%error, ?health, "what every cluster has cannot be brought up to date until the store takes writes");
            let (server, pki) = (handle.server().clone(), Arc::clone(pki));
            outstanding.add("what every cluster has", move || {
                let (registry, server, pki) = (registry.clone(), server.clone(), Arc::clone(&pki));
                async move { bootstrap::write(&registry, &server, &pki, port, for_pods).await }
            });
        }
        written => written.map_err(Error::Bootstrap)?,
    }
    write_private(&profile.kubeconfig(), &kubeconfig::administrator(pki, profile, port)?)?;
    if settings.api_port != port {
        settings.api_port = port;
        settings.save(profile)?;
    }
    Ok(handle)
}

/// The port on loopback.
pub(crate) fn api_port(server: &apiserver::Handle) -> u16 {
    server.addresses().first().map_or(0, SocketAddr::port)
}
