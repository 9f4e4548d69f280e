//! Acting as somebody else: the headers `Impersonate-User`, `-Group`, `-Uid` and `-Extra-KEY`, each of which needs a
//! right of its own.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use machinery::Verb;
use machinery::status::ApiError;
use percent_encoding::percent_decode_str;
use registry::user::{ACCOUNT_PREFIX, AUTHENTICATED, UNAUTHENTICATED};

use super::User;
use crate::authz::{self, Attributes, Authorizer, Target};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA: &str = "impersonate-extra-";
/// What the names of all of them begin with.
const PREFIX: &str = "impersonate-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom `user` acts as, if anybody. The headers are removed.
///
/// # Errors
/// 403 when one of the rights is missing, 400 for headers that make no sense.
pub(super) fn impersonated(
    headers: &mut HeaderMap,
    user: &User,
    authorizer: &dyn Authorizer,
) -> Result<Option<Arc<User>>, ApiError> {
    let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    if names.is_empty() {
        return Ok(None);
    }
    let other = wanted(headers, user, authorizer)?;
    for name in names {
        headers.remove(name);
    }
    Ok(other.map(Arc::new))
}

/// Whom the headers name.
fn wanted(headers: &HeaderMap, user: &User, authorizer: &dyn Authorizer) -> Result<Option<User>, ApiError> {
    let text = |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let name = text(&USER).unwrap_or_default();
    if name.is_empty() {
        let is_said = |name: &HeaderName| *name == GROUP || name.as_str().starts_with(EXTRA);
        if headers.keys().any(is_said) || text(&UID).is_some_and(|uid| !uid.is_empty()) {
            return Err(ApiError::bad_request("requested groups, a uid or extra without impersonating a user name"));
        }
        return Ok(None);
    }
    let permit = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let target = Target::Resource { group, version: "v1", resource, subresource, namespace, name };
        authz::authorize(authorizer, &Attributes::new(user, Verb::Impersonate, target))
    };
    let mut other = match name.strip_prefix(ACCOUNT_PREFIX).and_then(|account| account.split_once(':')) {
        Some((namespace, account)) => {
            permit("", "serviceaccounts", "", namespace, account)?;
            User::service_account(namespace, account)
        }
        None => {
            permit("", "users", "", "", &name)?;
            User { name: name.into_owned(), ..User::default() }
        }
    };
    let groups: Vec<String> =
        headers.get_all(GROUP).iter().map(|group| String::from_utf8_lossy(group.as_bytes()).into_owned()).collect();
    for group in &groups {
        permit("", "groups", "", "", group)?;
    }
    if !groups.is_empty() {
        other.groups = groups;
    }
    for (header, value) in headers {
        let Some(key) = header.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        permit(AUTHENTICATION, "userextras", &key, "", &value)?;
        other.extra.entry(key).or_default().push(value);
    }
    if let Some(uid) = text(&UID).filter(|uid| !uid.is_empty()) {
        permit(AUTHENTICATION, "uids", "", "", &uid)?;
        other.uid = uid.into_owned();
    }
    let implied = if other.name == User::anonymous().name { UNAUTHENTICATED } else { AUTHENTICATED };
    if ![AUTHENTICATED, UNAUTHENTICATED].iter().any(|group| other.is_in(group)) {
        other.groups.push(implied.to_owned());
    }
    Ok(Some(other))
}
