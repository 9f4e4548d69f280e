//! The rules of a routing table, whatever object they come from: what they match, and what becomes of a request that they match.
//!
//! The model is that of `gateway.networking.k8s.io/v1` HTTPRoute (`apis/v1/httproute_types.go`), of which an Ingress uses a part.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use informer::ObjectKey;
use k8s_openapi::jiff::Timestamp;
use percent_encoding::percent_decode_str;
use regex::Regex;

use crate::backend::Endpoints;

/// A rule with one of its matches.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) precedence: Precedence,
    pub(crate) matches: Match,
    pub(crate) action: Arc<Action>,
}

/// What becomes of a request.
#[derive(Debug, Default)]
pub(crate) struct Action {
    /// Applied whatever the backend is.
    pub(crate) filters: Filters,
    /// One of which is chosen for each request.
    pub(crate) backends: Vec<WeightedBackend>,
    /// Who gets a copy of requests, beside the backend that answers.
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) timeouts: Timeouts,
}

impl Action {
    /// Sends everything to one backend.
    pub(crate) fn to(target: Target) -> Self {
        let backends = vec![WeightedBackend { weight: 1, target, filters: Filters::default() }];
        Self { backends, ..Self::default() }
    }

    /// The backend for a request that draws `number`, which may be any. None where no backend has a weight.
    pub(crate) fn choose(&self, number: u64) -> Option<&WeightedBackend> {
        let total: u64 = self.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        let mut left = number.checked_rem(total)?;
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let is_chosen = left < weight;
            left = left.saturating_sub(weight);
            is_chosen
        })
    }
}

/// A backend with its share of the requests.
#[derive(Debug)]
pub(crate) struct WeightedBackend {
    pub(crate) weight: u32,
    pub(crate) target: Target,
    /// Applied to what goes to this backend, after those of the rule.
    pub(crate) filters: Filters,
}

/// A backend that gets a copy of requests, whose responses nobody sees.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) endpoints: Arc<Endpoints>,
    /// Of how many requests it gets a copy: so many of so many.
    pub(crate) share: (u32, u32),
}

impl Mirror {
    /// Whether a request that draws `number`, which may be any, is copied.
    pub(crate) fn is_drawn(&self, number: u32) -> bool {
        let (numerator, denominator) = self.share;
        number.checked_rem(denominator).is_some_and(|drawn| drawn < numerator)
    }
}

/// Where a backend leads.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// To the endpoints of a Service's port, of which there may be none.
    Endpoints(Arc<Endpoints>),
    /// To nothing that there is: this status is answered.
    Invalid(StatusCode),
}

/// How long a request may take; none where there is no such limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Until its response is complete.
    pub(crate) request: Option<Duration>,
    /// Until the head of a backend's response, for each attempt.
    pub(crate) backend_request: Option<Duration>,
}

/// What is changed of a request and of its response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) request_headers: HeaderModifier,
    pub(crate) response_headers: HeaderModifier,
    /// Answered instead of the backend.
    pub(crate) redirect: Option<Redirect>,
    pub(crate) rewrite: Option<Rewrite>,
}

/// Headers to set, to add and to remove, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeaderModifier {
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    pub(crate) add: Vec<(HeaderName, HeaderValue)>,
    pub(crate) remove: Vec<HeaderName>,
}

impl HeaderModifier {
    /// Changes `headers`.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// Where a client is sent instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// `http` or `https`; that of the request if there is none.
    pub(crate) scheme: Option<String>,
    /// The request's if there is none.
    pub(crate) hostname: Option<String>,
    /// The scheme's if there is none but a scheme, and otherwise the listener's.
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<PathRewrite>,
    pub(crate) status: StatusCode,
}

/// What a backend is asked for instead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rewrite {
    pub(crate) hostname: Option<String>,
    pub(crate) path: Option<PathRewrite>,
}

/// How a path is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathRewrite {
    /// All of it.
    Full(String),
    /// The prefix that was matched (without a slash at its end).
    Prefix { matched: String, with: String },
}

impl PathRewrite {
    /// The path that `path` becomes. A prefix is whole elements, and what is put for it may end with a slash or not: the table at
    /// `HTTPPathModifier.replacePrefixMatch` says what comes of it.
    pub(crate) fn apply(&self, path: &str) -> String {
        match self {
            Self::Full(full) if full.starts_with('/') => full.clone(),
            Self::Full(full) => format!("/{full}"),
            Self::Prefix { matched, with } => {
                let rest = path.strip_prefix(matched.as_str()).unwrap_or(path);
                let with = with.trim_end_matches('/');
                let slash = if with.is_empty() && !rest.starts_with('/') || !with.is_empty() && !with.starts_with('/') {
                    "/"
                } else {
                    ""
                };
                format!("{slash}{with}{rest}")
            }
        }
    }
}

/// What a rule wants of a request. All of it must be so.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    pub(crate) path: PathMatch,
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, ValueMatch)>,
    pub(crate) query: Vec<(String, ValueMatch)>,
}

impl Match {
    /// Every request for such a path.
    pub(crate) fn path(path: PathMatch) -> Self {
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }

    /// Whether a request is one of these.
    pub(crate) fn matches(&self, request: &Wanted<'_>) -> bool {
        self.path.matches(request.path)
            && self.method.as_ref().is_none_or(|method| method == request.method)
            && self.headers.iter().all(|(name, value)| match_header(request.headers, name, value))
            && self.query.iter().all(|(name, value)| match_query(request.query, name, value))
    }
}

/// What is looked at of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// In lower case, without a port.
    pub(crate) host: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// Empty where there is none.
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// A match of a path.
#[derive(Debug, Clone)]
pub(crate) enum PathMatch {
    /// The same path.
    Exact(String),
    /// The path and all below it, by elements. Without the slash at its end.
    Prefix(String),
    /// A path that an expression describes as a whole.
    Regex(Regex),
}

impl PathMatch {
    /// All paths.
    pub(crate) fn all() -> Self {
        Self::Prefix(String::new())
    }

    /// A prefix, whether or not it ends with a slash.
    pub(crate) fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').to_owned())
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    fn precedence(&self) -> (u8, Reverse<usize>) {
        match self {
            Self::Exact(path) => (0, Reverse(path.len())),
            // Its place among the others is left to implementations.
            Self::Regex(regex) => (1, Reverse(regex.as_str().len())),
            Self::Prefix(path) => (2, Reverse(path.len())),
        }
    }
}

/// A match of a header's or a query parameter's value.
#[derive(Debug, Clone)]
pub(crate) enum ValueMatch {
    /// The same value.
    Exact(String),
    /// A value that an expression describes as a whole.
    Regex(Regex),
}

impl ValueMatch {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// An expression that must describe the whole of a value. Matching takes time in proportion to the value, so no expression can hold
/// up requests; how large one may become is bounded.
///
/// # Errors
/// Why it is no expression.
pub(crate) fn whole_regex(expression: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(&format!("^(?:{expression})$")).size_limit(64 * 1024).build();
    built.map_err(|error| error.to_string())
}

fn match_header(headers: &HeaderMap, name: &HeaderName, value: &ValueMatch) -> bool {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(first) = values.next() else { return false };
    // Several are one list (RFC 9110, section 5.3).
    let joined = values.fold(first, |joined, next| format!("{joined},{next}").into());
    value.matches(&joined)
}

fn match_query(query: &str, name: &str, value: &ValueMatch) -> bool {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut parameters = query.split('&').map(|one| one.split_once('=').unwrap_or((one, "")));
    // Of one that is repeated the first counts, as in other implementations.
    parameters.find(|(key, _)| decode(key) == name).is_some_and(|(_, found)| value.matches(&decode(found)))
}

/// Which of the rules that match a request is applied: the least. The order is that of `HTTPRouteRule.matches`, and with no more
/// than paths it is that of Ingresses, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Precedence {
    path: (u8, Reverse<usize>),
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    origin: Origin,
    /// Its place in the object.
    index: usize,
}

impl Precedence {
    /// That of the rule with this match, which is at this place in its object.
    pub(crate) fn new(matches: &Match, origin: &Origin, index: usize) -> Self {
        Self {
            path: matches.path.precedence(),
            method: Reverse(matches.method.is_some()),
            headers: Reverse(matches.headers.len()),
            query: Reverse(matches.query.len()),
            origin: origin.clone(),
            index,
        }
    }
}

/// The object that a rule comes from. The least is the oldest, and of those the first by its name: it has precedence where objects
/// contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    created: Timestamp,
    key: ObjectKey,
}

impl Origin {
    /// An object as the origin of rules.
    pub(crate) fn of<K: kube::Resource>(object: &K) -> Self {
        // The API server sets it.
        let created = object.meta().creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        Self { created, key: ObjectKey::of(object) }
    }

    /// The object.
    pub(crate) fn key(&self) -> &ObjectKey {
        &self.key
    }
}

#[cfg(test)]
mod tests;
