//! What a request's path means.
//!
//! | path | route |
//! |---|---|
//! | `/` | [`Route::Root`]: the paths there are |
//! | `/healthz /livez /readyz` and single checks below | [`Route::Health`] |
//! | `/version`, `/metrics` | [`Route::Version`], [`Route::Metrics`] |
//! | `/at` | [`Route::Past`]: how far back objects are remembered; below it `past` |
//! | `/debug/api_priority_and_fairness/dump_*` | [`Route::DumpFlowControl`] |
//! | `/debug/store/*` | [`Route::Keyspace`]: the store's keys |
//! | `/api`, `/apis`, `/apis/G`, `/api/v1`, `/apis/G/V` | discovery |
//! | `/.well-known/openid-configuration`, `/openid/v1/jwks` | how others check tokens |
//! | `/openapi/v2`, `/openapi/v3`, `/openapi/v3/...` | the schemas |
//! | `/{api/V\|apis/G/V}/[namespaces/N/]RESOURCE[/NAME[/SUBRESOURCE]]` | [`Route::Resource`], one for every kind |
//!
//! `/.../watch/...`, the old form of `?watch=true`, is understood too.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::flowcontrol::Dump;
use crate::keyspace::Keyspace;

/// The parts of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/`.
    Root,
    /// A health endpoint, and the one check asked for.
    Health { endpoint: Health, check: &'a str },
    /// `/version`.
    Version,
    /// `/metrics`.
    Metrics,
    /// `/at`.
    Past,
    /// `/debug/api_priority_and_fairness/dump_queues` and its like.
    DumpFlowControl(Dump),
    /// `/debug/store/keys` and its like.
    Keyspace(Keyspace),
    /// `/.well-known/openid-configuration`.
    OpenIdConfiguration,
    /// `/openid/v1/jwks`.
    OpenIdKeys,
    /// `/api`.
    Api,
    /// `/apis`.
    Apis,
    /// `/apis/GROUP`.
    Group(&'a str),
    /// `/api/VERSION`, `/apis/GROUP/VERSION`.
    GroupVersion { group: &'a str, version: &'a str },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3,
    /// `/openapi/v3/api/v1`: what follows `/openapi/v3/`.
    OpenApiV3Document(&'a str),
    /// Objects.
    Resource(ResourcePath<'a>),
    /// Nothing we know.
    Unknown,
}

/// The three health endpoints, which here check the same things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Healthz,
    Livez,
    Readyz,
}

impl Health {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }
}

/// Where objects are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourcePath<'a> {
    /// API group; empty for the core group.
    pub(crate) group: &'a str,
    /// API version.
    pub(crate) version: &'a str,
    /// Namespace; empty for cluster scope and all namespaces.
    pub(crate) namespace: Cow<'a, str>,
    /// Plural name.
    pub(crate) resource: &'a str,
    /// Name; empty for the collection.
    pub(crate) name: Cow<'a, str>,
    /// Subresource; empty for the object itself.
    pub(crate) subresource: &'a str,
    /// What follows the subresource: `proxy` takes a path, and so may those of other servers.
    pub(crate) rest: &'a str,
    /// The old way to ask for a watch was used.
    pub(crate) watch: bool,
}

impl<'a> Route<'a> {
    /// Reads a path, which starts with a slash and has no query.
    pub(crate) fn parse(path: &'a str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        match first {
            "" if rest.is_empty() => Self::Root,
            "api" => match rest.split_once('/').unwrap_or((rest, "")) {
                ("", "") => Self::Api,
                ("", _) => Self::Unknown,
                (version, "") => Self::GroupVersion { group: "", version },
                (version, rest) => Self::resource("", version, rest),
            },
            "apis" => {
                let (group, rest) = rest.split_once('/').unwrap_or((rest, ""));
                let (version, rest) = rest.split_once('/').unwrap_or((rest, ""));
                match (group, version, rest) {
                    ("", "", "") => Self::Apis,
                    ("", ..) => Self::Unknown,
                    (group, "", "") => Self::Group(group),
                    (_, "", _) => Self::Unknown,
                    (group, version, "") => Self::GroupVersion { group, version },
                    (group, version, rest) => Self::resource(group, version, rest),
                }
            }
            "healthz" => Self::Health { endpoint: Health::Healthz, check: rest },
            "livez" => Self::Health { endpoint: Health::Livez, check: rest },
            "readyz" => Self::Health { endpoint: Health::Readyz, check: rest },
            ".well-known" if rest.trim_end_matches('/') == "openid-configuration" => Self::OpenIdConfiguration,
            "openid" if rest.trim_end_matches('/') == "v1/jwks" => Self::OpenIdKeys,
            "version" if rest.is_empty() => Self::Version,
            "metrics" if rest.is_empty() => Self::Metrics,
            "at" if rest.is_empty() => Self::Past,
            "debug" => {
                let dump =
                    rest.strip_prefix("api_priority_and_fairness/").and_then(Dump::find).map(Self::DumpFlowControl);
                let keyspace = || rest.strip_prefix("store/").and_then(Keyspace::find).map(Self::Keyspace);
                dump.or_else(keyspace).unwrap_or(Self::Unknown)
            }
            "openapi" => match rest.split_once('/').unwrap_or((rest, "")) {
                ("v2", "") => Self::OpenApiV2,
                ("v3", "") => Self::OpenApiV3,
                ("v3", document) => Self::OpenApiV3Document(document),
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }

    fn resource(group: &'a str, version: &'a str, rest: &'a str) -> Self {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut path = ResourcePath { group, version, ..ResourcePath::default() };
        let rest = match rest.strip_prefix("watch/") {
            Some(rest) => {
                path.watch = true;
                rest
            }
            None => rest,
        };
        let (mut resource, rest) = cut(rest);
        let (mut name, mut rest) = cut(rest);
        // `/namespaces/N/RESOURCE`; but `/namespaces/N` and these two subresources are about the namespace itself.
        if resource == "namespaces" && !name.is_empty() {
            let Some(namespace) = decode(name) else { return Self::Unknown };
            path.namespace = namespace;
            if !rest.is_empty() && !matches!(rest, "status" | "finalize") {
                (resource, rest) = cut(rest);
                (name, rest) = cut(rest);
            }
        }
        let (subresource, rest) = cut(rest);
        let Some(name) = decode(name) else { return Self::Unknown };
        if resource.is_empty() || (name.is_empty() && !subresource.is_empty()) {
            return Self::Unknown;
        }
        path.resource = resource;
        path.name = name;
        path.subresource = subresource;
        path.rest = rest;
        Self::Resource(path)
    }
}

/// The first segment, and what follows the slash.
fn cut(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

/// A path segment with its escapes resolved; `None` when it is not UTF-8.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if segment.contains('%') { percent_decode_str(segment).decode_utf8().ok() } else { Some(Cow::Borrowed(segment)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> Option<String> {
        match Route::parse(path) {
            Route::Resource(r) => Some(format!(
                "{}|{}|{}|{}|{}|{}|{}{}",
                r.group,
                r.version,
                r.namespace,
                r.resource,
                r.name,
                r.subresource,
                r.rest,
                if r.watch { "|watch" } else { "" }
            )),
            _ => None,
        }
    }

    #[test]
    fn resources() {
        for (path, expect) in [
            ("/api/v1/pods", Some("|v1||pods|||")),
            ("/api/v1/pods/", Some("|v1||pods|||")),
            ("/api/v1/namespaces", Some("|v1||namespaces|||")),
            ("/api/v1/namespaces/shop", Some("|v1|shop|namespaces|shop||")),
            ("/api/v1/namespaces/shop/status", Some("|v1|shop|namespaces|shop|status|")),
            ("/api/v1/namespaces/shop/finalize", Some("|v1|shop|namespaces|shop|finalize|")),
            ("/api/v1/namespaces/shop/pods", Some("|v1|shop|pods|||")),
            ("/api/v1/namespaces/shop/pods/web", Some("|v1|shop|pods|web||")),
            ("/api/v1/namespaces/shop/pods/web/log", Some("|v1|shop|pods|web|log|")),
            ("/api/v1/namespaces/shop/services/web/proxy/a/b", Some("|v1|shop|services|web|proxy|a/b")),
            ("/api/v1/namespaces/shop/pods/web/log/more", Some("|v1|shop|pods|web|log|more")),
            ("/api/v1/watch/namespaces/shop/pods", Some("|v1|shop|pods||||watch")),
            ("/api/v1/watch/pods", Some("|v1||pods||||watch")),
            ("/api/v1/nodes/laptop/status", Some("|v1||nodes|laptop|status|")),
            ("/api/v1/nodes/a%3Ab", Some("|v1||nodes|a:b||")),
            ("/api/v1/nodes/%ff", None),
            ("/apis/apps/v1/namespaces/shop/deployments/web/scale", Some("apps|v1|shop|deployments|web|scale|")),
            ("/apis/apps/v1//deployments", None),
            ("/api/v1//pods", None),
            ("/api/v1/pods//log", None),
        ] {
            assert_eq!(resource(path).as_deref(), expect, "{path}");
        }
    }

    #[test]
    fn everything_else() {
        for (path, expect) in [
            ("/", Route::Root),
            ("", Route::Root),
            ("//api", Route::Unknown),
            ("/api", Route::Api),
            ("/api/", Route::Api),
            ("/apis", Route::Apis),
            ("/apis/apps", Route::Group("apps")),
            ("/apis/apps/", Route::Group("apps")),
            ("/apis/apps/v1", Route::GroupVersion { group: "apps", version: "v1" }),
            ("/api/v1", Route::GroupVersion { group: "", version: "v1" }),
            ("/apis//v1", Route::Unknown),
            ("/version", Route::Version),
            ("/version/x", Route::Unknown),
            ("/metrics", Route::Metrics),
            ("/at", Route::Past),
            ("/at/1", Route::Unknown),
            ("/debug/store/keys", Route::Keyspace(Keyspace::Keys)),
            ("/debug/store", Route::Unknown),
            ("/healthz", Route::Health { endpoint: Health::Healthz, check: "" }),
            ("/readyz/ping", Route::Health { endpoint: Health::Readyz, check: "ping" }),
            ("/openapi/v2", Route::OpenApiV2),
            ("/openapi/v3", Route::OpenApiV3),
            ("/openapi/v3/apis/apps/v1", Route::OpenApiV3Document("apis/apps/v1")),
            ("/openapi/v4", Route::Unknown),
            ("/favicon.ico", Route::Unknown),
        ] {
            assert_eq!(Route::parse(path), expect, "{path}");
        }
    }
}
