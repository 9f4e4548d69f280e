//! What lies in the store, by its keys: `/debug/store/keys`, `/debug/store/value` and `/debug/store/changes`, for
//! `coracle store`. What `etcdctl` is to etcd; our own, not upstream's.
//!
//! Keys are those of the store, `/registry/GROUP/RESOURCE/NAMESPACE/NAME`, and a prefix is one of texts, as in etcd. As
//! etcd's own keys mostly leave out the group, so may these.
//!
//! All objects are shown to whoever may ask, Secrets too, so only those may who may do everything ([`everything`]). Nothing is
//! held between two requests: keys come in pages of one revision, and changes are asked for again after the last one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use machinery::Verb;
use machinery::status::ApiError;
use registry::Registry;
use serde_json::{Value, json};
use store::{Change, Compacted, Entry, EventKind, HistoryError, Key, Revision, Store, WatchError};

use crate::authn::User;
use crate::authz::{Attributes, Target};
use crate::lifecycle::Lifecycle;
use crate::query::Query;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyspace {
    /// The keys behind a prefix, in pages.
    Keys,
    /// What lies under a key.
    Value,
    /// The changes from a revision on, as soon as there are some.
    Changes,
}

const ROOT: &str = "/registry/";
/// So many keys are told at once.
const PAGE: usize = 500;
/// So long changes are waited for: less than a request may take.
const WAIT: Duration = Duration::from_secs(20);

impl Keyspace {
    /// What follows `/debug/store/`.
    pub(crate) fn find(name: &str) -> Option<Self> {
        match name {
            "keys" => Some(Self::Keys),
            "value" => Some(Self::Value),
            "changes" => Some(Self::Changes),
            _ => None,
        }
    }
}

/// The right to do everything with all objects, which `cluster-admin` gives.
pub(crate) fn everything(user: &User) -> Attributes<'_> {
    let target = Target::Resource { group: "*", version: "*", resource: "*", subresource: "", namespace: "", name: "" };
    Attributes::new(user, Verb::Other("*"), target)
}

/// Answers with JSON.
///
/// # Errors
/// 400 for what is no prefix, key or revision of this store, 404 where there is nothing, 410 for what is forgotten.
pub(crate) async fn document(
    what: Keyspace,
    registry: &Registry,
    lifecycle: &Lifecycle,
    query: &Query<'_>,
) -> Result<Bytes, ApiError> {
    let store = registry.store();
    let mut known: BTreeSet<Arc<str>> = store.resources().into_iter().collect();
    known.extend(registry.resources().iter().map(|resource| Arc::clone(&resource.info().storage)));
    match what {
        Keyspace::Keys => keys(store, &known, query).await.map(|page| page.to_string().into()),
        Keyspace::Value => value(store, &known, query.text("key")),
        Keyspace::Changes => changes(store, &known, lifecycle, query).await.map(|page| page.to_string().into()),
    }
}

/// What begins a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    /// What follows `/registry/`.
    text: String,
    /// The group was left out.
    is_short: bool,
}

impl Prefix {
    /// What somebody means who types this; nothing if no resource is stored below it.
    fn find(typed: &str, known: &BTreeSet<Arc<str>>) -> Option<Self> {
        let text = match typed.strip_prefix(ROOT) {
            Some(text) => text,
            // `/reg` is the beginning of all keys.
            None if ROOT.starts_with(typed) => "",
            None if typed.starts_with('/') => return None,
            None => typed,
        };
        let with = |is_short| Self { text: text.to_owned(), is_short };
        [with(false), with(true)].into_iter().find(|prefix| known.iter().any(|resource| prefix.meets(resource)))
    }

    /// The resource as the prefix names it, with a slash.
    fn root(&self, resource: &str) -> String {
        let name = if self.is_short { resource.split_once('/').map_or(resource, |(_, name)| name) } else { resource };
        format!("{name}/")
    }

    /// Whether keys of the resource may have the prefix.
    fn meets(&self, resource: &str) -> bool {
        let root = self.root(resource);
        root.starts_with(&self.text) || self.text.starts_with(&root)
    }

    /// What is left of the prefix for the namespaces and names of a resource.
    fn below(&self, resource: &str) -> Option<&str> {
        let root = self.root(resource);
        if root.starts_with(&self.text) { Some("") } else { self.text.strip_prefix(&root) }
    }

    fn matches(&self, key: &Key) -> bool {
        let Some(below) = self.below(&key.resource) else { return false };
        // A cluster-scoped object has an empty namespace, which etcd's keys do not have.
        let is_name = key.namespace.is_empty() && key.name.starts_with(below);
        is_name || format!("{}/{}", key.namespace, key.name).starts_with(below)
    }

    /// The keys that are meant where the prefix is a whole one: more than one if groups have the same resource.
    fn keys(&self, known: &BTreeSet<Arc<str>>) -> Vec<Key> {
        let key = |resource: &Arc<str>| {
            let below = self.text.strip_prefix(&self.root(resource))?;
            let (namespace, name) = below.split_once('/').unwrap_or(("", below));
            let is_one = !name.is_empty() && !name.contains('/');
            is_one.then(|| Key::new(Arc::clone(resource), namespace, name))
        };
        known.iter().filter_map(key).collect()
    }
}

fn prefix(query: &Query<'_>, known: &BTreeSet<Arc<str>>) -> Result<Prefix, ApiError> {
    let typed = query.text("prefix");
    Prefix::find(typed, known).ok_or_else(|| {
        ApiError::bad_request(format!("nothing is stored below {typed:?}; see all keys: coracle store ls"))
    })
}

/// A page of keys. All pages are of the revision of the first one.
async fn keys(store: &Store, known: &BTreeSet<Arc<str>>, query: &Query<'_>) -> Result<Value, ApiError> {
    let prefix = prefix(query, known)?;
    let revision = revision(query, "revision")?.unwrap_or_else(|| store.revision());
    let after = Some(query.text("continue")).filter(|token| !token.is_empty()).map(|token| {
        let all: Vec<&str> = token.strip_prefix(ROOT).unwrap_or_default().splitn(4, '/').collect();
        match all[..] {
            [group, resource, namespace, name] => Ok((format!("{group}/{resource}"), namespace, name)),
            _ => Err(ApiError::bad_request(format!("{token:?} is no key to go on after"))),
        }
    });
    let after = after.transpose()?;
    let limit = query.integer("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let limit = limit.unwrap_or(PAGE).min(PAGE);
    let mut found = Vec::new();
    for resource in known.iter().filter(|resource| prefix.meets(resource)) {
        let after = match &after {
            Some((last, ..)) if **resource < **last => continue,
            Some((last, namespace, name)) if **resource == **last => Some((*namespace, *name)),
            _ => None,
        };
        let snapshot = store.snapshot_at(resource, revision).await.map_err(|error| of_history(error, store))?;
        let namespace = prefix.below(resource).and_then(|below| below.split_once('/')).map(|(namespace, _)| namespace);
        let entries = snapshot.range(namespace, after).filter(|entry| prefix.matches(&entry.key));
        // One more tells whether there is another page.
        found.extend(entries.take(limit + 1 - found.len()).map(row));
        if found.len() > limit {
            break;
        }
    }
    let is_more = found.len() > limit;
    found.truncate(limit);
    let token = is_more.then(|| found.last().map(|last| last["key"].clone())).flatten();
    Ok(json!({ "revision": revision, "keys": found, "continue": token }))
}

fn row(entry: &Arc<Entry>) -> Value {
    json!({
        "key": entry.key.to_string(), "revision": entry.revision, "createRevision": entry.create_revision,
        "size": entry.value.len(),
    })
}

/// What lies under a key, as the API serves it: on disk it may be encrypted.
fn value(store: &Store, known: &BTreeSet<Arc<str>>, typed: &str) -> Result<Bytes, ApiError> {
    let keys = Prefix::find(typed, known).map(|prefix| prefix.keys(known)).unwrap_or_default();
    let found: Vec<Arc<Entry>> = keys.iter().filter_map(|key| store.get(key)).collect();
    let entry = match &found[..] {
        [entry] => entry,
        [] => {
            let why = format!("there is no key {typed:?}; see: coracle store ls PREFIX");
            return Err(ApiError::new(404, machinery::status::Reason::NotFound, why));
        }
        more => {
            let names: Vec<String> = more.iter().map(|entry| entry.key.to_string()).collect();
            return Err(ApiError::bad_request(format!("{typed:?} may be {}: name one", names.join(" or "))));
        }
    };
    // What is stored goes in as it is.
    let mut answer = row(entry).to_string().into_bytes();
    answer.pop();
    answer.extend_from_slice(b",\"value\":");
    answer.extend_from_slice(&entry.value);
    answer.push(b'}');
    Ok(answer.into())
}

/// Some of the changes from a revision on, and from which to ask for more. Waits a while for the first.
async fn changes(
    store: &Store,
    known: &BTreeSet<Arc<str>>,
    lifecycle: &Lifecycle,
    query: &Query<'_>,
) -> Result<Value, ApiError> {
    let prefix = prefix(query, known)?;
    let newest = store.revision();
    let from = revision(query, "from")?.unwrap_or(newest + 1);
    if from > newest + 1 {
        return Err(ApiError::bad_request(format!("revision {from} has not happened; the newest is {newest}")));
    }
    let wait = query.integer("waitSeconds")?.and_then(|wait| u64::try_from(wait).ok());
    let wait = wait.map_or(WAIT, Duration::from_secs).min(WAIT);
    let watcher = store.watch_log(from.saturating_sub(1), move |key| prefix.matches(key));
    let mut watcher = watcher.map_err(forgotten)?;
    let next = async {
        tokio::select! {
            biased;
            () = lifecycle.stopping.cancelled() => Err(WatchError::Closed),
            changes = watcher.next() => changes,
        }
    };
    let changes = match tokio::time::timeout(wait, next).await {
        Ok(Ok(changes)) => changes,
        Ok(Err(WatchError::Compacted(compacted))) => return Err(forgotten(compacted)),
        Ok(Err(WatchError::Closed)) => return Err(ApiError::service_unavailable("the server is shutting down")),
        Ok(Err(error)) => return Err(ApiError::internal(error)),
        // What came meanwhile and is of no interest has been passed over.
        Err(_) => Vec::new(),
    };
    let changes: Vec<Value> = changes.iter().map(change).collect();
    Ok(json!({ "changes": changes, "next": watcher.reached() + 1 }))
}

/// A change in etcd's words: to it, a creation and an update are the same.
fn change(change: &Change) -> Value {
    json!({
        "revision": change.revision,
        "type": if change.kind == EventKind::Deleted { "DELETE" } else { "PUT" },
        "key": change.key.to_string(), "createRevision": change.create_revision, "size": change.size,
    })
}

fn revision(query: &Query<'_>, name: &str) -> Result<Option<Revision>, ApiError> {
    let negative = |number: i64| ApiError::bad_request(format!("{number} is no revision"));
    let read = |number: i64| Revision::try_from(number).map_err(|_| negative(number));
    query.integer(name)?.map(read).transpose()
}

fn of_history(error: HistoryError, store: &Store) -> ApiError {
    match error {
        HistoryError::Compacted(compacted) => forgotten(compacted),
        HistoryError::Future { requested, .. } => {
            ApiError::bad_request(format!("revision {requested} has not happened; the newest is {}", store.revision()))
        }
        HistoryError::Closed => ApiError::service_unavailable("the server is shutting down"),
        other => ApiError::internal(other),
    }
}

/// The first change that is remembered is the one behind the horizon.
fn forgotten(compacted: Compacted) -> ApiError {
    let Compacted { requested, horizon } = compacted;
    ApiError::expired(format!(
        "the change of revision {} is forgotten; the oldest that is remembered is that of revision {}. More is with: \
         coracle start --history 1h",
        requested + 1,
        horizon + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeSet<Arc<str>> {
        ["apps/deployments", "core/nodes", "core/pods", "core/podtemplates", "example.com/pods"]
            .into_iter()
            .map(Arc::from)
            .collect()
    }

    #[test]
    fn a_prefix_is_one_of_texts() {
        let keys = [
            Key::new("apps/deployments", "default", "web"),
            Key::new("core/nodes", "", "laptop"),
            Key::new("core/pods", "default", "web"),
            Key::new("core/pods", "default-2", "db"),
            Key::new("example.com/pods", "default", "x"),
        ];
        for (typed, expected) in [
            ("", Some(&[0, 1, 2, 3, 4][..])),
            ("/", Some(&[0, 1, 2, 3, 4])),
            ("/registry", Some(&[0, 1, 2, 3, 4])),
            ("/registry/core/", Some(&[1, 2, 3])),
            ("/registry/core/pod", Some(&[2, 3])),
            ("/registry/core/pods/default", Some(&[2, 3])),
            ("core/pods/default/", Some(&[2])),
            ("core/pods/default/w", Some(&[2])),
            ("core/pods/default/x", Some(&[])),
            ("core/podtemplates/", Some(&[])),
            ("/registry/core/nodes//lap", Some(&[1])),
            ("/registry/core/nodes/lap", Some(&[1])),
            // As etcd has them: without a group.
            ("/registry/deployments/default/web", Some(&[0])),
            ("nodes/laptop", Some(&[1])),
            ("pods/", Some(&[2, 3, 4])),
            ("/registry/minions/laptop", None),
            ("/other", None),
            ("core/pods2", None),
            ("example.com/pods/default/x/y", Some(&[])),
        ] {
            let found = Prefix::find(typed, &known());
            let matching =
                found.map(|prefix| (0..keys.len()).filter(|index| prefix.matches(&keys[*index])).collect::<Vec<_>>());
            assert_eq!(matching.as_deref(), expected, "{typed:?}");
        }
    }

    #[test]
    fn keys_with_and_without_a_group() {
        for (typed, expected) in [
            ("/registry/core/pods/default/web", &["/registry/core/pods/default/web"][..]),
            ("core/pods/default/web", &["/registry/core/pods/default/web"]),
            ("pods/default/web", &["/registry/core/pods/default/web", "/registry/example.com/pods/default/web"]),
            ("/registry/core/nodes//laptop", &["/registry/core/nodes//laptop"]),
            ("/registry/nodes/laptop", &["/registry/core/nodes//laptop"]),
            ("core/pods", &[]),
            ("core/pods/default/", &[]),
            ("core/pods/default/web/log", &[]),
        ] {
            let keys = Prefix::find(typed, &known()).map(|prefix| prefix.keys(&known())).unwrap_or_default();
            assert_eq!(keys.iter().map(Key::to_string).collect::<Vec<_>>(), expected, "{typed:?}");
        }
    }
}
