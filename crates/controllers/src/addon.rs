//! Controllers of custom resources that are built in: they run while their CustomResourceDefinition is there.

use std::future::Future;
use std::time::Duration;

use informer::{Informer, Informers, ObjectKey};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A definition that was written is served within this time, or looked at again.
const SERVED_SOON: Duration = Duration::from_millis(100);

/// Runs `controller` whenever `resource` is served, each time until its definition goes, and all of it until `cancel` is
/// triggered. The controller gets the informer of all objects of the kind.
pub(crate) async fn while_served<F>(
    client: Client,
    informers: Informers,
    resource: ApiResource,
    cancel: CancellationToken,
    controller: impl Fn(Informer<DynamicObject>, CancellationToken) -> F,
) where
    F: Future<Output = ()>,
{
    let definitions = informers.informer::<PartialObjectMeta<CustomResourceDefinition>>();
    let key = ObjectKey::new("", format!("{}.{}", resource.plural, resource.group));
    let (present, mut is_present) = watch::channel(false);
    let name = key.name.clone();
    definitions.on_change(move |change| {
        if change.key().name == name {
            let there = change.new.as_ref().is_some_and(|new| new.metadata.deletion_timestamp.is_none());
            present.send_replace(there);
        }
    });
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            gone = is_present.wait_for(|present| *present) => if gone.is_err() { return },
        }
        let stop = cancel.child_token();
        let run = async {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            while api.list_metadata(&ListParams::default().limit(1)).await.is_err() {
                tokio::time::sleep(SERVED_SOON).await;
            }
            let config = watcher::Config::default().streaming_lists();
            // Its type is known at run time only, so it is no part of the shared set.
            let informer = Informer::start(api, config, stop.clone());
            controller(informer, stop.clone()).await;
        };
        tokio::select! {
            () = run => {}
            gone = is_present.wait_for(|present| !*present) => if gone.is_err() { stop.cancel(); return },
        }
        stop.cancel();
    }
}
