//! storage.k8s.io/v1 CSIDriver.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSIDriver as Object, CSIDriverSpec};
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Context, Descriptor, Kind, bump_generation, cell_age, cell_name};
use serde_json::Value;

use crate::check::{Report, immutable, optional_one_of};
use crate::common::{default_text, list, text};

/// The longest name of a driver, in bytes.
const NAME_MAX: usize = 63;
/// The shortest life of a token, in seconds.
const TOKEN_MIN: i64 = 600;

/// CSIDrivers.
pub(crate) struct CSIDriver;

impl Kind for CSIDriver {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        unconditional_update: false,
        returns_deleted_object: true,
        ..Descriptor::cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
    };

    fn default(object: &mut Object) {
        let spec = &mut object.spec;
        spec.attach_required.get_or_insert(true);
        default_text(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType");
        for switch in [
            &mut spec.pod_info_on_mount,
            &mut spec.storage_capacity,
            &mut spec.requires_republish,
            &mut spec.se_linux_mount,
        ] {
            switch.get_or_insert(false);
        }
        if list(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    fn prepare_create(_object: &mut Object, _context: &Context<'_>) {}

    fn prepare_update(new: &mut Object, old: &Object) {
        let changed = new.spec != old.spec;
        bump_generation(&mut new.metadata, changed);
    }

    fn warnings(_new: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        vec![
            "no node here mounts volumes of CSI drivers: use the class \"standard\", a hostPath or a local volume"
                .to_owned(),
        ]
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        driver_name(&mut errors, &Path::new("metadata").child("name"), text(&object.metadata.name));
        let (path, spec) = (Path::new("spec"), &object.spec);
        optional_one_of(
            &mut errors,
            &path.child("fsGroupPolicy"),
            &spec.fs_group_policy,
            &["File", "None", "ReadWriteOnceWithFSType"],
        );
        tokens(&mut errors, &path.child("tokenRequests"), spec);
        for mode in list(&spec.volume_lifecycle_modes) {
            if !["Ephemeral", "Persistent"].contains(&mode.as_str()) {
                errors.not_supported(&path.child("volumeLifecycleModes"), mode, &["Ephemeral", "Persistent"]);
            }
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        let (new, old) = (&new.spec, &old.spec);
        immutable(&mut errors, &path.child("attachRequired"), &new.attach_required, &old.attach_required);
        immutable(
            &mut errors,
            &path.child("volumeLifecycleModes"),
            &new.volume_lifecycle_modes,
            &old.volume_lifecycle_modes,
        );
        errors
    }

    fn columns() -> Vec<Column> {
        let switch = |name, description| Column { kind: "boolean".to_owned(), ..Column::string(name, description) };
        vec![
            Column::name(),
            switch("AttachRequired", "Whether its volumes are attached before they are mounted."),
            switch("PodInfoOnMount", "Whether it is told about the pod."),
            switch("StorageCapacity", "Whether the scheduler asks for free capacity."),
            Column::string("TokenRequests", "Audiences of the tokens it wants."),
            switch("RequiresRepublish", "Whether volumes are mounted again from time to time."),
            Column::string("Modes", "The volumes it offers."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = &object.spec;
        let audiences: Vec<&str> = list(&spec.token_requests).iter().map(|token| token.audience.as_str()).collect();
        vec![
            cell_name(&object.metadata),
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or_default().into(),
            spec.storage_capacity.unwrap_or_default().into(),
            if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") }.into(),
            spec.requires_republish.unwrap_or_default().into(),
            list(&spec.volume_lifecycle_modes).join(",").into(),
            cell_age(&object.metadata, now),
        ]
    }
}

/// Validates the name of a CSI driver.
pub(super) fn driver_name(errors: &mut ErrorList, path: &Path, name: &str) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > NAME_MAX {
        errors.push(machinery::field::FieldError::too_long(path, name, NAME_MAX));
    }
    errors.messages(path, name, validate::dns_subdomain(&name.to_lowercase()));
}

fn tokens(errors: &mut ErrorList, path: &Path, spec: &CSIDriverSpec) {
    let mut audiences = BTreeSet::new();
    for (index, token) in list(&spec.token_requests).iter().enumerate() {
        let path = path.index(index);
        if !audiences.insert(&token.audience) {
            errors.duplicate(&path.child("audience"), &token.audience);
        }
        let Some(seconds) = token.expiration_seconds else { continue };
        if seconds < TOKEN_MIN {
            errors.invalid(
                &path.child("expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            );
        }
        if seconds > 1 << 32 {
            errors.invalid(
                &path.child("expirationSeconds"),
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
}
