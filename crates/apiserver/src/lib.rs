//! The API server: HTTP(S) in front of the [`registry`].
//!
//! It turns requests into calls of the registry and what comes back into responses: TLS, who is asking, whether they may,
//! which handler, in which form. It must not know how objects are stored (RocksDB) or how containers are run (Docker), and
//! it has no code that is about one kind: everything about a kind comes out of the registry's table.
//!
//! # The way of a request
//!
//! 1. [`serve`]: TCP → TLS → HTTP/1.1 or HTTP/2, or [`local`]: a client in this process.
//! 2. [`server`]: what the path means ([`path`]) → who is asking ([`authn`], 401) → may they ([`authz`], 403) → is it their turn
//!    ([`flowcontrol`], 429). Once it is known who asks, [`audit`] begins to note what the policy wants, and ends with the answer.
//! 3. [`aggregator`]: another API server, where an APIService says so. Else [`resource`]: the one set of handlers for objects of
//!    every kind (get, list, watch, create, update, patch, delete, subresources, logs and exec through the node, proxy), an
//!    [`AggregatedApi`] or one of the [`reviews`] among them; or
//!    [`non_resource`]: [`documents`] of [`discovery`] and [`openapi`], [`health`], [`metrics`].
//! 4. [`respond`]: JSON, YAML, [`protobuf`], Table or metadata, as [`negotiate`]d; an error becomes a `Status` there and nowhere
//!    else.
//!
//! A kubelet has a port of its own beside that of the server: [`KubeletPorts`].
//!
//! # Use
//!
//! [`ApiServer::start`] with a [`Config`] and [`Dependencies`]; the [`Handle`] knows the bound addresses and ends it.
//! Certificates come from [`pki::Pki`]. Components in the process call through [`ApiServer::client`].

mod aggregated_api;
mod aggregator;
pub mod audit;
mod authentication_config;
pub mod authn;
pub mod authz;
mod body;
mod catalog;
mod counts;
mod discovery;
mod documents;
mod endpoints;
mod flowcontrol;
mod forward;
mod handle;
mod health;
mod keyspace;
mod kubelet;
mod kubelet_ports;
mod kubelet_routes;
mod lifecycle;
mod limits;
mod local;
mod metrics;
mod negotiate;
mod non_resource;
mod openapi;
mod past;
mod path;
mod peer;
pub mod pki;
mod protobuf;
mod query;
mod resource;
mod respond;
mod reviews;
mod serve;
mod server;
mod streams;
pub mod tokens;
pub mod version;
mod webhooks;

pub use aggregated_api::{AggregatedApi, AggregatedResource, AggregatedService};
pub use authn::User;
pub use endpoints::Served;
pub use handle::{Config, Handle, StartError};
pub use kubelet_ports::{BoundKubeletPort, KubeletPort, KubeletPorts};
pub use limits::RequestLimits;
pub use resource::NodeConnector;
pub use serve::Limits;
pub use serve::tls::TlsError;
pub use server::{ApiServer, Dependencies};

use std::sync::Arc;

use kinds::AdmissionConfig;
use registry::admission::AdmissionPlugin;
use registry::{Registry, Storage};
use store::OpenError;

/// Opens the registry that an API server serves: its writes are checked by roles and bindings, its webhooks called by HTTPS.
/// Answers with the authorizer as well, which reads the same roles. The plugins of admission are configured by `admission`;
/// `addons` are those of addons.
///
/// # Errors
/// When the store cannot be opened.
pub fn open(
    options: registry::Options,
    addons: &[&'static dyn AdmissionPlugin],
    admission: AdmissionConfig,
) -> Result<(Registry, Arc<authz::Rbac>), OpenError> {
    let storage = Storage::open(options, kinds::all())?;
    let rbac = authz::Rbac::new(storage.store());
    let escalation = Arc::clone(&rbac) as _;
    let plugins = kinds::plugins(addons, admission);
    let dependencies = registry::Dependencies { escalation, webhooks: Arc::new(webhooks::Caller), plugins };
    Ok((Registry::new(storage, dependencies), rbac))
}

#[cfg(test)]
mod tests;
