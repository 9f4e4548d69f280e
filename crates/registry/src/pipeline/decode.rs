//! Step 1: from bytes to an object that is meant for this path.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::GroupKind;
use machinery::status::{ApiError, MODIFIED};
use serde::de::DeserializeOwned;
use store::Entry;

use super::{Action, Proposal, Proposed, Stored, Write};
use crate::decode::{self, DecodeError, Report, TypeMeta};
use crate::object::Object;
use crate::read::parse_uint;
use crate::request::{FieldValidation, Target, WriteOptions};
use crate::table::{Resource, ResourceInfo};
use crate::write::uid_mismatch;

/// What the request proposes, checked against its path and what is stored there.
pub(super) fn proposed(
    write: &Write<'_>,
    proposal: &mut dyn Proposal,
    old: Option<&Stored>,
    warnings: &mut Vec<String>,
) -> Result<Proposed, ApiError> {
    let proposed = proposal.decode(old, warnings)?;
    match (write.action, proposed.object.as_deref(), old) {
        (Action::Create, Some(new), _) => {
            check_namespace(new.meta(), write.target()?)?;
        }
        (Action::Update | Action::UpdateSubresource, Some(new), Some(old)) => {
            check_preconditions(write.attributes.info, new, old.object.as_ref(), &old.entry)?;
        }
        _ => {}
    }
    Ok(proposed)
}

/// The report to hand to the decoder.
pub(crate) fn report_for(options: &WriteOptions) -> Report {
    match options.field_validation {
        FieldValidation::Ignore => Report::ignore(),
        FieldValidation::Warn | FieldValidation::Strict => Report::collect(),
    }
}

/// Decodes the body of a create or an update.
pub(crate) fn body(
    resource: &Resource,
    body: &[u8],
    report: &mut Report,
    options: &WriteOptions,
) -> Result<Box<dyn Object>, ApiError> {
    let info = resource.info();
    let expected = Expected { kind: &info.kind, version: &info.version, api_version: &info.api_version };
    let object = resource.decode(body, report).map_err(|error| expected.refuse(body, &error))?;
    expected.refuse_findings(report, options)?;
    Ok(object)
}

/// Decodes a body of another kind than that of the resource: Scale, Binding.
pub(crate) fn other<T>(body: &[u8], report: &mut Report, options: &WriteOptions) -> Result<T, ApiError>
where
    T: DeserializeOwned + k8s_openapi::Resource,
{
    let expected = Expected { kind: T::KIND, version: T::VERSION, api_version: T::API_VERSION };
    let object = decode::decode(body, report).map_err(|error| expected.refuse(body, &error))?;
    expected.refuse_findings(report, options)?;
    Ok(object)
}

/// Decodes what a patch made of an object.
pub(crate) fn patched(
    resource: &Resource,
    patched: &[u8],
    report: &mut Report,
    options: &WriteOptions,
) -> Result<Box<dyn Object>, ApiError> {
    let object = resource.decode(patched, report).map_err(|error| invalid_patch(patched, &error.to_string()))?;
    match report.strict_error() {
        Some(why) if is_strict(options) => Err(invalid_patch(patched, &why)),
        _ => Ok(object),
    }
}

/// The kind a body must be of.
struct Expected<'a> {
    kind: &'a str,
    version: &'a str,
    api_version: &'a str,
}

impl Expected<'_> {
    /// What upstream says about a body that cannot be decoded: first that it is something else, then what is wrong.
    fn refuse(&self, body: &[u8], error: &DecodeError) -> ApiError {
        let Self { kind: wanted, version, api_version } = *self;
        if let DecodeError::Syntax(why) = error {
            return ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {wanted}): couldn't get version/kind; json parse error: {why} ({})",
                summary(body)
            ));
        }
        let found = TypeMeta::of(body);
        let other_version = !found.api_version.is_empty() && found.api_version != api_version;
        if !found.kind.is_empty() && found.kind != wanted {
            let (kind, found_version) = (&found.kind, version_of(&found.api_version, version));
            return ApiError::bad_request(format!(
                "{kind} in version {found_version:?} cannot be handled as a {wanted}: converting ({found_version}.{kind}) to ({version}.{wanted}): unknown conversion"
            ));
        }
        if other_version {
            return ApiError::bad_request(format!(
                "the API version in the data ({}) does not match the expected API version ({api_version})",
                found.api_version
            ));
        }
        self.cannot_handle(&error.to_string())
    }

    fn refuse_findings(&self, report: &Report, options: &WriteOptions) -> Result<(), ApiError> {
        match report.strict_error() {
            Some(why) if is_strict(options) => Err(self.cannot_handle(&why)),
            _ => Ok(()),
        }
    }

    fn cannot_handle(&self, why: &str) -> ApiError {
        let Self { kind, version, .. } = self;
        ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    }
}

fn version_of<'a>(api_version: &'a str, default: &'a str) -> &'a str {
    match api_version.rsplit('/').next() {
        None | Some("") => default,
        Some(version) => version,
    }
}

/// The beginning of a body that is not JSON, as upstream shows it: in hexadecimal unless it looks like an object (`summarizeData`
/// in apimachinery `pkg/runtime/error.go`).
fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    if body.is_empty() {
        return "<empty>".into();
    }
    if body[0] == b'{' {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        return if body.len() > MAX { format!("{} ...", text(&body[..MAX])) } else { text(body) };
    }
    let hex: String = body.iter().take(MAX).map(|byte| format!("{byte:02x}")).collect();
    if body.len() > MAX { format!("{hex} ...") } else { hex }
}

/// The namespace in the body, where there is one, is that of the path.
fn check_namespace(meta: &ObjectMeta, target: &Target) -> Result<(), ApiError> {
    match meta.namespace.as_deref() {
        // Upstream clears the namespace of an object of cluster scope.
        None | Some("") => Ok(()),
        Some(_) if target.namespace.is_empty() => Ok(()),
        Some(namespace) if namespace == target.namespace => Ok(()),
        Some(_) => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Only the server gives out versions; asked when all else is well, as upstream's store does.
pub(super) fn check_no_version(meta: &ObjectMeta) -> Result<(), ApiError> {
    match meta.resource_version.as_deref() {
        None | Some("" | "0") => Ok(()),
        Some(_) => Err(ApiError::bad_request("resourceVersion should not be set on objects to be created")),
    }
}

/// Name and namespace in the body are those of the path.
pub(crate) fn check_name(meta: &ObjectMeta, target: &Target) -> Result<(), ApiError> {
    let name = meta.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            target.name
        )));
    }
    if name != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    check_namespace(meta, target)
}

/// The conditions a body makes by its uid and resourceVersion.
fn check_preconditions(info: &ResourceInfo, new: &dyn Object, old: &dyn Object, entry: &Entry) -> Result<(), ApiError> {
    let name = &entry.key.name;
    let (asked, found) = (new.meta().uid.as_deref(), old.meta().uid.as_deref());
    if let Some(asked) = asked.filter(|asked| !asked.is_empty() && Some(*asked) != found) {
        let why = uid_mismatch(asked, found.unwrap_or_default());
        return Err(ApiError::conflict(&info.group_resource, name, why));
    }
    let path = Path::new("metadata").child("resourceVersion");
    let invalid = |error| ApiError::invalid(&info.group_kind, name, &ErrorList(vec![error]));
    let asked = match new.meta().resource_version.as_deref().unwrap_or_default() {
        "" => 0,
        // Upstream hands on Go's error as it is, 500 (apiserver `registry/generic/registry/store.go`): here no input is a fault
        // of the server.
        text => parse_uint(text).map_err(|why| invalid(FieldError::invalid(&path, text, why)))?,
    };
    match asked {
        0 if info.unconditional_update => Ok(()),
        0 => Err(invalid(FieldError::invalid(&path, 0, "must be specified for an update"))),
        asked if asked == entry.revision => Ok(()),
        _ => Err(ApiError::conflict(&info.group_resource, name, MODIFIED)),
    }
}

/// What strict validation says about the result of a patch: 422 with the whole document, as upstream.
fn invalid_patch(patched: &[u8], why: &str) -> ApiError {
    let document = String::from_utf8_lossy(patched);
    let error = FieldError::invalid(&Path::new("patch"), document.as_ref(), why);
    ApiError::invalid(&GroupKind::from_static("", ""), "", &ErrorList(vec![error]))
}

/// Whether findings refuse the request.
fn is_strict(options: &WriteOptions) -> bool {
    options.field_validation == FieldValidation::Strict
}
