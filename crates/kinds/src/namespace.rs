//! core/v1 Namespace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace as Object, NamespaceStatus};
use machinery::Verb;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Context, Descriptor, Kind, NameRule, Subresource, cell_age, cell_name};
use registry::meta::validate_domain;
use serde_json::Value;

use super::check::Report;
use super::common::{default_text, list, text};

/// Keeps a namespace until everything in it is gone.
const FINALIZER: &str = "kubernetes";
/// The cluster does not work without these.
const INDISPENSABLE: [&str; 3] = ["default", "kube-system", "kube-public"];
/// On each namespace: its name, so that selectors can choose it.
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespaces.
pub(crate) struct Namespace;

impl Kind for Namespace {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["ns"],
        // All of them cannot be deleted at once.
        verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch],
        subresources: &[Subresource::Finalize, Subresource::Status],
        names: NameRule::Label,
        selectable: &["status.phase"],
        ..Descriptor::cluster("", "v1", "Namespace", "namespaces")
    };

    fn default(object: &mut Object) {
        label_with_name(object);
        object.spec.get_or_insert_default();
        default_text(&mut object.status.get_or_insert_default().phase, "Active");
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        // A generated name was not known when the defaults were set.
        label_with_name(object);
        object.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), ..NamespaceStatus::default() });
        let finalizers = object.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
    }

    fn prepare_subresource(_subresource: Subresource, new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("finalizers");
        for finalizer in object.spec.iter().flat_map(|spec| list(&spec.finalizers)) {
            validate_finalizer(&mut errors, &path, finalizer);
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if new.spec != old.spec {
            let path = Path::new("spec").child("finalizers");
            let finalizers = new.spec.iter().flat_map(|spec| list(&spec.finalizers));
            for (index, finalizer) in finalizers.enumerate() {
                validate_finalizer(&mut errors, &path.index(index), finalizer);
            }
        }
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("status").child("Phase");
        let phase = phase(new);
        match (new.metadata.deletion_timestamp.is_some(), phase) {
            (false, "Active") | (true, "Terminating") => {}
            (false, _) => {
                errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
            }
            (true, _) => {
                errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
            }
        }
        errors
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        vec![("status.phase", phase(object).to_owned())]
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("Status", "Whether the namespace is active or terminating."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), phase(object).into(), cell_age(&object.metadata, now)]
    }

    fn undeletable(object: &Object) -> Option<&'static str> {
        INDISPENSABLE.contains(&text(&object.metadata.name)).then_some("this namespace may not be deleted")
    }

    fn mark_deleted(object: &mut Object) {
        object.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }

    fn has_other_finalizers(object: &Object) -> bool {
        object.spec.as_ref().is_some_and(|spec| !list(&spec.finalizers).is_empty())
    }
}

fn phase(object: &Object) -> &str {
    object.status.as_ref().map_or("", |status| text(&status.phase))
}

/// Every namespace carries its name as a label, so that selectors of namespaces can name one.
fn label_with_name(object: &mut Object) {
    let name = text(&object.metadata.name).to_owned();
    if !name.is_empty() {
        object.metadata.labels.get_or_insert_with(BTreeMap::new).insert(NAME_LABEL.to_owned(), name);
    }
}

fn validate_finalizer(errors: &mut ErrorList, path: &Path, finalizer: &str) {
    errors.messages(path, finalizer, validate::qualified_name(finalizer));
    errors.0.extend(validate_domain(finalizer, path));
}
