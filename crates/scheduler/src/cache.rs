//! What the scheduler knows of nodes and of the pods on them, always including its own latest decisions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::framework::{ClusterEvent, NodeInfo, PodInfo};

/// Nodes with their charges. A pod is charged from the moment it is assumed or seen on a node until it leaves it.
#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    /// By the pod's unique id.
    pods: HashMap<String, Placed>,
}

struct Placed {
    node: String,
    info: Arc<PodInfo>,
    /// Whether this is only a decision so far, which the API server has not confirmed.
    assumed: bool,
}

impl Cache {
    /// All nodes, ordered by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// The node was added or changed. The answer is what may now be possible, if anything.
    pub fn set_node(&mut self, node: Arc<Node>) -> Option<ClusterEvent> {
        let mut info = NodeInfo::new(node);
        let name = info.name().to_owned();
        for placed in self.pods.values().filter(|placed| placed.node == name) {
            info.add(&placed.info);
        }
        match self.nodes.insert(name.clone(), info) {
            None => Some(ClusterEvent::NodeAdded),
            Some(old) => {
                let new = &self.nodes.get(&name)?.node;
                matters(&old.node, new).then_some(ClusterEvent::NodeUpdated)
            }
        }
    }

    /// The node is gone. Its pods stay known, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Charges `node` with a pod that was decided to run there.
    pub fn assume(&mut self, node: &str, info: Arc<PodInfo>) {
        self.place(node, info, true);
    }

    /// Takes a decision back: its binding failed.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            self.lift(uid);
        }
    }

    /// The pod was seen on its node. Whether that changed anything is of no interest: a node that fills up helps nobody.
    pub fn set_pod(&mut self, node: &str, pod: &Arc<Pod>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(placed) = self.pods.get_mut(uid)
            && placed.node == node
            && placed.info.pod.metadata.generation == pod.metadata.generation
        {
            // What a pod asks for changes with its generation only: status updates, the many, end here.
            placed.assumed = false;
            return;
        }
        self.place(node, Arc::new(PodInfo::new(Arc::clone(pod))), false);
    }

    /// The pod left its node or is gone; true if it was charged to one.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        self.lift(uid)
    }

    /// Whether the pod is charged to a node.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    fn place(&mut self, node: &str, info: Arc<PodInfo>, assumed: bool) {
        let uid = info.uid().to_owned();
        self.lift(&uid);
        if let Some(charged) = self.nodes.get_mut(node) {
            charged.add(&info);
        }
        self.pods.insert(uid, Placed { node: node.to_owned(), info, assumed });
    }

    fn lift(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else {
            return false;
        };
        if let Some(node) = self.nodes.get_mut(&placed.node) {
            node.remove(&placed.info);
        }
        true
    }
}

/// Whether the change may let a pod in that was refused. Heartbeats, the most of a node's updates, do not.
fn matters(old: &Node, new: &Node) -> bool {
    let offered = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels || old.spec != new.spec || offered(old) != offered(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, cpu: &str) -> Arc<Node> {
        let node = json!({ "metadata": { "name": name }, "status": { "allocatable": { "cpu": cpu, "pods": "10" } } });
        Arc::new(serde_json::from_value(node).expect("a node"))
    }

    fn pod(uid: &str, cpu: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": { "name": uid, "uid": uid, "generation": 1 },
            "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] },
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn used(cache: &Cache) -> Vec<i64> {
        cache.nodes().map(|node| node.requested.milli_cpu).collect()
    }

    #[test]
    fn a_decision_is_charged_once_and_can_be_taken_back() {
        let mut cache = Cache::default();
        assert_eq!(cache.set_node(node("a", "4")), Some(ClusterEvent::NodeAdded));
        cache.assume("a", Arc::new(PodInfo::new(pod("x", "1"))));
        assert_eq!(used(&cache), [1000]);
        cache.set_pod("a", &pod("x", "1"));
        assert_eq!(used(&cache), [1000], "confirmed, not counted twice");
        cache.forget("x");
        assert_eq!(used(&cache), [1000], "what is confirmed is no longer an assumption");
        cache.assume("a", Arc::new(PodInfo::new(pod("y", "1"))));
        cache.forget("y");
        assert_eq!(used(&cache), [1000]);
        assert!(cache.remove_pod("x") && !cache.remove_pod("x"));
        assert_eq!(used(&cache), [0]);
    }

    #[test]
    fn pods_may_be_seen_before_their_node() {
        let mut cache = Cache::default();
        cache.set_pod("a", &pod("x", "2"));
        cache.set_node(node("a", "4"));
        assert_eq!(used(&cache), [2000]);
        cache.remove_node("a");
        cache.set_node(node("a", "8"));
        assert_eq!(used(&cache), [2000], "a node that comes back has its pods");
    }

    #[test]
    fn only_changes_that_matter_are_told() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "4"));
        assert_eq!(cache.set_node(node("a", "4")), None, "a heartbeat");
        assert_eq!(cache.set_node(node("a", "8")), Some(ClusterEvent::NodeUpdated));
    }
}
