//! Further nodes on this machine: for each Node with the annotation `coracle.dev/node: extra` a kubelet on the same Docker,
//! with a part of the pods' subnet, an address on the bridge and a folder of its own.
//!
//! The Node comes first, from whoever wants it, and its kubelet follows it: deleted, its kubelet stops and its containers
//! are removed. `coracle.dev/capacity` says what it offers where that is not what the machine has, as a JSON object of
//! quantities. Its part of the subnet is in `spec.podCIDR`, so that it gets the same one after a restart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;

use docker::{Docker, Subnet};
use futures::future::join_all;
use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::Node;
use machinery::well_known::{EXTRA_NODE, NODE_CAPACITY};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Error;
use crate::kubelets::{Kubelets, RunningKubelet};

/// A further node that runs.
struct Running {
    uid: Option<String>,
    capacity: BTreeMap<String, String>,
    range: Subnet,
    docker: Docker,
    kubelet: RunningKubelet,
}

/// Runs kubelets for further nodes until cancelled. Their containers go on running then.
pub(crate) async fn run(kubelets: Kubelets, cancel: CancellationToken) {
    let informer = kubelets.informers.informer::<Node>();
    let queue: WorkQueue<ObjectKey> = kubelets.informers.queue("extra_node");
    let changed = queue.clone();
    informer.on_change(move |change| {
        if [&change.old, &change.new].into_iter().flatten().any(|node| is_extra(node)) {
            changed.add_changed(change);
        }
    });
    let nodes = Mutex::new(Nodes { kubelets, informer: informer.clone(), running: HashMap::new() });
    if cancel.run_until_cancelled(informer.synced()).await.is_some() {
        nodes.lock().await.sweep().await;
        let nodes = &nodes;
        informer::run(queue, 1, cancel, |key: ObjectKey| async move {
            nodes.lock().await.settle(&key).await;
            Ok::<_, Infallible>(Action::AwaitChange)
        })
        .await;
    }
    join_all(nodes.into_inner().running.into_values().map(|node| node.kubelet.shutdown())).await;
}

struct Nodes {
    kubelets: Kubelets,
    informer: Informer<Node>,
    running: HashMap<String, Running>,
}

impl Nodes {
    /// Removes what is left of nodes that were deleted while nobody looked.
    async fn sweep(&self) {
        let known = match self.kubelets.docker.nodes().await {
            Ok(known) => known,
            Err(error) => return warn!(%error, "cannot look for containers of deleted nodes"),
        };
        for name in known {
            if !self.informer.get(&ObjectKey::new("", &name)).is_some_and(|node| is_extra(&node)) {
                self.remove(&name, &self.kubelets.docker.for_node(&name, self.kubelets.network.subnet)).await;
            }
        }
    }

    /// Brings a node to what its object says.
    async fn settle(&mut self, key: &ObjectKey) {
        let name = key.name.as_str();
        let wanted = self.informer.get(key).filter(|node| is_extra(node) && !is_going(node));
        if let Some(running) = self.running.remove(name) {
            let same = wanted.as_ref().filter(|node| node.metadata.uid == running.uid);
            if same.is_some_and(|node| capacity(node) == running.capacity) {
                self.running.insert(name.to_owned(), running);
                return;
            }
            self.kubelets.nodes.set(name, None);
            running.kubelet.shutdown().await;
            if same.is_none() {
                self.kubelets.docker.set_node_address(running.range.nth(1), false).await;
                self.remove(name, &running.docker).await;
                info!(name, "removed a node");
            }
        }
        let Some(node) = wanted else { return };
        match self.start(name, &node).await {
            Ok(running) => drop(self.running.insert(name.to_owned(), running)),
            Err(error) => warn!(name, %error, "cannot start a node"),
        }
    }

    async fn start(&self, name: &str, node: &Node) -> Result<Running, Error> {
        let Kubelets { docker, network, profile, .. } = &self.kubelets;
        let range = self.range(node).ok_or(Error::NoSubnet)?;
        let address = range.nth(1);
        let address = if docker.set_node_address(address, true).await { address } else { network.gateway };
        let docker = docker.for_node(name, range);
        let capacity = capacity(node);
        let mut config = self.kubelets.config(name, address, profile.node(name));
        config.pod_cidr = Some(range.to_string());
        config.capacity.clone_from(&capacity);
        config.register = false;
        let kubelet = self.kubelets.start(config, docker.clone())?;
        Ok(Running { uid: node.metadata.uid.clone(), capacity, range, docker, kubelet })
    }

    /// The node's part of the subnet: the one it has, or the first that no other node has.
    fn range(&self, node: &Node) -> Option<Subnet> {
        let network = &self.kubelets.network;
        let range_of = |node: &Node| node.spec.as_ref()?.pod_cidr.as_ref()?.parse::<Subnet>().ok();
        if let Some(range) = range_of(node).filter(|range| network.subnet.contains(range.address())) {
            return Some(range);
        }
        let running = self.running.values().map(|node| node.range);
        let taken: HashSet<Subnet> =
            self.informer.list().iter().filter_map(|node| range_of(node)).chain(running).collect();
        (1..).map_while(|number| network.node_range(number)).find(|range| !taken.contains(range))
    }

    /// Removes the containers and the folder of a node that has gone.
    async fn remove(&self, name: &str, docker: &Docker) {
        if let Err(error) = docker.delete_node().await {
            warn!(name, %error, "containers of a deleted node are left; the next start removes them");
        }
        let (profile, name) = (self.kubelets.profile.clone(), name.to_owned());
        let removed = tokio::task::spawn_blocking(move || profile.remove_node(&name)).await;
        if let Ok(Err(error)) = removed {
            warn!(%error, "the folder of a deleted node is left");
        }
    }
}

fn is_extra(node: &Node) -> bool {
    let annotations = node.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(EXTRA_NODE.0)).is_some_and(|value| value == EXTRA_NODE.1)
}

fn is_going(node: &Node) -> bool {
    node.metadata.deletion_timestamp.is_some()
}

/// What a node offers; what cannot be read offers nothing of its own.
fn capacity(node: &Node) -> BTreeMap<String, String> {
    let annotations = node.metadata.annotations.as_ref();
    let said = annotations.and_then(|all| all.get(NODE_CAPACITY));
    said.and_then(|said| serde_json::from_str(said).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_make_a_node_an_extra_one() {
        let check = |annotations: serde_json::Value, extra: bool, offers: &[(&str, &str)]| {
            let node: Node =
                serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).expect("a node");
            assert_eq!(is_extra(&node), extra, "{annotations}");
            let offers = offers.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned()));
            assert_eq!(capacity(&node), offers.collect(), "{annotations}");
        };
        check(json!({}), false, &[]);
        check(json!({ "coracle.dev/node": "fake" }), false, &[]);
        check(json!({ "coracle.dev/node": "extra" }), true, &[]);
        let offers = r#"{"cpu":"2","nvidia.com/gpu":"1"}"#;
        let both = json!({ "coracle.dev/node": "extra", "coracle.dev/capacity": offers });
        check(both, true, &[("cpu", "2"), ("nvidia.com/gpu", "1")]);
        check(json!({ "coracle.dev/node": "extra", "coracle.dev/capacity": "{" }), true, &[]);
    }
}
