//! The Node object: registered at once, kept current, and its Lease renewed.

mod lease;
pub(crate) mod machine;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use informer::Informer;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cache::Health;
use crate::shared::{Machine, Shared};

pub(crate) use lease::renew;

/// The first and the longest pause before the API is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often images and disk are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Registers the node and keeps its status current until `cancel` is triggered.
pub(crate) async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    let mut health = shared.cache.health();
    let mut keeper = Keeper { shared: Arc::clone(&shared), written: None, images: Vec::new() };
    shared.reporter.node("Starting", "Starting kubelet.");
    let mut pause = PAUSES.0;
    let mut look = tokio::time::interval(LOOK);
    // The first look, at the images, can wait until the node is ready.
    look.reset();
    loop {
        let state = health.borrow_and_update().clone();
        let wait = match keeper.keep(&state).await {
            Ok(()) => {
                pause = PAUSES.0;
                shared.config.status_period
            }
            Err(error) => {
                tracing::debug!(%error, "node status not written");
                let wait = pause;
                pause = (pause * 2).min(PAUSES.1);
                wait
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = health.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => keeper.written = None,
            _ = look.tick() => keeper.look().await,
        }
        // The images are told as soon as the node is.
        if keeper.images.is_empty() && keeper.written.is_some() {
            keeper.look().await;
        }
    }
}

struct Keeper {
    shared: Arc<Shared>,
    /// The status as last written, without its heartbeats; `None` when it must be written whatever it is.
    written: Option<NodeStatus>,
    images: Vec<k8s_openapi::api::core::v1::ContainerImage>,
}

impl Keeper {
    /// Makes sure that the node is registered with its present status.
    async fn keep(&mut self, health: &Health) -> Result<(), kube::Error> {
        if *health == Health::Unknown {
            self.ask_runtime().await;
        }
        let api: Api<Node> = Api::all(self.shared.client.clone());
        let name = self.shared.config.node_name.clone();
        let mut is_new = false;
        let known = match self.written {
            Some(_) => None,
            None => match api.get_opt(&name).await? {
                Some(node) => Some(node),
                None if !self.shared.config.register => return Ok(()),
                None => {
                    is_new = true;
                    Some(self.register(&api, health).await?)
                }
            },
        };
        let old = known.as_ref().and_then(|node| node.status.clone());
        let old = old.or_else(|| self.written.clone()).unwrap_or_default();
        let machine = self.shared.machine();
        let status = status::compute(&self.shared.config, &machine, health, &self.images, &old);
        let settled = self.written.as_ref().is_some_and(|written| status::same(written, &status));
        if !settled {
            if let Some(node) = &known {
                self.label(&api, node).await?;
            }
            let patch = Patch::Strategic(json!({ "status": status }));
            api.patch_status(&name, &PatchParams::default(), &patch).await?;
            let before = if is_new { NodeStatus::default() } else { old };
            for reason in status::news(&before, &status) {
                self.shared.reporter.node(reason, &format!("Node {name} status is now: {reason}"));
            }
            self.written = Some(status);
        }
        Ok(())
    }

    /// Creates the Node. Another process may have been faster; what is there then is taken.
    async fn register(&self, api: &Api<Node>, health: &Health) -> Result<Node, kube::Error> {
        let config = &self.shared.config;
        let machine = self.shared.machine();
        let old = NodeStatus::default();
        let node = Node {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(labels(&self.shared, &machine)),
                annotations: Some(
                    [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into(),
                ),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: config.pod_cidr.clone(),
                pod_cidrs: config.pod_cidr.clone().map(|cidr| vec![cidr]),
                ..NodeSpec::default()
            }),
            status: Some(status::compute(config, &machine, health, &self.images, &old)),
        };
        match api.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(&config.node_name).await,
            result => result,
        }
    }

    /// Brings the labels that the kubelet owns up to date, and the pod range of a node that has none.
    async fn label(&self, api: &Api<Node>, node: &Node) -> Result<(), kube::Error> {
        let config = &self.shared.config;
        let machine = self.shared.machine();
        let mut patch = json!({});
        let has = node.metadata.labels.clone().unwrap_or_default();
        let missing: BTreeMap<String, String> = labels(&self.shared, &machine)
            .into_iter()
            .filter(|(key, value)| has.get(key) != Some(value) && !value.is_empty())
            .collect();
        if !missing.is_empty() {
            patch["metadata"]["labels"] = json!(missing);
        }
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref());
        if let (None, Some(cidr)) = (range, &config.pod_cidr) {
            patch["spec"] = json!({ "podCIDR": cidr, "podCIDRs": [cidr] });
        }
        if patch != json!({}) {
            let patch = Patch::Strategic(patch);
            api.patch(&config.node_name, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }

    /// Asks the runtime about the machine.
    async fn ask_runtime(&self) {
        if let Ok(info) = self.shared.runtime.info().await {
            let storage = machine::storage(&self.shared.config.state_dir);
            self.shared.set_machine(Machine { info, storage });
        }
    }

    /// Looks at what changes slowly. Images of the whole machine, at most fifty, as upstream.
    async fn look(&mut self) {
        self.ask_runtime().await;
        if let Ok(images) = self.shared.runtime.images().await {
            self.images = status::images(images);
        }
    }
}

/// Tells when the node of `shared` is cordoned, and when no longer.
pub(crate) fn tell_of_cordons(shared: &Arc<Shared>, nodes: &Informer<Node>) {
    let shared = Arc::downgrade(shared);
    nodes.on_change(move |change| {
        let cordoned = |node: &Option<Arc<Node>>| node.as_ref().map(|node| is_cordoned(node));
        let (Some(old), Some(new), Some(shared)) = (cordoned(&change.old), cordoned(&change.new), shared.upgrade())
        else {
            return;
        };
        let name = &shared.config.node_name;
        if old != new && change.new.as_ref().is_some_and(|node| node.metadata.name.as_ref() == Some(name)) {
            let reason = if new { "NodeNotSchedulable" } else { "NodeSchedulable" };
            shared.reporter.node(reason, &format!("Node {name} status is now: {reason}"));
        }
    });
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

/// The labels of the node.
fn labels(shared: &Shared, machine: &Machine) -> BTreeMap<String, String> {
    let config = &shared.config;
    let arch = match machine.info.architecture.as_str() {
        "" => machine::architecture(),
        arch => arch,
    };
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.into_iter().chain(config.labels.clone()).collect()
}
