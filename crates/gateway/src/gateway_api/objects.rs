//! The objects of `gateway.networking.k8s.io`, with the fields that are read here (`apis/v1` of the project).
//!
//! They are watched as JSON and decoded when a table is made: their definitions are installed by somebody, in some version, and
//! an object that does not fit is left out alone. For the same reason enumerations are text.

use std::sync::Arc;

use informer::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The group.
pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

/// An object as it is known, with its decoded spec.
#[derive(Debug, Clone)]
pub(crate) struct Typed<S> {
    pub(crate) object: Arc<DynamicObject>,
    pub(crate) spec: S,
}

impl<S: DeserializeOwned> Typed<S> {
    /// The object with its spec.
    ///
    /// # Errors
    /// When the spec is not what its type has.
    pub(crate) fn new(object: Arc<DynamicObject>) -> Result<Self, serde_json::Error> {
        let spec = S::deserialize(object.data.get("spec").unwrap_or(&Value::Null))?;
        Ok(Self { object, spec })
    }

    /// Those that can be decoded and are to stay, the oldest first. Others are logged.
    pub(crate) fn all(objects: Vec<Arc<DynamicObject>>) -> Vec<Self> {
        let decoded = objects.into_iter().filter(|object| object.metadata.deletion_timestamp.is_none());
        let decoded = decoded.filter_map(|object| {
            let key = ObjectKey::of(&*object);
            Self::new(object)
                .inspect_err(|error| tracing::debug!(%key, %error, "an object that cannot be decoded"))
                .ok()
        });
        let mut all: Vec<Self> = decoded.collect();
        all.sort_by_cached_key(|typed| crate::route::Origin::of(&*typed.object));
        all
    }
}

impl<S> Typed<S> {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::of(&*self.object)
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        &self.object.metadata
    }

    pub(crate) fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// What its status has under a name.
    pub(crate) fn status(&self, name: &str) -> &Value {
        &self.object.data["status"][name]
    }
}

/// Of a GatewayClass.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewayClassSpec {
    pub(crate) controller_name: String,
    pub(crate) parameters_ref: Option<Value>,
}

/// Of a Gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewaySpec {
    pub(crate) gateway_class_name: String,
    pub(crate) listeners: Vec<ListenerSpec>,
    pub(crate) addresses: Vec<GatewayAddress>,
    pub(crate) infrastructure: Option<Infrastructure>,
    pub(crate) tls: Option<GatewayTls>,
}

/// What a Gateway asks of what it runs on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Infrastructure {
    pub(crate) parameters_ref: Option<Value>,
}

/// TLS of a whole Gateway: clients' certificates.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayTls {
    pub(crate) frontend: Option<Value>,
}

/// An address that a Gateway asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayAddress {
    #[serde(rename = "type")]
    pub(crate) type_: Option<String>,
    pub(crate) value: String,
}

/// A listener of a Gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListenerSpec {
    pub(crate) name: String,
    pub(crate) hostname: Option<String>,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) tls: Option<ListenerTls>,
    pub(crate) allowed_routes: Option<AllowedRoutes>,
}

/// TLS of a listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListenerTls {
    pub(crate) mode: Option<String>,
    pub(crate) certificate_refs: Vec<SecretRef>,
    pub(crate) frontend_validation: Option<Value>,
}

/// A reference to a Secret.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SecretRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// Which routes may attach to a listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AllowedRoutes {
    pub(crate) namespaces: Option<RouteNamespaces>,
    pub(crate) kinds: Vec<RouteGroupKind>,
}

/// From which namespaces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RouteNamespaces {
    pub(crate) from: Option<String>,
    pub(crate) selector: Option<LabelSelector>,
}

/// A kind of routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RouteGroupKind {
    pub(crate) group: Option<String>,
    pub(crate) kind: String,
}

impl RouteGroupKind {
    /// The only one that is served.
    pub(crate) fn http_route() -> Self {
        Self { group: Some(GROUP.to_owned()), kind: "HTTPRoute".to_owned() }
    }

    /// Whether it is that one.
    pub(crate) fn is_http_route(&self) -> bool {
        self.group.as_deref().is_none_or(|group| group == GROUP) && self.kind == "HTTPRoute"
    }
}

/// Of an HTTPRoute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HttpRouteSpec {
    pub(crate) parent_refs: Vec<ParentRef>,
    pub(crate) hostnames: Vec<String>,
    pub(crate) rules: Vec<RouteRule>,
}

/// What a route attaches to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentRef {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

impl ParentRef {
    /// The Gateway that it names, where it names one.
    pub(crate) fn gateway(&self, route_namespace: &str) -> Option<ObjectKey> {
        let is_gateway = self.group.as_deref().is_none_or(|group| group == GROUP)
            && self.kind.as_deref().is_none_or(|kind| kind == "Gateway");
        let namespace = self.namespace.as_deref().unwrap_or(route_namespace);
        is_gateway.then(|| ObjectKey::new(namespace, self.name.as_str()))
    }
}

/// A rule of an HTTPRoute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteRule {
    pub(crate) matches: Vec<RouteMatch>,
    pub(crate) filters: Vec<RouteFilter>,
    pub(crate) backend_refs: Vec<BackendRef>,
    pub(crate) timeouts: Option<RouteTimeouts>,
    pub(crate) retry: Option<Value>,
    pub(crate) session_persistence: Option<Value>,
}

/// A match of a rule.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteMatch {
    pub(crate) path: Option<ValueSpec>,
    pub(crate) headers: Vec<ValueSpec>,
    pub(crate) query_params: Vec<ValueSpec>,
    pub(crate) method: Option<String>,
}

/// A value to match: of a path, or of the header or parameter of this name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ValueSpec {
    #[serde(rename = "type")]
    pub(crate) type_: Option<String>,
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// A filter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteFilter {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) request_header_modifier: HeaderFilter,
    pub(crate) response_header_modifier: HeaderFilter,
    pub(crate) request_redirect: RedirectFilter,
    pub(crate) url_rewrite: RewriteFilter,
    pub(crate) request_mirror: MirrorFilter,
}

/// A mirror.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MirrorFilter {
    pub(crate) backend_ref: BackendRef,
    pub(crate) percent: Option<u32>,
    pub(crate) fraction: Option<Fraction>,
}

/// A part of all, of a hundred where nothing else is said.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fraction {
    pub(crate) numerator: u32,
    pub(crate) denominator: Option<u32>,
}

/// A filter of headers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HeaderFilter {
    pub(crate) set: Vec<HeaderSpec>,
    pub(crate) add: Vec<HeaderSpec>,
    pub(crate) remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HeaderSpec {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A redirect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RedirectFilter {
    pub(crate) scheme: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) path: Option<PathSpec>,
    pub(crate) port: Option<u16>,
    pub(crate) status_code: Option<u16>,
}

/// A rewrite of the URL.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RewriteFilter {
    pub(crate) hostname: Option<String>,
    pub(crate) path: Option<PathSpec>,
}

/// What a path becomes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PathSpec {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) replace_full_path: Option<String>,
    pub(crate) replace_prefix_match: Option<String>,
}

/// A backend of a rule.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BackendRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) port: Option<i32>,
    pub(crate) weight: Option<u32>,
    pub(crate) filters: Vec<RouteFilter>,
}

/// The timeouts of a rule, as durations of the Gateway API (GEP-2257).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteTimeouts {
    pub(crate) request: Option<String>,
    pub(crate) backend_request: Option<String>,
}

/// Of a ReferenceGrant.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ReferenceGrantSpec {
    pub(crate) from: Vec<GrantFrom>,
    pub(crate) to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GrantFrom {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
}

/// To what; to all of the kind where there is no name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GrantTo {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: Option<String>,
}
