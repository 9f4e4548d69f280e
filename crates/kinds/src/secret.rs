//! core/v1 Secret.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as Object;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;
use machinery::well_known::SERVICE_ACCOUNT_TOKEN;
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, frozen, immutable};
use super::common::{count, default_text, entries, entry, text};
use super::config_map::MAX_DATA;

const ACCOUNT_ANNOTATION: &str = "kubernetes.io/service-account.name";

/// Secrets.
pub(crate) struct Secret;

impl Kind for Secret {
    type Object = Object;

    const DESCRIPTOR: Descriptor =
        Descriptor { selectable: &["type"], ..Descriptor::namespaced("", "v1", "Secret", "secrets") };

    fn default(object: &mut Object) {
        default_text(&mut object.type_, "Opaque");
        // `stringData` is for writing only: a convenience that spares the client the base64.
        if let Some(plain) = object.string_data.take()
            && !plain.is_empty()
        {
            let data = object.data.get_or_insert_with(BTreeMap::new);
            data.extend(plain.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))));
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in entries(&object.data) {
            errors.messages(&path.key(key), key, validate::config_map_key(key));
            size += value.0.len();
        }
        if size > MAX_DATA {
            errors.push(FieldError::too_long(&path, "", MAX_DATA));
        }
        validate_type(&mut errors, object);
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, &Path::new("type"), &new.type_, &old.type_);
        if old.immutable == Some(true) {
            frozen(&mut errors, "immutable", new.immutable == Some(true));
            frozen(&mut errors, "data", new.data == old.data);
        }
        errors
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        vec![("type", text(&object.type_).to_owned())]
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Type", "What it is for, which says what keys it has."),
            Column::string("Data", "How many keys it has."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            cell_name(&object.metadata),
            text(&object.type_).into(),
            count(&object.data).into(),
            cell_age(&object.metadata, now),
        ]
    }
}

/// The types upstream knows have keys that must be there.
fn validate_type(errors: &mut ErrorList, object: &Object) {
    let path = Path::new("data");
    let has = |key: &str| entry(&object.data, key).is_some();
    match text(&object.type_) {
        SERVICE_ACCOUNT_TOKEN
            if entry(&object.metadata.annotations, ACCOUNT_ANNOTATION).is_none_or(String::is_empty) =>
        {
            errors.required(&Path::new("metadata").child("annotations").key(ACCOUNT_ANNOTATION), "");
        }
        "kubernetes.io/dockercfg" => json_object(errors, object, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_object(errors, object, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&path.key("username"), "");
            errors.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if entry(&object.data, "ssh-privatekey").is_none_or(|value| value.0.is_empty()) => {
            errors.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    errors.required(&path.key(key), "");
                }
            }
        }
        _ => {}
    }
}

fn json_object(errors: &mut ErrorList, object: &Object, key: &str) {
    let path = Path::new("data").key(key);
    let Some(value) = entry(&object.data, key) else {
        errors.required(&path, "");
        return;
    };
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&value.0) {
        errors.invalid(&path, "<secret contents redacted>", error.to_string());
    }
}
