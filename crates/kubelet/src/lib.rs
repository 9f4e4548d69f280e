//! The kubelet: makes the pods that are bound to its node run, and tells the API how they are.
//!
//! It reads the API through informers and writes to it through a [`kube::Client`]; it speaks to containers through the
//! [`runtime::Runtime`] trait and must not know which runtime that is, nor where the API keeps its objects.
//!
//! # The life of a pod
//!
//! One [worker](pod::Worker) per pod compares what the API desires with what the runtime has. [`pod::plan::plan`] decides,
//! without IO and without a clock; the worker has the actions carried out side by side and plans again when something
//! happened. Where a pod is follows from what is seen, never from what was done before ([`pod::plan::stage`]):
//!
//! ```text
//!              deleted, completed, failed               nothing runs              API has let go
//!  Syncing ───────────────────────────► Terminating ─────────────────► Terminated ──────────────► Removing ──► Gone
//!  sandbox, volumes, images,            preStop, SIGTERM, SIGKILL,     status, volumes,           containers,
//!  init containers, containers          sidecars last, sandbox         DELETE if asked for        sandboxes
//! ```
//!
//! A pod that completed stays `Terminated`, with its containers for their logs, until somebody deletes it. Whatever the
//! runtime has of pods that the API does not know is ended and removed, once the API has told what it knows.
//!
//! What runs on a machine that is short of something is ended, and what a pod may not use: `eviction`.
//!
//! Inside, a module imports only those further right: `eviction` → `pods` → [`pod`] → `admission` → `shared` → `allocation` → what a pod is made with (`images`, `objects`,
//! `pleg`, `container`, `volumes`) → [`values`] and [`types`].
//!
//! Fake nodes, which are objects without a machine, are kept by [`fake_node`].
//!
//! # What survives a restart
//!
//! Everything that matters is in the runtime's labels and in the API: a new process adopts what runs. Back-offs start
//! anew, as upstream's do.
//!
//! # Nothing that changes is lost
//!
//! Work under way is a [`Step`](pod::step::Step): what changes meanwhile makes it outdated, and it is done again. Beside
//! that each pod is looked at once in [`Config::sync_period`], and the Node object is compared with what the API has of it,
//! not with what was written last.

mod admission;
mod allocation;
mod api;
mod backoff;
mod config;
mod container;
mod eviction;
pub mod fake_node;
mod health;
mod hooks;
mod image_gc;
mod images;
mod mailbox;
mod measures;
mod node;
mod objects;
mod pleg;
mod pod;
mod pods;
mod probes;
mod report;
mod shared;
mod stats;
pub mod test_runtime;
#[cfg(test)]
mod testing;
mod time;
mod types;
mod values;
mod volumes;

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use informer::{Informer, Informers, Recorder};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client};
use runtime::Runtime;
use streaming::NodeApi;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use admission::check_unsafe_sysctl;
pub use config::{Config, NetworkState};
pub use eviction::signals::Thresholds;
pub use measures::{Amount, FileSystem, Kernel, Measurement, Measures};
pub use volumes::lasting;

use crate::objects::Objects;
use crate::pods::Pods;
use crate::report::Reporter;
use crate::shared::Shared;

/// The name under which the workers of pods report what they do ([`informer::Reconciler::NAME`]); their keys are those of the pods.
pub const COMPONENT: &str = "kubelet";
/// What a worker reports when it writes the status of its pod.
pub const PATCH_STATUS: &str = "patch the status";

/// What a kubelet works with.
pub struct Deps {
    /// Writes, and the watches of its own pods and of what they refer to.
    pub client: Client,
    /// Reads of what others in the process read as well: services.
    pub informers: Informers,
    /// The containers.
    pub runtime: Arc<dyn Runtime>,
    /// How much of the machine is left.
    pub measures: Arc<dyn Measures>,
}

/// Why a kubelet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error("cannot use the kubelet's directory {}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A running kubelet.
pub struct Handle {
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    api: Arc<api::Api>,
}

/// Starts a kubelet. It registers its node by itself, whenever API and runtime can be reached.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the folders of its state cannot be made.
pub fn start(config: Config, deps: Deps) -> Result<Handle, Error> {
    let pods_dir = volumes::pods_directory(&config.state_dir);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&pods_dir)
        .map_err(|source| Error::StateDir { path: pods_dir.clone(), source })?;
    let (client, cancel) = (deps.client.clone(), CancellationToken::new());
    let node = config.node_name.clone();
    let recorder = Recorder::new(client.clone(), "kubelet", Some(node.clone()));
    let selector = format!("spec.nodeName={node}");
    let watch = watcher::Config::default().fields(&selector).streaming_lists();
    let informer = Informer::<Pod>::start(Api::all(client.clone()), watch, cancel.clone());
    let shared = Arc::new(Shared::new(
        config,
        &deps,
        Objects::new(client, cancel.clone()),
        Reporter::new(recorder, &node),
        deps.informers.reconciles().reporter::<pod::Worker>(),
    ));
    let pods = Arc::new(Pods::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(node::run(Arc::clone(&shared), cancel.clone()));
    tasks.spawn(node::renew(Arc::clone(&shared), cancel.clone()));
    tasks.spawn(eviction::run(Arc::clone(&shared), Arc::clone(&pods), cancel.clone()));
    tasks.spawn(pods::run(Arc::clone(&shared), Arc::clone(&pods), informer, cancel.clone()));
    let api = Arc::new(api::Api::new(shared, pods));
    Ok(Handle { cancel, tasks, api })
}

impl Handle {
    /// What the kubelet answers to `logs`, `exec`, `attach` and `port-forward`.
    pub fn node_api(&self) -> Arc<dyn NodeApi> {
        Arc::clone(&self.api) as Arc<dyn NodeApi>
    }

    /// Stops. Containers go on running, and are adopted by the next kubelet of this node.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
