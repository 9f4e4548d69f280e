//! The formats of strings that upstream checks; it ignores all others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;

use crate::validate;

/// A format that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Byte,
    Cidr,
    Date,
    DateTime,
    Duration,
    Email,
    HexColor,
    Hostname,
    Ipv4,
    Ipv6,
    LongName,
    Mac,
    ShortName,
    Uri,
    Uuid(Option<usize>),
}

impl Format {
    /// The format of that name. Upstream takes `date-time` and `datetime` for the same.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name.replace('-', "").as_str() {
            "byte" => Self::Byte,
            "cidr" => Self::Cidr,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            "duration" => Self::Duration,
            "email" => Self::Email,
            "hexcolor" => Self::HexColor,
            "hostname" => Self::Hostname,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "k8slongname" => Self::LongName,
            "k8sshortname" => Self::ShortName,
            "mac" => Self::Mac,
            "uri" => Self::Uri,
            "uuid" => Self::Uuid(None),
            "uuid3" => Self::Uuid(Some(3)),
            "uuid4" => Self::Uuid(Some(4)),
            "uuid5" => Self::Uuid(Some(5)),
            _ => return None,
        })
    }

    /// The name in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::Cidr => "cidr",
            Self::Date => "date",
            Self::DateTime => "date-time",
            Self::Duration => "duration",
            Self::Email => "email",
            Self::HexColor => "hexcolor",
            Self::Hostname => "hostname",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::LongName => "k8s-long-name",
            Self::Mac => "mac",
            Self::ShortName => "k8s-short-name",
            Self::Uri => "uri",
            Self::Uuid(None) => "uuid",
            Self::Uuid(Some(3)) => "uuid3",
            Self::Uuid(Some(4)) => "uuid4",
            Self::Uuid(Some(_)) => "uuid5",
        }
    }

    /// Whether a text has the format.
    pub(crate) fn accepts(self, text: &str) -> bool {
        match self {
            Self::Byte => is_base64(text),
            Self::Cidr => validate::cidr(text).is_empty(),
            Self::Date => text.len() == 10 && text.parse::<Date>().is_ok(),
            Self::DateTime => {
                text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'))
                    && text.parse::<Timestamp>().is_ok()
            }
            Self::Duration => is_duration(text),
            Self::Email => text.split_once('@').is_some_and(|(name, host)| {
                !name.is_empty() && !host.is_empty() && !host.contains('@') && !text.contains(char::is_whitespace)
            }),
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
            Self::Hostname => is_hostname(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::LongName => validate::dns_subdomain(text).is_empty(),
            Self::ShortName => validate::dns_label(text).is_empty(),
            Self::Mac => is_mac(text),
            // As Go's `url.ParseRequestURI`: absolute, or an absolute path.
            Self::Uri => text.starts_with('/') || has_scheme(text),
            Self::Uuid(version) => is_uuid(text, version),
        }
    }
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    plain && text.len().is_multiple_of(4) && text.len() - digits.len() <= 2
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|character| character.is_alphanumeric() || character == '-' || character == '_')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 255 && text.parse::<IpAddr>().is_err() && text.split('.').all(label)
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let pairs: Vec<&str> = text.split(separator).collect();
    matches!(pairs.len(), 6 | 8 | 20)
        && pairs.iter().all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            && !rest.is_empty()
            && !text.contains(' ')
    })
}

/// With hyphens or without (`pkg/validation/strfmt/default.go` of kube-openapi, `UUIDPattern` and its siblings).
fn is_uuid(text: &str, version: Option<usize>) -> bool {
    let Ok(uuid) = uuid::Uuid::try_parse(text) else { return false };
    let of_version = |version: usize| {
        // The oldest has no variant to check.
        uuid.get_version_num() == version && (version == 3 || uuid.get_variant() == uuid::Variant::RFC4122)
    };
    // In braces, or after `urn:uuid:`, it is none.
    matches!(text.len(), 32 | 36) && version.is_none_or(of_version)
}

/// As Go writes durations (`1h30m`, `1.5s`, `0`), or a number and a word (`3 days`).
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "ms", "s", "m", "h", "d"];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if let Some((number, word)) = rest.split_once(' ') {
        const WORDS: [&str; 7] = ["week", "day", "hour", "minute", "second", "milli", "micro"];
        return number.parse::<u64>().is_ok() && WORDS.iter().any(|known| word.trim().starts_with(known));
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        if digits == 0 || rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[digits..];
        let unit = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        if !UNITS.contains(&&rest[..unit]) {
            return false;
        }
        rest = &rest[unit..];
        parts += 1;
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (name, good, bad) in [
            ("byte", &["", "aGk=", "YWJj"][..], &["a", "a===", "aGk*"][..]),
            ("cidr", &["10.0.0.0/8"], &["10.0.0.0"]),
            ("date", &["2026-01-02"], &["2026-13-01", "x", "2026-01-02T00:00:00Z"]),
            ("date-time", &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+01:00"], &["2026-01-02", "now"]),
            ("datetime", &["2026-01-02T03:04:05Z"], &["now"]),
            ("duration", &["1h30m", "1.5s", "0", "3 days"], &["", "1", "x", "1y"]),
            ("email", &["a@b.c"], &["a", "@b", "a @b"]),
            ("hexcolor", &["#fff", "A0B1C2"], &["#ff", "#ggg"]),
            ("hostname", &["a.b", "a-b"], &["-a", "a..b", ""]),
            ("ipv4", &["1.2.3.4"], &["::1", "1.2.3"]),
            ("ipv6", &["::1"], &["1.2.3.4"]),
            ("mac", &["00:11:22:33:44:55"], &["00:11"]),
            ("uri", &["http://a/b", "/a"], &["a b", "a"]),
            (
                "uuid",
                &["123e4567-e89b-42d3-a456-426614174000", "123E4567E89B42D3A456426614174000"],
                &["123", "{123e4567-e89b-42d3-a456-426614174000}", "urn:uuid:123e4567-e89b-42d3-a456-426614174000"],
            ),
            ("uuid3", &["123e4567-e89b-32d3-a456-426614174000"], &["123e4567-e89b-42d3-a456-426614174000"]),
            ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-42d3-0456-426614174000"]),
        ] {
            let format = Format::from_name(name).unwrap();
            for text in good {
                assert!(format.accepts(text), "{name} {text}");
            }
            for text in bad {
                assert!(!format.accepts(text), "{name} {text}");
            }
        }
        assert_eq!(Format::from_name("int32"), None);
    }
}
