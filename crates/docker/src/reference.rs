//! Image references: the grammar and the errors of Docker's `distribution/reference`.

use runtime::Error;

/// `[DOMAIN/]PATH[:TAG][@DIGEST]`, normalized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The repository as Docker prints it: without `docker.io/` and `library/`.
    pub(crate) repository: String,
    /// The tag, if given.
    pub(crate) tag: Option<String>,
    /// The digest, if given.
    pub(crate) digest: Option<String>,
}

const DEFAULT_DOMAIN: &str = "docker.io";

impl Reference {
    /// Parses a reference.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |message: &str| Error::InvalidImageName { image: text.to_owned(), message: message.to_owned() };
        if text.len() == 64 && text.bytes().all(is_hex) {
            return Err(invalid(&format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (domain, remainder) = split_domain(text);
        let (name, digest) = match remainder.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid(&format!("invalid reference format: repository name ({path}) must be lowercase")));
        }
        let well_formed = is_domain(&domain)
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !well_formed {
            return Err(invalid("invalid reference format"));
        }
        if domain.len() + 1 + path.len() > 255 {
            return Err(invalid("repository name must not be more than 255 characters"));
        }
        let repository = if domain == DEFAULT_DOMAIN {
            path.strip_prefix("library/").unwrap_or(path).to_owned()
        } else {
            format!("{domain}/{path}")
        };
        Ok(Self { repository, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }

    /// What to ask a registry for: the digest, else the tag, else `latest`.
    pub(crate) fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

/// Whether the text is the id of a local image rather than a reference.
pub(crate) fn is_image_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() == 64 && hex.bytes().all(is_hex)
}

fn split_domain(text: &str) -> (String, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("library/{remainder}"));
    }
    (domain.to_owned(), remainder.to_owned())
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// `host[:port]`, the host a name, an IPv4 address or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_ok = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }),
    };
    host_ok && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| word(*byte));
    ends(bytes.first())
        && ends(bytes.last())
        && text
            .split(|c: char| word(u8::try_from(c).unwrap_or(0)))
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-_".contains(&byte))
            && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
            && (algorithm != "sha256" || hex.len() == 64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references() {
        let digest = format!("nginx:1.21@sha256:{HEX}");
        let sha = format!("sha256:{HEX}");
        let cases = [
            ("nginx", "nginx", "latest"),
            ("nginx:1.21.0", "nginx", "1.21.0"),
            ("docker.io/library/nginx", "nginx", "latest"),
            ("index.docker.io/me/app:v1", "me/app", "v1"),
            ("localhost:5000/app", "localhost:5000/app", "latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause", "3.9"),
            ("a--b/c__d/e.f", "a--b/c__d/e.f", "latest"),
            ("[::1]:5000/x", "[::1]:5000/x", "latest"),
            (digest.as_str(), "nginx", sha.as_str()),
        ];
        for (text, repository, version) in cases {
            let reference = Reference::parse(text).expect(text);
            assert_eq!((reference.repository.as_str(), reference.version()), (repository, version), "{text}");
        }
    }

    #[test]
    fn mistakes_get_dockers_words() {
        let cases = [
            ("", "invalid reference format"),
            ("NGINX", "invalid reference format: repository name (library/NGINX) must be lowercase"),
            ("nginx:", "invalid reference format"),
            ("nginx latest", "invalid reference format"),
            ("nginx@sha256:12", "invalid reference format"),
            ("-nginx", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("../etc", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("nginx?x=1", "invalid reference format"),
        ];
        for (text, expect) in cases {
            match Reference::parse(text) {
                Err(Error::InvalidImageName { message, .. }) => {
                    assert_eq!(message, expect, "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(Reference::parse(HEX).is_err());
        assert!(is_image_id(HEX) && is_image_id(&format!("sha256:{HEX}")) && !is_image_id("nginx"));
    }
}
