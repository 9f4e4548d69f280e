//! What a kubelet may do: what every kubelet needs, and read what the pods of its node refer to.
//!
//! Upstream: the Node authorizer (`plugin/pkg/auth/authorizer/node/node_authorizer.go`), with selectors (KEP-4601). What pods
//! refer to is kept in memory for the nodes that ask, and follows the pods by a watch: a pod is looked into once, when it has
//! been bound.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use machinery::Verb;
use machinery::references::PodReferences;
use machinery::well_known::NODE_LEASES;
use parking_lot::Mutex;
use store::{Entry, EventKind, Key, Store, Watcher};

use super::rules::allows;
use super::{Attributes, Target, bootstrap};
use crate::counts::Counts;

const PODS: &str = "core/pods";

/// The rules of kubelets.
pub(super) struct NodeRules {
    store: Store,
    rules: Vec<PolicyRule>,
    graph: Mutex<Graph>,
}

/// What the pods of nodes refer to, for the nodes that have asked.
#[derive(Default)]
struct Graph {
    watcher: Option<Watcher>,
    nodes: HashMap<String, Counts<Reference>>,
}

/// Something a pod refers to: resource, namespace, name.
type Reference = (&'static str, Box<str>, Box<str>);

impl NodeRules {
    pub(super) fn new(store: &Store) -> Self {
        let rules = bootstrap::rules_of("system:node");
        Self { store: store.clone(), rules, graph: Mutex::default() }
    }

    /// Whether the kubelet of `node` may; if not, why, as far as there is more to say.
    pub(super) fn authorize(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        let verb = attributes.verb;
        let Target::Resource { group, resource, subresource, namespace, name, .. } = attributes.target else {
            return self.fixed(attributes);
        };
        let whole = subresource.is_empty();
        let related = |resource: &'static str| {
            if name.is_empty() {
                return Err("No Object name found".to_owned());
            }
            if self.refers(node, resource, namespace, name) {
                return Ok(());
            }
            Err(format!("no relationship found between node '{node}' and this object"))
        };
        let refuse = |why: &str| Err(why.to_owned());
        match (group, resource) {
            ("", "secrets" | "configmaps") if !verb.is_read() => refuse("can only read resources of this type"),
            ("", "secrets" | "configmaps") if !whole => refuse("cannot read subresource"),
            ("", "secrets" | "configmaps") if namespace.is_empty() => {
                refuse("can only read namespaced object of this type")
            }
            ("", "secrets") => related("secrets"),
            ("", "configmaps") => related("configmaps"),
            ("", "persistentvolumeclaims")
                if subresource == "status" && matches!(verb, Verb::Get | Verb::Update | Verb::Patch) =>
            {
                related("persistentvolumeclaims")
            }
            // Upstream's kubelets ask for a claim again and again until it is bound; these watch it.
            ("", "persistentvolumeclaims") if !verb.is_read() => refuse("can only read resources of this type"),
            ("", "persistentvolumes") if verb != Verb::Get => refuse("can only get individual resources of this type"),
            ("", "persistentvolumeclaims") => related("persistentvolumeclaims"),
            ("", "persistentvolumes") => match self.claim_of(name) {
                Some((namespace, claim)) if self.refers(node, "persistentvolumeclaims", &namespace, &claim) => Ok(()),
                _ => Err(format!("no relationship found between node '{node}' and this object")),
            },
            ("", "serviceaccounts") if whole && verb == Verb::Get => related("serviceaccounts"),
            ("", "serviceaccounts") if verb != Verb::Create || name.is_empty() => {
                refuse("can only create tokens for individual service accounts")
            }
            ("", "serviceaccounts") if subresource != "token" => {
                refuse("can only create token subresource of serviceaccount")
            }
            ("", "serviceaccounts") => related("serviceaccounts"),
            ("coordination.k8s.io", "leases") => match (verb, namespace) {
                (Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete, NODE_LEASES)
                    if verb == Verb::Create || name == node =>
                {
                    Ok(())
                }
                (Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete, NODE_LEASES) => {
                    refuse("can only access node lease with the same name as the requesting node")
                }
                (Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete, _) => {
                    Err(format!("can only access leases in the {NODE_LEASES:?} system namespace"))
                }
                _ => refuse("can only get, create, update, patch, or delete a node lease"),
            },
            ("", "nodes") if whole && verb.is_read() => match name {
                name if name == node => Ok(()),
                "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
                name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
            },
            ("", "pods") if whole && verb.is_read() => {
                let is_scoped = verb != Verb::Get && attributes.selects("spec.nodeName", node);
                if is_scoped || (!name.is_empty() && self.runs(node, namespace, name)) {
                    return Ok(());
                }
                match name {
                    "" => refuse("can only list/watch pods with spec.nodeName field selector"),
                    _ => Err(format!("no relationship found between node '{node}' and this object")),
                }
            }
            ("storage.k8s.io", "volumeattachments") if verb != Verb::Get => {
                refuse("can only get individual resources of this type")
            }
            ("storage.k8s.io", "volumeattachments") if !whole => refuse("cannot get subresource"),
            ("storage.k8s.io", "volumeattachments") if self.attaches_to(name).as_deref() == Some(node) => Ok(()),
            ("storage.k8s.io", "volumeattachments") => {
                Err(format!("no relationship found between node '{node}' and this object"))
            }
            ("storage.k8s.io", "csinodes") if verb != Verb::Create && name != node => {
                refuse("can only access CSINode with the same name as the requesting node")
            }
            _ => self.fixed(attributes),
        }
    }

    fn fixed(&self, attributes: &Attributes<'_>) -> Result<(), String> {
        if self.rules.iter().any(|rule| allows(rule, attributes)) { Ok(()) } else { Err(String::new()) }
    }

    /// Whether a pod is bound to the node.
    fn runs(&self, node: &str, namespace: &str, pod: &str) -> bool {
        self.store.get(&Key::new(PODS, namespace, pod)).is_some_and(|entry| node_of(&entry) == node)
    }

    /// The node that an attachment is for.
    fn attaches_to(&self, attachment: &str) -> Option<String> {
        let entry = self.store.get(&Key::new("storage.k8s.io/volumeattachments", "", attachment))?;
        Some(serde_json::from_slice::<VolumeAttachment>(&entry.value).ok()?.spec.node_name)
    }

    /// The claim a volume is for.
    fn claim_of(&self, volume: &str) -> Option<(String, String)> {
        let entry = self.store.get(&Key::new("core/persistentvolumes", "", volume))?;
        let volume: PersistentVolume = serde_json::from_slice(&entry.value).ok()?;
        let claim = volume.spec?.claim_ref?;
        Some((claim.namespace?, claim.name?))
    }

    /// Whether a pod of the node refers to it.
    fn refers(&self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        let mut graph = self.graph.lock();
        self.follow(&mut graph);
        if !graph.nodes.contains_key(node) {
            graph.nodes.insert(node.to_owned(), Counts::default());
            // All nodes are read again, as of one moment.
            graph.watcher = None;
            self.follow(&mut graph);
        }
        let references = graph.nodes.get(node);
        references.is_some_and(|references| references.of(&(resource, namespace.into(), name.into())) > 0)
    }

    /// Takes in what has happened to pods.
    fn follow(&self, graph: &mut Graph) {
        let store = &self.store;
        let revision = store.revision();
        if let Some(watcher) = &mut graph.watcher {
            while let Some(event) = watcher.try_next() {
                let before = event.previous.as_deref().map_or("", node_of);
                let after = if event.kind == EventKind::Deleted { "" } else { node_of(&event.entry) };
                if before == after {
                    continue;
                }
                if let Some(references) = graph.nodes.get_mut(after) {
                    count(references, &event.entry, true);
                }
                if let (Some(references), Some(previous)) = (graph.nodes.get_mut(before), &event.previous) {
                    count(references, previous, false);
                }
            }
            if watcher.progress() >= revision {
                return;
            }
        }
        // The first time, or more happened at once than the store keeps in memory.
        let snapshot = store.snapshot(PODS);
        graph.watcher = store.watch(PODS, snapshot.revision()).ok();
        for (node, references) in &mut graph.nodes {
            *references = self.read(node, &snapshot);
        }
    }

    fn read(&self, node: &str, pods: &store::Snapshot) -> Counts<Reference> {
        let mut references = Counts::default();
        for entry in pods.iter().filter(|entry| node_of(entry) == node) {
            count(&mut references, entry, true);
        }
        references
    }
}

/// Counts what a pod refers to in, or out.
fn count(references: &mut Counts<Reference>, entry: &Entry, comes: bool) {
    let Ok(pod) = serde_json::from_slice::<Pod>(&entry.value) else { return };
    for (resource, name) in names(&pod) {
        let key = (resource, (*entry.key.namespace).into(), name.into_boxed_str());
        if comes {
            references.add(key);
        } else {
            references.remove(&key);
        }
    }
}

fn node_of(pod: &Entry) -> &str {
    pod.attributes.field("spec.nodeName").unwrap_or_default()
}

/// What a pod refers to that its kubelet may read.
fn names(pod: &Pod) -> Vec<(&'static str, String)> {
    let references = PodReferences::of(pod);
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let all = [
        ("secrets", references.secrets),
        ("configmaps", references.config_maps),
        ("persistentvolumeclaims", references.claims),
        ("serviceaccounts", account.into_iter().collect()),
    ];
    all.into_iter().flat_map(|(resource, names)| names.into_iter().map(move |name| (resource, name))).collect()
}
