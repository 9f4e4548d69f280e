//! HTTPRoute: `httproute_types.go`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::filters::Filters;
use super::names::{
    ControllerName, Duration, Group, HeaderName, HeaderValue, Hostname, Kind, Namespace, ObjectName, Port, SectionName,
};
use super::references::ParentReference;
use super::rules;

/// Which requests are led where.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    namespaced,
    category = "gateway-api",
    status = "HttpRouteStatus",
    doc = "Leads requests that come in at Gateways to Services, by host, path, headers, query and method.",
    printcolumn = r#"{"name":"Hostnames","type":"string","jsonPath":".spec.hostnames"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Gateways whose requests are led, or single listeners of them.
    #[schemars(extend(
        "maxItems" = 32,
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = rules::parents(),
    ))]
    pub parent_refs: Option<Vec<ParentReference>>,
    /// The hosts; those of the listener without any.
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "atomic"))]
    pub hostnames: Option<Vec<Hostname>>,
    /// What is done with which requests. Of rules that match, the one with the closest match is followed.
    #[schemars(extend(
        "default" = [{ "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }] }],
        "minItems" = 1,
        "maxItems" = 16,
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = rules::matches_in_all(),
    ))]
    pub rules: Option<Vec<HttpRouteRule>>,
}

/// What is done with the requests that match.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::route_rule()))]
pub struct HttpRouteRule {
    /// Its name.
    pub name: Option<SectionName>,
    /// Which requests: those that one of these matches; all without any.
    #[schemars(extend(
        "default" = [{ "path": { "type": "PathPrefix", "value": "/" } }],
        "maxItems" = 64,
        "x-kubernetes-list-type" = "atomic",
    ))]
    pub matches: Option<Vec<HttpRouteMatch>>,
    /// What is changed in requests and answers.
    pub filters: Option<Filters>,
    /// Where requests are sent, in proportion to the weights.
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "atomic"))]
    pub backend_refs: Option<Vec<HttpBackendReference>>,
    /// How long requests may take.
    pub timeouts: Option<HttpRouteTimeouts>,
}

/// What a request has to be like, in all of these.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// Its path.
    #[schemars(extend("default" = { "type": "PathPrefix", "value": "/" }))]
    pub path: Option<HttpPathMatch>,
    /// Its headers.
    #[schemars(extend(
        "maxItems" = 16,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
    ))]
    pub headers: Option<Vec<HttpHeaderMatch>>,
    /// Parameters of its query.
    #[schemars(extend(
        "maxItems" = 16,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
    ))]
    pub query_params: Option<Vec<HttpQueryParamMatch>>,
    /// Its method.
    pub method: Option<HttpMethod>,
}

/// What a path has to be like.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = rules::path()))]
pub struct HttpPathMatch {
    /// Exact, PathPrefix or RegularExpression.
    #[serde(rename = "type")]
    #[schemars(extend("default" = "PathPrefix"))]
    pub type_: Option<PathMatchType>,
    /// What it is compared with.
    #[schemars(extend("default" = "/", "maxLength" = 1024))]
    pub value: Option<String>,
}

/// How a path is compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMatchType {
    /// It is the value.
    Exact,
    /// It begins with the elements of the value.
    PathPrefix,
    /// The value is an expression that matches it.
    RegularExpression,
}

/// How a header or a parameter is compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueMatchType {
    /// It is the value.
    Exact,
    /// The value is an expression that matches it.
    RegularExpression,
}

/// What a header has to be like.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct HttpHeaderMatch {
    /// Exact or RegularExpression.
    #[serde(rename = "type")]
    #[schemars(extend("default" = "Exact"))]
    pub type_: Option<ValueMatchType>,
    /// The header, in whatever case.
    pub name: HeaderName,
    /// What it is compared with.
    pub value: HeaderValue,
}

/// What a parameter of a query has to be like.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct HttpQueryParamMatch {
    /// Exact or RegularExpression.
    #[serde(rename = "type")]
    #[schemars(extend("default" = "Exact"))]
    pub type_: Option<ValueMatchType>,
    /// The parameter.
    pub name: HeaderName,
    /// What it is compared with.
    #[schemars(extend("minLength" = 1, "maxLength" = 1024))]
    pub value: String,
}

/// A method of HTTP.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// CONNECT.
    Connect,
    /// OPTIONS.
    Options,
    /// TRACE.
    Trace,
    /// PATCH.
    Patch,
}

/// Where requests are sent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = rules::port_of_service()))]
pub struct HttpBackendReference {
    /// The object's API group.
    #[schemars(extend("default" = ""))]
    pub group: Option<Group>,
    /// The object's kind: Service here.
    #[schemars(extend("default" = "Service"))]
    pub kind: Option<Kind>,
    /// The object's name.
    pub name: ObjectName,
    /// The object's namespace, where it is another one. A ReferenceGrant there has to allow it.
    pub namespace: Option<Namespace>,
    /// The port of the Service.
    pub port: Option<Port>,
    /// Its part of the requests, out of the sum of all weights.
    #[schemars(extend("default" = 1, "minimum" = 0, "maximum" = 1_000_000))]
    pub weight: Option<i32>,
    /// What is changed in requests that are sent here, and in their answers.
    pub filters: Option<Filters>,
}

/// How long requests may take.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::timeouts()))]
pub struct HttpRouteTimeouts {
    /// From a request to the end of its answer; 0s for ever.
    pub request: Option<Duration>,
    /// For one attempt at a backend.
    pub backend_request: Option<Duration>,
}

/// What the controllers of Gateways say of the route.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct HttpRouteStatus {
    /// What is to be said for each parent.
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub parents: Vec<RouteParentStatus>,
}

/// How a route stands with a parent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The parent, as the route names it.
    pub parent_ref: ParentReference,
    /// Who says so.
    pub controller_name: ControllerName,
    /// Accepted: whether it is attached. ResolvedRefs: whether all that it leads to is there and may be used.
    #[schemars(extend("minItems" = 1))]
    pub conditions: Conditions,
}
