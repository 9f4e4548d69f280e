//! Garbage collection: what nobody owns any more goes.
//!
//! Watches the metadata of all kinds; owns the finalizers `foregroundDeletion` and `orphan`. The [`graph`] keeps who
//! owns what, [`plan::plan`] decides, and this file asks the API server what the decision rests on and carries it out.
//! Nothing is deleted because the graph does not know its owner: the API server must say, by UID, that there is none.

mod absent;
mod graph;
mod kinds;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use informer::{Action, Cause, EventType, Recorder, WorkQueue};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::absent::Reference;
use self::graph::{Dependent, FOREGROUND, Fate, Node, ORPHAN, Owner, Text};
use self::kinds::{Partial, Shared};
use self::plan::{CollectStep, Policy, Propagation, Standing};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::discovery::Kind;

/// The controller of objects without owners.
pub(crate) struct GarbageCollector {
    shared: Arc<Shared>,
    recorder: Recorder,
    synced: CancellationToken,
}

impl Controller for GarbageCollector {
    const NAME: &'static str = "garbage_collector_attempt_to_delete";
    // Garbage is many objects, and one small request for each.
    const WORKERS: fn(usize) -> usize = |configured| configured.saturating_mul(2);
    /// The UID of an object.
    type Key = Text;

    fn new(context: &Context, queue: WorkQueue<Text>) -> Self {
        Self {
            shared: Arc::new(Shared::new(context.client.clone(), queue)),
            recorder: context.recorder("garbage-collector-controller"),
            synced: CancellationToken::new(),
        }
    }

    fn watch(self: &Arc<Self>) {}

    async fn synced(&self) {
        self.synced.cancelled().await;
    }

    async fn reconcile(&self, uid: &Text) -> Result<Action, Error> {
        let Some((node, kind)) = self.node(uid) else {
            return Ok(Action::AwaitChange.because("the object is gone"));
        };
        // Most of the time the graph alone shows that there is nothing to do.
        if node.fate == Fate::Goes || (node.fate == Fate::Stays && self.is_held(&node)) {
            return Ok(Action::AwaitChange.because("its owners hold it, or it goes by itself"));
        }
        let api: Api<Partial> = api(&self.shared.client, &kind, &node.namespace);
        let live = ok_if_not_found(api.get(&node.name).await)?;
        let Some(meta) = live.map(|live| live.metadata).filter(|meta| meta.uid.as_deref() == Some(&**uid)) else {
            // It is gone; the watch will say so.
            return Ok(Action::AwaitChange.because("the object is gone"));
        };
        let (node, dependents) = {
            let mut known = self.shared.known();
            (known.graph.node(node.kind, &meta), known.graph.dependents(uid))
        };
        let mut owners = Vec::with_capacity(node.owners.len());
        if node.fate == Fate::Stays {
            for owner in &node.owners {
                owners.push((owner.uid.clone(), self.standing(&kind, &node, owner, &meta).await?));
            }
        }
        let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        let propagation = Propagation {
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
            blocks: node.owners.iter().any(|owner| owner.blocks),
        };
        for action in plan::plan(node.fate, propagation, &owners, &dependents) {
            if !self.apply(&api, &node, &meta, action).await? {
                break;
            }
        }
        Ok(Action::AwaitChange)
    }

    async fn background(&self) {
        kinds::watch_all(Arc::clone(&self.shared), self.synced.clone()).await;
    }
}

impl GarbageCollector {
    fn node(&self, uid: &str) -> Option<(Node, Arc<Kind>)> {
        let known = self.shared.known();
        let node = known.graph.get(uid)?.clone();
        let kind = known.kind(node.kind)?;
        Some((node, kind))
    }

    /// Whether all owners of `node` are there and stay, where it may have them.
    fn is_held(&self, node: &Node) -> bool {
        let known = self.shared.known();
        let holds = |owner| known.graph.owner_of(node, owner).is_some_and(|found| found.fate != Fate::Foreground);
        node.owners.iter().all(holds)
    }

    /// How `owner` stands, as seen from `node`, which has the metadata `meta`.
    async fn standing(&self, kind: &Kind, node: &Node, owner: &Owner, meta: &ObjectMeta) -> Result<Standing, Error> {
        let (found, elsewhere, owner_kind) = {
            let known = self.shared.known();
            let found = known.graph.owner_of(node, owner).map(|found| found.fate);
            // Upstream speaks of the namespace only where the name is right.
            let elsewhere = known.graph.get(&owner.uid).is_some_and(|found| found.name == owner.name);
            (found, elsewhere, known.kind_named(&owner.api_version, &owner.kind))
        };
        match found {
            Some(Fate::Foreground) => return Ok(Standing::Waiting),
            Some(_) => return Ok(Standing::Solid),
            None if elsewhere => self.warn_of_namespace(kind, node, owner, meta),
            None => {}
        }
        let Some(owner_kind) = owner_kind else {
            self.shared.refresh.notify_one();
            return Err(Error::UnknownKind {
                api_version: owner.api_version.to_string(),
                kind: owner.kind.to_string(),
            });
        };
        if owner_kind.namespaced && node.namespace.is_empty() {
            self.warn_of_namespace(kind, node, owner, meta);
            return Ok(Standing::Impossible);
        }
        let namespace: Text = if owner_kind.namespaced { node.namespace.clone() } else { "".into() };
        let reference = Reference { uid: owner.uid.clone(), name: owner.name.clone(), namespace: namespace.clone() };
        if self.shared.absent().contains(&reference) {
            return Ok(Standing::Absent);
        }
        let api: Api<Partial> = api(&self.shared.client, &owner_kind, &namespace);
        let live = ok_if_not_found(api.get(&owner.name).await)?;
        match live.filter(|live| live.metadata.uid.as_deref() == Some(&*owner.uid)) {
            Some(live) if Fate::of(&live.metadata) == Fate::Foreground => Ok(Standing::Waiting),
            Some(_) => Ok(Standing::Solid),
            None => {
                self.shared.absent().remember(reference);
                Ok(Standing::Absent)
            }
        }
    }

    fn warn_of_namespace(&self, kind: &Kind, node: &Node, owner: &Owner, meta: &ObjectMeta) {
        let about = ObjectReference {
            api_version: Some(kind.resource.api_version.clone()),
            kind: Some(kind.resource.kind.clone()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        };
        let Owner { api_version, kind, name, uid, .. } = owner;
        let namespace = &node.namespace;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace {namespace:?}"
        );
        self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    /// Carries one action out. False if the rest of the plan has lost its ground.
    async fn apply(
        &self,
        api: &Api<Partial>,
        node: &Node,
        meta: &ObjectMeta,
        action: CollectStep,
    ) -> Result<bool, Error> {
        match action {
            CollectStep::Delete(policy) => {
                let params = DeleteParams {
                    propagation_policy: Some(match policy {
                        Policy::Background => PropagationPolicy::Background,
                        Policy::Foreground => PropagationPolicy::Foreground,
                        Policy::Orphan => PropagationPolicy::Orphan,
                    }),
                    ..DeleteParams::default()
                };
                // Somebody may have given it another owner meanwhile.
                let params = params.preconditions(Preconditions {
                    uid: meta.uid.clone(),
                    resource_version: meta.resource_version.clone(),
                });
                ok_if_not_found(api.delete(&node.name, &params).await)?;
            }
            CollectStep::RemoveOwners(uids) => {
                let keep = |uid: &str| !uids.iter().any(|gone| &**gone == uid);
                patch(api, meta, owners_patch(meta, keep)).await?;
            }
            CollectStep::Unblock => {
                let mut owners = meta.owner_references.clone().unwrap_or_default();
                owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
                patch(api, meta, json!({ "metadata": { "ownerReferences": owners } })).await?;
                // What follows rests on the version that this made old: it is looked at again.
                let cause = Cause::new("it blocks the deletion of its owner no more");
                self.shared.queue.add(meta.uid.as_deref().unwrap_or_default().into(), cause);
                return Ok(false);
            }
            CollectStep::Orphan(dependents) => self.orphan(meta, &dependents).await?,
            CollectStep::RemoveFinalizer(finalizer) => {
                let left = meta.finalizers.iter().flatten().filter(|name| *name != finalizer);
                let left: Vec<&String> = left.collect();
                patch(api, meta, json!({ "metadata": { "finalizers": left } })).await?;
            }
            CollectStep::LookAt(uids) => {
                let cause = Cause::new("its owner waits for it to go");
                uids.into_iter().for_each(|uid| self.shared.queue.add(uid, cause.clone()));
            }
        }
        Ok(true)
    }

    /// Makes each of `dependents` forget the owner with the metadata `meta`.
    async fn orphan(&self, meta: &ObjectMeta, dependents: &[Dependent]) -> Result<(), Error> {
        for dependent in dependents {
            let Some(kind) = self.shared.known().kind(dependent.node.kind) else {
                continue;
            };
            let api: Api<Partial> = api(&self.shared.client, &kind, &dependent.node.namespace);
            let Some(live) = ok_if_not_found(api.get(&dependent.node.name).await)? else {
                continue;
            };
            if live.metadata.uid.as_deref() == Some(&*dependent.uid) {
                let keep = |uid: &str| meta.uid.as_deref() != Some(uid);
                patch(&api, &live.metadata, owners_patch(&live.metadata, keep)).await?;
            }
        }
        Ok(())
    }
}

fn api(client: &Client, kind: &Kind, namespace: &str) -> Api<Partial> {
    if kind.namespaced {
        Api::namespaced_with(client.clone(), namespace, &kind.resource)
    } else {
        Api::all_with(client.clone(), &kind.resource)
    }
}

fn owners_patch(meta: &ObjectMeta, keep: impl Fn(&str) -> bool) -> Value {
    let owners = meta.owner_references.iter().flatten().filter(|owner| keep(&owner.uid));
    let owners: Vec<_> = owners.collect();
    json!({ "metadata": { "ownerReferences": owners } })
}

/// Patches the object as it was seen: if it changed since, it is looked at again.
async fn patch(api: &Api<Partial>, meta: &ObjectMeta, mut patch: Value) -> Result<(), Error> {
    patch["metadata"]["uid"] = json!(meta.uid);
    patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
    let name = meta.name.as_deref().unwrap_or_default();
    ok_if_not_found(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
    Ok(())
}
