//! Of steps 1 and 2: server-side apply. A client says which fields it wants and owns them from then on.

use machinery::depth;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::{GroupKind, GroupVersion};
use machinery::managed::{self, Application, ApplyError, FieldSet, Force, Operation};
use machinery::status::{ApiError, Reason};
use serde_json::{Value, json};

use super::managed_fields::{self, Writer};
use super::{Proposed, Stored, Write, decode};
use crate::decode::Report;
use crate::meta::ANNOTATIONS_MAX;
use crate::request::{Target, invalid_options};

/// Where kubectl keeps what it applied on its own side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Only kubectl's own applies take that over, upstream says: others may choose another name.
const KUBECTL: &str = "kubectl";

/// The object that a configuration makes of the stored one, or a new one, with its `managedFields`.
pub(crate) fn apply(write: &Write<'_>, config: &Value, old: Option<&Stored>) -> Result<Proposed, ApiError> {
    let (target, writer) = (write.target()?, write.writer()?);
    let resource = &target.resource;
    let (live, present) = match old {
        None => (json!({}), ""),
        Some(Stored { entry, .. }) => {
            let live = resource.served(&managed_fields::without(&entry.value)).map_err(ApiError::internal)?;
            (serde_json::from_slice(&live).map_err(ApiError::internal)?, managed_fields::split(&entry.value).1)
        }
    };
    let (object, fields) = applied(&writer, target, &live, config, present)?;
    if let Some(uid) = config.pointer("/metadata/uid").and_then(Value::as_str).filter(|_| old.is_none()) {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(ApiError::conflict(&resource.info().group_resource, &target.name, why));
    }
    let object = decode::patched(resource, object.as_bytes(), &mut Report::ignore(), write.options)?;
    decode::check_name(object.meta(), target)?;
    Ok(Proposed { object: Some(object), managed_fields: Some(fields) })
}

/// The `managedFields` of a workload whose number of replicas is applied through its `scale`.
pub(crate) fn fields_of_replicas(write: &Write<'_>, old: &Stored, replicas: i32) -> Result<String, ApiError> {
    let (live, present) = managed_fields::split(&old.entry.value);
    let live: Value = serde_json::from_slice(&live).map_err(ApiError::internal)?;
    let desired = json!({ "spec": { "replicas": replicas } });
    let (_, fields) = own(&write.writer()?, write.target()?, &live, &desired, present)?;
    Ok(managed::render(fields))
}

/// Reads a configuration.
///
/// # Errors
/// 400 when it is no object, or nested too deep.
pub(crate) fn read_config(config: &[u8]) -> Result<Value, ApiError> {
    let config: Value = serde_json::from_slice(config)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    depth::check(&config).map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    match config {
        Value::Object(_) => Ok(config),
        _ => Err(ApiError::bad_request("error decoding YAML: the configuration is no object")),
    }
}

/// The live object (`{}` for none) with the configuration applied, and its `managedFields`.
fn applied(
    writer: &Writer<'_>,
    target: &Target,
    live: &Value,
    config: &Value,
    present: &str,
) -> Result<(String, String), ApiError> {
    let info = writer.resource.info();
    check_type(config, &info.api_version, &info.group_kind)?;
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    check_fields(writer, target, config)?;
    let (mut object, fields) = own(writer, target, live, config, present)?;
    if writer.options.field_manager == KUBECTL {
        keep_last_applied(&mut object, config);
    }
    Ok((object.to_string(), managed::render(fields)))
}

fn own(
    writer: &Writer<'_>,
    target: &Target,
    live: &Value,
    config: &Value,
    present: &str,
) -> Result<(Value, Vec<managed::Entry>), ApiError> {
    let (place, now) = (writer.served_place(), writer.time());
    let mut fields = managed_fields::read(present);
    if fields.is_empty() && live.get("metadata").is_some() {
        fields = managed::before_first_apply(live, &writer.resource.info().api_version, &place, &now);
    }
    let manager = writer.manager(Operation::Apply);
    let attempt = |force: &Force| {
        let application = Application { live, config, manager: &manager, force, now: &now };
        managed::apply(&application, fields.clone(), &place, |set| writer.filter(set))
    };
    let mut outcome = attempt(if writer.options.force { &Force::Yes } else { &Force::No });
    if matches!(outcome, Err(ApplyError::Conflicts(_))) && manager.name == KUBECTL {
        // What kubectl applied on its own side before, and nobody changed since, is no conflict.
        if let Some(allowed) = last_applied(live, &manager.api_version, &place) {
            outcome = attempt(&Force::Only(allowed));
        }
    }
    match outcome {
        Ok(applied) => Ok((applied.object, applied.entries)),
        Err(ApplyError::Conflicts(conflicts)) => Err(ApplyError::conflict_error(&conflicts)),
        Err(error) => Err(untyped(writer, target, &error.to_string())),
    }
}

/// The configuration is of the kind and version of the path.
fn check_type(config: &Value, api_version: &str, kind: &GroupKind) -> Result<(), ApiError> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    if (text("apiVersion"), text("kind")) == (api_version, kind.kind.as_ref()) {
        return Ok(());
    }
    let version = GroupVersion::parse(text("apiVersion")).unwrap_or_else(|_| GroupVersion::new("", ""));
    Err(ApiError::bad_request(format!(
        "invalid object type: {}/{}, Kind={}",
        version.group,
        version.version,
        text("kind")
    )))
}

/// Upstream: whatever `fieldValidation` says, one cannot own a field that does not exist.
fn check_fields(writer: &Writer<'_>, target: &Target, config: &Value) -> Result<(), ApiError> {
    let mut report = Report::collect();
    let decoded = writer.resource.decode(config.to_string().as_bytes(), &mut report);
    decoded.map_err(|error| untyped(writer, target, &error.to_string()))?;
    let unknown: Vec<String> = report
        .findings()
        .iter()
        .filter_map(|finding| finding.strip_prefix("unknown field \"")?.strip_suffix('"'))
        .map(|field| format!(".{field}: field not declared in schema"))
        .collect();
    match unknown.as_slice() {
        [] => Ok(()),
        [one] => Err(untyped(writer, target, one)),
        several => Err(untyped(writer, target, &format!("errors:\n  {}", several.join("\n  ")))),
    }
}

fn untyped(writer: &Writer<'_>, target: &Target, why: &str) -> ApiError {
    let info = writer.resource.info();
    let Target { namespace, name, .. } = target;
    let version = if info.group.is_empty() { format!("/{}", info.version) } else { info.api_version.clone() };
    let message =
        format!("failed to create typed patch object ({namespace}/{name}; {version}, Kind={}): {why}", info.kind);
    ApiError::new(500, Reason::Unknown, message)
}

/// The fields that kubectl applied on its own side and that still have the value it gave them.
fn last_applied(live: &Value, api_version: &str, place: &managed::Place<'_>) -> Option<FieldSet> {
    let text = live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last.get("apiVersion")?.as_str()? != api_version {
        return None;
    }
    let changes = managed::compare(&last, live, place);
    let fields = managed::field_set(&last, place).ok()?;
    Some(fields.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
}

/// Keeps the annotation of client-side apply up to date, for a client that goes back to it.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotations) = annotations.filter(|all| all.get(LAST_APPLIED).is_some_and(|text| text != "")) else {
        return;
    };
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let others: usize = annotations
        .iter()
        .filter(|(key, _)| *key != LAST_APPLIED)
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    let text = format!("{config}\n");
    if others + LAST_APPLIED.len() + text.len() > ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    } else {
        annotations.insert(LAST_APPLIED.to_owned(), text.into());
    }
}

/// What is wrong with the name of a manager: upstream's `ValidateFieldManager`.
///
/// # Errors
/// 422 when it is too long or cannot be printed.
pub fn check_manager(manager: &str, options: &'static str) -> Result<(), ApiError> {
    const MAX: usize = 128;
    let path = Path::new("fieldManager");
    let mut errors = ErrorList::new();
    if manager.len() > MAX {
        errors.push(FieldError::too_long(&path, "", MAX));
    }
    if let Some((at, odd)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(odd));
        errors.push(FieldError::invalid(&path, manager, why));
    }
    match errors.0.into_iter().next() {
        None => Ok(()),
        Some(error) => Err(invalid_options(options, error)),
    }
}
