//! What values have to be like together, in CEL.
//!
//! They refuse what the rules of the published definitions refuse, and nothing else. Those of them are left out that say again
//! what the schema beside them says: that names which are keys of a list are unique, that a type is one of its enumeration, that
//! a name is not empty.

use serde_json::{Value, json};

use super::names::{HOST, QUALIFIED_NAME};

/// Rules of an object: each with the field that is told of, if it is not the object itself, and what it is told.
fn rules<R: AsRef<str>, M: AsRef<str>>(list: impl IntoIterator<Item = (R, &'static str, M)>) -> Value {
    let rule = |(rule, field, message): (R, &'static str, M)| {
        let mut entry = json!({ "rule": rule.as_ref(), "message": message.as_ref() });
        if !field.is_empty() {
            entry["fieldPath"] = field.into();
        }
        entry
    };
    list.into_iter().map(rule).collect()
}

/// Of an address, which may be without a value if it is only asked for.
pub(super) fn address(has_value: bool) -> Value {
    let unless = if has_value { "" } else { "!has(self.value) || " };
    rules([(
        format!("self.type != 'Hostname' || {unless}self.value.matches(r'{HOST}')"),
        ".value",
        "must be a hostname where the type is Hostname",
    )])
}

/// Of the addresses that are asked for.
pub(super) fn addresses() -> Value {
    let unique = |type_: &str| {
        format!(
            "self.all(one, one.type != '{type_}' || !has(one.value) || \
             self.exists_one(other, other.type == one.type && has(other.value) && other.value == one.value))"
        )
    };
    rules([
        (unique("IPAddress"), "", "an IP address must not be asked for twice"),
        (unique("Hostname"), "", "a hostname must not be asked for twice"),
    ])
}

/// Of maps whose keys are those of labels or annotations.
pub(super) fn keys() -> Value {
    rules([
        (
            format!("self.all(key, key.matches(r'{QUALIFIED_NAME}'))"),
            "",
            "a key must be a name of at most 63 characters, after a domain and a slash or by itself",
        ),
        (
            "self.all(key, key.split('/')[0].size() < 253)".to_owned(),
            "",
            "what stands before the slash of a key must be shorter than 253 characters",
        ),
    ])
}

/// Of the listeners of a Gateway.
pub(super) fn listeners() -> Value {
    rules([
        (
            "self.all(one, !(one.protocol in ['HTTP', 'TCP', 'UDP']) || !has(one.tls))",
            "",
            "tls must not be set where the protocol is HTTP, TCP or UDP",
        ),
        (
            "self.all(one, one.protocol != 'HTTPS' || !has(one.tls) || one.tls.mode == 'Terminate')",
            "",
            "the mode of tls must be Terminate where the protocol is HTTPS",
        ),
        (
            "self.all(one, one.protocol != 'TLS' || has(one.tls) && has(one.tls.mode))",
            "",
            "tls must be set where the protocol is TLS",
        ),
        (
            "self.all(one, !(one.protocol in ['TCP', 'UDP']) || !has(one.hostname))",
            "",
            "hostname must not be set where the protocol is TCP or UDP",
        ),
        (
            "self.all(one, self.exists_one(other, other.port == one.port && other.protocol == one.protocol && \
             has(other.hostname) == has(one.hostname) && (!has(one.hostname) || other.hostname == one.hostname)))",
            "",
            "no two listeners may have port, protocol and hostname in common",
        ),
    ])
}

/// Of the TLS of a listener.
pub(super) fn listener_tls() -> Value {
    rules([(
        "self.mode != 'Terminate' || has(self.certificateRefs) && size(self.certificateRefs) > 0 || \
         has(self.options) && size(self.options) > 0",
        ".certificateRefs",
        "certificateRefs or options must be set where the mode is Terminate",
    )])
}

/// Of the parents of a route: those that are the same object are told apart by a section.
pub(super) fn parents() -> Value {
    const SAME: &str = "one.group == other.group && one.kind == other.kind && one.name == other.name && \
                        has(one.__namespace__) == has(other.__namespace__) && \
                        (!has(one.__namespace__) || one.__namespace__ == other.__namespace__)";
    rules([
        (
            format!("self.all(one, self.all(other, !({SAME}) || has(one.sectionName) == has(other.sectionName)))"),
            "",
            "sectionName must be set in all references to a parent or in none",
        ),
        (
            format!(
                "self.all(one, self.exists_one(other, {SAME} && has(one.sectionName) == has(other.sectionName) && \
                 (!has(one.sectionName) || one.sectionName == other.sectionName)))"
            ),
            "",
            "references to the same parent must have different sectionNames",
        ),
    ])
}

/// Of all rules of a route. There is no sum of a list whose cost could be told beforehand.
pub(super) fn matches_in_all() -> Value {
    let of_rule = |index: usize| format!("(self.size() > {index} ? self[{index}].matches.size() : 0)");
    let sum: Vec<String> = (0..16).map(of_rule).collect();
    rules([(format!("{} <= 128", sum.join(" + ")), "", "all rules together may have 128 matches")])
}

/// Of a rule of a route.
pub(super) fn route_rule() -> Value {
    let replaces = |filter: &str| {
        format!("has(f.{filter}) && has(f.{filter}.path) && f.{filter}.path.type == 'ReplacePrefixMatch'")
    };
    let by_prefix = "size(self.matches) == 1 && has(self.matches[0].path) && self.matches[0].path.type == 'PathPrefix'";
    let of_rule = |filter: &str| {
        format!("!(has(self.filters) && self.filters.exists_one(f, {})) || {by_prefix}", replaces(filter))
    };
    let of_backend = |filter: &str| {
        format!(
            "!(has(self.backendRefs) && self.backendRefs.exists_one(b, has(b.filters) && \
             b.filters.exists_one(f, {}))) || {by_prefix}",
            replaces(filter)
        )
    };
    const ONE_PREFIX: &str =
        "with a filter that replaces the prefix that matched there must be one match, by PathPrefix";
    rules([
        (
            "!has(self.backendRefs) || size(self.backendRefs) == 0 || !has(self.filters) || \
             self.filters.all(f, !has(f.requestRedirect))"
                .to_owned(),
            ".backendRefs",
            "must not be set beside the filter RequestRedirect",
        ),
        (of_rule("requestRedirect"), ".matches", ONE_PREFIX),
        (of_rule("urlRewrite"), ".matches", ONE_PREFIX),
        (of_backend("requestRedirect"), ".matches", ONE_PREFIX),
        (of_backend("urlRewrite"), ".matches", ONE_PREFIX),
    ])
}

/// Of what a path is compared with: one that a request could have, written in one way.
pub(super) fn path() -> Value {
    let unless = |condition: &str| format!("self.type == 'RegularExpression' || {condition}");
    let begins = (unless("self.value.startsWith('/')"), ".value", "must begin with '/'".to_owned());
    let contains = ["//", "/./", "/../", "%2f", "%2F", "#"].map(|part| {
        (unless(&format!("!self.value.contains('{part}')")), ".value", format!("must not contain '{part}'"))
    });
    let ends = ["/..", "/."].map(|part| {
        (unless(&format!("!self.value.endsWith('{part}')")), ".value", format!("must not end with '{part}'"))
    });
    let characters = (
        unless(r#"self.value.matches(r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$")"#),
        ".value",
        "must consist of the characters of a path, others written as %XX".to_owned(),
    );
    rules([begins].into_iter().chain(contains).chain(ends).chain([characters]))
}

/// Of a reference to a backend.
pub(super) fn port_of_service() -> Value {
    rules([("size(self.group) > 0 || self.kind != 'Service' || has(self.port)", ".port", "must be set for a Service")])
}

/// Of the time that requests may take.
pub(super) fn timeouts() -> Value {
    rules([(
        "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || \
         duration(self.backendRequest) <= duration(self.request)",
        ".backendRequest",
        "must not be longer than request",
    )])
}

/// Of all filters of a rule or a backend.
pub(super) fn filters() -> Value {
    let once =
        ["CORS", "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"].map(|type_| {
            (
                format!("self.filter(f, f.type == '{type_}').size() <= 1"),
                "",
                format!("there may be one filter of type {type_}"),
            )
        });
    let either = (
        "!(self.exists(f, f.type == 'RequestRedirect') && self.exists(f, f.type == 'URLRewrite'))".to_owned(),
        "",
        "there may be a filter of type RequestRedirect or one of type URLRewrite, and not both".to_owned(),
    );
    rules([either].into_iter().chain(once))
}

/// Of a filter: it has the field of its type and no other.
pub(super) fn filter() -> Value {
    const FIELDS: [(&str, &str); 7] = [
        (".requestHeaderModifier", "RequestHeaderModifier"),
        (".responseHeaderModifier", "ResponseHeaderModifier"),
        (".requestMirror", "RequestMirror"),
        (".requestRedirect", "RequestRedirect"),
        (".urlRewrite", "URLRewrite"),
        (".cors", "CORS"),
        (".extensionRef", "ExtensionRef"),
    ];
    with_type(FIELDS)
}

/// Of what a path becomes: it has the field of its type and no other.
pub(super) fn path_modifier() -> Value {
    with_type([(".replaceFullPath", "ReplaceFullPath"), (".replacePrefixMatch", "ReplacePrefixMatch")])
}

fn with_type<const N: usize>(fields: [(&'static str, &str); N]) -> Value {
    rules(fields.map(|(field, type_)| {
        (
            format!("has(self{field}) == (self.type == '{type_}')"),
            field,
            format!("must be set where the type is {type_}, and not otherwise"),
        )
    }))
}

/// Of a mirror.
pub(super) fn mirror() -> Value {
    rules([("!has(self.percent) || !has(self.fraction)", ".fraction", "must not be set beside percent")])
}

/// Of a part of a whole.
pub(super) fn fraction() -> Value {
    rules([("self.numerator <= self.denominator", ".numerator", "must not be larger than denominator")])
}

/// Of lists with `*` for everything.
pub(super) fn all_or_some() -> Value {
    rules([("!('*' in self) || self.size() == 1", "", "'*' must stand alone")])
}
