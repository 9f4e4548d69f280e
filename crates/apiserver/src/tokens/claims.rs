//! What a token says: upstream's claims, of bound tokens and of the older ones that live in Secrets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The issuer of the older tokens.
pub(crate) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// How far two clocks may be apart, in seconds.
const LEEWAY: i64 = 60;

/// The claims of a token. Those of the older kind have their names spelled out with slashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iat: Option<i64>,
    #[serde(default)]
    pub(crate) iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jti: Option<String>,
    #[serde(rename = "kubernetes.io", default, skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<i64>,
    #[serde(default)]
    pub(crate) sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default, skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_namespace: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default, skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_secret: Option<String>,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.name",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) legacy_name: Option<String>,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) legacy_uid: Option<String>,
}

/// What a bound token is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Named>,
    pub(crate) serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

/// An object by its name and uid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

/// What a token is good for, whichever kind it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) namespace: String,
    pub(crate) account: Named,
    pub(crate) pod: Option<Named>,
    pub(crate) node: Option<Named>,
    /// The Secret the token is bound to or lives in; the latter has no uid.
    pub(crate) secret: Option<Named>,
}

impl Claims {
    /// Whose token it is; `None` when it does not say.
    pub(crate) fn subject(&self) -> Option<Subject> {
        if self.iss == LEGACY_ISSUER {
            let name = self.legacy_name.clone()?;
            return Some(Subject {
                namespace: self.legacy_namespace.clone()?,
                account: Named { name, uid: self.legacy_uid.clone()? },
                pod: None,
                node: None,
                secret: Some(Named { name: self.legacy_secret.clone()?, uid: String::new() }),
            });
        }
        let bound = self.bound.clone()?;
        Some(Subject {
            namespace: bound.namespace,
            account: bound.serviceaccount,
            pod: bound.pod,
            node: bound.node,
            secret: bound.secret,
        })
    }

    /// Whether the token may be used at that time; why not, in upstream's words.
    pub(crate) fn check_time(&self, now: Timestamp) -> Result<(), &'static str> {
        let now = now.as_second();
        if self.nbf.is_some_and(|from| now + LEEWAY < from) {
            return Err("service account token is not valid yet");
        }
        if self.exp.is_some_and(|end| now - LEEWAY > end) {
            return Err("service account token has expired");
        }
        if self.iat.is_some_and(|issued| now + LEEWAY < issued) {
            return Err("service account token is issued in the future");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_have_a_leeway() {
        let claims = Claims { iat: Some(1000), nbf: Some(1000), exp: Some(2000), ..Claims::default() };
        for (now, expect) in [
            (939, Err("service account token is not valid yet")),
            (940, Ok(())),
            (2060, Ok(())),
            (2061, Err("service account token has expired")),
        ] {
            assert_eq!(claims.check_time(Timestamp::from_second(now).unwrap()), expect, "{now}");
        }
        assert_eq!(Claims::default().check_time(Timestamp::MAX), Ok(()), "the older ones do not end");
    }

    #[test]
    fn both_kinds_say_whose_they_are() {
        let bound: Claims = serde_json::from_value(json!({ "iss": "x", "kubernetes.io": {
            "namespace": "a", "pod": { "name": "p", "uid": "1" }, "serviceaccount": { "name": "s", "uid": "2" } } }))
        .unwrap();
        let subject = bound.subject().unwrap();
        assert_eq!((subject.namespace.as_str(), subject.account.uid.as_str()), ("a", "2"));
        assert_eq!(subject.pod.unwrap().name, "p");
        let legacy: Claims = serde_json::from_value(json!({ "iss": LEGACY_ISSUER,
            "kubernetes.io/serviceaccount/namespace": "a", "kubernetes.io/serviceaccount/secret.name": "t",
            "kubernetes.io/serviceaccount/service-account.name": "s",
            "kubernetes.io/serviceaccount/service-account.uid": "2" }))
        .unwrap();
        assert_eq!(legacy.subject().unwrap().secret.unwrap().name, "t");
        assert_eq!(Claims::default().subject(), None);
    }
}
