//! Namespaces: empties those that are being deleted, and lets them go.
//!
//! Watches Namespaces, and Pods for the moment the last one ends; owns the finalizer `kubernetes` of a namespace. What
//! there may be in a namespace is asked of discovery each time, so that kinds that came later are found too. Pods go
//! first: while they run, their configuration and network policies are of use.

pub(crate) mod plan;

use std::sync::Arc;

use futures::{StreamExt, stream};
use informer::{Action, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, ListParams, PartialObjectMeta, PostParams};

use self::plan::{FINALIZER, Survey};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::discovery::{self, Kind};
use crate::meta;
use crate::owner::Owner;

/// So many requests for one namespace are under way at once.
const CONCURRENT: usize = 8;
/// So many objects are read at once.
const PAGE: u32 = 500;

/// Whether things may be created in `namespace`.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    !meta::is_deleting(namespace) && phase != Some("Terminating")
}

/// The controller of Namespaces that are being deleted.
pub(crate) struct Namespaces {
    client: Client,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    queue: WorkQueue<String>,
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace";
    /// The name of a namespace.
    type Key = String;

    fn new(context: &Context, queue: WorkQueue<String>) -> Self {
        Self { client: context.client.clone(), namespaces: context.informer(), pods: context.informer(), queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.namespaces.on_change(move |change| queue.add(change.key().name, change.cause()));
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| {
            if change.new.is_some() {
                return;
            }
            let namespace = change.key().namespace;
            let known = controller.namespaces.get(&ObjectKey::new("", &namespace));
            if known.is_some_and(|namespace| plan::is_due(&namespace)) {
                controller.queue.add(namespace, change.cause());
            }
        });
    }

    async fn synced(&self) {
        self.namespaces.synced().await;
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(namespace) = self.namespaces.get(&ObjectKey::new("", name)) else {
            return Ok(Action::AwaitChange.because("the namespace is gone"));
        };
        if !plan::is_due(&namespace) {
            return Ok(Action::AwaitChange.because("the namespace is not to go"));
        }
        let survey = empty(&self.client, name).await;
        let plan = plan::plan(&namespace, &survey, Timestamp::now());
        let api: Api<Namespace> = Api::all(self.client.clone());
        if let Some(status) = &plan.status {
            let old = namespace.status.clone().unwrap_or_default();
            Owner::of(&*namespace).patch_status(&self.client, (&old, status), None).await?;
        }
        if plan.finalize {
            finalize(&api, &namespace).await?;
        }
        Ok(plan.requeue_after.into())
    }
}

/// Asks everything in the namespace to go, Pods first, and says what is left.
async fn empty(client: &Client, namespace: &str) -> Survey {
    let mut survey = Survey::default();
    let kinds = match discovery::kinds(client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            survey.discovery_errors.push(Error::from(error).to_string());
            return survey;
        }
    };
    let kinds = kinds.into_iter().filter(|kind| kind.namespaced);
    let (pods, others): (Vec<_>, Vec<_>) = kinds.partition(|kind| kind.name() == "pods.");
    for kinds in [pods, others] {
        let emptied = stream::iter(kinds.into_iter().map(|kind| empty_kind(client, namespace, kind)));
        let parts: Vec<Survey> = emptied.buffer_unordered(CONCURRENT).collect().await;
        parts.into_iter().for_each(|part| survey.add(part));
        if !survey.is_empty() {
            break;
        }
    }
    survey.discovery_errors.extend(incomplete(&discovery::stale_versions(client).await));
    survey
}

/// What there is to say of versions that nobody could be asked about: there may be more in the namespace (upstream: client-go
/// `discovery/discovery_client.go`, `ErrGroupDiscoveryFailed`).
fn incomplete(stale: &[String]) -> Option<String> {
    let each: Vec<String> =
        stale.iter().map(|version| format!("{version}: stale GroupVersion discovery: {version}")).collect();
    let is_any = !each.is_empty();
    is_any.then(|| format!("unable to retrieve the complete list of server APIs: {}", each.join(", ")))
}

async fn empty_kind(client: &Client, namespace: &str, kind: Kind) -> Survey {
    let mut survey = Survey::default();
    if let Err(error) = try_empty_kind(client, namespace, &kind, &mut survey).await {
        survey.deletion_errors.push(format!("{}: {error}", kind.name()));
    }
    survey
}

async fn try_empty_kind(client: &Client, namespace: &str, kind: &Kind, survey: &mut Survey) -> Result<(), Error> {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    if list(&api).await?.is_empty() {
        return Ok(());
    }
    let params = DeleteParams::background();
    if kind.delete_collection {
        ok_if_not_found(objects.delete_collection(&params, &ListParams::default()).await)?;
    } else {
        for object in list(&api).await? {
            ok_if_not_found(objects.delete(object.metadata.name.as_deref().unwrap_or_default(), &params).await)?;
        }
    }
    let left = list(&api).await?;
    if !left.is_empty() {
        survey.remaining.insert(kind.name(), left.len());
    }
    for finalizer in left.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
        *survey.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(())
}

async fn list(api: &Api<PartialObjectMeta<DynamicObject>>) -> Result<Vec<PartialObjectMeta<DynamicObject>>, Error> {
    let mut all = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let Some(page) = ok_if_not_found(api.list(&params).await)? else {
            // The kind itself went away.
            return Ok(all);
        };
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Gives up the finalizer: only the subresource `finalize` may.
async fn finalize(api: &Api<Namespace>, namespace: &Namespace) -> Result<(), Error> {
    let name = meta::name(namespace);
    // Fresh, since its status was just written.
    let Some(mut live) = ok_if_not_found(api.get(name).await)? else {
        return Ok(());
    };
    if meta::uid(&live) != meta::uid(namespace) || !plan::is_due(&live) {
        return Ok(());
    }
    if let Some(finalizers) = live.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    ok_if_not_found(api.replace_subresource("finalize", name, &PostParams::default(), &live).await)?;
    Ok(())
}

impl Survey {
    fn add(&mut self, other: Self) {
        self.discovery_errors.extend(other.discovery_errors);
        self.deletion_errors.extend(other.deletion_errors);
        self.remaining.extend(other.remaining);
        for (finalizer, count) in other.finalizers {
            *self.finalizers.entry(finalizer).or_default() += count;
        }
    }
}
