//! The rules for names, labels, keys and ports, with upstream's messages.
//!
//! Every rule returns the list of what is wrong, empty when the value is fine; the messages go into
//! [`crate::FieldError::invalid`] as they are.

use std::net::IpAddr;

/// What a number below zero is told.
pub const NEGATIVE: &str = "must be greater than or equal to 0";
/// What a change of a fixed field is told.
pub const IMMUTABLE: &str = "field is immutable";
/// The longest DNS label, in bytes.
pub const LABEL_MAX: usize = 63;
/// The longest DNS subdomain, in bytes.
pub const SUBDOMAIN_MAX: usize = 253;
/// The most that all annotations of an object may take, keys and values together, in bytes.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;

const DNS_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_TEXT: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// What a name that is too long is told (apimachinery: `pkg/util/validation/validation.go`).
pub fn max_length(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// What a part of a label that is too long is told (apimachinery: `pkg/api/validate/content/errors.go`).
fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// What an empty value is told.
pub fn empty() -> String {
    "must be non-empty".to_owned()
}

/// What a number outside of `low..=high` is told.
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn regex_text(text: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{pattern}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

fn is_lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn matches_dns_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            is_lower_alnum(first) && is_lower_alnum(last) && bytes.iter().all(|&b| is_lower_alnum(b) || b == b'-')
        }
        _ => false,
    }
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn matches_qualified(value: &str) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

fn prefixed(messages: impl Iterator<Item = String>, prefix: &str) -> impl Iterator<Item = String> {
    messages.map(move |message| format!("{prefix}{message}"))
}

/// A DNS label (RFC 1123): the name of a namespace, a container, a volume.
pub fn dns_label(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > LABEL_MAX {
        messages.push(max_length(LABEL_MAX));
    }
    if !matches_dns_label(value) {
        // Upstream gives a value that would do as a subdomain the more precise hint.
        if matches_subdomain(value) {
            messages.push("must not contain dots".to_owned());
        } else {
            messages.push(regex_text(DNS_LABEL_TEXT, DNS_LABEL, &["my-name", "123-abc"]));
        }
    }
    messages
}

fn matches_subdomain(value: &str) -> bool {
    value.split('.').all(matches_dns_label)
}

fn subdomain_pattern() -> String {
    format!("{DNS_LABEL}(\\.{DNS_LABEL})*")
}

/// A DNS subdomain (RFC 1123): the name of most objects.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        messages.push(max_length(SUBDOMAIN_MAX));
    }
    if !matches_subdomain(value) {
        messages.push(regex_text(SUBDOMAIN_TEXT, &subdomain_pattern(), &["example.com"]));
    }
    messages
}

/// A DNS subdomain that may start with `*.`: the host of an ingress rule.
pub fn wildcard_dns_subdomain(value: &str) -> Vec<String> {
    let fine = value.strip_prefix("*.").is_some_and(matches_subdomain);
    let mut messages = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        messages.push(max_length(SUBDOMAIN_MAX));
    }
    if !fine {
        messages.push(regex_text(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{}", subdomain_pattern()),
            &["*.example.com"],
        ));
    }
    messages
}

/// A DNS label that starts with a letter (RFC 1035): the name of a service.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > LABEL_MAX {
        messages.push(max_length(LABEL_MAX));
    }
    if !(matches_dns_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        messages.push(regex_text(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    messages
}

/// A name with an optional DNS subdomain before a slash: label and annotation keys, resource names.
pub fn qualified_name(value: &str) -> Vec<String> {
    let text = || regex_text(QUALIFIED_TEXT, QUALIFIED, &["MyName", "my.name", "123-abc"]);
    let mut messages = Vec::new();
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                messages.push(format!("prefix part {}", empty()));
            } else {
                let subdomain = dns_subdomain(prefix).into_iter();
                let too_long = max_length(SUBDOMAIN_MAX);
                let subdomain = subdomain.map(|text| if text == too_long { max_bytes(SUBDOMAIN_MAX) } else { text });
                messages.extend(prefixed(subdomain, "prefix part "));
            }
            name
        }
        _ => {
            messages.push(format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                text()
            ));
            return messages;
        }
    };
    if name.is_empty() {
        messages.push(format!("name part {}", empty()));
    } else if name.len() > LABEL_MAX {
        messages.push(format!("name part {}", max_bytes(LABEL_MAX)));
    }
    if !matches_qualified(name) {
        messages.push(format!("name part {}", text()));
    }
    messages
}

/// A label's key.
pub fn label_key(value: &str) -> Vec<String> {
    qualified_name(value)
}

/// A label's value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > LABEL_MAX {
        messages.push(max_bytes(LABEL_MAX));
    }
    if !value.is_empty() && !matches_qualified(value) {
        messages.push(regex_text(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({QUALIFIED})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    messages
}

/// An environment variable's name as the API accepts it: printable ASCII but no `=`.
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec![format!("environment variable name {}", empty())];
    }
    if value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// An environment variable's name that every shell can use; keys of an `envFrom` that break this rule are skipped by old kubelets.
pub fn strict_env_var_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) || value.starts_with(|c: char| c.is_ascii_digit()) {
        messages.push(regex_text(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    messages.extend(not_a_dot_name(value));
    messages
}

/// A key of a ConfigMap's or Secret's data.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        messages.push(max_length(SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        messages.push(regex_text(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    messages.extend(not_a_dot_name(value));
    messages
}

fn not_a_dot_name(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A port number.
pub fn port_number(value: i64) -> Vec<String> {
    if (1..=65535).contains(&value) { Vec::new() } else { vec![between(1, 65535)] }
}

/// A port's name (an IANA service name).
pub fn port_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 15 {
        messages.push(max_length(15));
    }
    if value.is_empty() || !value.bytes().all(|b| is_lower_alnum(b) || b == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        messages.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_owned());
    }
    messages
}

/// A numeric user or group.
pub fn user_id(value: i64) -> Vec<String> {
    if (0..=i64::from(i32::MAX)).contains(&value) { Vec::new() } else { vec![between(0, i64::from(i32::MAX))] }
}

/// An IP address, v4 or v6.
pub fn ip(value: &str) -> Vec<String> {
    if value.parse::<IpAddr>().is_ok() {
        Vec::new()
    } else {
        vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
    }
}

/// A network in CIDR notation.
pub fn cidr(value: &str) -> Vec<String> {
    let fine = value.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if fine { Vec::new() } else { vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()] }
}

/// A percentage such as `25%`.
pub fn percent(value: &str) -> Vec<String> {
    let fine =
        value.strip_suffix('%').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if fine {
        return Vec::new();
    }
    vec![regex_text(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_text(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A name that can stand in a URL path: what every name must be at least.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|bad| value.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&str) -> Vec<String>;

    fn check(rule: Rule, good: &[&str], bad: &[&str]) {
        for value in good {
            assert_eq!(rule(value), Vec::<String>::new(), "{value:?}");
        }
        for value in bad {
            assert!(!rule(value).is_empty(), "{value:?}");
        }
    }

    #[test]
    fn what_passes_and_what_does_not() {
        let (l63, l64) = ("a".repeat(63), "a".repeat(64));
        let s253 = "a".repeat(253);
        check(dns_label, &["a", "0", "a-b", "a0", &l63], &["", "-a", "a-", "A", "a.b", "a_b", &l64, "é"]);
        check(dns_subdomain, &["a", "a.b", "0.a-b.c", &s253], &["", ".", "a.", ".a", "a..b", "A.b", &"a".repeat(254)]);
        check(dns1035_label, &["a", "a-0"], &["0a", "", "a-", "a.b"]);
        check(
            qualified_name,
            &["simple", "now-with-dashes", "1-starts-with-num", "1234", "simple/simple", "a.b/c_d", "A"],
            &["", "nospecial$", "/a", "a/", "a/b/c", "Upper/a", "-a", &l64],
        );
        check(label_value, &["", "a", "A_b.c-d", "1"], &["-a", "a-", "a b", &l64]);
        check(env_var_name, &["A", "a b", "1", "-"], &["", "a=b", "é", "\n"]);
        check(strict_env_var_name, &["A", "a.b", "-"], &["", "1a", "a b", ".", "..", "..a"]);
        check(config_map_key, &["a", "a.b", ".a", "A_B"], &["", ".", "..", "..a", "a/b", "a b"]);
        check(port_name, &["a", "http-1", "1a"], &["", "1", "-a", "a-", "a--b", "A", "aaaaaaaaaaaaaaaa"]);
        check(ip, &["1.2.3.4", "::1"], &["", "1.2.3", "1.2.3.4/8", "01.2.3.4"]);
        check(cidr, &["1.2.3.0/24", "::/0"], &["1.2.3.4", "1.2.3.4/33", "1.2.3.4/+1", "x/1"]);
        check(percent, &["0%", "100%"], &["", "%", "1", "-1%", "1.5%"]);
        check(path_segment, &["a", "a:b"], &[".", "..", "a/b", "a%b"]);
        check(wildcard_dns_subdomain, &["*.a.b"], &["a.b", "*a", "*."]);
        check(http_header_name, &["X-A"], &["", "a b"]);
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(
            dns_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            dns_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(qualified_name("")[0], "name part must be non-empty");
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        let (long, slashes) = (format!("{}/a", "a".repeat(254)), "a/b/c");
        assert_eq!(label_key(&long), ["prefix part must be no more than 253 bytes"]);
        assert!(label_key(slashes)[0].starts_with("a valid label key must consist of alphanumeric characters"));
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    }
}
