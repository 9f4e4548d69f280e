//! apiextensions.k8s.io/v1 CustomResourceDefinition.
//!
//! Upstream's controllers work out which names a definition gets and when its resource is served; here both are part of
//! the write itself ([`status`]), so that a definition that was accepted is served when its create returns.

mod status;
mod validation;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition as Object, CustomResourceDefinitionStatus,
};
use machinery::field::ErrorList;
use machinery::status::ApiError;
use registry::custom::TERMINATING;
use registry::kind::{Column, Context, Descriptor, Kind, Reservation, Subresource, bump_generation, cell_name};
use serde_json::Value;

use super::common::{default_text, list, text};

/// Keeps a definition until all its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// CustomResourceDefinitions.
pub(crate) struct CustomResourceDefinition;

impl Kind for CustomResourceDefinition {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        unconditional_update: false,
        compiles: true,
        ..Descriptor::cluster("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
    };

    fn default(object: &mut Object) {
        let spec = &mut object.spec;
        let kind = spec.names.kind.clone();
        if !kind.is_empty() {
            default_text(&mut spec.names.singular, &kind.to_lowercase());
            default_text(&mut spec.names.list_kind, &format!("{kind}List"));
        }
        let conversion = spec.conversion.get_or_insert_with(CustomResourceConversion::default);
        if conversion.strategy.is_empty() {
            conversion.strategy = "None".to_owned();
        }
        if let Some(service) =
            conversion.webhook.as_mut().and_then(|webhook| webhook.client_config.as_mut()?.service.as_mut())
        {
            service.port.get_or_insert(443);
        }
        // Upstream leaves the old spelling of "no" out.
        spec.preserve_unknown_fields = spec.preserve_unknown_fields.filter(|preserve| *preserve);
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(CustomResourceDefinitionStatus::default());
        object.metadata.generation = Some(1);
        remember_storage_version(object);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(&mut new.metadata, changed);
        remember_storage_version(new);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(object: &Object) -> ErrorList {
        validation::validate(object, None)
    }

    fn validate_kept(new: &Object, old: &Object) -> ErrorList {
        validation::validate(new, Some(old))
    }

    /// Schemas are large and their rules are compiled to be checked. And a definition that was stored before can always go.
    fn is_settled(new: &Object, old: &Object) -> bool {
        new.spec == old.spec && new.metadata.annotations == old.metadata.annotations
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        validation::validate_update(new, old)
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        validation::validate_status(new)
    }

    fn allocate(new: &mut Object, _old: Option<&Object>, context: &Context<'_>) -> Result<Reservation, ApiError> {
        let name = text(&new.metadata.name).to_owned();
        let taken = status::taken(context.store, &new.spec.group, &name);
        status::decide(new, &taken, context.now);
        Ok(Reservation::none())
    }

    fn columns() -> Vec<Column> {
        let created =
            Column { kind: "date".to_owned(), ..Column::string("Created At", "When the definition was created.") };
        vec![Column::name(), created]
    }

    fn row(object: &Object, _now: Timestamp) -> Vec<Value> {
        let created = object.metadata.creation_timestamp.as_ref();
        let created = created.map_or(Value::Null, |time| machinery::age::rfc3339(time.0).into());
        vec![cell_name(&object.metadata), created]
    }

    fn mark_deleted(object: &mut Object) {
        let finalizers = object.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        let at = object.metadata.deletion_timestamp.clone();
        status::set(
            object,
            TERMINATING,
            true,
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            at,
        );
    }
}

/// A version stays among the stored ones until somebody has seen to it that no object is stored in it any more.
fn remember_storage_version(object: &mut Object) {
    let Some(storage) = object.spec.versions.iter().find(|version| version.storage) else { return };
    let status = object.status.get_or_insert_default();
    if !list(&status.stored_versions).contains(&storage.name) {
        status.stored_versions.get_or_insert_default().push(storage.name.clone());
    }
}

#[cfg(test)]
mod tests;
