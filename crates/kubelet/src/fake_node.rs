//! Fake nodes: Node objects without a machine, whose pods are said to run without running.
//!
//! A Node with the annotation `kwok.x-k8s.io/node: fake` (KWOK's own convention, so that its manifests work) is kept
//! Ready, and pods that are bound to it are Running and Ready at once, with addresses that lead nowhere; pods of Jobs
//! complete. Annotations say what else they go through ([`stages`]). It is for trying a scheduler, quotas and controllers with more nodes than there are machines.
//!
//! One component serves all such nodes: what is to be written is decided by [`pod::plan`] and [`node::plan`], and a node
//! costs a write when it appears and none afterwards. It renews no lease: thousands of renewals every ten seconds would
//! tell nothing, and the node lifecycle controller knows that a fake node never falls silent.

mod addresses;
mod api;
mod node;
mod pod;
mod staged;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Change, Informer, Informers, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, Request};
use kube::{Client, Resource};
use machinery::well_known::is_fake_node;
use parking_lot::{Mutex, MutexGuard};
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::api::node_api;

use self::addresses::Addresses;
use self::pod::PodAction;

/// The index under which a pod is found by its node.
const BY_NODE: &str = "fake-node/node";
/// So many pods are written at once: enough for their writes to share a sync of the disk, and few enough for what is
/// computed for each, all in this process, not to hold up those who decide where pods go.
const WORKERS: usize = 8;

/// In what time something is looked at again that changed meanwhile.
const AFTER_CONFLICT: Duration = Duration::from_millis(20);

/// What the component works with.
pub struct Deps {
    /// Writes statuses, deletes pods.
    pub client: Client,
    /// Nodes and pods.
    pub informers: Informers,
    /// Version to report in `status.nodeInfo`, such as `v1.36.0`.
    pub kubelet_version: String,
}

/// The running component.
pub struct Handle {
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Handle {
    /// Stops it. Its nodes stay Ready in the API.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whether `node` is a fake node.
pub fn is_fake(node: &Node) -> bool {
    is_fake_node(node.metadata.annotations.as_ref())
}

/// Starts to serve the fake nodes. Without any, it costs nothing.
///
/// Must be called within a tokio runtime.
pub fn start(deps: Deps) -> Handle {
    let cancel = CancellationToken::new();
    let (nodes, pods) = (deps.informers.informer::<Node>(), deps.informers.informer::<Pod>());
    pods.index(BY_NODE, |pod| node_of(pod).map(str::to_owned).into_iter().collect());
    let keeper = Arc::new(Keeper {
        client: deps.client,
        kubelet_version: deps.kubelet_version,
        nodes,
        pods,
        queue: deps.informers.queue("fake_node"),
        addresses: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (keeper, cancel) = (Arc::clone(&keeper), cancel.clone());
        async move {
            // Addresses that pods have already must be known before new ones are given.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = async { tokio::join!(keeper.nodes.synced(), keeper.pods.synced()); } => {}
            }
            keeper.watch();
        }
    });
    tasks.spawn(informer::run(keeper.queue.clone(), WORKERS, cancel.clone(), move |key: Key| {
        let keeper = Arc::clone(&keeper);
        async move { keeper.look_at(key).await }
    }));
    Handle { cancel, tasks }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Node(String),
    Pod(ObjectKey),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Pod(key) => write!(f, "pod {key}"),
        }
    }
}

struct Keeper {
    client: Client,
    kubelet_version: String,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    queue: WorkQueue<Key>,
    addresses: Mutex<Given>,
}

/// The addresses that are in use, by the pod's unique id or the node's name.
#[derive(Default)]
struct Given {
    free: Addresses,
    holders: HashMap<String, u32>,
}

impl Keeper {
    fn watch(self: &Arc<Self>) {
        for pod in self.pods.list() {
            self.addresses()
                .remember(pod.metadata.uid.as_deref(), pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()));
        }
        for node in self.nodes.list() {
            self.addresses().remember(node.metadata.name.as_deref(), node::address(&node));
        }
        let keeper = Arc::clone(self);
        self.nodes.on_change(move |change| keeper.node_changed(change));
        let keeper = Arc::clone(self);
        self.pods.on_change(move |change| keeper.pod_changed(change));
    }

    fn node_changed(&self, change: &Change<Node>) {
        let name = change.key().name;
        match &change.new {
            Some(node) if is_fake(node) => {
                // Pods may have been bound before this node was heard of; and it speaks for those that say nothing.
                let same = |old: &&Node| is_fake(old) && old.metadata.annotations == node.metadata.annotations;
                if change.old.as_deref().filter(same).is_none() {
                    let pods = self.pods.by_index(BY_NODE, &name);
                    pods.iter().for_each(|pod| self.queue.add(Key::Pod(ObjectKey::of(&**pod)), change.cause()));
                }
                self.queue.add(Key::Node(name), change.cause());
            }
            Some(_) => {}
            None => self.addresses().release(&name),
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        match (&change.old, &change.new) {
            (Some(gone), None) => self.addresses().release(gone.metadata.uid.as_deref().unwrap_or_default()),
            (_, Some(pod)) if node_of(pod).is_some_and(|node| self.fake_node(node).is_some()) => {
                self.queue.add(Key::Pod(change.key()), change.cause());
            }
            _ => {}
        }
    }

    fn fake_node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.get(&ObjectKey::new("", name)).filter(|node| is_fake(node))
    }

    async fn look_at(&self, key: Key) -> Result<Action, kube::Error> {
        let result = match &key {
            Key::Node(name) => self.look_at_node(name).await,
            Key::Pod(key) => self.look_at_pod(key).await,
        };
        match result {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::AwaitChange),
            // Another one of the same name by now, or somebody was faster: what there is then is looked at.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Action::RequeueAfter(AFTER_CONFLICT)),
            result => result,
        }
    }

    async fn look_at_node(&self, name: &str) -> Result<Action, kube::Error> {
        let Some(node) = self.fake_node(name) else {
            return Ok(Action::AwaitChange);
        };
        let address = self.addresses().of(name);
        if let Some(status) = node::plan(&node, address, &self.kubelet_version, Timestamp::now()) {
            self.patch_status::<Node>("", name, status).await?;
        }
        Ok(Action::AwaitChange)
    }

    async fn look_at_pod(&self, key: &ObjectKey) -> Result<Action, kube::Error> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Action::AwaitChange);
        };
        let Some(node) = node_of(&pod).and_then(|node| self.fake_node(node)) else {
            return Ok(Action::AwaitChange);
        };
        let host = match node::address(&node) {
            Some(address) => address.to_owned(),
            None => self.addresses().of(node.metadata.name.as_deref().unwrap_or_default()),
        };
        let own = || self.addresses().of(pod.metadata.uid.as_deref().unwrap_or_default());
        match pod::plan(&pod, node.metadata.annotations.as_ref(), &host, own, Timestamp::now()) {
            PodAction::Nothing => Ok(Action::AwaitChange),
            PodAction::Later(wait) => Ok(Action::RequeueAfter(wait)),
            PodAction::Status(status) => {
                self.patch_status::<Pod>(&key.namespace, &key.name, status).await?;
                Ok(Action::AwaitChange)
            }
            PodAction::Delete => {
                self.delete(key, &pod).await?;
                Ok(Action::AwaitChange)
            }
        }
    }

    /// Patches a status, without decoding the answer: the watch tells what is of interest.
    async fn patch_status<K>(&self, namespace: &str, name: &str, patch: Value) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let request = Request::new(K::url_path(&(), namespace)).patch_subresource(
            "status",
            name,
            &PatchParams::default(),
            &Patch::Strategic(patch),
        );
        self.send(request).await
    }

    async fn delete(&self, key: &ObjectKey, pod: &Pod) -> Result<(), kube::Error> {
        let params = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let request = Request::new(Pod::url_path(&(), Some(&key.namespace))).delete(&key.name, &params);
        self.send(request).await
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<(), kube::Error> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        let _: IgnoredAny = self.client.request(request).await?;
        Ok(())
    }

    /// Never held across an await.
    fn addresses(&self) -> MutexGuard<'_, Given> {
        self.addresses.lock()
    }
}

impl Given {
    /// The address of `holder`, which keeps it until it is released.
    fn of(&mut self, holder: &str) -> String {
        if let Some(number) = self.holders.get(holder) {
            return Addresses::text(*number);
        }
        let number = self.free.take();
        self.holders.insert(holder.to_owned(), number);
        Addresses::text(number)
    }

    /// Takes note of an address that was given by an earlier process.
    fn remember(&mut self, holder: Option<&str>, address: Option<&str>) {
        if let (Some(holder), Some(number)) = (holder, address.and_then(|address| self.free.note(address))) {
            self.holders.insert(holder.to_owned(), number);
        }
    }

    fn release(&mut self, holder: &str) {
        if let Some(number) = self.holders.remove(holder) {
            self.free.give_back(number);
        }
    }
}

/// The node that the pod is bound to.
fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}
