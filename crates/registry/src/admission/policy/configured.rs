//! The policies that are configured, compiled once for each state of the configuration.
//!
//! Compiling is done when a policy or binding is written, off the threads that answer requests; these take the table as it is.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use machinery::status::ApiError;
use parking_lot::Mutex;
use store::{Entry, Snapshot};

use super::{BINDINGS, Binding, POLICIES, Policy};
use crate::admission::decode_stored;
use crate::pipeline::managed_fields;
use crate::{Registry, scan};

/// What the registry knows of policies.
#[derive(Default)]
pub(crate) struct Configured {
    table: ArcSwap<Table>,
    /// Held by whoever has the table made; the others wait for it, and keep no thread.
    turn: tokio::sync::Mutex<()>,
    /// The policies that were compiled last, by name.
    compiled: Mutex<HashMap<Arc<str>, Compiled>>,
}

struct Compiled {
    entry: Arc<Entry>,
    policy: Arc<Policy>,
}

/// The policies that have bindings, in the order of their names, and what they were made from.
#[derive(Default)]
pub(in crate::admission) struct Table {
    of: Option<[Snapshot; 2]>,
    pub(in crate::admission) hooks: Vec<Hook>,
}

/// A policy and its bindings, in the order of their names.
pub(in crate::admission) struct Hook {
    pub(in crate::admission) policy: Arc<Policy>,
    pub(in crate::admission) bindings: Vec<Binding>,
}

/// Whether what is stored there are policies or bindings.
pub(crate) fn is_stored_in(storage: &str) -> bool {
    storage == POLICIES || storage == BINDINGS
}

/// Whether there is any policy that may be asked, as far as can be told.
pub(in crate::admission) fn any(registry: &Registry) -> bool {
    !registry.store().snapshot(BINDINGS).is_empty() && !registry.store().snapshot(POLICIES).is_empty()
}

/// The policies as they are stored now. Compiles those that changed and have bindings.
///
/// # Errors
/// 500 when one cannot be decoded: nobody knows what it would have refused.
pub(in crate::admission) async fn current(registry: &Registry) -> Result<Arc<Table>, ApiError> {
    if let Some(table) = known(registry) {
        return Ok(table);
    }
    let _turn = registry.0.policies.turn.lock().await;
    if let Some(table) = known(registry) {
        return Ok(table);
    }
    let registry = registry.clone();
    tokio::task::spawn_blocking(move || rebuild(&registry)).await.map_err(ApiError::internal)?
}

/// The table, if it is of what is stored now.
fn known(registry: &Registry) -> Option<Arc<Table>> {
    let table = registry.0.policies.table.load_full();
    table.is_of(&snapshots(registry)).then_some(table)
}

/// Compiles policies that changed, so that no request has to wait for it.
///
/// # Errors
/// As [`current`].
pub(crate) async fn refresh(registry: &Registry) -> Result<(), ApiError> {
    current(registry).await.map(|_| ())
}

fn snapshots(registry: &Registry) -> [Snapshot; 2] {
    [POLICIES, BINDINGS].map(|storage| registry.store().snapshot(storage))
}

fn rebuild(registry: &Registry) -> Result<Arc<Table>, ApiError> {
    let configured = &registry.0.policies;
    let mut compiled = configured.compiled.lock();
    let snapshots = snapshots(registry);
    let table = configured.table.load_full();
    if table.is_of(&snapshots) {
        return Ok(table);
    }
    let [policies, bindings] = &snapshots;
    let mut bound: HashMap<String, Vec<Binding>> = HashMap::new();
    for entry in bindings.iter() {
        let object: ValidatingAdmissionPolicyBinding = decode(entry)?;
        let binding = Binding::new(object);
        bound.entry(binding.policy.clone()).or_default().push(binding);
    }
    let (mut hooks, mut kept) = (Vec::new(), HashMap::new());
    for entry in policies.iter() {
        let name = &entry.key.name;
        // Without a binding nobody asks it: it is compiled when it gets one.
        let Some(bindings) = bound.remove(&**name) else { continue };
        // Most writes to a policy are about its status.
        let same = compiled.remove(name).filter(|known| spec(&known.entry) == spec(entry));
        let policy = match same {
            Some(known) => known.policy,
            None => Arc::new(Policy::compile(decode::<ValidatingAdmissionPolicy>(entry)?)),
        };
        kept.insert(Arc::clone(name), Compiled { entry: Arc::clone(entry), policy: Arc::clone(&policy) });
        hooks.push(Hook { policy, bindings });
    }
    *compiled = kept;
    let table = Arc::new(Table { of: Some(snapshots), hooks });
    configured.table.store(Arc::clone(&table));
    Ok(table)
}

fn decode<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T, ApiError> {
    decode_stored(entry, &managed_fields::split(&entry.value).0)
}

/// The bytes of the specification.
fn spec(entry: &Entry) -> Option<&[u8]> {
    scan::find(&entry.value, &["spec"]).map(|range| &entry.value[range])
}

impl Table {
    /// Whether it was made from what is stored.
    fn is_of(&self, snapshots: &[Snapshot; 2]) -> bool {
        self.of.as_ref().is_some_and(|of| of.iter().zip(snapshots).all(|(of, now)| of.is_same(now)))
    }
}
