//! The composition root: a profile's configuration in, a running cluster out.
//!
//! This is the one place that knows all components. It starts them in the order in which they need each other, wires
//! them in-process, and stops them in the reverse order:
//!
//! ```text
//!  1  lock the profile            nobody else runs it
//!  2  Docker: answers? network    what it refuses is known before anything is written
//!  3  store and registry          which subnets Services have is known now
//!  4  API server                  on loopback; from here on the others are its clients
//!  5  bootstrap objects           namespaces, the Services `kubernetes` and `kube-dns`
//!  6  informers                   one watch for each kind, shared by all that follow
//!  7  metrics                     as APIs of the API server; read nothing until asked
//!  8  DNS                         pods are told of it when they start
//!  9  kubelet, with its port      registers the node, adopts what runs
//! 10  scheduler, controllers      what they write finds a node
//! 11  proxy                       services, last: it needs endpoints
//! 12  further nodes               a kubelet for each Node that asks for one
//! ```
//!
//! It knows neither HTTP nor Docker beyond handing one component to another.

pub mod addons;
mod addresses;
mod api_server;
mod audit;
mod bootstrap;
mod cluster;
mod component_health;
mod connect;
mod descriptors;
mod encryption;
mod error;
mod explain;
mod extra;
mod history;
mod ingress;
mod kubeconfig;
mod kubelets;
mod metrics_api;
mod names;
mod network;
mod own_api;
mod pods;
mod profile;
mod service_network;
mod settings;
pub mod snapshot;
mod stepping;
mod store_health;
pub mod timeline;

pub use addresses::{Addresses, check_dns_domain, check_listen, check_service_subnet, check_subnet};
pub use audit::check_audit_policy;
pub use cluster::{
    Cluster, Config, Progress, admission_plugins, check_pod_security_config, check_scheduler_config, delete,
};
pub use docker::Subnet;
pub use encryption::{check_encryption_config, keep_previous_encryption_config};
pub use error::Error;
pub use history::History;
pub use kubeconfig::EXTENSION;
pub use kubelet::check_unsafe_sysctl;
pub use pods::{docker_host, running_containers, stop_pods};
pub use profile::{Daemon, Home, Profile, ProfileLock};

/// The version of the Kubernetes API that is served, as `kubectl version` shows it.
pub const KUBERNETES_VERSION: &str = apiserver::version::GIT_VERSION;
