//! Storage: volumes and claims of the core group, and the kinds of storage.k8s.io.

mod attachment;
mod attributes_class;
mod capacity;
mod claim;
mod class;
mod csi_driver;
mod csi_node;
mod sources;
mod volume;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::ops::Typed;
use registry::table::Resource;

use super::check::Report;
use super::common::{entry, text};

pub(crate) use claim::{default_spec as default_claim_spec, requested, validate_spec as validate_claim_spec};

/// The resource whose amount a volume has and a claim asks for.
const STORAGE: &str = "storage";
/// The resource part of the store's keys of VolumeAttributesClasses.
pub(crate) const ATTRIBUTES_CLASSES: &str = "storage.k8s.io/volumeattributesclasses";
/// What `volumeMode` can be.
const MODES: [&str; 2] = ["Block", "Filesystem"];
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// The short forms of access modes, in the order in which tables show them.
const SHORT_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
/// The older name of `spec.storageClassName`, which still wins where both are set.
pub(crate) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The rows of the core group.
pub(super) fn core() -> [Resource; 2] {
    [Typed::<claim::PersistentVolumeClaim>::shared(), Typed::<volume::PersistentVolume>::shared()]
}

/// The rows of storage.k8s.io.
pub(super) fn storage() -> [Resource; 6] {
    [
        Typed::<csi_driver::CSIDriver>::shared(),
        Typed::<csi_node::CSINode>::shared(),
        Typed::<capacity::CSIStorageCapacity>::shared(),
        Typed::<class::StorageClass>::shared(),
        Typed::<attachment::VolumeAttachment>::shared(),
        Typed::<attributes_class::VolumeAttributesClass>::shared(),
    ]
}

/// The class of a volume or claim; empty for none.
pub(crate) fn class_of<'a>(meta: &'a ObjectMeta, named: &'a Option<String>) -> &'a str {
    entry(&meta.annotations, CLASS_ANNOTATION).map_or_else(|| text(named), String::as_str)
}

/// Access modes as tables show them: `RWO,ROX`.
fn short_modes(modes: &[String]) -> String {
    let known = SHORT_MODES.iter().filter(|(mode, _)| modes.iter().any(|candidate| candidate == mode));
    known.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// An amount of storage as tables show it; Go prints a missing one as `0`.
fn storage_cell(amounts: &Option<BTreeMap<String, Quantity>>) -> &str {
    entry(amounts, STORAGE).map_or("0", |amount| &amount.0)
}

fn access_modes(errors: &mut ErrorList, path: &Path, modes: &[String], missing: &'static str) {
    if modes.is_empty() {
        errors.required(path, missing);
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.not_supported(path, mode, &ACCESS_MODES);
    }
    let exclusive = modes.iter().filter(|mode| *mode == "ReadWriteOncePod").count();
    if exclusive > 0 && exclusive < modes.len() {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// The name of a class, where one is given.
fn class_name(errors: &mut ErrorList, path: &Path, name: &str) {
    if !name.is_empty() {
        errors.messages(path, name, validate::dns_subdomain(name));
    }
}
