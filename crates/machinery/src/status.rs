//! The one error of the API, and the `Status` object it becomes.
//!
//! Codes, reasons and messages are upstream's, byte for byte: kubectl prints them and client libraries branch on them.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::field::{ErrorList, quote};
use crate::gvk::{GroupKind, GroupResource};

/// What upstream says when an object changed between a read and the write that builds on it.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Why a request failed, in one word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the API's own words")]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    InsufficientStorage,
}

impl Reason {
    /// The reason of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [Reason; 19] = [
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Gone,
            Reason::Invalid,
            Reason::ServerTimeout,
            Reason::Timeout,
            Reason::TooManyRequests,
            Reason::BadRequest,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::RequestEntityTooLarge,
            Reason::UnsupportedMediaType,
            Reason::InternalError,
            Reason::Expired,
            Reason::ServiceUnavailable,
            Reason::InsufficientStorage,
        ];
        ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The word on the wire; empty when unknown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::InsufficientStorage => "InsufficientStorage",
        }
    }
}

/// One of several causes of a failure. Its fields have upstream's order (apimachinery `pkg/apis/meta/v1/types.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// A word for programs, such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field's path, when the cause is a field.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a failure is about. Its fields have upstream's order, as those of [`Cause`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The group of the kind or resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The kind of an invalid object; otherwise, as upstream has it, the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's UID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// What led to the failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again, in seconds; 0 says nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// As serde asks for it.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status code.
    pub code: u16,
    /// The word for programs.
    pub reason: Reason,
    /// The sentence for people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// What the client is warned about all the same.
    pub warnings: Vec<String>,
}

impl ApiError {
    /// Any failure; the constructors below cover the usual ones.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, warnings: Vec::new() }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = resource.group.clone().into_owned();
        details.kind = resource.resource.clone().into_owned();
        details.name = name.to_owned();
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, Reason::NotFound, format!("{resource} {} not found", quote(name))).about(resource, name)
    }

    /// 404: there is no such group, version or resource.
    pub fn no_such_resource() -> Self {
        let mut error = Self::new(404, Reason::NotFound, "the server could not find the requested resource");
        error.details = Some(Box::default());
        error
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, Reason::AlreadyExists, format!("{resource} {} already exists", quote(name)))
            .about(resource, name)
    }

    /// 409: no free name was found for a `generateName`.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::new(409, Reason::AlreadyExists, message).about(resource, name).retry_after(retry_after_seconds)
    }

    /// 409: the write does not fit the object's present state. See [`MODIFIED`] for the usual `why`.
    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        Self::new(409, Reason::Conflict, format!("Operation cannot be fulfilled on {resource} {}: {why}", quote(name)))
            .about(resource, name)
    }

    /// 422: the object breaks rules.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &ErrorList) -> Self {
        let mut message = format!("{kind} {} is invalid", quote(name));
        if !errors.is_empty() {
            message.push_str(&format!(": {errors}"));
        }
        let mut error = Self::new(422, Reason::Invalid, message);
        error.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: kind.group.clone().into_owned(),
            kind: kind.kind.clone().into_owned(),
            causes: errors
                .iter()
                .map(|error| Cause {
                    reason: error.kind.reason().to_owned(),
                    message: error.body(),
                    field: error.field.clone(),
                })
                .collect(),
            ..Details::default()
        }));
        error
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 403: the caller may not do this.
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {} is forbidden: {why}", quote(name)),
        };
        Self::new(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 401: the caller is nobody we know.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 405: the resource does not have this verb.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {}", quote(&resource.to_string()));
        Self::new(405, Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// 410: what was asked for is gone for ever.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    /// 410 with reason `Expired`: the resource version or continue token is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 413: the body is over the limit.
    pub fn too_large(message: impl fmt::Display) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }

    /// 415: the body is in no format we read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 406: the caller accepts no format we write.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 429: too much at once.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    /// 504: it took too long.
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: u32) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }

    /// 500 with reason `ServerTimeout`: it could not be done now, trying again may help.
    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::new(500, Reason::ServerTimeout, message).about(resource, operation).retry_after(retry_after_seconds)
    }

    /// 500: our fault.
    pub fn internal(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {why}"))
            .with_cause(Cause { message: why, ..Cause::default() })
    }

    /// 503: not now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 503: not now, but likely in so many seconds. Clients of Kubernetes wait for that long and ask again by themselves.
    pub fn unavailable_for(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::service_unavailable(message).retry_after(retry_after_seconds)
    }

    /// 507 (RFC 4918): there is no space to store it, which somebody has to make first. Upstream has no word for it: there,
    /// etcd's `mvcc: database space exceeded` comes as an internal error.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(507, Reason::InsufficientStorage, message)
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        // Texts and numbers always have a form in JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// In the order in which upstream writes a `Status`.
impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Status")?;
        map.serialize_entry("apiVersion", "v1")?;
        map.serialize_entry("metadata", &Map::new())?;
        map.serialize_entry("status", "Failure")?;
        if !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        if self.reason != Reason::Unknown {
            map.serialize_entry("reason", self.reason.as_str())?;
        }
        if let Some(details) = &self.details {
            map.serialize_entry("details", details)?;
        }
        map.serialize_entry("code", &self.code)?;
        map.end()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::field::{FieldError, Path};

    const DEPLOYMENTS: GroupResource = GroupResource::from_static("apps", "deployments");

    #[test]
    fn messages_are_upstreams() {
        let pods = GroupResource::from_static("", "pods");
        for (error, code, expect) in [
            (ApiError::not_found(&DEPLOYMENTS, "x"), 404, r#"deployments.apps "x" not found"#),
            (ApiError::not_found(&pods, "x"), 404, r#"pods "x" not found"#),
            (ApiError::already_exists(&DEPLOYMENTS, "x"), 409, r#"deployments.apps "x" already exists"#),
            (
                ApiError::conflict(&DEPLOYMENTS, "x", MODIFIED),
                409,
                "Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (ApiError::forbidden(&pods, "", "no"), 403, "pods is forbidden: no"),
            (ApiError::forbidden(&pods, "a", "no"), 403, "pods \"a\" is forbidden: no"),
            (ApiError::forbidden(&GroupResource::from_static("", ""), "", "no"), 403, "forbidden: no"),
            (
                ApiError::method_not_supported(&DEPLOYMENTS, "create"),
                405,
                r#"create is not supported on resources of kind "deployments.apps""#,
            ),
            (ApiError::internal("boom"), 500, "Internal error occurred: boom"),
            (ApiError::too_large("limit is 3145728"), 413, "Request entity too large: limit is 3145728"),
            (ApiError::timeout("late", 1), 504, "Timeout: late"),
        ] {
            assert_eq!((error.code, error.to_string().as_str()), (code, expect));
        }
    }

    #[test]
    fn invalid_carries_causes() {
        let path = Path::new("spec").child("replicas");
        let errors = ErrorList(vec![
            FieldError::invalid(&path, -1, "must be greater than or equal to 0"),
            FieldError::required(&Path::new("spec").child("selector"), ""),
        ]);
        let error = ApiError::invalid(&GroupKind::from_static("apps", "Deployment"), "web", &errors);
        assert_eq!(
            error.to_status(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422, "reason": "Invalid",
                "message": "Deployment.apps \"web\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.selector: Required value]",
                "details": {"name": "web", "group": "apps", "kind": "Deployment", "causes": [
                    {"reason": "FieldValueInvalid", "message": "Invalid value: -1: must be greater than or equal to 0", "field": "spec.replicas"},
                    {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"},
                ]},
            })
        );
    }

    #[test]
    fn serialized_in_upstreams_order() {
        let error = ApiError::unauthorized();
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#
        );
        let errors = ErrorList(vec![FieldError::required(&Path::new("spec"), "")]);
        let error = ApiError::invalid(&GroupKind::from_static("apps", "Deployment"), "x", &errors).retry_after(1);
        assert_eq!(
            serde_json::to_string(&error.details).unwrap(),
            r#"{"name":"x","group":"apps","kind":"Deployment","causes":[{"reason":"FieldValueRequired","message":"Required value","field":"spec"}],"retryAfterSeconds":1}"#
        );
    }
}
