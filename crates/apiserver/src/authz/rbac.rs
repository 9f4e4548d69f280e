//! The authorizer: the rules of the node to its kubelet, roles and bindings to everybody.
//!
//! It keeps all roles and bindings in memory ([`Policy`]) and follows the store by its watches. Before each answer it
//! takes in what has happened since the last one, so that what a binding gives can be used as soon as its creation is
//! answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use machinery::Verb;
use machinery::status::ApiError;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use registry::user::MASTERS;
use registry::{Access, EscalationCheck, User, WriteAttributes};
use serde::de::DeserializeOwned;
use store::{Entry, EventKind, Store, Watcher};

use super::node::NodeRules;
use super::policy::{Binding, Policy};
use super::{Attributes, Authorizer, Decision, Known, Target, escalation};

/// What is followed. Roles come first: a binding is of no use before its role.
const FOLLOWED: [&str; 4] = [CLUSTER_ROLES, ROLES, CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS];

const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const ROLES: &str = "rbac.authorization.k8s.io/roles";
const CLUSTER_ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";
const ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";

/// Authorization by roles. It is also the [`EscalationCheck`] that keeps rights from growing.
pub struct Rbac {
    store: Store,
    nodes: NodeRules,
    /// Up to which revision the policy is what the store has.
    seen: AtomicU64,
    policy: RwLock<Policy>,
    watchers: Mutex<Vec<Watcher>>,
}

impl Rbac {
    /// An authorizer over the roles and bindings in `store`. Before [`bootstrap`](super::bootstrap()) has run there are
    /// none in a new cluster, and nobody but `system:masters` may do anything.
    #[must_use]
    pub fn new(store: &Store) -> Arc<Self> {
        let rbac = Self {
            store: store.clone(),
            nodes: NodeRules::new(store),
            seen: AtomicU64::new(0),
            policy: RwLock::default(),
            watchers: Mutex::default(),
        };
        Arc::new(rbac)
    }

    /// The policy as of now.
    pub(super) fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        let revision = self.store.revision();
        if self.seen.load(Ordering::Acquire) < revision {
            self.follow(revision);
        }
        self.policy.read()
    }

    /// Takes in everything up to `revision`.
    fn follow(&self, revision: u64) {
        let mut watchers = self.watchers.lock();
        if self.seen.load(Ordering::Acquire) >= revision {
            return;
        }
        let mut events = Vec::new();
        for watcher in watchers.iter_mut() {
            while let Some(event) = watcher.try_next() {
                events.push(event);
            }
        }
        let behind = watchers.is_empty() || watchers.iter().any(|watcher| watcher.progress() < revision);
        if behind || !events.is_empty() {
            let mut policy = self.policy.write();
            if behind {
                // The first time, or more happened at once than the store keeps in memory.
                *policy = self.read(&mut watchers);
            } else {
                for event in &events {
                    let object = (event.kind != EventKind::Deleted).then_some(&event.entry);
                    take(&mut policy, &event.entry, object.map(AsRef::as_ref));
                }
            }
            policy.rebuild();
        }
        self.seen.store(revision, Ordering::Release);
    }

    /// The whole policy, and new watchers from there on.
    fn read(&self, watchers: &mut Vec<Watcher>) -> Policy {
        let store = &self.store;
        watchers.clear();
        let mut policy = Policy::default();
        for resource in FOLLOWED {
            let snapshot = store.snapshot(resource);
            for entry in snapshot.iter() {
                take(&mut policy, entry, Some(entry));
            }
            // One that is compacted this very moment makes the next answer read everything again.
            watchers.extend(store.watch(resource, snapshot.revision()).ok());
        }
        if watchers.len() < FOLLOWED.len() {
            watchers.clear();
        }
        policy
    }
}

/// Takes in what became of a role or binding: `object` is absent when it is gone.
fn take(policy: &mut Policy, key: &Entry, object: Option<&Entry>) {
    let (namespace, name) = (&*key.key.namespace, &*key.key.name);
    match &*key.key.resource {
        CLUSTER_ROLES => {
            let role = object.and_then(read::<ClusterRole>);
            policy.set_role(namespace, name, role.map(|role| role.rules.unwrap_or_default().into()));
        }
        ROLES => {
            let role = object.and_then(read::<Role>);
            policy.set_role(namespace, name, role.map(|role| role.rules.unwrap_or_default().into()));
        }
        CLUSTER_ROLE_BINDINGS => {
            let binding = object.and_then(read::<ClusterRoleBinding>);
            let binding = binding.map(|one| Binding { role: one.role_ref, subjects: one.subjects.unwrap_or_default() });
            policy.set_binding(namespace, name, binding);
        }
        _ => {
            let binding = object.and_then(read::<RoleBinding>);
            let binding = binding.map(|one| Binding { role: one.role_ref, subjects: one.subjects.unwrap_or_default() });
            policy.set_binding(namespace, name, binding);
        }
    }
}

/// A stored role or binding. One that cannot be read gives nobody anything.
fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    let object = serde_json::from_slice(&entry.value);
    object.inspect_err(|error| tracing::warn!(key = ?entry.key, %error, "a stored object cannot be read")).ok()
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let user = attributes.user;
        if user.is_in(MASTERS) {
            return Decision::Allow(None);
        }
        let mut reason = String::new();
        if let Some(node) = user.as_node() {
            match self.nodes.authorize(node, attributes) {
                Ok(()) => return Decision::Allow(None),
                Err(why) => reason = why,
            }
        }
        match self.policy().allows(attributes) {
            Ok(why) => Decision::Allow(Some(why)),
            Err(missing) => {
                let missing = aggregate(&missing);
                if !missing.is_empty() {
                    let separator = if reason.is_empty() { "" } else { ", " };
                    reason.push_str(&format!("{separator}RBAC: {missing}"));
                }
                Decision::Deny(reason)
            }
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> Known {
        let policy = self.policy();
        let (rules, missing) = policy.rules(user, namespace);
        let rules: Vec<PolicyRule> = rules.into_iter().cloned().collect();
        let mut errors: Vec<Arc<str>> = missing;
        if user.as_node().is_some() {
            errors.insert(0, "node authorizer does not support user rule resolution".into());
        }
        Known { rules, error: aggregate(&errors) }
    }
}

/// Several messages as upstream's aggregate of errors reads.
fn aggregate(messages: &[Arc<str>]) -> String {
    match messages {
        [] => String::new(),
        [one] => one.to_string(),
        several => format!("[{}]", several.join(", ")),
    }
}

impl EscalationCheck for Rbac {
    fn check(&self, write: &WriteAttributes<'_>) -> Result<(), ApiError> {
        if write.user.is_in(MASTERS) {
            return Ok(());
        }
        escalation::check(self, write)
    }

    fn may(&self, user: &User, access: &Access<'_>) -> Result<(), String> {
        let Access { verb, group, version, resource, subresource, namespace, name } = *access;
        let target = Target::Resource { group, version, resource, subresource, namespace, name };
        allowed(self.authorize(&Attributes::new(user, verb, target)))
    }

    fn may_reach(&self, user: &User, verb: Verb<'_>, path: &str) -> Result<(), String> {
        allowed(self.authorize(&Attributes::new(user, verb, Target::Path(path))))
    }
}

fn allowed(decision: Decision) -> Result<(), String> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) => Err(reason),
    }
}
