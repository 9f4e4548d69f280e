//! EncryptionConfiguration of apiserver.config.k8s.io/v1: which resources are encrypted, by which providers, with which keys.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/apis/apiserver/v1/types_encryption.go`, and what may stand in it
//! `pkg/apis/apiserver/validation/validation_encryption.go`. The first provider of a resource encrypts, all decrypt.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use machinery::field::{ErrorList, FieldError, Path};
use serde::Deserialize;
use serde_json::Value;

use crate::aes_gcm::AesGcmKey;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
/// Providers of upstream's that are refused, and why.
const REFUSED: [(&str, &str); 3] = [
    ("aescbc", "AES-CBC is not authenticated, and not available here; use aesgcm"),
    ("secretbox", "XSalsa20-Poly1305 is not available here; use aesgcm"),
    ("kms", "key management plugins are not supported; use aesgcm"),
];

/// An EncryptionConfiguration.
#[derive(Debug)]
pub struct EncryptionConfiguration {
    rules: Vec<Rule>,
}

/// A `ResourceConfiguration`.
#[derive(Debug)]
struct Rule {
    resources: Vec<Pattern>,
    /// At least one.
    providers: Vec<Provider>,
}

/// What a resource is encrypted by.
#[derive(Debug)]
pub(crate) enum Provider {
    /// It is not.
    Identity,
    /// `aesgcm`.
    AesGcm(Box<AesGcmKeys>),
}

/// The keys of a provider: the first one encrypts, all decrypt.
#[derive(Debug)]
pub(crate) struct AesGcmKeys {
    first: AesGcmKey,
    others: Vec<AesGcmKey>,
}

impl AesGcmKeys {
    pub(crate) fn first(&self) -> &AesGcmKey {
        &self.first
    }
}

/// Which resources a rule is about.
#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    /// `*.*`.
    All,
    /// `*.GROUP`; `*.` for the core group.
    Group(String),
    /// `RESOURCE` or `RESOURCE.GROUP`: `GROUP/RESOURCE`, as the store names it.
    Resource(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<WrittenRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKeys {
    #[serde(default)]
    keys: Vec<WrittenKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

impl EncryptionConfiguration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it. No error shows a secret.
    pub fn read(value: &Value) -> Result<Self, String> {
        let Written { api_version, kind, resources } =
            Written::deserialize(value).map_err(|error| error.to_string())?;
        if (api_version.as_str(), kind.as_str()) != (API_VERSION, KIND) {
            return Err(format!("it is a {kind} of {api_version}, not a {KIND} of {API_VERSION}"));
        }
        let path = Path::new("resources");
        let mut errors = ErrorList::default();
        if resources.is_empty() {
            errors.push(FieldError::required(&path, "at least one resource has to be encrypted"));
        }
        let mut rules: Vec<Rule> = Vec::new();
        for (at, written) in resources.iter().enumerate() {
            let path = path.index(at);
            let before: Vec<&Pattern> = rules.iter().flat_map(|rule| &rule.resources).collect();
            let resources = read_patterns(&written.resources, &before, &path.child("resources"), &mut errors);
            let providers = read_providers(&written.providers, &path.child("providers"), &mut errors);
            rules.push(Rule { resources, providers });
        }
        if errors.is_empty() { Ok(Self { rules }) } else { Err(errors.to_string()) }
    }

    /// Secrets, encrypted by AES-256 with the first of these keys, and decrypted by all.
    pub(crate) fn of_secrets(
        first: (String, [u8; 32]),
        others: impl Iterator<Item = (String, [u8; 32])>,
    ) -> Option<Self> {
        let key = |(name, secret): (String, [u8; 32])| AesGcmKey::new(&name, &secret);
        let keys = AesGcmKeys { first: key(first)?, others: others.map(key).collect::<Option<_>>()? };
        let resources = vec![Pattern::read("secrets")];
        Some(Self { rules: vec![Rule { resources, providers: vec![Provider::AesGcm(Box::new(keys))] }] })
    }

    /// What encrypts a resource (`GROUP/RESOURCE`); `None` when no rule is about it.
    pub(crate) fn first_provider(&self, resource: &str) -> Option<&Provider> {
        let rule = self.rules.iter().find(|rule| rule.resources.iter().any(|pattern| pattern.matches(resource)))?;
        rule.providers.first()
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &AesGcmKey> {
        self.rules.iter().flat_map(|rule| &rule.providers).flat_map(|provider| match provider {
            Provider::Identity => None.into_iter().chain(&[]),
            Provider::AesGcm(keys) => Some(&keys.first).into_iter().chain(&keys.others),
        })
    }
}

impl Pattern {
    fn read(text: &str) -> Self {
        let stored = |group: &str| if group.is_empty() { "core".to_owned() } else { group.to_owned() };
        match text.split_once('.') {
            Some(("*", "*")) => Self::All,
            Some(("*", group)) => Self::Group(stored(group)),
            Some((resource, group)) => Self::Resource(format!("{}/{resource}", stored(group))),
            None => Self::Resource(format!("core/{text}")),
        }
    }

    fn matches(&self, resource: &str) -> bool {
        match self {
            Self::All => true,
            Self::Group(group) => resource.split_once('/').is_some_and(|(of, _)| of == group),
            Self::Resource(name) => name == resource,
        }
    }

    /// Whether another pattern that stands before leaves nothing to this one.
    fn is_masked_by(&self, before: &Self) -> bool {
        match self {
            Self::Resource(name) => before.matches(name),
            Self::Group(_) | Self::All => before == self || *before == Self::All,
        }
    }
}

fn read_patterns(texts: &[String], before: &[&Pattern], path: &Path, errors: &mut ErrorList) -> Vec<Pattern> {
    if texts.is_empty() {
        errors.push(FieldError::required(path, "the resources to be encrypted have to be named"));
    }
    let mut patterns: Vec<Pattern> = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let path = path.index(at);
        let pattern = Pattern::read(text);
        if text.is_empty() || text == "*" || text.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'/') {
            let detail = "must be RESOURCE, RESOURCE.GROUP, *.GROUP, *. for the core group, or *.*, in lower case";
            errors.push(FieldError::invalid(&path, text, detail));
        } else if before.iter().copied().chain(&patterns).any(|other| pattern.is_masked_by(other)) {
            errors.push(FieldError::invalid(&path, text, "is covered by an entry before"));
        }
        patterns.push(pattern);
    }
    patterns
}

fn read_providers(written: &[serde_json::Map<String, Value>], path: &Path, errors: &mut ErrorList) -> Vec<Provider> {
    if written.is_empty() {
        errors.push(FieldError::required(path, "at least one provider has to be given"));
    }
    let mut providers = Vec::new();
    for (at, provider) in written.iter().enumerate() {
        let path = path.index(at);
        let mut fields = provider.iter();
        let (Some((name, content)), None) = (fields.next(), fields.next()) else {
            errors.push(FieldError::required(&path, "exactly one provider has to be given in each element"));
            continue;
        };
        let path = path.child(name.clone());
        match name.as_str() {
            "identity" if content.as_object().is_some_and(serde_json::Map::is_empty) => {
                providers.push(Provider::Identity);
            }
            "identity" => errors.push(FieldError::forbidden(&path, "has no fields: write identity: {}")),
            "aesgcm" => providers.extend(read_keys(content, &path, errors).map(Box::new).map(Provider::AesGcm)),
            _ => match REFUSED.iter().find(|(refused, _)| refused == name) {
                Some((_, why)) => errors.push(FieldError::forbidden(&path, *why)),
                None => errors.push(FieldError::forbidden(&path, "no such provider; there are aesgcm and identity")),
            },
        }
    }
    providers
}

fn read_keys(content: &Value, path: &Path, errors: &mut ErrorList) -> Option<AesGcmKeys> {
    let path = path.child("keys");
    let Ok(WrittenKeys { keys }) = WrittenKeys::deserialize(content) else {
        errors.push(FieldError::forbidden(&path, "has to be a list of objects with the fields name and secret"));
        return None;
    };
    if keys.is_empty() {
        errors.push(FieldError::required(&path, "at least one key has to be given"));
    }
    let mut read = Vec::new();
    let mut names = HashSet::new();
    for (at, WrittenKey { name, secret }) in keys.iter().enumerate() {
        let path = path.index(at);
        // It stands between colons in front of what is encrypted.
        if name.is_empty() || name.contains(':') {
            errors.push(FieldError::invalid(&path.child("name"), name, "must not be empty or contain a colon"));
        } else if !names.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        let path = path.child("secret");
        let secret = BASE64.decode(secret);
        let key = secret.as_ref().map(|secret| (AesGcmKey::new(name, secret), secret.len()));
        // The value is not shown: it may be a secret that was mistyped.
        match key {
            Err(_) => errors.push(FieldError::forbidden(&path, "is not base64")),
            Ok((Some(key), _)) => read.push(key),
            Ok((None, 24)) => {
                errors.push(FieldError::forbidden(&path, "AES-192 is not available here: use 16 or 32 bytes"));
            }
            Ok((None, length)) => {
                errors.push(FieldError::forbidden(&path, format!("has {length} bytes; use 16 or 32")));
            }
        }
    }
    let mut read = read.into_iter();
    let first = read.next()?;
    Some(AesGcmKeys { first, others: read.collect() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(resources: Value) -> Result<EncryptionConfiguration, String> {
        EncryptionConfiguration::read(&json!({ "apiVersion": API_VERSION, "kind": KIND, "resources": resources }))
    }

    fn key(name: &str, bytes: usize) -> Value {
        json!({ "name": name, "secret": BASE64.encode(vec![7; bytes]) })
    }

    fn aesgcm(keys: Value) -> Value {
        json!({ "aesgcm": { "keys": keys } })
    }

    #[test]
    fn the_first_provider_of_the_first_rule_encrypts() {
        let configuration = read(json!([
            { "resources": ["secrets", "deployments.apps"], "providers": [aesgcm(json!([key("a", 32), key("b", 16)])), { "identity": {} }] },
            { "resources": ["*.apps"], "providers": [{ "identity": {} }, aesgcm(json!([key("c", 32)]))] },
            { "resources": ["*.*"], "providers": [aesgcm(json!([key("d", 32)]))] },
        ]))
        .unwrap();
        let check = |resource: &str, expect: Option<&str>| {
            let prefix = match configuration.first_provider(resource) {
                Some(Provider::AesGcm(keys)) => Some(String::from_utf8(keys.first().prefix().to_vec()).unwrap()),
                _ => None,
            };
            assert_eq!(prefix.as_deref(), expect, "{resource}");
        };
        check("core/secrets", Some("k8s:enc:aesgcm:v1:a:"));
        check("apps/deployments", Some("k8s:enc:aesgcm:v1:a:"));
        check("apps/replicasets", None);
        check("core/pods", Some("k8s:enc:aesgcm:v1:d:"));
        assert_eq!(configuration.keys().count(), 4);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field_and_shows_no_secret() {
        let good = || json!([aesgcm(json!([key("a", 32)]))]);
        for (resources, expect) in [
            (json!([]), "resources: Required value"),
            (json!([{ "resources": [], "providers": good() }]), "resources[0].resources: Required value"),
            (json!([{ "resources": ["secrets"], "providers": [] }]), "resources[0].providers: Required value"),
            (json!([{ "resources": ["Secrets"], "providers": good() }]), "resources[0].resources[0]: Invalid value"),
            (json!([{ "resources": ["*"], "providers": good() }]), "resources[0].resources[0]: Invalid value"),
            (
                json!([{ "resources": ["*."], "providers": good() }, { "resources": ["secrets"], "providers": good() }]),
                "resources[1].resources[0]: Invalid value: \"secrets\": is covered",
            ),
            (
                json!([{ "resources": ["secrets", "secrets"], "providers": good() }]),
                "resources[0].resources[1]: Invalid value",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [{ "aescbc": { "keys": [key("a", 32)] } }] }]),
                "resources[0].providers[0].aescbc: Forbidden: AES-CBC",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [{ "kms": {} }] }]),
                "resources[0].providers[0].kms: Forbidden: key management",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [{ "secretbox": {} }] }]),
                "resources[0].providers[0].secretbox: Forbidden",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [{ "rot13": {} }] }]),
                "resources[0].providers[0].rot13: Forbidden: no such provider",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [{ "identity": {}, "kms": {} }] }]),
                "resources[0].providers[0]: Required value: exactly one",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [aesgcm(json!([]))] }]),
                "resources[0].providers[0].aesgcm.keys: Required value",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [aesgcm(json!([key("a", 24)]))] }]),
                "resources[0].providers[0].aesgcm.keys[0].secret: Forbidden: AES-192",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [aesgcm(json!([key("a", 5)]))] }]),
                "resources[0].providers[0].aesgcm.keys[0].secret: Forbidden: has 5 bytes",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [aesgcm(json!([{ "name": "a", "secret": "hunter2!" }]))] }]),
                "resources[0].providers[0].aesgcm.keys[0].secret: Forbidden: is not base64",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [aesgcm(json!([key("a", 32), key("a", 16)]))] }]),
                "resources[0].providers[0].aesgcm.keys[1].name: Duplicate value",
            ),
            (
                json!([{ "resources": ["secrets"], "providers": [aesgcm(json!([key("a:b", 32)]))] }]),
                "resources[0].providers[0].aesgcm.keys[0].name: Invalid value",
            ),
        ] {
            let error = read(resources.clone()).unwrap_err();
            assert!(error.starts_with(expect), "{resources}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let other = EncryptionConfiguration::read(&json!({ "apiVersion": "v1", "kind": "Secret" }));
        assert!(other.unwrap_err().starts_with("it is a Secret of v1"));
    }
}
