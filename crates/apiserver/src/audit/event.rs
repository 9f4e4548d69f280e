//! Event of audit.k8s.io/v1 (`staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go`), and what it is made of.
//!
//! What a request gathers are [`Record`]s, which copy nothing large. They become JSON on the thread of the log.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use jiff::Timestamp;
use machinery::status::ApiError;
use serde::Serialize;
use serde_json::{Value, json};

use super::policy::{Level, Stage};
use crate::authn::User;
use crate::authz::Target;
use crate::negotiate;
use crate::peer::PeerAddress;
use crate::protobuf;
use crate::resource;

const USER_AGENT_BYTES: usize = 1024;

/// What the events of a request have in common.
pub(super) struct Request {
    pub(super) id: String,
    pub(super) uri: String,
    pub(super) verb: String,
    /// None where nobody could be authenticated.
    pub(super) user: Option<Arc<User>>,
    pub(super) source_ips: Vec<IpAddr>,
    pub(super) user_agent: Option<String>,
    pub(super) object_reference: Option<ObjectReference>,
    pub(super) received: Timestamp,
    pub(super) level: Level,
    pub(super) omit_managed_fields: bool,
}

/// An event before it is JSON.
pub(super) struct Record {
    pub(super) request: Arc<Request>,
    pub(super) stage: Stage,
    pub(super) at: Timestamp,
    /// None as long as there is no answer; nor is there one of a client that has gone before.
    pub(super) status: Option<u16>,
    pub(super) failure: Option<ApiError>,
    pub(super) impersonated: Option<Arc<User>>,
    pub(super) request_object: Option<Object>,
    pub(super) response_object: Option<Object>,
    pub(super) annotations: BTreeMap<registry::audit::Key, String>,
}

/// What a request is about.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectReference {
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource_version: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: Box<str>,
}

impl ObjectReference {
    pub(super) fn new(target: Target<'_>) -> Self {
        let (group, version, resource, subresource, namespace, name) = match target {
            Target::Resource { group, version, resource, subresource, namespace, name } => {
                (group, version, resource, subresource, namespace, name)
            }
            Target::Path(_) => Default::default(),
        };
        Self {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            uid: Box::default(),
            api_group: group.into(),
            api_version: version.into(),
            resource_version: Box::default(),
            subresource: subresource.into(),
        }
    }

    /// Adds what the request leaves open and the object says (`audit.LogRequestObject`).
    fn complete(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        for (field, key) in [
            (&mut self.namespace, "namespace"),
            (&mut self.name, "name"),
            (&mut self.uid, "uid"),
            (&mut self.resource_version, "resourceVersion"),
        ] {
            if let Some(text) = metadata[key].as_str().filter(|_| field.is_empty()) {
                *field = text.into();
            }
        }
    }
}

/// The bytes of a body, and what they are.
#[derive(Clone)]
pub(super) struct Content {
    encoding: Encoding,
    pub(super) bytes: VecDeque<Bytes>,
}

#[derive(Clone, Copy)]
enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// An object of an event.
pub(super) struct Object(pub(super) Content);

impl Content {
    /// The body of a request; none where it is empty.
    pub(super) fn of_request(headers: &HeaderMap, body: Bytes) -> Option<Self> {
        let encoding = Encoding::of(negotiate::media_type(headers));
        (!body.is_empty()).then(|| Self { encoding, bytes: [body].into() })
    }

    /// The body of an answer.
    pub(super) fn of_answer(headers: &HeaderMap, bytes: VecDeque<Bytes>) -> Self {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self { encoding: Encoding::of(media_type), bytes }
    }
}

impl Encoding {
    fn of(media_type: &str) -> Self {
        if media_type.contains("protobuf") {
            Self::Protobuf
        } else if media_type.contains("yaml") {
            Self::Yaml
        } else {
            Self::Json
        }
    }
}

impl Object {
    /// The object as JSON; none where the bytes are none.
    fn read(&self, omit_managed_fields: bool) -> Option<Value> {
        let Content { encoding, bytes } = &self.0;
        let bytes: Cow<'_, [u8]> = match bytes.as_slices() {
            ([one], []) => Cow::Borrowed(one),
            _ => Cow::Owned(bytes.iter().flatten().copied().collect()),
        };
        let mut value: Value = match encoding {
            Encoding::Json => serde_json::from_slice(&bytes).ok()?,
            Encoding::Yaml => serde_json::from_slice(&resource::yaml_to_json(&bytes).ok()?).ok()?,
            Encoding::Protobuf => serde_json::from_slice(&protobuf::any_to_json(&bytes).ok()?).ok()?,
        };
        if omit_managed_fields {
            without_managed_fields(&mut value);
        }
        Some(value)
    }
}

fn without_managed_fields(object: &mut Value) {
    let drop = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    drop(object);
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        drop(item);
    }
    for row in object.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(object) = row.get_mut("object") {
            drop(object);
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: UserInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<UserInfo<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<registry::audit::Key, String>,
}

#[derive(Default, Serialize)]
struct UserInfo<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<&'a BTreeMap<String, Vec<String>>>,
}

impl<'a> From<&'a User> for UserInfo<'a> {
    fn from(user: &'a User) -> Self {
        let extra = Some(&user.extra).filter(|extra| !extra.is_empty());
        Self { username: &user.name, uid: &user.uid, groups: &user.groups, extra }
    }
}

impl Record {
    /// The bytes that it holds, as far as a client says how many.
    pub(super) fn held(&self) -> usize {
        let request = &*self.request;
        let agent = request.user_agent.as_ref().map_or(0, String::len);
        let head = request.uri.len() + agent + size_of_val(&*request.source_ips);
        head + super::held(self.request_object.as_ref()) + super::held(self.response_object.as_ref())
    }

    pub(super) fn level(&self) -> Level {
        self.request.level
    }

    /// Appends the event as a line of JSON.
    pub(super) fn write(&self, line: &mut Vec<u8>) -> serde_json::Result<()> {
        let request = &*self.request;
        let read = |object: &Option<Object>| object.as_ref()?.read(request.omit_managed_fields);
        let (request_object, mut response_object) = (read(&self.request_object), read(&self.response_object));
        let mut object_ref = request.object_reference.clone();
        if let Some(reference) = &mut object_ref {
            for object in request_object.iter().chain(&response_object) {
                reference.complete(object);
            }
        }
        // It may be here for the sake of its name only.
        response_object = response_object.filter(|_| request.level >= Level::RequestResponse);
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: request.level,
            audit_id: &request.id,
            stage: self.stage,
            request_uri: &request.uri,
            verb: &request.verb,
            user: request.user.as_deref().map(UserInfo::from).unwrap_or_default(),
            impersonated_user: self.impersonated.as_deref().map(UserInfo::from),
            source_ips: &request.source_ips,
            user_agent: request.user_agent.as_deref(),
            object_ref,
            response_status: self.response_status(),
            request_object,
            response_object,
            request_received_timestamp: micro_time(request.received),
            stage_timestamp: micro_time(self.at),
            annotations: &self.annotations,
        };
        serde_json::to_writer(&mut *line, &event)?;
        line.push(b'\n');
        Ok(())
    }

    fn response_status(&self) -> Option<Value> {
        let Some(code) = self.status else {
            let closed_early =
                || json!({ "metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200 });
            return (self.stage != Stage::RequestReceived).then(closed_early);
        };
        let Some(failure) = &self.failure else { return Some(json!({ "metadata": {}, "code": code })) };
        let mut status = failure.to_status();
        if let Some(status) = status.as_object_mut() {
            // A Status within an object names no type.
            status.remove("kind");
            status.remove("apiVersion");
        }
        Some(status)
    }
}

/// A time as `MicroTime` is written.
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// What a client calls itself, as far as it is short (`maybeTruncateUserAgent` in upstream's `pkg/audit/request.go`).
pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(USER_AGENT)?.as_bytes();
    let kept = &agent[..agent.len().min(USER_AGENT_BYTES)];
    let mut text = String::from_utf8_lossy(kept).into_owned();
    if kept.len() < agent.len() {
        text.push_str("...TRUNCATED");
    }
    Some(text)
}

/// Where a request comes from, as far as its proxies and its connection say (`utilnet.SourceIPs`). A client in this process is
/// on this machine.
pub(super) fn source_ips(parts: &Parts) -> Vec<IpAddr> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut addresses: Vec<IpAddr> =
        header("x-forwarded-for").split(',').filter_map(|address| address.trim().parse().ok()).collect();
    let real = header("x-real-ip").trim().parse().ok();
    let peer = parts.extensions.get::<PeerAddress>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |PeerAddress(peer)| peer.ip().to_canonical());
    for address in real.into_iter().chain([peer]) {
        if addresses.last() != Some(&address) {
            addresses.push(address);
        }
    }
    addresses
}
