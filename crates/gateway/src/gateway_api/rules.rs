//! Rules of HTTPRoutes → the model of rules. Pure.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::objects::{
    HeaderFilter, HeaderSpec, MirrorFilter, PathSpec, RedirectFilter, RouteFilter, RouteMatch, RouteRule,
    RouteTimeouts, ValueSpec,
};
use crate::route::{
    Filters, HeaderModifier, Match, PathMatch, PathRewrite, Redirect, Rewrite, Timeouts, ValueMatch, whole_regex,
};

/// What a rule asks for that is not supported: the message of a condition.
type Unsupported = String;

/// The matches of a rule: all requests where there is none.
///
/// # Errors
/// What of them is not supported.
pub(super) fn matches(rule: &RouteRule) -> Result<Vec<Match>, Unsupported> {
    if rule.matches.is_empty() {
        return Ok(vec![Match::path(PathMatch::all())]);
    }
    rule.matches.iter().map(one_match).collect()
}

fn one_match(spec: &RouteMatch) -> Result<Match, Unsupported> {
    let path = match &spec.path {
        None => PathMatch::all(),
        Some(path) => {
            let value = path.value.as_deref().unwrap_or("/");
            match path.type_.as_deref().unwrap_or("PathPrefix") {
                "Exact" => PathMatch::Exact(value.to_owned()),
                "PathPrefix" => PathMatch::prefix(value),
                "RegularExpression" => PathMatch::Regex(whole_regex(value)?),
                other => return Err(format!("the path match type {other} is not supported")),
            }
        }
    };
    let method = spec.method.as_deref().map(|name| name.parse::<Method>().map_err(|_| format!("method {name}")));
    let headers = distinct(&spec.headers, str::eq_ignore_ascii_case);
    let headers = headers.map(|header| Ok((header_name(&header.name)?, value_match(header)?)));
    let query = distinct(&spec.query_params, |one, other| one == other);
    let query = query.map(|parameter| Ok((parameter.name.clone(), value_match(parameter)?)));
    Ok(Match {
        path,
        method: method.transpose()?,
        headers: headers.collect::<Result<_, Unsupported>>()?,
        query: query.collect::<Result<_, Unsupported>>()?,
    })
}

/// Of several that have the same name only the first counts (`HTTPHeaderMatch.name`).
fn distinct<'a>(values: &'a [ValueSpec], is_same: fn(&str, &str) -> bool) -> impl Iterator<Item = &'a ValueSpec> + 'a {
    let is_first = move |(at, value): &(usize, &ValueSpec)| {
        !values[..*at].iter().any(|earlier| is_same(&earlier.name, &value.name))
    };
    values.iter().enumerate().filter(is_first).map(|(_, value)| value)
}

fn value_match(spec: &ValueSpec) -> Result<ValueMatch, Unsupported> {
    let value = spec.value.clone().unwrap_or_default();
    match spec.type_.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(ValueMatch::Exact(value)),
        "RegularExpression" => Ok(ValueMatch::Regex(whole_regex(&value)?)),
        other => Err(format!("the match type {other} is not supported")),
    }
}

/// The type of filters that are no change of a request.
pub(super) const MIRROR: &str = "RequestMirror";

/// Of how many requests a mirror gets a copy: so many of so many.
pub(super) fn share(mirror: &MirrorFilter) -> (u32, u32) {
    match (&mirror.fraction, mirror.percent) {
        (Some(fraction), _) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, percent) => (percent.unwrap_or(100), 100),
    }
}

/// The filters of a rule with these matches, or of one of its backends, without mirrors.
///
/// # Errors
/// What of them is not supported.
pub(super) fn filters<'a>(
    filters: impl IntoIterator<Item = &'a RouteFilter>,
    matches: &[Match],
) -> Result<Filters, Unsupported> {
    let mut all = Filters::default();
    for filter in filters {
        match filter.type_.as_str() {
            "RequestHeaderModifier" => add_headers(&mut all.request_headers, &filter.request_header_modifier)?,
            "ResponseHeaderModifier" => add_headers(&mut all.response_headers, &filter.response_header_modifier)?,
            "RequestRedirect" => all.redirect = Some(redirect(&filter.request_redirect, matches)?),
            "URLRewrite" => {
                let path = filter.url_rewrite.path.as_ref().map(|path| path_rewrite(path, matches)).transpose()?;
                all.rewrite = Some(Rewrite { hostname: filter.url_rewrite.hostname.clone(), path });
            }
            other => return Err(format!("the filter {other} is not supported")),
        }
    }
    Ok(all)
}

fn add_headers(modifier: &mut HeaderModifier, filter: &HeaderFilter) -> Result<(), Unsupported> {
    let pair = |header: &HeaderSpec| {
        let value = HeaderValue::from_str(&header.value).map_err(|_| format!("the value of header {}", header.name));
        Ok::<_, Unsupported>((header_name(&header.name)?, value?))
    };
    for header in &filter.set {
        modifier.set.push(pair(header)?);
    }
    for header in &filter.add {
        modifier.add.push(pair(header)?);
    }
    for name in &filter.remove {
        modifier.remove.push(header_name(name)?);
    }
    Ok(())
}

fn header_name(name: &str) -> Result<HeaderName, Unsupported> {
    name.parse().map_err(|_| format!("{name:?} is no name of a header"))
}

fn redirect(filter: &RedirectFilter, matches: &[Match]) -> Result<Redirect, Unsupported> {
    let status = filter.status_code.unwrap_or(302);
    let status = StatusCode::from_u16(status).ok().filter(StatusCode::is_redirection);
    Ok(Redirect {
        scheme: filter.scheme.clone(),
        hostname: filter.hostname.clone(),
        port: filter.port,
        path: filter.path.as_ref().map(|path| path_rewrite(path, matches)).transpose()?,
        status: status.ok_or_else(|| "the status code of a redirect is none".to_owned())?,
    })
}

/// A prefix can only be replaced where it is known: by the one match of its rule.
fn path_rewrite(spec: &PathSpec, matches: &[Match]) -> Result<PathRewrite, Unsupported> {
    match (spec.type_.as_str(), matches) {
        ("ReplaceFullPath", _) => Ok(PathRewrite::Full(spec.replace_full_path.clone().unwrap_or_default())),
        ("ReplacePrefixMatch", [Match { path: PathMatch::Prefix(prefix), .. }]) => Ok(PathRewrite::Prefix {
            matched: prefix.clone(),
            with: spec.replace_prefix_match.clone().unwrap_or_default(),
        }),
        ("ReplacePrefixMatch", _) => Err("ReplacePrefixMatch needs one match, of a prefix".to_owned()),
        (other, _) => Err(format!("the path modifier {other} is not supported")),
    }
}

/// The timeouts of a rule.
///
/// # Errors
/// What is no duration.
pub(super) fn timeouts(spec: Option<&RouteTimeouts>) -> Result<Timeouts, Unsupported> {
    let Some(spec) = spec else { return Ok(Timeouts::default()) };
    let limit = |text: Option<&String>| {
        let parsed = text.map(|text| duration(text).ok_or_else(|| format!("{text:?} is no duration"))).transpose()?;
        // Zero is no limit.
        Ok::<_, Unsupported>(parsed.filter(|duration| !duration.is_zero()))
    };
    Ok(Timeouts { request: limit(spec.request.as_ref())?, backend_request: limit(spec.backend_request.as_ref())? })
}

/// A duration of GEP-2257: up to four numbers of at most five digits, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|letter: char| letter.is_ascii_digit()).unwrap_or(unit.len());
        let number: u64 = Some(number).filter(|number| (1..=5).contains(&number.len()))?.parse().ok()?;
        total += match &unit[..end] {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = &unit[end..];
        parts += 1;
    }
    (1..=4).contains(&parts).then_some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::route::Wanted;
    use crate::testing::parse;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        };
        check("1s", Some(1000));
        check("500ms", Some(500));
        check("1h2m3s4ms", Some(3_723_004));
        check("0s", Some(0));
        check("10", None);
        check("", None);
        check("1d", None);
        check("s", None);
        check("123456s", None);
        check("1s1s1s1s1s", None);
        check("-1s", None);
        let spec: RouteTimeouts = parse(json!({ "request": "0s", "backendRequest": "2s" }));
        let expected = Timeouts { request: None, backend_request: Some(Duration::from_secs(2)) };
        assert_eq!(timeouts(Some(&spec)), Ok(expected));
    }

    #[test]
    fn matches_of_rules() {
        let check = |rule: Value, request: (&str, &str, &str), expected: bool| {
            let rule: RouteRule = parse(rule);
            let (method, path, query) = request;
            let headers = [("version".parse().unwrap(), HeaderValue::from_static("two"))].into_iter().collect();
            let method = method.parse().unwrap();
            let wanted = Wanted { host: "", method: &method, path, query, headers: &headers };
            let found = matches(&rule).unwrap().iter().any(|one| one.matches(&wanted));
            assert_eq!(found, expected, "{rule:?} {request:?}");
        };
        let one = |spec: Value| json!({ "matches": [spec] });
        check(json!({}), ("GET", "/any", ""), true);
        check(one(json!({})), ("GET", "/any", ""), true);
        check(one(json!({ "path": { "value": "/a" } })), ("GET", "/a/b", ""), true);
        check(one(json!({ "path": { "type": "Exact", "value": "/a" } })), ("GET", "/a/b", ""), false);
        check(one(json!({ "path": { "type": "RegularExpression", "value": "/a/." } })), ("GET", "/a/b", ""), true);
        check(one(json!({ "method": "POST" })), ("POST", "/", ""), true);
        check(one(json!({ "method": "POST" })), ("GET", "/", ""), false);
        let header = |value: &str| json!({ "name": "Version", "value": value });
        check(one(json!({ "headers": [header("two")] })), ("GET", "/", ""), true);
        check(one(json!({ "headers": [header("one")] })), ("GET", "/", ""), false);
        // Only the first of a name counts.
        check(
            one(json!({ "headers": [header("two"), { "name": "version", "value": "one" }] })),
            ("GET", "/", ""),
            true,
        );
        check(one(json!({ "queryParams": [{ "name": "a", "value": "b" }] })), ("GET", "/", "a=b"), true);
        check(one(json!({ "queryParams": [{ "name": "a", "value": "b" }] })), ("GET", "/", ""), false);
        let either = json!({ "matches": [{ "path": { "value": "/x" } }, { "method": "PUT" }] });
        check(either.clone(), ("GET", "/x", ""), true);
        check(either.clone(), ("PUT", "/y", ""), true);
        check(either, ("GET", "/y", ""), false);
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let check = |rule: Value, expected: &str| {
            let rule: RouteRule = parse(rule);
            let found = matches(&rule).and_then(|matches| filters(&rule.filters, &matches).map(drop));
            let error = found.and_then(|()| timeouts(rule.timeouts.as_ref()).map(drop)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(json!({ "matches": [{ "path": { "type": "Glob" } }] }), "the path match type Glob is not supported");
        check(json!({ "matches": [{ "path": { "type": "RegularExpression", "value": "(" } }] }), "regex parse error");
        check(json!({ "matches": [{ "headers": [{ "name": "a b" }] }] }), "\"a b\" is no name of a header");
        check(json!({ "filters": [{ "type": "ExtensionRef" }] }), "the filter ExtensionRef is not supported");
        check(json!({ "timeouts": { "request": "soon" } }), "\"soon\" is no duration");
        let prefix = json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": "/x" });
        let rewrite = json!({ "type": "URLRewrite", "urlRewrite": { "path": prefix } });
        let exact = json!([{ "path": { "type": "Exact", "value": "/a" } }]);
        check(json!({ "filters": [rewrite], "matches": exact }), "ReplacePrefixMatch needs one match, of a prefix");
    }

    #[test]
    fn shares_of_mirrors() {
        let check = |mirror: Value, expected: (u32, u32)| {
            assert_eq!(share(&parse(mirror.clone())), expected, "{mirror}");
        };
        check(json!({}), (100, 100));
        check(json!({ "percent": 42 }), (42, 100));
        check(json!({ "fraction": { "numerator": 5 } }), (5, 100));
        check(json!({ "fraction": { "numerator": 5, "denominator": 1000 } }), (5, 1000));
    }

    #[test]
    fn filters_of_rules() {
        let rule: RouteRule = parse(json!({
            "matches": [{ "path": { "value": "/old/" } }],
            "filters": [
                { "type": "RequestHeaderModifier", "requestHeaderModifier": {
                    "set": [{ "name": "X-Set", "value": "1" }], "add": [{ "name": "X-Add", "value": "2" }], "remove": ["X-Remove"],
                } },
                { "type": "RequestRedirect", "requestRedirect": {
                    "scheme": "https", "hostname": "example.org", "port": 8443, "statusCode": 301,
                    "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" },
                } },
            ],
        }));
        let found = filters(&rule.filters, &matches(&rule).unwrap()).unwrap();
        let pair = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let expected = Filters {
            request_headers: HeaderModifier {
                set: vec![pair("x-set", "1")],
                add: vec![pair("x-add", "2")],
                remove: vec![HeaderName::from_static("x-remove")],
            },
            redirect: Some(Redirect {
                scheme: Some("https".to_owned()),
                hostname: Some("example.org".to_owned()),
                port: Some(8443),
                path: Some(PathRewrite::Prefix { matched: "/old".to_owned(), with: "/new".to_owned() }),
                status: StatusCode::MOVED_PERMANENTLY,
            }),
            ..Filters::default()
        };
        assert_eq!(found, expected);
        let plain: RouteRule = parse(json!({ "filters": [{ "type": "RequestRedirect", "requestRedirect": {} }] }));
        assert_eq!(filters(&plain.filters, &[]).unwrap().redirect.unwrap().status, StatusCode::FOUND);
    }
}
