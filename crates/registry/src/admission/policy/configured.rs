//! The policies that are configured, compiled once for each state of the configuration.
//!
//! Compiling is done when a policy or binding is written, off the threads that answer requests; these take the table as it is.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use machinery::status::ApiError;
use parking_lot::Mutex;
use store::{Entry, Snapshot};

use super::{Binding, Mutations, Policy, Rules, Validations};
use crate::admission::decode_stored;
use crate::pipeline::managed_fields;
use crate::{Registry, scan};

/// What the registry knows of policies.
#[derive(Default)]
pub(crate) struct Configured {
    pub(super) validating: Known<Validations>,
    pub(super) mutating: Known<Mutations>,
}

/// The policies of one kind.
pub(in crate::admission) struct Known<R> {
    table: ArcSwap<Table<R>>,
    /// Held by whoever has the table made; the others wait for it, and keep no thread.
    turn: tokio::sync::Mutex<()>,
    /// The policies that were compiled last, by name.
    compiled: Mutex<HashMap<Arc<str>, Compiled<R>>>,
}

impl<R> Default for Known<R> {
    fn default() -> Self {
        let table = ArcSwap::from_pointee(Table { of: None, hooks: Vec::new() });
        Self { table, turn: tokio::sync::Mutex::default(), compiled: Mutex::default() }
    }
}

struct Compiled<R> {
    entry: Arc<Entry>,
    policy: Arc<Policy<R>>,
}

/// The policies that have bindings, in the order of their names, and what they were made from.
pub(in crate::admission) struct Table<R> {
    of: Option<[Snapshot; 2]>,
    pub(in crate::admission) hooks: Vec<Hook<R>>,
}

/// A policy and its bindings, in the order of their names.
pub(in crate::admission) struct Hook<R> {
    pub(in crate::admission) policy: Arc<Policy<R>>,
    pub(in crate::admission) bindings: Vec<Binding>,
}

/// Whether what is stored there are policies of a kind, or their bindings.
fn is_stored_in<R: Rules>(storage: &str) -> bool {
    storage == R::POLICIES || storage == R::BINDINGS
}

/// Whether there is any policy of a kind that may be asked, as far as can be told.
pub(in crate::admission) fn any<R: Rules>(registry: &Registry) -> bool {
    !registry.store().snapshot(R::BINDINGS).is_empty() && !registry.store().snapshot(R::POLICIES).is_empty()
}

/// The policies of a kind as they are stored now. Compiles those that changed and have bindings.
///
/// # Errors
/// 500 when one cannot be decoded: nobody knows what it would have refused.
pub(in crate::admission) async fn current<R: Rules>(registry: &Registry) -> Result<Arc<Table<R>>, ApiError> {
    if let Some(table) = known(registry) {
        return Ok(table);
    }
    let _turn = R::known(&registry.0.policies).turn.lock().await;
    if let Some(table) = known(registry) {
        return Ok(table);
    }
    let registry = registry.clone();
    tokio::task::spawn_blocking(move || rebuild(&registry)).await.map_err(ApiError::internal)?
}

/// The table, if it is of what is stored now.
fn known<R: Rules>(registry: &Registry) -> Option<Arc<Table<R>>> {
    let table = R::known(&registry.0.policies).table.load_full();
    table.is_of(&snapshots::<R>(registry)).then_some(table)
}

/// Compiles policies that changed, so that no request has to wait for it, once something was written there.
///
/// # Errors
/// As [`current`].
pub(crate) async fn refresh(registry: &Registry, storage: &str) -> Result<(), ApiError> {
    if is_stored_in::<Validations>(storage) {
        current::<Validations>(registry).await?;
    } else if is_stored_in::<Mutations>(storage) {
        current::<Mutations>(registry).await?;
    }
    Ok(())
}

fn snapshots<R: Rules>(registry: &Registry) -> [Snapshot; 2] {
    [R::POLICIES, R::BINDINGS].map(|storage| registry.store().snapshot(storage))
}

fn rebuild<R: Rules>(registry: &Registry) -> Result<Arc<Table<R>>, ApiError> {
    let configured = R::known(&registry.0.policies);
    let mut compiled = configured.compiled.lock();
    let snapshots = snapshots::<R>(registry);
    let table = configured.table.load_full();
    if table.is_of(&snapshots) {
        return Ok(table);
    }
    let [policies, bindings] = &snapshots;
    let mut bound: HashMap<String, Vec<Binding>> = HashMap::new();
    for entry in bindings.iter() {
        let binding = R::bind(decode(entry)?);
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
            None => Arc::new(R::compile(decode(entry)?)),
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

impl<R> Table<R> {
    /// Whether it was made from what is stored.
    fn is_of(&self, snapshots: &[Snapshot; 2]) -> bool {
        self.of.as_ref().is_some_and(|of| of.iter().zip(snapshots).all(|(of, now)| of.is_same(now)))
    }
}
