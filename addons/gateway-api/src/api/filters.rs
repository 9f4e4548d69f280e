//! The filters of an HTTPRoute: what is changed in requests and answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{HeaderName, HeaderValue, Origin, Port, PreciseHostname, RedirectCode};
use super::references::{BackendReference, LocalObjectReference};
use super::rules;

/// What is changed in requests and answers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(transparent)]
#[schemars(extend(
    "maxItems" = 16,
    "x-kubernetes-list-type" = "atomic",
    "x-kubernetes-validations" = rules::filters(),
))]
pub struct Filters(pub Vec<Filter>);

/// A change, with the field that its type names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::filter()))]
pub struct Filter {
    /// What is changed.
    #[serde(rename = "type")]
    pub type_: FilterType,
    /// Headers of requests.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Headers of answers.
    pub response_header_modifier: Option<HeaderModifier>,
    /// Where a copy of requests is sent, whose answer nobody waits for.
    pub request_mirror: Option<RequestMirror>,
    /// Where clients are sent instead.
    pub request_redirect: Option<RequestRedirect>,
    /// Host and path of requests.
    pub url_rewrite: Option<UrlRewrite>,
    /// Which pages of other origins may ask. Not supported here: a route that has it says so.
    pub cors: Option<Cors>,
    /// A filter of an implementation's own. Not supported here: a route that has it says so.
    pub extension_ref: Option<LocalObjectReference>,
}

/// What a filter changes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterType {
    /// Headers of requests.
    RequestHeaderModifier,
    /// Headers of answers.
    ResponseHeaderModifier,
    /// A copy of requests is sent elsewhere.
    RequestMirror,
    /// Clients are sent elsewhere.
    RequestRedirect,
    /// Host and path of requests.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// A filter of an implementation's own.
    ExtensionRef,
    /// Which pages of other origins may ask.
    #[serde(rename = "CORS")]
    Cors,
}

/// How headers are changed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct HeaderModifier {
    /// Headers that are replaced, or added where they are missing.
    #[schemars(extend(
        "maxItems" = 16,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
    ))]
    pub set: Option<Vec<Header>>,
    /// Values that are added to those that are there.
    #[schemars(extend(
        "maxItems" = 16,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
    ))]
    pub add: Option<Vec<Header>>,
    /// Names of headers that are taken away.
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "set"))]
    pub remove: Option<Vec<String>>,
}

/// A header.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct Header {
    /// Its name, in whatever case.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

/// Where copies of requests are sent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::mirror()))]
pub struct RequestMirror {
    /// Where to.
    pub backend_ref: BackendReference,
    /// Of how many percent of the requests; of all without it.
    #[schemars(extend("minimum" = 0, "maximum" = 100))]
    pub percent: Option<i32>,
    /// Of which part of the requests.
    pub fraction: Option<Fraction>,
}

/// A part of a whole.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = rules::fraction()))]
pub struct Fraction {
    /// So many.
    #[schemars(extend("minimum" = 0))]
    pub numerator: i32,
    /// Out of so many.
    #[schemars(extend("default" = 100, "minimum" = 1))]
    pub denominator: Option<i32>,
}

/// Where clients are sent instead. What is not said stays as it was asked for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// http or https.
    pub scheme: Option<Scheme>,
    /// The host.
    pub hostname: Option<PreciseHostname>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port; that of the scheme or of the listener without it.
    pub port: Option<Port>,
    /// The status of the answer.
    #[serde(default = "found")]
    #[schemars(with = "RedirectCode")]
    pub status_code: i32,
}

/// A scheme of URLs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// http.
    Http,
    /// https.
    Https,
}

/// Host and path as a backend sees them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<PreciseHostname>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// What a path becomes, with the field that its type names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::path_modifier()))]
pub struct PathModifier {
    /// ReplaceFullPath or ReplacePrefixMatch.
    #[serde(rename = "type")]
    pub type_: PathModifierType,
    /// The path.
    #[schemars(extend("maxLength" = 1024))]
    pub replace_full_path: Option<String>,
    /// What the prefix that matched becomes; the rest stays.
    #[schemars(extend("maxLength" = 1024))]
    pub replace_prefix_match: Option<String>,
}

/// What of a path is replaced.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the words of the API")]
pub enum PathModifierType {
    /// All of it.
    ReplaceFullPath,
    /// The prefix that matched.
    ReplacePrefixMatch,
}

/// Which pages of other origins may ask.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// The origins of the pages; `*` for all.
    #[schemars(extend(
        "maxItems" = 64,
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::all_or_some(),
    ))]
    pub allow_origins: Option<Vec<Origin>>,
    /// Whether they may send credentials.
    pub allow_credentials: Option<bool>,
    /// The methods that they may use; `*` for all.
    #[schemars(extend(
        "maxItems" = 9,
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::all_or_some(),
    ))]
    pub allow_methods: Option<Vec<CorsMethod>>,
    /// The headers that they may send; `*` for all.
    #[schemars(extend(
        "maxItems" = 64,
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::all_or_some(),
    ))]
    pub allow_headers: Option<Vec<HeaderName>>,
    /// The headers of answers that they may read.
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set"))]
    pub expose_headers: Option<Vec<HeaderName>>,
    /// For how many seconds they may remember what is allowed.
    #[schemars(extend("default" = 5, "minimum" = 1))]
    pub max_age: Option<i32>,
}

/// A method, or all of them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum CorsMethod {
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
    /// All of them.
    #[serde(rename = "*")]
    Any,
}

const fn found() -> i32 {
    302
}
