//! Pods that nobody will ever end: on nodes that are no more, or finished and too many.
//!
//! Watches Pods and Nodes; deletes Pods whose kubelet cannot. A node counts as gone only after a time in which it may
//! come back (it was renamed, its object was deleted by mistake), and when the API server says so too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::meta::ConditionStatus;
use crate::{meta, pods};

/// For so long a node may be away.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Finished Pods are counted at most so often.
const COUNT_EVERY: Duration = Duration::from_secs(20);
/// The index of finished Pods; all of them are under one value.
const FINISHED: &str = "controllers/finished";

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The Pods of a node that may be gone.
    Node(String),
    /// A Pod that is being deleted and is on no node.
    Unscheduled(ObjectKey),
    /// How many Pods are finished.
    Finished,
}

/// Which of the finished Pods to delete so that `threshold` are left: those that were created first.
pub(crate) fn surplus(mut finished: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    let surplus = finished.len().saturating_sub(threshold);
    finished.sort_by(|a, b| {
        meta::created(&**a).cmp(&meta::created(&**b)).then_with(|| meta::name(&**a).cmp(meta::name(&**b)))
    });
    finished.truncate(surplus);
    finished
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Unscheduled(key) => write!(f, "pod {key}"),
            Self::Finished => f.write_str("finished pods"),
        }
    }
}

/// The controller of Pods that nobody else ends.
pub(crate) struct PodGc {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    threshold: usize,
    queue: WorkQueue<Key>,
}

impl Controller for PodGc {
    const NAME: &'static str = "orphaned_pods_nodes";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = Key;

    fn new(context: &Context, queue: WorkQueue<Key>) -> Self {
        let pods = context.informer::<Pod>();
        pods.index(pods::BY_NODE, pods::node_names);
        pods.index(FINISHED, |pod| if pods::is_finished(pod) { vec![String::new()] } else { Vec::new() });
        let (client, threshold) = (context.client.clone(), context.config.finished_pods);
        Self { client, nodes: context.informer(), pods, threshold, queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.nodes.on_change(move |change| {
            if change.new.is_none() {
                queue.add_after(Key::Node(change.key().name), QUARANTINE, change.cause());
            }
        });
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| {
            let Some(pod) = &change.new else {
                return;
            };
            let queue = &controller.queue;
            if pods::is_finished(pod) {
                queue.add_after(Key::Finished, COUNT_EVERY, change.cause());
            }
            match pods::node_name(pod) {
                None if meta::is_deleting(&**pod) => queue.add(Key::Unscheduled(change.key()), change.cause()),
                Some(node) if change.old.is_none() && controller.nodes.get(&ObjectKey::new("", node)).is_none() => {
                    queue.add_after(Key::Node(node.to_owned()), QUARANTINE, change.cause());
                }
                _ => {}
            }
        });
    }

    async fn synced(&self) {
        self.nodes.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        match key {
            Key::Node(name) => self.orphans_of(name).await?,
            Key::Unscheduled(key) => {
                let pod = self.pods.get(key).filter(|pod| meta::is_deleting(&**pod) && pods::node_name(pod).is_none());
                if let Some(pod) = pod {
                    self.delete(&pod).await?;
                }
            }
            Key::Finished => {
                for pod in surplus(self.pods.by_index(FINISHED, ""), self.threshold) {
                    self.delete(&pod).await?;
                }
            }
        }
        Ok(Action::AwaitChange)
    }
}

impl PodGc {
    async fn orphans_of(&self, node: &str) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        if self.nodes.get(&ObjectKey::new("", node)).is_some() || ok_if_not_found(api.get(node).await)?.is_some() {
            return Ok(());
        }
        for pod in self.pods.by_index(pods::BY_NODE, node) {
            if !pods::is_finished(&pod) {
                self.fail(&pod).await?;
            }
            self.delete(&pod).await?;
        }
        Ok(())
    }

    /// Upstream: whoever waits for the Pod's end (a Job) must see how it ended.
    async fn fail(&self, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace(pod));
        let patch = json!({
            "metadata": { "uid": meta::uid(pod) },
            "status": { "phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": ConditionStatus::True, "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": meta::seconds(Timestamp::now()),
            }] },
        });
        ok_if_not_found(api.patch_status(meta::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        Ok(())
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace(pod));
        let params = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        ok_if_not_found(api.delete(meta::name(pod), &params).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    #[test]
    fn the_oldest_finished_pods_go() {
        let pod = |name: &str, hour: u32| -> Arc<Pod> {
            let created = format!("2026-01-01T0{hour}:00:00Z");
            Arc::new(from_value(json!({ "metadata": { "name": name, "creationTimestamp": created } })).expect("pod"))
        };
        let pods = [pod("c", 3), pod("a", 1), pod("b", 2)];
        for (threshold, expect) in [(0, &["a", "b", "c"][..]), (1, &["a", "b"]), (2, &["a"]), (3, &[]), (9, &[])] {
            let gone = surplus(pods.to_vec(), threshold);
            assert_eq!(gone.iter().map(|pod| meta::name(&**pod)).collect::<Vec<_>>(), expect);
        }
    }
}
