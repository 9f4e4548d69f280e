//! What a webhook is sent and what its answer means: `admission.k8s.io/v1` AdmissionReview.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use machinery::status::{ApiError, Reason};
use serde_json::{Value, json};

use crate::admission::conditions::is_whole;
use crate::admission::{Attributes, Operation};
use crate::kind::Subresource;
use crate::object::Object;
use crate::table::ResourceInfo;

/// A request as it is sent.
pub(super) struct Request {
    pub(super) uid: String,
    pub(super) body: Bytes,
}

/// What is asked for, by whom: a request but for its objects.
pub(crate) fn describe(attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Value {
    let info = attributes.info;
    let kind = attributes.kind();
    let kind = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    let resource = json!({ "group": info.group, "version": info.version, "resource": info.plural });
    let options = match attributes.operation {
        Operation::Create => Some("CreateOptions"),
        Operation::Update => Some("UpdateOptions"),
        Operation::Delete => Some("DeleteOptions"),
        // What a connection asks for is its object.
        Operation::Connect => None,
    };
    let user = attributes.user;
    let mut request = json!({
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "operation": attributes.operation.as_str(),
        "userInfo": { "username": user.name, "groups": user.groups },
        "dryRun": attributes.dry_run,
        "options": options.map(|options| json!({ "kind": options, "apiVersion": "meta.k8s.io/v1" })),
    });
    let subresource = attributes.subresource.map(Subresource::name).unwrap_or_default();
    for (field, value) in [
        ("name", attributes.object_name(object.or(attributes.old))),
        ("namespace", attributes.request_namespace(object)),
        ("subResource", subresource),
        ("requestSubResource", subresource),
    ] {
        if !value.is_empty() {
            request[field] = value.into();
        }
    }
    if !user.uid.is_empty() {
        request["userInfo"]["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        request["userInfo"]["extra"] = json!(user.extra);
    }
    if attributes.dry_run {
        request["options"]["dryRun"] = json!(["All"]);
    }
    request
}

/// Makes a description that of a request for the same objects in another group or version.
pub(crate) fn describe_as(request: &mut Value, attributes: &Attributes<'_>, info: &ResourceInfo) {
    request["resource"] = json!({ "group": info.group, "version": info.version, "resource": info.plural });
    if is_whole(attributes) {
        request["kind"] = json!({ "group": info.group, "version": info.version, "kind": info.kind });
    }
}

impl Request {
    pub(super) fn new(attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<Self, ApiError> {
        let uid = uuid::Uuid::new_v4().to_string();
        let encode = |object: Option<&dyn Object>| {
            object.map(|object| attributes.codec.encode(object)).transpose().map(Option::unwrap_or_default)
        };
        let mut request = describe(attributes, object);
        request["uid"] = uid.as_str().into();
        request["object"] = encode(object)?;
        request["oldObject"] = encode(attributes.old)?;
        let review = json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request });
        Ok(Self { uid, body: review.to_string().into() })
    }
}

/// An answer.
#[derive(Debug)]
pub(in crate::admission) struct Answer {
    /// Why the write may not go on.
    pub(super) refusal: Option<ApiError>,
    /// What is to be changed in the object, as a JSON patch.
    pub(in crate::admission) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
}

impl Answer {
    /// Reads the answer of a webhook. The error says why it is none.
    pub(super) fn read(webhook: &str, uid: &str, review: &Value) -> Result<Self, String> {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (kind, version) = (text(review, "kind"), text(review, "apiVersion"));
        if (kind.as_str(), version.as_str()) != ("AdmissionReview", "admission.k8s.io/v1") {
            return Err(format!(
                "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"
            ));
        }
        let response = &review["response"];
        if !response.is_object() {
            return Err("webhook response was absent".to_owned());
        }
        let found = text(response, "uid");
        if found != uid {
            return Err(format!("received invalid webhook response: expected response.uid={uid:?}, got {found:?}"));
        }
        let warnings = response["warnings"].as_array().into_iter().flatten();
        let warnings = warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect();
        if response["allowed"] != true {
            return Ok(Self { refusal: Some(refusal(webhook, &response["status"])), patch: None, warnings });
        }
        let patch = match (text(response, "patch").as_str(), text(response, "patchType").as_str()) {
            ("", _) => None,
            (patch, "JSONPatch") => {
                let bytes = BASE64_STANDARD.decode(patch).map_err(|error| error.to_string())?;
                Some(serde_json::from_slice(&bytes).map_err(|error| error.to_string())?)
            }
            (_, other) => {
                return Err(format!(
                    "received invalid webhook response: webhook returned response.patch but not response.patchType JSONPatch: {other:?}"
                ));
            }
        };
        Ok(Self { refusal: None, patch, warnings })
    }
}

/// The webhook's own status, in words that say whose it is.
fn refusal(webhook: &str, status: &Value) -> ApiError {
    let denied = format!("admission webhook {webhook:?} denied the request");
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let reason = Reason::from_name(text("reason")).unwrap_or(Reason::Unknown);
    ApiError::new(code.unwrap_or(400), reason, message)
}
