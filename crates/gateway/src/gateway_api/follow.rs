//! The objects of the Gateway API, which are followed while their definitions are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use informer::{Cause, Change, Informer, Informers, ObjectKey};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::CONTROLLER;
use super::objects::GROUP;
use crate::sync::Changed;

/// The class that is made where the definitions are.
const CLASS: &str = "coracle";
/// A definition that was written is served within this time, or looked at again.
const SERVED_SOON: Duration = Duration::from_millis(100);
/// The longest that one that is not served is left alone.
const SERVED_LATE: Duration = Duration::from_secs(10);

/// A kind of the Gateway API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    GatewayClass,
    Gateway,
    HttpRoute,
    ReferenceGrant,
}

impl Kind {
    const ALL: [Self; 4] = [Self::GatewayClass, Self::Gateway, Self::HttpRoute, Self::ReferenceGrant];
    /// Without these there is nothing to do.
    const NEEDED: [Self; 3] = [Self::GatewayClass, Self::Gateway, Self::HttpRoute];

    /// Kind and plural.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::GatewayClass => ("GatewayClass", "gatewayclasses"),
            Self::Gateway => ("Gateway", "gateways"),
            Self::HttpRoute => ("HTTPRoute", "httproutes"),
            Self::ReferenceGrant => ("ReferenceGrant", "referencegrants"),
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        self.names().0
    }

    /// The kind in a version.
    pub(crate) fn resource(self, version: &str) -> ApiResource {
        let (kind, plural) = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, kind), plural)
    }
}

/// The objects that are followed.
pub(crate) struct GatewayObjects {
    pub(crate) classes: Informer<DynamicObject>,
    pub(crate) gateways: Informer<DynamicObject>,
    pub(crate) routes: Informer<DynamicObject>,
    pub(crate) grants: Option<Informer<DynamicObject>>,
    namespaces: Informer<Namespace>,
    resources: BTreeMap<Kind, ApiResource>,
}

impl GatewayObjects {
    /// The labels of a namespace.
    pub(crate) fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let namespace = self.namespaces.get(&ObjectKey::new("", namespace))?;
        Some(namespace.metadata.labels.clone().unwrap_or_default())
    }

    /// The API of an object.
    pub(crate) fn api(&self, client: &Client, kind: Kind, key: &ObjectKey) -> Option<Api<DynamicObject>> {
        let resource = self.resources.get(&kind)?;
        Some(match key.namespace.as_str() {
            "" => Api::all_with(client.clone(), resource),
            namespace => Api::namespaced_with(client.clone(), namespace, resource),
        })
    }
}

/// Follows the objects whenever their definitions are there, and tells which they are, until cancelled.
pub(crate) async fn follow(
    client: Client,
    informers: Informers,
    changed: Arc<Changed>,
    objects: watch::Sender<Option<Arc<GatewayObjects>>>,
    cancel: CancellationToken,
) {
    let (present, mut is_present) = watch::channel(BTreeSet::<Kind>::new());
    let definitions = informers.informer_of::<PartialObjectMeta<CustomResourceDefinition>>();
    definitions.on_change(move |change| {
        let name = change.key().name;
        let Some((plural, GROUP)) = name.split_once('.') else { return };
        let is_named = |kind: &&Kind| kind.names().1 == plural;
        let Some(kind) = Kind::ALL.iter().find(is_named) else { return };
        let is_there = change.new.as_ref().is_some_and(|new| new.metadata.deletion_timestamp.is_none());
        present.send_if_modified(|present| if is_there { present.insert(*kind) } else { present.remove(kind) });
    });
    // Its handlers stay for good.
    let mut namespaces = None;
    loop {
        let present = is_present.borrow_and_update().clone();
        let stop = cancel.child_token();
        let work = async {
            if !Kind::NEEDED.iter().all(|kind| present.contains(kind)) {
                return std::future::pending().await;
            }
            let namespaces =
                namespaces.get_or_insert_with(|| follow_namespaces(&informers, &changed, &objects)).clone();
            let found = start(&client, &present, namespaces, &changed, &stop).await;
            objects.send_replace(Some(Arc::new(found)));
            changed.add(Cause::new("the Gateway API is there"));
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            () = cancel.cancelled() => true,
            () = work => true,
            gone = is_present.changed() => gone.is_err(),
        };
        stop.cancel();
        if objects.send_replace(None).is_some() {
            changed.add(Cause::new("the Gateway API is gone or another"));
        }
        if ended {
            return;
        }
    }
}

fn follow_namespaces(
    informers: &Informers,
    changed: &Arc<Changed>,
    objects: &watch::Sender<Option<Arc<GatewayObjects>>>,
) -> Informer<Namespace> {
    let namespaces = informers.informer::<Namespace>();
    let (changed, objects) = (Arc::clone(changed), objects.subscribe());
    namespaces.on_change(move |change| {
        let labels = |namespace: &Option<Arc<Namespace>>| namespace.as_ref().map(|one| one.metadata.labels.clone());
        if labels(&change.old) != labels(&change.new) && objects.borrow().is_some() {
            changed.add(change.cause());
        }
    });
    namespaces
}

async fn start(
    client: &Client,
    present: &BTreeSet<Kind>,
    namespaces: Informer<Namespace>,
    changed: &Arc<Changed>,
    stop: &CancellationToken,
) -> GatewayObjects {
    let mut resources = BTreeMap::new();
    let mut found = BTreeMap::new();
    for kind in present {
        let resource = served(client, *kind).await;
        if *kind == Kind::GatewayClass {
            ensure_class(client, &resource).await;
        }
        let api = Api::all_with(client.clone(), &resource);
        let informer: Informer<DynamicObject> =
            Informer::start_dynamic(&resource, api, watcher::Config::default().streaming_lists(), stop.clone());
        let changed = Arc::clone(changed);
        informer.on_change(move |change| {
            if matters(change) {
                changed.add(change.cause());
            }
        });
        resources.insert(*kind, resource);
        found.insert(*kind, informer);
    }
    namespaces.synced().await;
    for informer in found.values() {
        informer.synced().await;
    }
    let mut take = |kind| found.remove(&kind);
    match (take(Kind::GatewayClass), take(Kind::Gateway), take(Kind::HttpRoute)) {
        (Some(classes), Some(gateways), Some(routes)) => {
            GatewayObjects { classes, gateways, routes, grants: take(Kind::ReferenceGrant), namespaces, resources }
        }
        _ => unreachable!("all that are needed are present"),
    }
}

/// Makes our class where there is none of its name, so that a Gateway can be made as soon as the definitions are there.
async fn ensure_class(client: &Client, resource: &ApiResource) {
    let class = DynamicObject::new(CLASS, resource).data(json!({ "spec": { "controllerName": CONTROLLER } }));
    match Api::all_with(client.clone(), resource).create(&PostParams::default(), &class).await {
        Ok(_) => {}
        // There is one.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => tracing::warn!(%error, class = CLASS, "cannot make the GatewayClass; make it to have Gateways"),
    }
}

/// A kind in the version that is served, once it is: ReferenceGrants had only `v1beta1` for long.
async fn served(client: &Client, kind: Kind) -> ApiResource {
    let mut pause = SERVED_SOON;
    loop {
        for version in ["v1", "v1beta1"] {
            let resource = kind.resource(version);
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            match api.list_metadata(&ListParams::default().limit(1)).await {
                Ok(_) => return resource,
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::warn!(%error, resource = %resource.plural, "cannot list a custom resource; trying again");
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SERVED_LATE);
    }
}

/// Whether a change is more than one of status, which is what is written here.
fn matters(change: &Change<DynamicObject>) -> bool {
    let seen = |object: &Option<Arc<DynamicObject>>| {
        object.as_ref().map(|object| {
            let meta = &object.metadata;
            (meta.uid.clone(), meta.generation, meta.deletion_timestamp.is_some(), object.data.get("spec").cloned())
        })
    };
    seen(&change.old) != seen(&change.new)
}
