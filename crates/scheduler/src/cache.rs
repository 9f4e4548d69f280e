//! What the scheduler knows of the cluster, always including its own latest decisions.
//!
//! One task owns it and decides on it directly, so there are no snapshots: a decision costs no copy of anything. Pods
//! are found by their labels and by their owners without walking over all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use informer::give_back;
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::selector::{LabelSelector, Operator};

use crate::resources::Resources;
use crate::storage::Storage;
use crate::types::{GroupKey, Namespaces, NodeId, NodeInfo, PodInfo};

/// Nodes with their charges. A pod is charged from the moment it is assumed or seen on a node until it leaves it.
#[derive(Default)]
pub struct Cache {
    /// By their numbers. Those of nodes that went are given again.
    nodes: Vec<Option<NodeInfo>>,
    free: Vec<NodeId>,
    by_name: HashMap<String, NodeId>,
    /// What all nodes offer together.
    total: Resources,
    /// By the pod's unique id.
    pods: HashMap<String, Placed>,
    /// Pods on nodes, by `NAMESPACE|KEY=VALUE` of each of their labels.
    by_label: HashMap<String, Vec<(NodeId, Arc<PodInfo>)>>,
    /// How many pods of an owner are on each node, those that are going aside.
    by_owner: HashMap<String, HashMap<NodeId, i64>>,
    /// How many pods of a group are on nodes, and what they ask for together.
    by_group: HashMap<GroupKey, (usize, Resources)>,
    /// How many pods mount a claim.
    claims: HashMap<String, usize>,
    /// Nodes with pods that have affinities of any sort, and with pods that must be far from others.
    pub(crate) with_affinity: BTreeMap<NodeId, usize>,
    pub(crate) with_anti_affinity: BTreeMap<NodeId, usize>,
    /// On how many nodes each image is.
    images: HashMap<String, usize>,
    /// Pods for which a node is being cleared, by the node's name.
    nominated: HashMap<String, Vec<Arc<PodInfo>>>,
    /// The labels of namespaces.
    pub namespaces: Namespaces,
    /// Claims, volumes and storage classes.
    pub storage: Storage,
}

/// What is news of a pod on its node.
pub struct PodChange {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// Whether it is new there, or has other labels.
    pub appeared: bool,
    /// Whether it counts for less than before.
    pub scaled_down: bool,
}

/// A pod that was taken out of the books for a trial.
pub(crate) struct Charge(Placed);

struct Placed {
    node: String,
    info: Arc<PodInfo>,
    /// Whether this is only a decision so far, which the API server has not confirmed.
    assumed: bool,
}

impl Cache {
    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().flatten()
    }

    /// All nodes, beginning with the one of this number, or after it.
    pub fn nodes_from(&self, first: usize) -> impl Iterator<Item = &NodeInfo> {
        let (before, after) = self.nodes.split_at(first.min(self.nodes.len()));
        after.iter().chain(before).flatten()
    }

    /// What all nodes offer together.
    pub fn total(&self) -> &Resources {
        &self.total
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The node of this number.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id.0 as usize)?.as_ref()
    }

    /// The node of this name.
    pub fn node_named(&self, name: &str) -> Option<&NodeInfo> {
        self.node(*self.by_name.get(name)?)
    }

    /// The node was added or changed. The answer is it, if that may let a pod in that was refused.
    pub fn set_node(&mut self, node: Arc<Node>) -> Option<&NodeInfo> {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(id) = self.by_name.get(&name).copied() {
            let known = self.nodes.get_mut(id.0 as usize)?.as_mut()?;
            let matters = matters(&known.node, &node);
            let before = Arc::clone(&known.images);
            self.total.subtract(&known.allocatable);
            known.update(node);
            self.total.add(&known.allocatable);
            let after = Arc::clone(&known.images);
            if !Arc::ptr_eq(&before, &after) {
                self.count_images(&before, false);
                self.count_images(&after, true);
            }
            return self.node(id).filter(|_| matters);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            NodeId(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
        });
        let mut info = NodeInfo::new(node);
        info.id = id;
        self.total.add(&info.allocatable);
        self.count_images(&Arc::clone(&info.images), true);
        self.nodes[id.0 as usize] = Some(info);
        // Pods may be seen before their node.
        let waiting: Vec<Arc<PodInfo>> =
            self.pods.values().filter(|placed| placed.node == name).map(|placed| Arc::clone(&placed.info)).collect();
        self.by_name.insert(name, id);
        for pod in waiting {
            self.charge(id, &pod);
        }
        self.node(id)
    }

    /// The node is gone. Its pods stay known, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.by_name.remove(name) else {
            return;
        };
        let pods = self.node(id).map(|node| node.pods.clone()).unwrap_or_default();
        for pod in pods {
            self.discharge(id, &pod);
        }
        if let Some(node) = self.nodes[id.0 as usize].take() {
            self.count_images(&node.images, false);
            self.total.subtract(&node.allocatable);
        }
        self.free.push(id);
    }

    /// Charges `node` with a pod that was decided to run there.
    pub fn assume(&mut self, node: &str, info: Arc<PodInfo>) {
        self.place(node, info, true);
    }

    /// Takes a decision back. The answer is the pod.
    pub fn forget(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) { self.lift(uid) } else { None }
    }

    /// The pod was seen on its node. The answer is what of that is news to pods that wait.
    pub fn set_pod(&mut self, node: &str, pod: &Pod) -> Option<PodChange> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut appeared = true;
        if let Some(placed) = self.pods.get_mut(uid)
            && placed.node == node
        {
            // A decision that is confirmed is news to those who wait for this pod to be somewhere.
            appeared = std::mem::replace(&mut placed.assumed, false);
            if !placed.info.is_outdated_by(pod) {
                let info = Arc::clone(&placed.info);
                return appeared.then_some(PodChange { info, appeared, scaled_down: false });
            }
        }
        let info = Arc::new(PodInfo::new(pod));
        let before = self.pods.get(uid).map(|placed| Arc::clone(&placed.info));
        self.place(node, Arc::clone(&info), false);
        appeared |= before.as_ref().is_none_or(|before| before.labels != info.labels);
        let scaled_down = before.is_some_and(|before| {
            before.requests.milli_cpu > info.requests.milli_cpu || before.requests.memory > info.requests.memory
        });
        (appeared || scaled_down).then_some(PodChange { info, appeared, scaled_down })
    }

    /// The pod left its node or is gone. The answer is it, if it was charged to one.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.lift(uid)
    }

    /// For a trial, the pod has left its node.
    pub(crate) fn take_out(&mut self, uid: &str) -> Option<Charge> {
        let Placed { node, assumed, .. } = self.pods.get(uid)?;
        let (node, assumed) = (node.clone(), *assumed);
        Some(Charge(Placed { node, assumed, info: self.lift(uid)? }))
    }

    /// The trial is over.
    pub(crate) fn put_back(&mut self, Charge(Placed { node, info, assumed }): Charge) {
        self.place(&node, info, assumed);
    }

    /// Whether the pod is charged to a node.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// How many pods mount the claim `NAMESPACE/NAME`.
    pub fn claim_users(&self, claim: &str) -> usize {
        self.claims.get(claim).copied().unwrap_or(0)
    }

    /// On how many nodes the image of this name is.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// How many pods of an owner are on each node.
    pub fn pods_of(&self, owner: &str) -> Option<&HashMap<NodeId, i64>> {
        self.by_owner.get(owner)
    }

    /// How many pods of a group are on nodes, and what they ask for together.
    pub fn group_use(&self, group: &GroupKey) -> Option<&(usize, Resources)> {
        self.by_group.get(group)
    }

    /// The pods on nodes whose labels `selector` may match, in one of `namespaces` (`None`: in any). Which of them it
    /// does match is for the caller to find out.
    pub fn candidates<'a>(
        &'a self,
        selector: &'a LabelSelector,
        namespaces: Option<&'a BTreeSet<String>>,
    ) -> Box<dyn Iterator<Item = (NodeId, &'a Arc<PodInfo>)> + 'a> {
        if selector.is_nothing() {
            return Box::new(std::iter::empty());
        }
        let named = selector.requirements().iter().find(|term| term.operator == Operator::In);
        match (named, namespaces) {
            (Some(term), Some(namespaces)) => Box::new(
                namespaces
                    .iter()
                    .flat_map(move |namespace| {
                        let keys = term.values.iter().map(move |value| label_key(namespace, &term.key, value));
                        keys.filter_map(|key| self.by_label.get(&key))
                    })
                    .flatten()
                    .map(|(id, pod)| (*id, pod)),
            ),
            _ => Box::new(self.nodes().flat_map(|node| node.pods.iter().map(move |pod| (node.id, pod)))),
        }
    }

    /// Notes that `node` is being cleared for a pod.
    pub fn nominate(&mut self, info: &Arc<PodInfo>, node: &str) {
        self.withdraw(&info.uid);
        self.nominated.entry(node.to_owned()).or_default().push(Arc::clone(info));
    }

    /// Takes a decision back whose binding failed. The answer is the pod. One of a group keeps its place until it is tried
    /// again: others of the group may be bound, and could do nothing with that if somebody else had it.
    pub fn not_bound(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let node = self.pods.get(uid)?.node.clone();
        let info = self.forget(uid)?;
        if info.group.is_some() {
            self.nominate(&info, &node);
        }
        Some(info)
    }

    /// No node is being cleared, or kept, for the pod any more. The answer is which one was, and the pod.
    pub fn withdraw(&mut self, uid: &str) -> Option<(String, Arc<PodInfo>)> {
        let mut nominated = self.nominated.iter();
        let (node, at) = nominated.find_map(|(node, pods)| {
            let at = pods.iter().position(|pod| pod.uid == uid)?;
            Some((node.clone(), at))
        })?;
        let pods = self.nominated.get_mut(&node)?;
        let pod = pods.remove(at);
        if pods.is_empty() {
            self.nominated.remove(&node);
        }
        Some((node, pod))
    }

    /// The pods for which `node` is being cleared and that go before `pod`.
    pub fn nominated_before(&self, node: &NodeInfo, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        if self.nominated.is_empty() {
            return Vec::new();
        }
        let waiting = self.nominated.get(node.name()).into_iter().flatten();
        // One that has its place comes no more.
        let comes = |other: &Arc<PodInfo>| other.uid != pod.uid && !self.is_placed(&other.uid);
        waiting.filter(|other| other.priority >= pod.priority && comes(other)).cloned().collect()
    }

    fn place(&mut self, node: &str, info: Arc<PodInfo>, assumed: bool) {
        self.lift(&info.uid);
        if let Some(id) = self.by_name.get(node).copied() {
            self.charge(id, &info);
        }
        self.pods.insert(info.uid.clone(), Placed { node: node.to_owned(), info, assumed });
    }

    fn lift(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let placed = self.pods.remove(uid)?;
        give_back(&mut self.pods);
        if let Some(id) = self.by_name.get(&placed.node).copied() {
            self.discharge(id, &placed.info);
        }
        Some(placed.info)
    }

    fn charge(&mut self, id: NodeId, info: &Arc<PodInfo>) {
        if let Some(node) = &mut self.nodes[id.0 as usize] {
            node.add(Arc::clone(info));
        }
        for (key, value) in &info.labels {
            let pods = self.by_label.entry(label_key(&info.namespace, key, value)).or_default();
            pods.push((id, Arc::clone(info)));
        }
        if let Some(owner) = info.owner.as_ref().filter(|_| !info.deleting) {
            *self.by_owner.entry(owner.clone()).or_default().entry(id).or_default() += 1;
        }
        if let Some(group) = &info.group {
            let (count, requests) = self.by_group.entry(group.clone()).or_default();
            *count += 1;
            requests.add(&info.requests);
        }
        for claim in &info.claims {
            *self.claims.entry(claim.clone()).or_default() += 1;
        }
        if let Some(affinity) = &info.affinity {
            *self.with_affinity.entry(id).or_default() += 1;
            if !affinity.anti_required.is_empty() {
                *self.with_anti_affinity.entry(id).or_default() += 1;
            }
        }
    }

    fn discharge(&mut self, id: NodeId, info: &Arc<PodInfo>) {
        if let Some(node) = &mut self.nodes[id.0 as usize] {
            node.remove(&info.uid);
        }
        for (key, value) in &info.labels {
            let key = label_key(&info.namespace, key, value);
            if let Some(pods) = self.by_label.get_mut(&key) {
                if let Some(position) = pods.iter().rposition(|(_, pod)| pod.uid == info.uid) {
                    pods.swap_remove(position);
                }
                if pods.is_empty() {
                    self.by_label.remove(&key);
                    give_back(&mut self.by_label);
                }
            }
        }
        if let Some(owner) = info.owner.as_ref().filter(|_| !info.deleting)
            && let Some(nodes) = self.by_owner.get_mut(owner)
        {
            less(nodes, &id);
            if nodes.is_empty() {
                self.by_owner.remove(owner);
                give_back(&mut self.by_owner);
            }
        }
        if let Some(group) = &info.group
            && let Some((count, requests)) = self.by_group.get_mut(group)
        {
            *count -= 1;
            requests.subtract(&info.requests);
            if *count == 0 {
                self.by_group.remove(group);
            }
        }
        for claim in &info.claims {
            less(&mut self.claims, claim);
        }
        let once = |counts: &mut BTreeMap<NodeId, usize>| {
            if let Some(count) = counts.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&id);
                }
            }
        };
        if let Some(affinity) = &info.affinity {
            once(&mut self.with_affinity);
            if !affinity.anti_required.is_empty() {
                once(&mut self.with_anti_affinity);
            }
        }
    }

    fn count_images(&mut self, images: &HashMap<String, i64>, added: bool) {
        for name in images.keys() {
            if added {
                *self.images.entry(name.clone()).or_default() += 1;
            } else {
                less(&mut self.images, name);
            }
        }
    }
}

/// One less; what was the last one is forgotten.
fn less<K, V>(counts: &mut HashMap<K, V>, key: &K)
where
    K: std::hash::Hash + Eq,
    V: Copy + std::ops::SubAssign + PartialEq + From<u8>,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= V::from(1);
        if *count == V::from(0) {
            counts.remove(key);
        }
    }
}

fn label_key(namespace: &str, key: &str, value: &str) -> String {
    // None of the parts can contain the separators.
    let mut text = String::with_capacity(namespace.len() + key.len() + value.len() + 2);
    text.push_str(namespace);
    text.push('|');
    text.push_str(key);
    text.push('=');
    text.push_str(value);
    text
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

    fn pod(uid: &str, cpu: &str) -> Pod {
        let pod = json!({
            "metadata": { "name": uid, "uid": uid, "generation": 1, "namespace": "n", "labels": { "app": uid } },
            "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] },
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn info(uid: &str, cpu: &str) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(&pod(uid, cpu)))
    }

    fn used(cache: &Cache) -> Vec<i64> {
        cache.nodes().map(|node| node.requested.milli_cpu).collect()
    }

    #[test]
    fn a_decision_is_charged_once_and_can_be_taken_back() {
        let mut cache = Cache::default();
        assert!(cache.set_node(node("a", "4")).is_some());
        cache.assume("a", info("x", "1"));
        assert_eq!(used(&cache), [1000]);
        assert!(cache.set_pod("a", &pod("x", "1")).is_some(), "news to those who wait for it");
        assert!(cache.set_pod("a", &pod("x", "1")).is_none());
        assert_eq!(used(&cache), [1000], "confirmed, not counted twice");
        assert!(cache.forget("x").is_none());
        assert_eq!(used(&cache), [1000], "what is confirmed is no longer an assumption");
        cache.assume("a", info("y", "1"));
        assert!(cache.forget("y").is_some());
        assert_eq!(used(&cache), [1000]);
        assert!(cache.remove_pod("x").is_some() && cache.remove_pod("x").is_none());
        assert_eq!(used(&cache), [0]);
        assert!(cache.by_label.is_empty(), "nothing is left behind");
    }

    #[test]
    fn pods_may_be_seen_before_their_node() {
        let mut cache = Cache::default();
        cache.set_pod("a", &pod("x", "2"));
        cache.set_node(node("a", "4"));
        assert_eq!(used(&cache), [2000]);
        cache.remove_node("a");
        cache.set_node(node("b", "8"));
        cache.set_node(node("a", "8"));
        assert_eq!(used(&cache), [0, 2000], "a node that comes back has its pods, wherever it is kept");
    }

    #[test]
    fn a_resize_counts_as_far_as_it_may_be_granted() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "4"));
        let resized = |wants: &str, has: &str, reason: &str| {
            let mut pod = serde_json::to_value(pod("x", wants)).expect("a pod");
            let given = json!({ "cpu": has });
            pod["status"] = json!({
                "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "resources": { "requests": given }, "allocatedResources": given }],
                "conditions": [{ "type": "PodResizePending", "status": "True", "reason": reason }],
            });
            serde_json::from_value::<Pod>(pod).expect("a pod")
        };
        let mut check = |wants: &str, has: &str, reason: &str, news: Option<bool>, expect: i64| {
            let found = cache.set_pod("a", &resized(wants, has, reason));
            let found = found.map(|change| (change.appeared, change.scaled_down));
            assert_eq!(found, news.map(|appeared| (appeared, !appeared)), "{wants} {has} {reason}");
            assert_eq!(used(&cache), [expect], "{wants} {has} {reason}");
        };
        check("1", "1", "", Some(true), 1000);
        // Only the status changes from here on, not the generation.
        check("100", "1", "", None, 100_000);
        check("100", "1", "Infeasible", Some(false), 1000);
        check("3", "1", "Deferred", None, 3000);
        check("3", "3", "", None, 3000);
        check("1", "3", "", None, 3000);
        check("1", "1", "", Some(false), 1000);
    }

    #[test]
    fn only_changes_that_matter_are_told() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "4"));
        assert!(cache.set_node(node("a", "4")).is_none(), "a heartbeat");
        assert!(cache.set_node(node("a", "8")).is_some());
    }

    #[test]
    fn pods_are_found_by_their_labels() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "4"));
        for uid in ["x", "y"] {
            cache.set_pod("a", &pod(uid, "1"));
        }
        let namespaces = BTreeSet::from(["n".to_owned()]);
        let found = |text: &str| {
            let selector = LabelSelector::parse(text).expect("a selector");
            let pods = cache.candidates(&selector, Some(&namespaces));
            pods.filter(|(_, pod)| selector.matches(&pod.labels)).map(|(_, pod)| pod.uid.clone()).collect::<Vec<_>>()
        };
        assert_eq!(found("app=x"), ["x"]);
        assert_eq!(found("app in (x,y)"), ["x", "y"]);
        assert_eq!(found("app!=x"), ["y"]);
        assert_eq!(found("app=z"), [""; 0]);
    }
}
