//! Nodes: gives up those that fall silent, and moves their Pods elsewhere.
//!
//! Watches Nodes, their Leases and Pods; owns the conditions of silent nodes and the taints `node.kubernetes.io/...`.
//! What counts is when this process last saw a sign of life, by a clock that does not run while the machine sleeps, and
//! never what is written in it: a laptop that was closed over night evicts nothing. The decisions are [`plan::plan`],
//! [`evict::plan`] and [`sleep::Detector`].

pub(crate) mod evict;
mod plan;
mod sleep;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Change, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher;
use machinery::well_known::NODE_LEASES;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio::time::Instant;

use self::evict::Verdict;
use self::plan::{GRACE, Plan};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::meta::ConditionStatus;
use crate::{meta, pods};

/// A sign of life: when the lease was renewed and when the status was written, as the node says.
type Sign = (Option<MicroTime>, Option<Time>);

#[derive(Debug, Default, Clone)]
struct Heartbeat {
    sign: Sign,
    /// When the sign was last seen to change.
    seen: Option<Instant>,
}

#[derive(Debug, Default)]
struct Memory {
    heartbeats: HashMap<String, Heartbeat>,
    /// Since when each Pod is known to be on a node that drives it away, by UID.
    driven: HashMap<String, Instant>,
    /// The nodes that say they are ready.
    ready: HashSet<String>,
}

/// The controller of Nodes that fall silent.
pub(crate) struct NodeLifecycle {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    leases: Informer<Lease>,
    recorder: Recorder,
    queue: WorkQueue<String>,
    memory: Mutex<Memory>,
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node_lifecycle_controller";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = String;

    fn new(context: &Context, queue: WorkQueue<String>) -> Self {
        let (nodes, pods) = (context.informer(), context.informer::<Pod>());
        pods.index(pods::BY_NODE, pods::node_names);
        let api = kube::Api::namespaced(context.client.clone(), NODE_LEASES);
        Self {
            recorder: context.recorder("node-controller"),
            client: context.client.clone(),
            nodes,
            pods,
            leases: Informer::start(api, watcher::Config::default().streaming_lists(), context.cancel.clone()),
            queue,
            memory: Mutex::default(),
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.nodes.on_change(move |change| controller.node_changed(change));
        let controller = Arc::clone(self);
        self.leases.on_change(move |change| {
            if let Some(lease) = &change.new {
                let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
                controller.heard(&change.key().name, |sign| sign.0 = renewed);
            }
        });
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| {
            let Some(pod) = &change.new else {
                return;
            };
            if let Some(node) = pods::node_name(pod)
                && let Some(known) = controller.nodes.get(&ObjectKey::new("", node))
                && !evict::driving(taints(&known)).is_empty()
            {
                controller.queue.add(node.to_owned(), change.cause());
            }
        });
    }

    async fn synced(&self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        self.leases.synced().await;
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(node) = self.nodes.get(&ObjectKey::new("", name)) else {
            return Ok(Action::AwaitChange.because("the node is gone"));
        };
        let is_fake = plan::is_fake(&node);
        let (silent_for, others_down) = {
            let mut memory = self.memory();
            let others = memory.ready.len() - usize::from(memory.ready.contains(name));
            let seen = memory.heartbeats.entry(name.to_owned()).or_default().seen.get_or_insert_with(Instant::now);
            (if is_fake { Duration::ZERO } else { seen.elapsed() }, others == 0)
        };
        let plan = plan::plan(&node, silent_for, others_down, Timestamp::now());
        let drives = plan.taints.clone().unwrap_or_else(|| taints(&node).to_vec());
        self.apply(&node, plan).await?;
        let next_eviction = self.evict(name, &drives).await?;
        // A node that is given up speaks when it comes back.
        let next_look = (silent_for < GRACE && !is_fake).then(|| GRACE - silent_for);
        Ok(next_eviction.into_iter().chain(next_look).min().into())
    }

    /// Everybody starts afresh after a sleep.
    async fn background(&self) {
        let start = Instant::now();
        let mut detector = sleep::Detector::new(Timestamp::now(), Duration::ZERO);
        loop {
            tokio::time::sleep(sleep::PERIOD).await;
            if detector.observe(Timestamp::now(), start.elapsed()) {
                tracing::info!("the machine slept: every node has a full grace period again");
                let now = Instant::now();
                let mut memory = self.memory();
                memory.heartbeats.values_mut().for_each(|heartbeat| heartbeat.seen = Some(now));
                memory.driven.values_mut().for_each(|since| *since = now);
            }
        }
    }
}

impl NodeLifecycle {
    fn node_changed(&self, change: &Change<Node>) {
        let name = change.key().name;
        let Some(node) = &change.new else {
            self.memory().heartbeats.remove(&name);
            self.set_ready(&name, false, change);
            return;
        };
        let heard = plan::condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone());
        self.heard(&name, |sign| sign.1 = heard);
        if change.old.is_none() {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder.event(&meta::reference(&**node), EventType::Normal, "RegisteredNode", message);
        }
        self.set_ready(&name, plan::is_ready(node), change);
        self.queue.add(name, change.cause());
    }

    /// Whether others may evict depends on the last one or two that are ready.
    fn set_ready(&self, name: &str, ready: bool, change: &Change<Node>) {
        let mut memory = self.memory();
        let changed = if ready { memory.ready.insert(name.to_owned()) } else { memory.ready.remove(name) };
        let few = memory.ready.len() <= 2;
        drop(memory);
        if changed && few {
            let nodes = self.nodes.list();
            nodes.iter().for_each(|node| self.queue.add(meta::name(&**node).to_owned(), change.cause()));
        }
    }

    fn heard(&self, node: &str, change: impl FnOnce(&mut Sign)) {
        let mut memory = self.memory();
        let heartbeat = memory.heartbeats.entry(node.to_owned()).or_default();
        let before = heartbeat.sign.clone();
        change(&mut heartbeat.sign);
        if heartbeat.sign != before || heartbeat.seen.is_none() {
            heartbeat.seen = Some(Instant::now());
        }
    }

    async fn apply(&self, node: &Node, plan: Plan) -> Result<(), Error> {
        let (api, name) = (Api::<Node>::all(self.client.clone()), meta::name(node));
        // Whoever writes at the same time must not lose what they write: a node that speaks again its conditions, an
        // administrator their taints.
        let mut version = node.metadata.resource_version.clone();
        if !plan.conditions.is_empty() {
            let patch =
                json!({ "metadata": { "resourceVersion": version }, "status": { "conditions": plan.conditions } });
            let answer = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            version = ok_if_not_found(answer)?.and_then(|written| written.metadata.resource_version);
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder.event(&meta::reference(node), EventType::Normal, "NodeNotReady", message);
        }
        if let Some(taints) = plan.taints {
            let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "taints": taints } });
            ok_if_not_found(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        }
        if plan.unready_pods {
            for pod in self.pods.by_index(pods::BY_NODE, name) {
                if pods::is_ready(&pod) && !pods::is_finished(&pod) {
                    self.mark_unready(&pod).await?;
                }
            }
        }
        Ok(())
    }

    async fn mark_unready(&self, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace(pod));
        let patch = json!({
            "metadata": { "uid": meta::uid(pod), "resourceVersion": pod.metadata.resource_version },
            "status": { "conditions": [{
                "type": "Ready", "status": ConditionStatus::False, "lastTransitionTime": meta::seconds(Timestamp::now()),
            }] },
        });
        ok_if_not_found(api.patch_status(meta::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        self.recorder.event(&meta::reference(pod), EventType::Warning, "NodeNotReady", "Node is not ready");
        Ok(())
    }

    /// Deletes the Pods that the node drives away and whose time has come; the answer is when the next one's comes.
    async fn evict(&self, node: &str, taints: &[Taint]) -> Result<Option<Duration>, Error> {
        let taints = evict::driving(taints);
        let mut next: Option<Duration> = None;
        for pod in self.pods.by_index(pods::BY_NODE, node) {
            let uid = meta::uid(&*pod);
            if taints.is_empty() || meta::is_deleting(&*pod) || pods::is_finished(&pod) {
                self.memory().driven.remove(uid);
                continue;
            }
            let since = self.memory().driven.entry(uid.to_owned()).or_insert_with(Instant::now).elapsed();
            match evict::plan(&pod, &taints, since) {
                Verdict::Stays => {}
                Verdict::Leaves(Duration::ZERO) => self.evict_one(&pod).await?,
                Verdict::Leaves(wait) => next = Some(next.map_or(wait, |next| next.min(wait))),
            }
        }
        Ok(next)
    }

    async fn evict_one(&self, pod: &Pod) -> Result<(), Error> {
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.recorder.event(&meta::reference(pod), EventType::Normal, "TaintManagerEviction", message);
        let patch = json!({
            "metadata": { "uid": meta::uid(pod) },
            "status": { "conditions": [{
                "type": "DisruptionTarget", "status": ConditionStatus::True, "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": meta::seconds(Timestamp::now()),
            }] },
        });
        ok_if_not_found(api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        ok_if_not_found(api.delete(name, &params).await)?;
        self.memory().driven.remove(meta::uid(pod));
        Ok(())
    }

    /// What is remembered. Never held across an await.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}
