//! How the binder writes, and tells people what happens.

use informer::EventType;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use super::Binder;
use super::claims::Note;
use crate::client::{Api, Error};
use crate::meta;

impl Binder {
    pub(super) fn tell(&self, claim: &PersistentVolumeClaim, note: &Note) {
        self.event(&meta::reference(claim), note);
    }

    pub(super) fn tell_volume(&self, volume: &PersistentVolume, note: &Note) {
        self.event(&meta::reference(volume), note);
    }

    fn event(&self, about: &ObjectReference, note: &Note) {
        let type_ = if note.warning { EventType::Warning } else { EventType::Normal };
        self.recorder.event(about, type_, note.reason, note.message.as_str());
    }

    pub(super) async fn patch_claim(
        &self,
        claim: &PersistentVolumeClaim,
        patch: &Value,
    ) -> Result<PersistentVolumeClaim, Error> {
        Ok(self.claims_api(claim).patch(meta::name(claim), &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    pub(super) async fn patch_claim_status(
        &self,
        claim: &PersistentVolumeClaim,
        patch: &Value,
    ) -> Result<PersistentVolumeClaim, Error> {
        let api = self.claims_api(claim);
        Ok(api.patch_status(meta::name(claim), &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    fn claims_api(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), meta::namespace(claim))
    }

    pub(super) async fn patch_volume(
        &self,
        volume: &PersistentVolume,
        patch: &Value,
    ) -> Result<PersistentVolume, Error> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        Ok(api.patch(meta::name(volume), &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    pub(super) async fn patch_volume_status(
        &self,
        volume: &PersistentVolume,
        patch: &Value,
    ) -> Result<PersistentVolume, Error> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        Ok(api.patch_status(meta::name(volume), &PatchParams::default(), &Patch::Merge(patch)).await?)
    }
}
