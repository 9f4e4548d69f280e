//! The history of a StatefulSet's or a DaemonSet's template, kept in ControllerRevisions.
//!
//! Upstream: each template that was ever asked for is a revision; going back to an old one gives it a new number. A
//! revision is named after its content, and two contents of one hash are told apart by the owner's `collisionCount`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use informer::{Informer, ObjectKey, WorkQueue};
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use machinery::selector::LabelSelector;
use serde_json::{Value, json};

use crate::claim::{self, Claim};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::Context;
use crate::deployment::history::same_template;
use crate::expectations::Expectations;
use crate::meta;
use crate::owner::Owner;

/// The label of a Pod that says of which revision it is.
pub(crate) const POD_REVISION: &str = "controller-revision-hash";
/// The label of a revision that holds its hash.
const HASH: &str = "controller.kubernetes.io/hash";

/// What makes the wanted template the latest revision.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// It is that already.
    Latest(Arc<ControllerRevision>),
    /// An older revision has it and gets this number.
    Renumber(Arc<ControllerRevision>, i64),
    /// No revision has it yet.
    Create(Box<ControllerRevision>),
}

/// The order of revisions: by number, then by age.
pub(crate) fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|a, b| {
        let age = || meta::created(&**a).cmp(&meta::created(&**b));
        a.revision.cmp(&b.revision).then_with(age).then_with(|| meta::name(&**a).cmp(meta::name(&**b)))
    });
}

/// How `template` becomes the latest of `revisions`, which are in order. `annotations` are those of the owner.
pub(crate) fn choose(
    owner: &Owner,
    annotations: Option<&BTreeMap<String, String>>,
    template: &PodTemplateSpec,
    collisions: i32,
    revisions: &[Arc<ControllerRevision>],
) -> Choice {
    let wanted = data(template);
    let next = revisions.last().map_or(1, |last| last.revision.saturating_add(1));
    let same = |revision: &Arc<ControllerRevision>| {
        revision.data.as_ref().is_some_and(|data| data.0 == wanted)
            || self::template(revision).is_some_and(|of_revision| same_template(&of_revision, template))
    };
    match revisions.iter().rev().find(|revision| same(revision)) {
        Some(revision) if revision.revision + 1 == next => Choice::Latest(Arc::clone(revision)),
        Some(revision) => Choice::Renumber(Arc::clone(revision), next),
        None => Choice::Create(Box::new(new_revision(owner, annotations, template, wanted, collisions, next))),
    }
}

fn new_revision(
    owner: &Owner,
    annotations: Option<&BTreeMap<String, String>>,
    template: &PodTemplateSpec,
    data: Value,
    collisions: i32,
    number: i64,
) -> ControllerRevision {
    let hash = machinery::hash::pod_template_hash(&data, (collisions != 0).then_some(collisions));
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name())),
            namespace: Some(owner.key.namespace.clone()),
            labels: Some(labels),
            annotations: annotations.cloned(),
            owner_references: Some(vec![owner.controller.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// What a revision keeps of a template: the strategic merge patch that brings the owner back to it.
fn data(template: &PodTemplateSpec) -> Value {
    // What cannot be encoded cannot have come through the API.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Value::Object(members) = &mut template {
        members.insert("$patch".to_owned(), "replace".into());
    }
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The hash of a revision, by which a DaemonSet labels its Pods.
pub(crate) fn hash(revision: &ControllerRevision) -> &str {
    let label = revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH));
    label.map_or_else(|| meta::name(revision), String::as_str)
}

/// The revisions beyond `limit` that are not `live`, of `revisions` in order.
pub fn surplus(
    revisions: &[Arc<ControllerRevision>],
    is_live: impl Fn(&ControllerRevision) -> bool,
    limit: i32,
) -> Vec<Arc<ControllerRevision>> {
    let old: Vec<_> = revisions.iter().filter(|revision| !is_live(revision)).collect();
    let count = old.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    old.into_iter().take(count).cloned().collect()
}

/// The revisions of one controller's objects.
pub struct History {
    client: Client,
    revisions: Informer<ControllerRevision>,
    /// What was written to revisions and is not shown yet.
    pub expectations: Expectations,
}

/// The revision of the wanted template, or that another content has its name.
pub enum Latest {
    /// The revision, as it is written now.
    Is(Arc<ControllerRevision>),
    /// The owner must count a collision and choose again.
    Collision,
}

impl History {
    /// The history of objects of the controller that uses `informers`.
    pub fn new(context: &Context) -> Self {
        let revisions = context.informer::<ControllerRevision>();
        revisions.index(meta::BY_CONTROLLER, meta::controller_uids);
        revisions.index(meta::ORPHANS, meta::orphan_namespaces);
        Self { client: context.client.clone(), expectations: context.expectations(&revisions), revisions }
    }

    /// Enqueues the owner, of kind `kind`, of every revision that changes, as long as the queue is there.
    pub fn watch(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>, kind: &'static str) {
        let (history, queue) = (Arc::downgrade(self), queue.downgrade());
        self.revisions.on_change(move |change| {
            // Handlers stay for as long as the informer does.
            let (Some(history), Some(queue)) = (history.upgrade(), queue.upgrade()) else { return };
            history.expectations.observe(change);
            for revision in [&change.old, &change.new].into_iter().flatten() {
                let owner = meta::controller_of(&revision.metadata).filter(|owner| owner.kind == kind);
                if let Some(owner) = owner {
                    queue.add(ObjectKey::new(meta::namespace(&**revision), &owner.name), change.cause());
                }
            }
        });
    }

    /// Waits until all revisions are known.
    pub async fn synced(&self) {
        self.revisions.synced().await;
    }

    /// The revisions that are the owner's now, in order.
    pub fn owned(&self, owner: &Owner) -> Vec<Arc<ControllerRevision>> {
        let mut revisions = self.revisions.by_index(meta::BY_CONTROLLER, owner.uid());
        sort(&mut revisions);
        revisions
    }

    /// The revisions of `object` in order, after orphans were taken in that its selector matches.
    pub(crate) async fn of<O: Metadata<Ty = ObjectMeta>>(
        &self,
        owner: &Owner,
        object: &O,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let mut revisions = self.revisions.by_index(meta::BY_CONTROLLER, owner.uid());
        let orphans = self.revisions.by_index(meta::ORPHANS, &owner.key.namespace);
        let adopts = |revision: &Arc<ControllerRevision>| {
            claim::claim(object, |labels| selector.matches(labels), &**revision) == Claim::Adopt
        };
        let orphans: Vec<_> = orphans.into_iter().filter(adopts).collect();
        if !orphans.is_empty() && owner.is_alive(&self.client).await? {
            for orphan in orphans {
                let patch = claim::adoption(&owner.controller, &*orphan);
                revisions.extend(self.patch(owner, &orphan, &Patch::Strategic(patch)).await?.map(Arc::new));
            }
        }
        sort(&mut revisions);
        Ok(revisions)
    }

    /// Carries a choice out.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn enact(&self, owner: &Owner, choice: Choice) -> Result<Latest, Error> {
        match choice {
            Choice::Latest(revision) => Ok(Latest::Is(revision)),
            Choice::Renumber(revision, number) => {
                let patch = json!({ "metadata": { "uid": meta::uid(&*revision) }, "revision": number });
                let written = self.patch(owner, &revision, &Patch::Merge(patch)).await?;
                // It went meanwhile: the next look will create it.
                Ok(Latest::Is(written.map_or(revision, Arc::new)))
            }
            Choice::Create(revision) => self.create(owner, *revision).await,
        }
    }

    async fn create(&self, owner: &Owner, revision: ControllerRevision) -> Result<Latest, Error> {
        let key = ObjectKey::of(&revision);
        self.expectations.expect_creation(&owner.key, key.clone());
        let answer = self.api(owner).create(&PostParams::default(), &revision).await.map_err(Error::from);
        let error = match answer {
            Ok(written) => return Ok(Latest::Is(Arc::new(written))),
            Err(error) => error,
        };
        self.expectations.observed(&key);
        if !error.is_already_exists() {
            return Err(error);
        }
        let same = |live: &ControllerRevision| {
            let ours = meta::controller_of(&live.metadata).is_some_and(|controller| controller.uid == owner.uid());
            ours && live.data == revision.data
        };
        match ok_if_not_found(self.api(owner).get(&key.name).await)? {
            Some(live) if same(&live) => Ok(Latest::Is(Arc::new(live))),
            Some(_) => Ok(Latest::Collision),
            None => Err(error),
        }
    }

    async fn patch(
        &self,
        owner: &Owner,
        revision: &ControllerRevision,
        patch: &Patch<Value>,
    ) -> Result<Option<ControllerRevision>, Error> {
        let answer = self.api(owner).patch(meta::name(revision), &PatchParams::default(), patch).await;
        let written = ok_if_not_found(answer)?;
        if let Some(written) = &written {
            self.expectations.expect_write(&owner.key, written, |key| self.revisions.get(key));
        }
        Ok(written)
    }

    /// Deletes revisions that nobody needs any more.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn delete(&self, owner: &Owner, revisions: &[Arc<ControllerRevision>]) -> Result<(), Error> {
        for revision in revisions {
            self.expectations.expect_deletion(&owner.key, &**revision);
            let params = DeleteParams::default()
                .preconditions(Preconditions { uid: revision.metadata.uid.clone(), resource_version: None });
            if let Err(error) = ok_if_not_found(self.api(owner).delete(meta::name(&**revision), &params).await) {
                self.expectations.observed(&ObjectKey::of(&**revision));
                return Err(error);
            }
        }
        Ok(())
    }

    fn api(&self, owner: &Owner) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), &owner.key.namespace)
    }
}

/// The revisions that Pods are of, by their label.
pub(crate) fn of_pods<'a>(
    pods: impl IntoIterator<Item = &'a Arc<k8s_openapi::api::core::v1::Pod>>,
) -> BTreeSet<&'a str> {
    pods.into_iter().filter_map(|pod| of_pod(pod)).collect()
}

/// The revision that a Pod is of, by its label.
pub(crate) fn of_pod(pod: &k8s_openapi::api::core::v1::Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(POD_REVISION).map(String::as_str)
}
