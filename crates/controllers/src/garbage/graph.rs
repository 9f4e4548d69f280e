//! Who owns what, over all kinds: as much of every object as garbage collection needs, and no more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use informer::give_back;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Shared text: the same few names occur in many objects.
pub(crate) type Text = Arc<str>;

/// The finalizer of an object whose dependents are to go before it does.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to stay when it goes.
pub(crate) const ORPHAN: &str = "orphan";

/// What is kept of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its kind, as a number that whoever fills the graph gives out.
    pub(crate) kind: u32,
    /// Its namespace; empty for cluster scope.
    pub(crate) namespace: Text,
    /// Its name.
    pub(crate) name: Text,
    /// Its owners.
    pub(crate) owners: Box<[Owner]>,
    /// What is to become of it.
    pub(crate) fate: Fate,
}

/// What is to become of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays.
    Stays,
    /// It is being deleted, and garbage collection has no part in it.
    Goes,
    /// It goes after the dependents that block it.
    Foreground,
    /// It goes after its dependents have forgotten it.
    Orphans,
}

impl Fate {
    /// The fate that metadata speaks of.
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        if meta.deletion_timestamp.is_none() {
            Self::Stays
        } else if has(ORPHAN) {
            Self::Orphans
        } else if has(FOREGROUND) {
            Self::Foreground
        } else {
            Self::Goes
        }
    }
}

/// An owner reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Text,
    pub(crate) api_version: Text,
    pub(crate) kind: Text,
    pub(crate) name: Text,
    /// Whether the owner, if it is deleted in the foreground, waits for this dependent.
    pub(crate) blocks: bool,
}

/// A dependent, from its owner's point of view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependent {
    pub(crate) uid: Text,
    pub(crate) node: Node,
    /// Whether the owner waits for it.
    pub(crate) blocks: bool,
}

/// All objects by UID, and their dependents.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<Text, Node>,
    /// By the UID of the owner, which need not be known.
    dependents: HashMap<Text, BTreeSet<Text>>,
    texts: Texts,
}

impl Graph {
    /// The node of an object with this metadata.
    pub(crate) fn node(&mut self, kind: u32, meta: &ObjectMeta) -> Node {
        let owners = meta.owner_references.iter().flatten().map(|owner| self.owner(owner));
        Node {
            kind,
            owners: owners.collect(),
            namespace: self.texts.shared(meta.namespace.as_deref().unwrap_or_default()),
            name: meta.name.as_deref().unwrap_or_default().into(),
            fate: Fate::of(meta),
        }
    }

    fn owner(&mut self, owner: &OwnerReference) -> Owner {
        Owner {
            // The key of the owner's own node, if it is known.
            uid: match self.nodes.get_key_value(owner.uid.as_str()) {
                Some((uid, _)) => Arc::clone(uid),
                None => self.texts.shared(&owner.uid),
            },
            api_version: self.texts.shared(&owner.api_version),
            kind: self.texts.shared(&owner.kind),
            name: self.texts.shared(&owner.name),
            blocks: owner.block_owner_deletion == Some(true),
        }
    }

    /// Takes in what a watch says of the object `uid`: its present state, or that it is gone. The answer names the
    /// objects to look at.
    pub(crate) fn apply(&mut self, uid: &str, new: Option<Node>) -> Vec<Text> {
        let key = match self.nodes.get_key_value(uid) {
            Some((key, _)) => Arc::clone(key),
            None => self.texts.shared(uid),
        };
        let old = self.nodes.get(&key).cloned();
        if old == new {
            return Vec::new();
        }
        let mut look = BTreeSet::new();
        let owners = |node: &Option<Node>| node.as_ref().map(|node| node.owners.clone()).unwrap_or_default();
        let (before, after) = (owners(&old), owners(&new));
        for owner in before.iter().filter(|owner| !after.iter().any(|new| new.uid == owner.uid)) {
            self.unlink(&owner.uid, &key);
        }
        for owner in &after {
            self.dependents.entry(Arc::clone(&owner.uid)).or_default().insert(Arc::clone(&key));
        }
        // Who waits for its dependents may be waiting for this one no longer.
        let waits = |owner: &&Owner| self.fate(&owner.uid) == Some(Fate::Foreground);
        look.extend(before.iter().filter(waits).map(|owner| Arc::clone(&owner.uid)));

        match new {
            Some(node) => {
                let was = old.map(|old| old.fate);
                let holds = |owner: &Owner| self.owner_of(&node, owner).is_some_and(|found| found.fate == Fate::Stays);
                let adrift = !after.iter().all(holds);
                let has_part = matches!(node.fate, Fate::Foreground | Fate::Orphans);
                if adrift || has_part {
                    look.insert(Arc::clone(&key));
                }
                if node.fate == Fate::Foreground && was != Some(Fate::Foreground) {
                    look.extend(self.dependents.get(&key).into_iter().flatten().cloned());
                }
                self.nodes.insert(key, node);
            }
            None => {
                self.nodes.remove(&key);
                give_back(&mut self.nodes);
                look.extend(self.dependents.get(&key).into_iter().flatten().cloned());
            }
        }
        look.into_iter().collect()
    }

    /// The object `uid`.
    pub(crate) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The object that `reference` names as an owner of `node`, if it is called so and `node` may belong to it: it is in the
    /// same namespace or of cluster scope.
    pub(crate) fn owner_of(&self, node: &Node, reference: &Owner) -> Option<&Node> {
        self.get(&reference.uid).filter(|found| {
            found.name == reference.name && (found.namespace.is_empty() || found.namespace == node.namespace)
        })
    }

    /// What is to become of the object `uid`; nothing if there is no such object.
    pub(crate) fn fate(&self, uid: &str) -> Option<Fate> {
        self.nodes.get(uid).map(|node| node.fate)
    }

    /// The dependents of the object `uid`.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Dependent> {
        let dependents = self.dependents.get(uid).into_iter().flatten();
        dependents
            .filter_map(|dependent| {
                let node = self.nodes.get(dependent)?.clone();
                let blocks = node.owners.iter().any(|owner| &*owner.uid == uid && owner.blocks);
                Some(Dependent { uid: Arc::clone(dependent), node, blocks })
            })
            .collect()
    }

    /// The objects of one kind.
    pub(crate) fn of_kind(&self, kind: u32) -> Vec<Text> {
        let nodes = self.nodes.iter().filter(|(_, node)| node.kind == kind);
        nodes.map(|(uid, _)| Arc::clone(uid)).collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
                give_back(&mut self.dependents);
            }
        }
    }
}

/// Each text once. What nobody uses any more is dropped whenever the number of texts has doubled.
#[derive(Debug, Default)]
struct Texts {
    all: HashSet<Text>,
    sweep_at: usize,
}

impl Texts {
    fn shared(&mut self, text: &str) -> Text {
        if let Some(known) = self.all.get(text) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.sweep_at {
            self.all.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = (self.all.len() * 2).max(1_024);
        }
        let text: Text = text.into();
        self.all.insert(Arc::clone(&text));
        text
    }
}
