//! The proxy for Ingresses and the Gateway API: what it needs of the API, and the certificate of names that have none.

use std::collections::BTreeSet;
use std::sync::Arc;

use apiserver::User;
use apiserver::pki::{Pki, RENEWAL_CHECK};
use docker::Network;
use gateway::INGRESS_CONTROLLER;
use informer::{Informers, Recorder};
use machinery::status::ApiError;
use registry::{Registry, Target};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::descriptors;

/// Of the IngressClass that every cluster has.
const CLASS: &str = "coracle";
/// So many names are in the certificate; clients take no certificate of any length.
const NAMES: usize = 500;

/// The running proxy.
pub(crate) struct Ingress {
    handle: Arc<gateway::Handle>,
    certify: JoinHandle<()>,
    cancel: CancellationToken,
}

/// Writes the class of Ingresses that are answered here, unless there is one of its name. It is the default: an Ingress works
/// without a class, as long as nobody marks another one.
///
/// # Errors
/// As `Registry::ensure`.
pub(crate) async fn ensure_class(registry: &Registry) -> Result<(), ApiError> {
    let resources = registry.resources();
    let Some(classes) = resources.get("networking.k8s.io", "v1", "ingressclasses") else { return Ok(()) };
    registry.ensure(&Target::object(classes, "", CLASS), class()).await
}

fn class() -> Value {
    json!({
        "metadata": { "annotations": { "ingressclass.kubernetes.io/is-default-class": "true" } },
        "spec": { "controller": INGRESS_CONTROLLER },
    })
}

/// Starts it: at loopback, and for pods at the node's address on the bridge.
pub(crate) fn start(server: &apiserver::Handle, informers: &Informers, network: &Network, pki: &Arc<Pki>) -> Ingress {
    let client = server.client(User::component("system:gateway"), "default");
    let connections = descriptors::gateway_connections(descriptors::limit());
    let limits = gateway::Limits { connections, requests: connections, ..gateway::Limits::default() };
    let mut config = gateway::Config { limits, ..gateway::Config::default() };
    config.addresses.push(network.gateway.into());
    let recorder = Recorder::new(client.clone(), "coracle-gateway", None);
    let handle = Arc::new(gateway::start(client, informers, recorder, config));
    let cancel = CancellationToken::new();
    let (follow, told, pki) = (cancel.clone(), Arc::clone(&handle), Arc::clone(pki));
    let certify = tokio::spawn(async move {
        follow.run_until_cancelled(certify(told.uncertified(), &told, &pki)).await;
    });
    Ingress { handle, certify, cancel }
}

impl Ingress {
    /// Stops it.
    pub(crate) async fn shutdown(self) {
        self.cancel.cancel();
        // It fails only if it panicked, and then there is nothing left to end.
        let _ = self.certify.await;
        if let Some(handle) = Arc::into_inner(self.handle) {
            handle.shutdown().await;
        }
    }
}

/// Keeps a certificate for the names that have none of their own, for ever.
async fn certify(mut uncertified: watch::Receiver<BTreeSet<String>>, handle: &gateway::Handle, pki: &Pki) {
    loop {
        let names = names(&uncertified.borrow_and_update());
        let certified = pki.ingress(&names).map_err(|error| error.to_string());
        let certified = certified.and_then(|credential| {
            let set = handle.set_default_certificate(&credential.certificate_pem, &credential.key_pem);
            set.map_err(|error| error.to_string())
        });
        if let Err(error) = certified {
            warn!(error, "hosts of Ingresses without a certificate of their own keep the one before");
        }
        let changed = tokio::time::timeout(RENEWAL_CHECK, uncertified.changed()).await;
        if changed.is_ok_and(|changed| changed.is_err()) {
            return;
        }
    }
}

/// What is in the certificate: these names, and this machine's.
fn names(uncertified: &BTreeSet<String>) -> Vec<String> {
    if uncertified.len() > NAMES {
        warn!(
            names = uncertified.len(),
            NAMES, "more hosts of Ingresses have no certificate of their own than one can name"
        );
    }
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let others = uncertified.iter().filter(|name| !own.contains(name)).take(NAMES).cloned();
    own.iter().cloned().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_the_hosts_and_the_machine() {
        let of = |hosts: &[&str]| names(&hosts.iter().map(|host| (*host).to_owned()).collect());
        assert_eq!(of(&[]), ["localhost", "127.0.0.1", "::1"]);
        assert_eq!(of(&["web.localhost", "localhost"]), ["localhost", "127.0.0.1", "::1", "web.localhost"]);
    }

    #[test]
    fn a_certificate_has_an_end() {
        let hosts = (0..NAMES + 20).map(|number| format!("{number}.localhost")).collect();
        assert_eq!(names(&hosts).len(), NAMES + 3);
    }
}
