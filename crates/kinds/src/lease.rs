//! coordination.k8s.io/v1 Lease.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease as Object;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::check::{NEGATIVE, Report};
use super::common::{blank, text};

/// Leases.
pub(crate) struct Lease;

impl Kind for Lease {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        create_on_update: true,
        unconditional_update: false,
        ..Descriptor::namespaced("coordination.k8s.io", "v1", "Lease", "leases")
    };

    fn default(object: &mut Object) {
        object.spec.get_or_insert_default();
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &object.spec else { return errors };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds
            && seconds <= 0
        {
            errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(transitions) = spec.lease_transitions
            && transitions < 0
        {
            errors.invalid(&path.child("leaseTransitions"), transitions, NEGATIVE);
        }
        if let Some(strategy) = &spec.strategy {
            let path = path.child("strategy");
            if strategy.contains('/') {
                errors.messages(&path, strategy, validate::qualified_name(strategy));
            } else if strategy != "OldestEmulationVersion" {
                errors.not_supported(&path, strategy, &["OldestEmulationVersion"]);
            }
        }
        if !blank(&spec.preferred_holder) && blank(&spec.strategy) {
            errors.forbidden(&path.child("preferredHolder"), "may only be specified if `strategy` is defined");
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("Holder", "Who holds it."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let holder = object.spec.as_ref().map_or("", |spec| text(&spec.holder_identity));
        vec![cell_name(&object.metadata), holder.into(), cell_age(&object.metadata, now)]
    }
}
