//! Pods on behalf of whatever workload: taken in, let go, created and deleted, with events and a [`Expectations`].
//!
//! What all workload controllers do to Pods is done here, once for all kinds of owner.

use std::sync::Arc;

use futures::{StreamExt, stream};
use informer::{Change, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use machinery::selector::LabelSelector;
use serde_json::Value;

use crate::claim::{self, Claim};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::Context;
use crate::expectations::Expectations;
use crate::owner::Owner;
use crate::{meta, pods};

/// So many requests of one owner are under way at once.
const CONCURRENT: usize = 32;
/// So many names are tried when one is taken. With 14 million endings, one is nearly always enough.
const NAME_ATTEMPTS: usize = 8;

/// How events speak of Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// `Created pod: web-x2x4z`.
    Plain,
    /// `create Pod web-0 in StatefulSet web successful`.
    StatefulSet,
}

/// The Pods of one controller's objects.
pub(crate) struct PodControl {
    client: Client,
    pods: Informer<Pod>,
    recorder: Recorder,
    words: Words,
    /// What was written to Pods and is not shown yet.
    pub(crate) expectations: Expectations,
}

/// What became of Pods that were to be created.
#[derive(Debug, Default)]
pub(crate) struct Created {
    /// How many were, or may have been.
    pub(crate) count: usize,
    /// Why the others were not. Nothing if the namespace is going away, of which nobody needs to hear.
    pub(crate) error: Option<Error>,
}

impl PodControl {
    /// Pods for the controller that reports as `component`.
    pub(crate) fn new(context: &Context, component: &'static str, words: Words) -> Self {
        let pods = context.informer::<Pod>();
        pods.index(meta::BY_CONTROLLER, meta::controller_uids);
        pods.index(meta::ORPHANS, meta::orphan_namespaces);
        let (client, recorder) = (context.client.clone(), context.recorder(component));
        Self { client, expectations: context.expectations(&pods), pods, recorder, words }
    }

    /// The informer of all Pods.
    pub(crate) fn informer(&self) -> &Informer<Pod> {
        &self.pods
    }

    /// Says that something happened to `owner`.
    pub(crate) fn event(&self, owner: &Owner, type_: EventType, reason: &str, message: impl Into<String>) {
        self.recorder.event(&owner.reference, type_, reason, message);
    }

    /// Pods that are or might become those of the object with this UID.
    pub(crate) fn candidates(&self, key: &ObjectKey, uid: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.by_index(meta::BY_CONTROLLER, uid);
        pods.extend(self.pods.by_index(meta::ORPHANS, &key.namespace));
        pods
    }

    /// The Pods of `object`, after orphans were taken in that its selector and `accept` match, and strangers let go.
    pub(crate) async fn claim<O: Metadata<Ty = ObjectMeta>>(
        &self,
        owner: &Owner,
        object: &O,
        selector: &LabelSelector,
        accept: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let mut owned = Vec::new();
        let (mut adopt, mut release) = (Vec::new(), Vec::new());
        for pod in self.candidates(&owner.key, owner.uid()) {
            match claim::claim(object, |labels| selector.matches(labels) && accept(&pod), &*pod) {
                Claim::Owned => owned.push(pod),
                Claim::Release => release.push(pod),
                // A finished orphan is no use to anybody.
                Claim::Adopt if pods::is_active(&pod) => adopt.push(pod),
                Claim::Adopt | Claim::Foreign => {}
            }
        }
        owned.extend(self.take(owner, adopt, release).await?);
        Ok(owned)
    }

    async fn take(&self, owner: &Owner, adopt: Vec<Arc<Pod>>, release: Vec<Arc<Pod>>) -> Result<Vec<Arc<Pod>>, Error> {
        let mut adopted = Vec::new();
        if !adopt.is_empty() && owner.is_alive(&self.client).await? {
            for pod in adopt {
                let patch = claim::adoption(&owner.controller, &*pod);
                adopted.extend(self.patch(owner, &pod, patch).await?.map(Arc::new));
            }
        }
        for pod in release {
            let patch = claim::release(owner.uid(), &*pod);
            self.patch(owner, &pod, patch).await?;
        }
        Ok(adopted)
    }

    /// Changes a Pod with a strategic merge patch. Nothing if it is gone.
    pub(crate) async fn patch(&self, owner: &Owner, pod: &Pod, patch: Value) -> Result<Option<Pod>, Error> {
        let patch = Patch::Strategic(patch);
        let answer = self.api(owner).patch(meta::name(pod), &PatchParams::default(), &patch).await;
        let written = ok_if_not_found(answer)?;
        if let Some(written) = &written {
            self.expectations.expect_write(&owner.key, written, |key| self.pods.get(key));
        }
        Ok(written)
    }

    /// Creates `pods`: one, then two, four and so on at a time, and no more once one fails. So a quota that is used up
    /// costs a few refused requests and not hundreds, and a healthy cluster gets them all within milliseconds.
    pub(crate) async fn create(&self, owner: &Owner, pods: Vec<Pod>) -> Created {
        let mut created = Created::default();
        let mut pods = pods.into_iter();
        let mut batch = 1;
        while created.error.is_none() && pods.len() > 0 {
            let requests = pods.by_ref().take(batch).map(|pod| self.create_one(owner, pod));
            let answers: Vec<_> =
                stream::iter(requests.collect::<Vec<_>>()).buffer_unordered(CONCURRENT).collect().await;
            for answer in answers {
                match answer {
                    Ok(()) => created.count += 1,
                    Err((error, _)) if error.is_namespace_terminating() => return created,
                    Err((error, unheard)) => {
                        created.count += usize::from(unheard);
                        created.error = Some(error);
                    }
                }
            }
            batch *= 2;
        }
        created
    }

    /// Creates a Pod. A failure comes with whether the Pod may be there all the same.
    async fn create_one(&self, owner: &Owner, mut pod: Pod) -> Result<(), (Error, bool)> {
        let prefix = if pod.metadata.name.is_none() { pod.metadata.generate_name.clone() } else { None };
        let mut attempt = 1;
        // The API server may have created the Pod without our hearing of it.
        let mut unheard = false;
        loop {
            if let Some(prefix) = prefix.as_ref().filter(|_| !unheard) {
                pod.metadata.name = Some(machinery::names::generate_name(prefix));
            }
            let key = ObjectKey::new(&owner.key.namespace, meta::name(&pod));
            self.expectations.expect_creation(&owner.key, key.clone());
            let Err(error) = self.api(owner).create(&PostParams::default(), &pod).await.map_err(Error::from) else {
                self.created(owner, &key.name);
                return Ok(());
            };
            let again = prefix.is_some() && attempt < NAME_ATTEMPTS;
            match &error {
                // Nobody else makes names like ours.
                error if error.is_already_exists() && unheard => {
                    self.created(owner, &key.name);
                    return Ok(());
                }
                error if error.is_already_exists() && again => self.expectations.observed(&key),
                // Under the same name, so that there are not two in the end.
                Error::Request(_) if again => unheard = true,
                _ => {
                    // What may be there is waited for.
                    if !unheard {
                        self.expectations.observed(&key);
                    }
                    if !error.is_namespace_terminating() {
                        self.not_created(owner, &key.name, &error);
                    }
                    return Err((error, unheard));
                }
            }
            attempt += 1;
        }
    }

    /// Deletes `pods`, all that can be deleted; the answer is the first failure.
    pub(crate) async fn delete(&self, owner: &Owner, pods: &[Arc<Pod>]) -> Result<(), Error> {
        self.delete_counted(owner, pods).await.1
    }

    /// Deletes `pods`, all that can be deleted; the answer is how many are left, as far as is known, and the first failure.
    pub(crate) async fn delete_counted(&self, owner: &Owner, pods: &[Arc<Pod>]) -> (usize, Result<(), Error>) {
        let requests: Vec<_> = pods.iter().map(|pod| self.delete_one(owner, pod)).collect();
        let answers: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENT).collect().await;
        let left = answers.iter().filter(|answer| answer.is_err()).count();
        (left, answers.into_iter().collect())
    }

    async fn delete_one(&self, owner: &Owner, pod: &Pod) -> Result<(), Error> {
        self.expectations.expect_deletion(&owner.key, pod);
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let name = meta::name(pod);
        match ok_if_not_found(self.api(owner).delete(name, &params).await) {
            Ok(Some(_)) => {
                let message = match self.words {
                    Words::Plain => format!("Deleted pod: {name}"),
                    Words::StatefulSet => format!("delete Pod {name} in StatefulSet {} successful", owner.name()),
                };
                self.event(owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                self.expectations.observed(&ObjectKey::of(pod));
                let message = match self.words {
                    Words::Plain => format!("Error deleting: {error}"),
                    Words::StatefulSet => {
                        format!("delete Pod {name} in StatefulSet {} failed error: {error}", owner.name())
                    }
                };
                self.event(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    fn created(&self, owner: &Owner, name: &str) {
        let message = match self.words {
            Words::Plain => format!("Created pod: {name}"),
            Words::StatefulSet => format!("create Pod {name} in StatefulSet {} successful", owner.name()),
        };
        self.event(owner, EventType::Normal, "SuccessfulCreate", message);
    }

    fn not_created(&self, owner: &Owner, name: &str, error: &Error) {
        let message = match self.words {
            Words::Plain => format!("Error creating: {error}"),
            // Upstream: that the old Pod is still there is nothing to speak of.
            Words::StatefulSet if error.is_already_exists() => return,
            Words::StatefulSet => format!("create Pod {name} in StatefulSet {} failed error: {error}", owner.name()),
        };
        self.event(owner, EventType::Warning, "FailedCreate", message);
    }

    fn api(&self, owner: &Owner) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &owner.key.namespace)
    }
}

/// The Pod that `template` describes, for `owner`; its name will begin with `prefix`.
pub(crate) fn from_template(template: &PodTemplateSpec, owner: &Owner, prefix: String) -> Pod {
    let asked = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            namespace: Some(owner.key.namespace.clone()),
            labels: asked.labels,
            annotations: asked.annotations,
            finalizers: asked.finalizers,
            owner_references: Some(vec![owner.controller.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Enqueues the owners of kind `kind` that a change of a Pod concerns: who owns or owned it, and if nobody owns it, those of
/// its namespace (`in_namespace`) whose selector matches.
pub(crate) fn enqueue_owners<S>(
    queue: &WorkQueue<ObjectKey>,
    change: &Change<Pod>,
    kind: &str,
    in_namespace: impl Fn(&str) -> Vec<Arc<S>>,
    selector: impl Fn(&S) -> Option<LabelSelector>,
) where
    S: Metadata<Ty = ObjectMeta>,
{
    for pod in [&change.old, &change.new].into_iter().flatten() {
        if let Some(owner) = meta::controller_of(&pod.metadata) {
            if owner.kind == kind {
                queue.add(ObjectKey::new(meta::namespace(&**pod), &owner.name), change.cause());
            }
        } else if change.new.is_some() && pod.metadata.labels.is_some() {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            for set in in_namespace(meta::namespace(&**pod)) {
                if selector(&set).is_some_and(|selector| selector.matches(&labels)) {
                    queue.add(ObjectKey::new(meta::namespace(&*set), meta::name(&*set)), change.cause());
                }
            }
        }
    }
}

/// Whether a change of a Pod matters to whoever owns or might own it.
pub(crate) fn concerns_owner(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    let owner = |pod: &Pod| meta::controller_of(&pod.metadata).map(|owner| owner.uid.clone());
    old.metadata.uid != new.metadata.uid
        || old.metadata.labels != new.metadata.labels
        || owner(old) != owner(new)
        || pods::phase(old) != pods::phase(new)
        || pods::node_name(old) != pods::node_name(new)
        || meta::is_deleting(&**old) != meta::is_deleting(&**new)
        || pods::ready_since(old) != pods::ready_since(new)
}
