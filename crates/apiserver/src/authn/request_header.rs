//! Who asks, as one server tells another that trusts its certificate: in request headers.
//!
//! The server says so to the API servers that it aggregates, and believes a front proxy that shows a certificate of the
//! same authority. Upstream: apiserver `pkg/authentication/request/headerrequest/requestheader.go`, and `SetAuthProxyHeaders`
//! in client-go `transport/round_trippers.go`.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use registry::user::{AUTHENTICATED, UNAUTHENTICATED, User};

/// The names as the flags of a kube-apiserver and the ConfigMap for aggregated API servers have them.
pub(crate) const USERNAME: &str = "X-Remote-User";
pub(crate) const UID: &str = "X-Remote-Uid";
pub(crate) const GROUP: &str = "X-Remote-Group";
pub(crate) const EXTRA_PREFIX: &str = "X-Remote-Extra-";

const USERNAME_HEADER: HeaderName = HeaderName::from_static("x-remote-user");
const UID_HEADER: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP_HEADER: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// What all these names begin with.
pub(crate) const ALL: &str = "x-remote-";

/// What is escaped in the key of an extra value, which is part of a header's name: all but the letters of a token (RFC 9110,
/// section 5.6.2), and the percent sign itself.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Removes whatever the headers say of who asks.
pub(crate) fn remove(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(ALL)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Says that `user` asks, and nobody else.
///
/// # Errors
/// When the user has a name, group or value that no header can carry: it must not be left out, since somebody with fewer
/// groups may have more rights.
pub(crate) fn set(headers: &mut HeaderMap, user: &User) -> Result<(), http::Error> {
    remove(headers);
    headers.insert(USERNAME_HEADER, HeaderValue::from_bytes(user.name.as_bytes())?);
    if !user.uid.is_empty() {
        headers.insert(UID_HEADER, HeaderValue::from_bytes(user.uid.as_bytes())?);
    }
    for group in &user.groups {
        headers.append(GROUP_HEADER, HeaderValue::from_bytes(group.as_bytes())?);
    }
    for (key, values) in &user.extra {
        let name: HeaderName = format!("{EXTRA}{}", utf8_percent_encode(key, ESCAPED)).parse()?;
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes())?);
        }
    }
    Ok(())
}

/// Takes out of the headers who asks; `None` when they do not say.
pub(crate) fn take(headers: &mut HeaderMap) -> Option<User> {
    let texts = |name: &HeaderName| {
        let values = headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<Vec<_>>()
    };
    let named = texts(&USERNAME_HEADER).into_iter().find(|name| !name.is_empty());
    let mut user = User {
        name: named?,
        uid: texts(&UID_HEADER).into_iter().next().unwrap_or_default(),
        groups: texts(&GROUP_HEADER),
        ..User::default()
    };
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        user.extra.entry(key).or_default().extend(texts(name));
    }
    // Whoever is known at all belongs to everybody who is (upstream: `AuthenticatedGroupAdder`).
    let is_known = ![AUTHENTICATED, UNAUTHENTICATED].iter().any(|group| user.is_in(group));
    if is_known && user.name != User::anonymous().name {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    remove(headers);
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_server_says_another_reads() {
        let mut user = User::new("jane", &["developers", "a b"]);
        user.uid = "42".to_owned();
        let values = ["X=1", "é", "a\nb"].map(str::to_owned);
        user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), values.into());
        user.extra.insert("100%".to_owned(), vec![String::new()]);
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-group", HeaderValue::from_static("system:masters"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        set(&mut headers, &user).unwrap_err();
        user.extra.values_mut().for_each(|values| values.retain(|value| !value.contains('\n')));
        set(&mut headers, &user).unwrap();
        assert_eq!(headers["x-remote-extra-authentication.kubernetes.io%2fcredential-id"], "X=1");
        assert_eq!(take(&mut headers), Some(user));
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
        assert_eq!(take(&mut headers), None);
    }

    #[test]
    fn who_is_known_is_authenticated() {
        let said = |name: &'static str, group: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(USERNAME_HEADER, HeaderValue::from_static(name));
            headers.insert(GROUP_HEADER, HeaderValue::from_static(group));
            take(&mut headers).unwrap().groups
        };
        assert_eq!(said("jane", "developers"), ["developers", "system:authenticated"]);
        assert_eq!(said("system:anonymous", "system:unauthenticated"), ["system:unauthenticated"]);
    }
}
