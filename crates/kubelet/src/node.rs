//! The Node object: registered at once, kept current, and its Lease renewed.

mod lease;
pub(crate) mod machine;
mod status;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use machinery::well_known::{ARCH, HOSTNAME, OS};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, NetworkState};
use crate::health::Health;
use crate::objects::version;
use crate::shared::{Machine, Shared};

pub(crate) use lease::{SECONDS as LEASE_SECONDS, renew};

/// The first and the longest pause before the API is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often the runtime is asked for images and the machine.
const SURVEY_PERIOD: Duration = Duration::from_secs(30);
/// The annotation of every node, and its value.
const ATTACHED_BY_CONTROLLER: (&str, &str) = ("volumes.kubernetes.io/controller-managed-attach-detach", "true");

/// Registers the node and keeps its status current until `cancel` is triggered.
///
/// What the API has of the node is what counts, not what was written last: whatever others change of what is the
/// kubelet's own is put right as soon as the watch shows it.
pub(crate) async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    let (sender, images) = watch::channel(None);
    tokio::select! {
        () = cancel.cancelled() => {}
        () = keep_current(&shared, images) => {}
        never = survey(&shared, &sender) => match never {},
    }
}

/// Asks the runtime for what changes slowly: the machine with its disk, and the images on it. It is beside the node's status
/// and never in its way: a runtime that does not answer is what the status has to tell.
async fn survey(shared: &Shared, images: &watch::Sender<Option<Vec<ContainerImage>>>) -> Infallible {
    let mut health = shared.pleg.health();
    loop {
        if let Ok(info) = shared.runtime.info().await {
            let storage = machine::storage(&shared.config.state_dir);
            shared.set_machine(Machine { info, storage });
        }
        // Whoever waits for images is told of the machine too.
        images.send_modify(|_| {});
        if let Ok(found) = shared.runtime.images().await {
            images.send_replace(Some(status::images(found)));
        }
        let recovered = async {
            let unusable = health.wait_for(|health| !health.is_usable()).await.is_ok();
            let usable = unusable && health.wait_for(Health::is_usable).await.is_ok();
            if !usable {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(SURVEY_PERIOD, recovered).await;
    }
}

/// Writes the node's status whenever it is another one than the API has. Ends when nobody is left to tell of the runtime.
async fn keep_current(shared: &Arc<Shared>, mut images: watch::Receiver<Option<Vec<ContainerImage>>>) {
    let mut health = shared.pleg.health();
    let mut network = shared.config.network.clone();
    let mut pressure = shared.pressure.subscribe();
    let mut keeper =
        Keeper { seen: follow(shared), shared: Arc::clone(shared), known: None, reported: None, images: None };
    shared.reporter.node("Starting", "Starting kubelet.");
    // The node is registered with what it has, unless the runtime cannot say it in time.
    let _ = tokio::time::timeout(shared.config.runtime_status_timeout, images.changed()).await;
    let mut pause = PAUSES.0;
    loop {
        let state = health.borrow_and_update().clone();
        pressure.mark_unchanged();
        keeper.images.clone_from(&images.borrow_and_update());
        let wait = match keeper.keep(&state).await {
            Ok(()) => {
                pause = PAUSES.0;
                shared.config.status_check_period
            }
            Err(error) => {
                tracing::debug!(%error, "node status not written");
                keeper.known = None;
                let wait = pause;
                pause = (pause * 2).min(PAUSES.1);
                wait
            }
        };
        let check_at = Instant::now() + wait;
        loop {
            tokio::select! {
                changed = health.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = network_changed(&mut network) => break,
                Ok(()) = pressure.changed() => break,
                Ok(()) = keeper.seen.changed() => if keeper.observe() { break },
                Ok(()) = images.changed() => break,
                () = tokio::time::sleep_until(check_at) => break,
            }
        }
    }
}

/// Waits for the next change of the network's state; for ever when nobody tells of it.
async fn network_changed(network: &mut Option<watch::Receiver<NetworkState>>) {
    if let Some(state) = network
        && state.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

struct Keeper {
    shared: Arc<Shared>,
    /// The node as its watch shows it.
    seen: watch::Receiver<Option<Arc<Node>>>,
    /// The node as the API has it: as the watch shows it or as a write was answered, whichever is newer.
    known: Option<Arc<Node>>,
    /// When the status was written last.
    reported: Option<Instant>,
    /// The images of the machine; `None` before they are known.
    images: Option<Vec<ContainerImage>>,
}

impl Keeper {
    /// Makes sure that the node is registered with its present status.
    async fn keep(&mut self, health: &Health) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(self.shared.client.clone());
        let name = self.shared.config.node_name.clone();
        let is_first = self.reported.is_none();
        let due = self.reported.is_none_or(|reported| reported.elapsed() >= self.shared.config.status_period);
        // Now and then the API itself is asked, in case the watch has missed something.
        let known = self.known.take().filter(|_| !due);
        let mut is_new = false;
        let node = match known {
            Some(node) => node,
            None => match api.get_opt(&name).await? {
                Some(node) => Arc::new(node),
                None if !self.shared.config.register => return Ok(()),
                None => {
                    is_new = true;
                    Arc::new(self.register(&api, health).await?)
                }
            },
        };
        self.known = Some(Arc::clone(&node));
        let machine = self.shared.machine();
        if let Some(patch) = metadata_patch(&self.shared.config, &machine, &node, is_first) {
            let answer = api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            self.learn(Arc::new(answer));
        }
        let old = node.status.clone().unwrap_or_default();
        let pressure = *self.shared.pressure.borrow();
        let status = status::compute(&self.shared.config, &machine, health, pressure, self.images.as_deref(), &old);
        let is_same = status::same(&old, &status);
        if !is_same || (due && !is_new) {
            let patch = Patch::Strategic(status::patch(&old, &status));
            let answer = api.patch_status(&name, &PatchParams::default(), &patch).await?;
            self.learn(Arc::new(answer));
        }
        if !is_same || due {
            self.reported = Some(Instant::now());
            let before = if is_new { NodeStatus::default() } else { old };
            for reason in status::event_reasons(&before, &status) {
                self.shared.reporter.node(reason, &format!("Node {name} status is now: {reason}"));
            }
        }
        Ok(())
    }

    /// Takes a state of the node that the API answered with. Returns whether it is newer than what was known.
    fn learn(&mut self, node: Arc<Node>) -> bool {
        let known = self.known.as_ref().and_then(|known| version(&known.metadata));
        let is_newer = match (known, version(&node.metadata)) {
            (Some(known), Some(new)) => new > known,
            _ => true,
        };
        if is_newer {
            self.known = Some(node);
        }
        is_newer
    }

    /// Takes what the watch shows. Returns whether others have changed the node: a change of our own is known from its
    /// answer.
    fn observe(&mut self) -> bool {
        let seen = self.seen.borrow_and_update().clone();
        match seen {
            Some(node) => self.learn(node),
            None => {
                self.known = None;
                true
            }
        }
    }

    /// Creates the Node. Another process may have been faster; what is there then is taken.
    async fn register(&self, api: &Api<Node>, health: &Health) -> Result<Node, kube::Error> {
        let config = &self.shared.config;
        let machine = self.shared.machine();
        let old = NodeStatus::default();
        let pressure = *self.shared.pressure.borrow();
        let node = Node {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(labels(config, &machine)),
                annotations: Some(
                    [ATTACHED_BY_CONTROLLER].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                ),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: config.pod_cidr.clone(),
                pod_cidrs: config.pod_cidr.clone().map(|cidr| vec![cidr]),
                ..NodeSpec::default()
            }),
            status: Some(status::compute(config, &machine, health, pressure, self.images.as_deref(), &old)),
        };
        match api.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(&config.node_name).await,
            result => result,
        }
    }
}

/// Follows the node of `shared` as the informer has it, and tells people when it is cordoned and when no longer.
fn follow(shared: &Arc<Shared>) -> watch::Receiver<Option<Arc<Node>>> {
    let (sender, seen) = watch::channel(None);
    let nodes = shared.nodes.clone();
    let shared = Arc::downgrade(shared);
    nodes.on_change(move |change| {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if change.key().name != shared.config.node_name {
            return;
        }
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && is_cordoned(old) != is_cordoned(new)
        {
            let reason = if is_cordoned(new) { "NodeNotSchedulable" } else { "NodeSchedulable" };
            let name = &shared.config.node_name;
            shared.reporter.node(reason, &format!("Node {name} status is now: {reason}"));
        }
        sender.send_replace(change.new.clone());
    });
    seen
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

/// The patch that gives `node` the metadata it lacks of what is the kubelet's own, and a pod range where it has none.
///
/// What the kubelet says of itself always holds. Labels that were configured are set when it starts, and are the user's
/// to change after that (upstream, `updateDefaultLabels` in `pkg/kubelet/kubelet_node_status.go`, makes the same
/// difference).
fn metadata_patch(config: &Config, machine: &Machine, node: &Node, is_first: bool) -> Option<Value> {
    let mut patch = json!({});
    let empty = BTreeMap::new();
    let has = node.metadata.labels.as_ref().unwrap_or(&empty);
    let wanted = match is_first {
        true => labels(config, machine),
        false => own_labels(config, machine),
    };
    let missing: BTreeMap<String, String> =
        wanted.into_iter().filter(|(key, value)| has.get(key) != Some(value) && !value.is_empty()).collect();
    if !missing.is_empty() {
        patch["metadata"]["labels"] = json!(missing);
    }
    let (key, value) = ATTACHED_BY_CONTROLLER;
    if node.metadata.annotations.as_ref().and_then(|all| all.get(key)).is_none_or(|known| known != value) {
        patch["metadata"]["annotations"] = json!({ key: value });
    }
    let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref());
    if let (None, Some(cidr)) = (range, &config.pod_cidr) {
        patch["spec"] = json!({ "podCIDR": cidr, "podCIDRs": [cidr] });
    }
    (patch != json!({})).then_some(patch)
}

/// The labels of a node that is registered.
fn labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let mut labels = own_labels(config, machine);
    labels.extend(config.labels.clone());
    labels
}

/// The labels that every kubelet sets.
fn own_labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let arch = match machine.info.architecture.as_str() {
        "" => machine::architecture(),
        arch => arch,
    };
    let own = [
        (HOSTNAME, config.node_name.as_str()),
        (OS, "linux"),
        (ARCH, arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    // A label that was configured otherwise stands.
    let own = own.into_iter().filter(|(key, _)| !config.labels.contains_key(*key));
    own.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_kubelets_or_the_users() {
        let mut config = Config::new("n", "10.0.0.1".parse().unwrap(), std::env::temp_dir());
        config.labels.insert("zone".to_owned(), "a".to_owned());
        let mut node = Node::default();
        node.metadata.labels = Some(labels(&config, &Machine::default()));
        node.metadata.annotations =
            Some([ATTACHED_BY_CONTROLLER].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let patch = |node: &Node, is_first| metadata_patch(&config, &Machine::default(), node, is_first);
        assert_eq!((patch(&node, true), patch(&node, false)), (None, None));
        // A configured label is set at the start, and may be changed after that.
        node.metadata.labels.get_or_insert_default().insert("zone".to_owned(), "b".to_owned());
        assert_eq!(patch(&node, false), None);
        assert_eq!(patch(&node, true), Some(json!({"metadata": {"labels": {"zone": "a"}}})));
        // What the kubelet says of itself holds at all times.
        node.metadata.labels.get_or_insert_default().remove("kubernetes.io/os");
        assert_eq!(patch(&node, false), Some(json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}})));
    }
}
