//! Carries out what is planned for claims and volumes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, PostParams, Preconditions};
use machinery::quantity::Quantity;
use machinery::well_known::HOSTNAME;
use serde_json::json;

use super::claims::{self, Facts, Note, Plan};
use super::facts::{
    self, BIND_COMPLETED, BY_CLAIM, DELETION_FINALIZER, PROVISIONERS, SELECTED_NODE, VolumePhase, claim_class,
    claim_ref, is_default, text, volume_name, volume_phase,
};
use super::provision::{self, PROVISIONER};
use super::{BY_CLAIM_REF, Binder, FREE, bind, volumes};
use crate::client::{Api, Error, ok_if_not_found};
use crate::{meta, pods};

/// What the machine refused is tried again after this time.
const RETRY: Duration = Duration::from_secs(15);

impl Binder {
    pub(super) async fn claim(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Action::AwaitChange) };
        match claims::plan(&claim, &self.facts(&claim)) {
            Plan::Nothing => {}
            Plan::Bind(volume) => self.bind(&volume, &claim).await?,
            Plan::Provision(class) => return self.provision(&claim, &class).await,
            Plan::Delegate(class) => self.delegate(&claim, &class).await?,
            Plan::TakeClass(name) => {
                let patch = json!({
                    "metadata": { "resourceVersion": claim.metadata.resource_version },
                    "spec": { "storageClassName": name },
                });
                self.patch_claim(&claim, &patch).await?;
            }
            Plan::Stay(phase, note) => {
                if let Some(patch) = bind::claim_phase_patch(&claim, phase) {
                    self.patch_claim_status(&claim, &patch).await?;
                }
                if let Some(note) = note {
                    self.tell(&claim, &note);
                }
            }
            Plan::Grow(volume, size) => self.grow(&claim, &volume, size).await?,
            Plan::Tell(note) => self.tell(&claim, &note),
        }
        Ok(Action::AwaitChange)
    }

    fn facts(&self, claim: &PersistentVolumeClaim) -> Facts {
        let key = format!("{}/{}", meta::namespace(claim), meta::name(claim));
        let named = volume_name(claim);
        if facts::annotated(claim, BIND_COMPLETED) || !named.is_empty() {
            return Facts { named: self.volumes.get(&ObjectKey::new("", named)), ..Facts::default() };
        }
        let class = claim_class(claim);
        let mut candidates = self.volumes.by_index(BY_CLAIM_REF, &key);
        candidates.extend(self.volumes.by_index(FREE, class));
        let default_class = facts::lacks_class(claim).then(|| self.default_class()).flatten();
        let pods = self.pods.by_index(BY_CLAIM, &key);
        let waiting = pods.iter().filter(|pod| pods::node_name(pod).is_none() && pods::is_active(pod));
        Facts {
            named: None,
            candidates,
            class: self.classes.get(&ObjectKey::new("", class)),
            default_class,
            waiting_pods: waiting.map(|pod| meta::name(&**pod).to_owned()).collect(),
        }
    }

    /// The default class, the newest of them. Classes are few.
    fn default_class(&self) -> Option<String> {
        let classes = self.classes.list();
        let marked = classes.iter().filter(|class| is_default(class));
        let order = |class: &&Arc<StorageClass>| {
            (std::cmp::Reverse(meta::created(&***class)), meta::name(&***class).to_owned())
        };
        marked.min_by_key(order).map(|class| meta::name(&**class).to_owned())
    }

    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let (mut volume, mut claim) = (volume.clone(), claim.clone());
        if let Some(patch) = bind::volume(&volume, &claim) {
            volume = self.patch_volume(&volume, &patch).await?;
        }
        if let Some(patch) = bind::volume_phase_patch(&volume, VolumePhase::Bound, "", Timestamp::now()) {
            self.patch_volume_status(&volume, &patch).await?;
        }
        if let Some(patch) = bind::claim(&claim, &volume) {
            claim = self.patch_claim(&claim, &patch).await?;
        }
        if let Some(patch) = bind::claim_bound(&claim, &volume) {
            self.patch_claim_status(&claim, &patch).await?;
        }
        Ok(())
    }

    /// Notes on the claim who is to make its volume, as everybody who does so expects.
    async fn name_provisioner(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<PersistentVolumeClaim, Error> {
        if PROVISIONERS.iter().all(|key| meta::annotation(claim, key) == Some(class.provisioner.as_str())) {
            return Ok(claim.clone());
        }
        let patch = json!({ "metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": PROVISIONERS.map(|key| (key, class.provisioner.as_str())).into_iter().collect::<Map>(),
        } });
        self.patch_claim(claim, &patch).await
    }

    async fn delegate(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Error> {
        self.name_provisioner(claim, class).await?;
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
             registered.",
            class.provisioner
        );
        self.tell(claim, &Note::normal("ExternalProvisioning", message));
        Ok(())
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<Action, Error> {
        let failed = |why: String| {
            let class = meta::name(class);
            let message = format!("failed to provision volume with StorageClass \"{class}\": {why}");
            self.tell(claim, &Note::warning("ProvisioningFailed", message));
        };
        if let Some(why) = provision::refusal(claim) {
            failed(why);
            return Ok(Action::AwaitChange);
        }
        let claim = self.name_provisioner(claim, class).await?;
        let path = self.directories.path(&claim);
        let (directories, at) = (self.directories.clone(), path.clone());
        let made = tokio::task::spawn_blocking(move || directories.create(&at)).await;
        if let Err(error) = made.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            failed(error.to_string());
            return Ok(Action::RequeueAfter(RETRY));
        }
        let hostname = meta::annotation(&claim, SELECTED_NODE).map(|node| self.hostname(node));
        let volume = provision::volume(&claim, class, &path, hostname.as_deref());
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = match api.create(&PostParams::default(), &volume).await.map_err(Error::from) {
            Ok(volume) => volume,
            // It was made before, and what came after was not reached.
            Err(error) if error.is_already_exists() => match ok_if_not_found(api.get(meta::name(&volume)).await)? {
                Some(volume) => volume,
                None => return Ok(Action::RequeueAfter(RETRY)),
            },
            Err(error) => return Err(error),
        };
        let message = format!("Successfully provisioned volume {} using {PROVISIONER}", meta::name(&volume));
        self.tell(&claim, &Note::normal("ProvisioningSucceeded", message));
        self.bind(&volume, &claim).await?;
        Ok(Action::AwaitChange)
    }

    /// The label by which volumes are tied to a node.
    fn hostname(&self, node: &str) -> String {
        let known = self.nodes.get(&ObjectKey::new("", node));
        let label = known.as_ref().and_then(|node| node.metadata.labels.as_ref()?.get(HOSTNAME));
        label.map_or(node, String::as_str).to_owned()
    }

    async fn grow(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        size: Quantity,
    ) -> Result<(), Error> {
        // A directory has no size of its own: what grows is what the objects say.
        if facts::capacity(volume) < size {
            let patch = json!({
                "metadata": { "resourceVersion": volume.metadata.resource_version },
                "spec": { "capacity": { "storage": size.to_string() } },
            });
            self.patch_volume(volume, &patch).await?;
        }
        let patch = json!({
            "metadata": { "resourceVersion": claim.metadata.resource_version },
            "status": { "capacity": { "storage": size.to_string() } },
        });
        self.patch_claim_status(claim, &patch).await?;
        let key = format!("{}/{}", meta::namespace(claim), meta::name(claim));
        let message = format!("ExpandVolume succeeded for volume {key}");
        self.tell(claim, &Note::normal("VolumeResizeSuccessful", message));
        Ok(())
    }

    pub(super) async fn volume(&self, name: &str) -> Result<Action, Error> {
        let Some(volume) = self.volumes.get(&ObjectKey::new("", name)) else { return Ok(Action::AwaitChange) };
        let claim = self.claim_of(&volume).await?;
        let now = Timestamp::now();
        let phase = match volumes::plan(&volume, claim.as_ref()) {
            volumes::Plan::AskClaim => return Ok(Action::AwaitChange),
            volumes::Plan::Phase(phase) => phase,
            volumes::Plan::Release => VolumePhase::Released,
            volumes::Plan::Tell(note) => {
                self.tell_volume(&volume, &note);
                return Ok(Action::AwaitChange);
            }
            volumes::Plan::Unbind => {
                self.patch_volume(&volume, &bind::unbind(&volume)).await?;
                return Ok(Action::AwaitChange);
            }
            volumes::Plan::Fail(note) => {
                if let Some(patch) = bind::volume_phase_patch(&volume, VolumePhase::Failed, &note.message, now) {
                    self.patch_volume_status(&volume, &patch).await?;
                    self.tell_volume(&volume, &note);
                }
                return Ok(Action::AwaitChange);
            }
            volumes::Plan::Finalizer { present } => {
                self.set_finalizer(&volume, present).await?;
                return Ok(Action::AwaitChange);
            }
            volumes::Plan::Remove => return self.remove(&volume).await,
        };
        if let Some(patch) = bind::volume_phase_patch(&volume, phase, "", now) {
            self.patch_volume_status(&volume, &patch).await?;
        }
        Ok(Action::AwaitChange)
    }

    /// The claim that a volume names. One that the informer does not show is asked for: a volume that is released by
    /// mistake loses its data.
    async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let Some(reference) = claim_ref(volume) else { return Ok(None) };
        let (namespace, name) = (text(&reference.namespace), text(&reference.name));
        let uid = text(&reference.uid);
        let known = self.claims.get(&ObjectKey::new(namespace, name));
        if known.as_ref().is_some_and(|claim| uid.is_empty() || meta::uid(&**claim) == uid) || uid.is_empty() {
            return Ok(known);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        Ok(ok_if_not_found(api.get(name).await)?.map(Arc::new))
    }

    /// Removes the bytes of a volume, then the volume.
    async fn remove(&self, volume: &PersistentVolume) -> Result<Action, Error> {
        let mut volume = volume.clone();
        let now = Timestamp::now();
        if volume_phase(&volume) != VolumePhase::Failed
            && let Some(patch) = bind::volume_phase_patch(&volume, VolumePhase::Released, "", now)
        {
            volume = self.patch_volume_status(&volume, &patch).await?;
        }
        let source = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref());
        let path = PathBuf::from(source.map_or("", |source| source.path.as_str()));
        let directories = self.directories.clone();
        let removed = tokio::task::spawn_blocking(move || directories.remove(&path)).await;
        if let Err(error) = removed.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            let note = Note::warning("VolumeFailedDelete", error.to_string());
            if let Some(patch) = bind::volume_phase_patch(&volume, VolumePhase::Failed, &note.message, now) {
                self.patch_volume_status(&volume, &patch).await?;
                self.tell_volume(&volume, &note);
            }
            return Ok(Action::RequeueAfter(RETRY));
        }
        if facts::has_finalizer(&volume, DELETION_FINALIZER) {
            volume = self.set_finalizer(&volume, false).await?;
        }
        if !meta::is_deleting(&volume) {
            let preconditions = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let api: Api<PersistentVolume> = Api::all(self.client.clone());
            ok_if_not_found(api.delete(meta::name(&volume), &params).await)?;
        }
        Ok(Action::AwaitChange)
    }

    async fn set_finalizer(&self, volume: &PersistentVolume, present: bool) -> Result<PersistentVolume, Error> {
        let mut finalizers = volume.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != DELETION_FINALIZER);
        if present {
            finalizers.push(DELETION_FINALIZER.to_owned());
        }
        let version = &volume.metadata.resource_version;
        let patch = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
        self.patch_volume(volume, &patch).await
    }
}

/// Annotations by key.
type Map<'a> = std::collections::BTreeMap<&'a str, &'a str>;
