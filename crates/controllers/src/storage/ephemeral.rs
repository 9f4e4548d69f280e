//! The claims of ephemeral volumes: each is made for one Pod, and goes with it.
//!
//! Watches Pods and claims; owns the claims called `POD-VOLUME` of Pods with such volumes. Their end is the garbage
//! collector's business.

use std::sync::Arc;

use informer::{Action, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::PostParams;

use super::facts::ephemeral_claim;
use crate::client::{Api, Error};
use crate::controller::{Context, Controller};
use crate::{meta, pods};

/// Pods with ephemeral volumes.
const WITH_EPHEMERAL: &str = "controllers/ephemeral-claims";

/// The claims that a Pod's ephemeral volumes need, by volume.
pub(crate) fn plan(pod: &Pod) -> Vec<(String, PersistentVolumeClaim)> {
    if !pods::is_active(pod) {
        return Vec::new();
    }
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let templates = volumes
        .filter_map(|volume| Some((volume.name.clone(), volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?)));
    let claim = |(volume, template): (String, &k8s_openapi::api::core::v1::PersistentVolumeClaimTemplate)| {
        let asked = template.metadata.clone().unwrap_or_default();
        let metadata = ObjectMeta {
            name: Some(ephemeral_claim(pod, &volume)),
            namespace: pod.metadata.namespace.clone(),
            labels: asked.labels,
            annotations: asked.annotations,
            owner_references: Some(vec![meta::controller_ref(pod)]),
            ..ObjectMeta::default()
        };
        (volume, PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), status: None })
    };
    templates.map(claim).collect()
}

/// Whether a claim was made for this Pod; the error is upstream's.
pub(crate) fn is_for(claim: &PersistentVolumeClaim, pod: &Pod) -> Result<(), String> {
    if meta::controller_of(&claim.metadata).is_some_and(|owner| owner.uid == meta::uid(pod)) {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(claim), meta::name(claim));
    let pod = format!("{}/{}", meta::namespace(pod), meta::name(pod));
    Err(format!("PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)"))
}

/// The controller of the PersistentVolumeClaims of ephemeral volumes.
pub(crate) struct EphemeralVolumes {
    client: Client,
    recorder: Recorder,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for EphemeralVolumes {
    const NAME: &'static str = "ephemeral_volume";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let pods = context.informer::<Pod>();
        pods.index(WITH_EPHEMERAL, |pod| {
            let namespace = meta::namespace(pod);
            plan(pod).iter().map(|(_, claim)| format!("{namespace}/{}", meta::name(claim))).collect()
        });
        let (client, recorder) = (context.client.clone(), context.recorder("ephemeral_volume"));
        Self { client, recorder, pods, claims: context.informer(), queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.pods.on_change(move |change| {
            if change.old.is_none() && change.new.as_ref().is_some_and(|pod| !plan(pod).is_empty()) {
                queue.add_changed(change);
            }
        });
        let (queue, pods) = (self.queue.clone(), self.pods.clone());
        self.claims.on_change(move |change| {
            // A claim that was in the way is gone, or the Pod's own was deleted under it.
            if change.new.is_none() {
                for pod in pods.by_index(WITH_EPHEMERAL, &change.key().to_string()) {
                    queue.add(ObjectKey::of(&*pod), change.cause());
                }
            }
        });
    }

    async fn synced(&self) {
        self.pods.synced().await;
        self.claims.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(Action::AwaitChange) };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        for (volume, claim) in plan(&pod) {
            let name = meta::name(&claim);
            let mut present = self.claims.get(&ObjectKey::new(key.namespace.as_str(), name));
            if present.is_none() {
                present = match api.create(&PostParams::default(), &claim).await.map_err(Error::from) {
                    Ok(_) => continue,
                    Err(error) if error.is_already_exists() => Some(Arc::new(api.get(name).await?)),
                    Err(error) if error.is_namespace_terminating() => return Ok(Action::AwaitChange),
                    Err(error) => return Err(error),
                };
            }
            if let Some(Err(why)) = present.map(|present| is_for(&present, &pod)) {
                let message = format!("ephemeral volume {volume}: {why}");
                self.recorder.event(&meta::reference(&*pod), EventType::Warning, "FailedBinding", message);
            }
        }
        Ok(Action::AwaitChange)
    }
}
