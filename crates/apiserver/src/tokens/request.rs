//! `serviceaccounts/NAME/token`: a token on request, bound to an object where that is asked for.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::ApiError;
use machinery::{GroupKind, GroupResource};
use registry::{Registry, Subresource, Target, User, WriteOptions};

use super::claims::{Bound, Claims, Named};
use super::{ISSUER, Meta, Object, Tokens};

/// How long a token lives when nobody says, in seconds.
const LIFETIME: i64 = 3600;
/// The lifetime that the admission of pods asks for. Upstream gives such a token a year, and only notes the use of one
/// that should have been renewed: old clients do not read the file again.
const WARN_ONLY: i64 = 3607;
const EXTENDED: i64 = 365 * 24 * 60 * 60;
const SHORTEST: i64 = 600;

const KIND: GroupKind = GroupKind::from_static("authentication.k8s.io", "TokenRequest");

/// Answers a request for a token of the account at `target`.
pub(crate) async fn create(
    tokens: &Tokens,
    target: &Target,
    body: &[u8],
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>, ApiError> {
    let (registry, user) = (&tokens.registry, &options.user);
    let request: TokenRequest = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("cannot read the TokenRequest: {error}")))?;
    let (name, namespace) = (&target.name, &target.namespace);
    let account = meta(&registry.get(target, "").await?.value)?;
    let subresource = Subresource::Token;
    let complete = |request: &mut TokenRequest| complete(request, target, &account);
    let mut request = registry.admit_subresource(target, subresource, request, options, warnings, complete).await?;
    let now = Timestamp::now();
    let seconds = request.spec.as_ref().and_then(|spec| spec.expiration_seconds).unwrap_or(LIFETIME);

    let mut bound = Bound {
        namespace: namespace.clone(),
        serviceaccount: Named { name: name.clone(), uid: account.uid.clone() },
        ..Bound::default()
    };
    bind(registry, &request, name, user, &mut bound).await?;
    let audiences = request.spec.as_ref().and_then(|spec| spec.audiences.clone()).unwrap_or_default();
    let own = audiences.iter().all(|audience| audience == ISSUER);
    let mut lives = seconds;
    if seconds == WARN_ONLY && bound.pod.is_some() && own {
        bound.warnafter = Some(now.as_second() + seconds);
        lives = EXTENDED;
    }
    let claims = Claims {
        aud: audiences,
        exp: Some(now.as_second() + lives),
        iat: Some(now.as_second()),
        nbf: Some(now.as_second()),
        iss: ISSUER.to_owned(),
        jti: Some(random_id()),
        sub: User::service_account(namespace, name).name,
        bound: Some(bound),
        ..Claims::default()
    };
    let token = tokens.key.get().and_then(|key| key.sign(&claims));
    let token = token.ok_or_else(|| ApiError::internal("failed to generate token: there is no key"))?;
    let expires = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    request.metadata.creation_timestamp = Some(Time(whole_seconds(now)));
    request.status =
        Some(TokenRequestStatus { token: Some(token), expiration_timestamp: Some(Time(whole_seconds(expires))) });
    serde_json::to_vec(&request).map_err(ApiError::internal)
}

/// Checks a request, and fills in what it leaves out.
fn complete(request: &mut TokenRequest, target: &Target, account: &Meta) -> Result<(), ApiError> {
    let (name, namespace) = (&target.name, &target.namespace);
    check_place(request, name, namespace)?;
    if let Some(asked) = request.metadata.uid.as_deref().filter(|asked| *asked != account.uid) {
        let why = format!(
            "the UID in the token request ({asked}) does not match the UID of the service account ({})",
            account.uid
        );
        return Err(ApiError::conflict(&GroupResource::new("authentication.k8s.io", "TokenRequest"), name, why));
    }
    request.metadata.name = Some(name.clone());
    request.metadata.namespace = Some(namespace.clone());
    request.metadata.uid = Some(account.uid.clone());
    let spec = request.spec.get_or_insert_default();
    if spec.audiences.as_deref().unwrap_or_default().is_empty() {
        spec.audiences = Some(vec![ISSUER.to_owned()]);
    }
    check_lifetime(*spec.expiration_seconds.get_or_insert(LIFETIME))
}

/// Name and namespace, if given, must be those of the path.
fn check_place(request: &TokenRequest, name: &str, namespace: &str) -> Result<(), ApiError> {
    let meta = &request.metadata;
    for (field, asked, found) in [("name", &meta.name, name), ("namespace", &meta.namespace, namespace)] {
        if let Some(asked) = asked.as_deref().filter(|asked| !asked.is_empty() && *asked != found) {
            let why = format!("must match the service account {field} if specified");
            let error = FieldError::invalid(&Path::new("metadata").child(field), asked, why);
            return Err(ApiError::invalid(&KIND, name, &ErrorList(vec![error])));
        }
    }
    Ok(())
}

fn check_lifetime(seconds: i64) -> Result<(), ApiError> {
    let why = match seconds {
        i64::MIN..SHORTEST => "may not specify a duration less than 10 minutes",
        SHORTEST..=0x1_0000_0000 => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid(&Path::new("spec").child("expirationSeconds"), seconds, why);
    Err(ApiError::invalid(&KIND, "", &ErrorList(vec![error])))
}

/// Notes the object that the token is to live with.
async fn bind(
    registry: &Registry,
    request: &TokenRequest,
    account: &str,
    user: &User,
    bound: &mut Bound,
) -> Result<(), ApiError> {
    let reference = request.spec.as_ref().and_then(|spec| spec.bound_object_ref.as_ref());
    let forbidden =
        |why: &str| Err(ApiError::forbidden(&GroupResource::new("", "serviceaccounts"), account, why.to_owned()));
    let Some(reference) = reference else {
        return match user.as_node() {
            // upstream: NodeRestriction. A kubelet gets tokens for its pods alone.
            Some(_) => forbidden("node requested token not bound to a pod"),
            None => Ok(()),
        };
    };
    let kind = reference.kind.as_deref().unwrap_or_default();
    let version = reference.api_version.as_deref().unwrap_or_default();
    let plural = match (version.contains('/'), kind) {
        (false, "Pod") => "pods",
        (false, "Node") => "nodes",
        (false, "Secret") => "secrets",
        _ => {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            let kind = format!("{group}/{version}, Kind={kind}");
            return Err(ApiError::bad_request(format!("cannot bind token to object of type {kind}")));
        }
    };
    let resources = registry.resources();
    let resource = resources.get("", "v1", plural).ok_or_else(ApiError::no_such_resource)?;
    let name = reference.name.as_deref().unwrap_or_default();
    let namespace = if plural == "nodes" { "" } else { bound.namespace.as_str() };
    let entry = registry.get(&Target::object(resource, namespace, name), "").await?;
    let found = meta(&entry.value)?;
    if let Some(asked) = reference.uid.as_deref().filter(|asked| !asked.is_empty() && *asked != found.uid) {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(&GroupResource::new("", kind.to_owned()), name, why));
    }
    let named = Named { name: name.to_owned(), uid: found.uid };
    if plural != "pods" && user.as_node().is_some() {
        return forbidden("node requested token not bound to a pod");
    }
    match plural {
        "nodes" => bound.node = Some(named),
        "secrets" => bound.secret = Some(named),
        _ => {
            let object = resource.load(&entry.value).map_err(ApiError::internal)?;
            let spec = object.as_any().downcast_ref::<Pod>().and_then(|pod| pod.spec.clone()).unwrap_or_default();
            if spec.service_account_name.as_deref() != Some(account) {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            if let Some(node) = user.as_node() {
                if reference.uid.as_deref().unwrap_or_default().is_empty() {
                    return forbidden("node requested token with a pod binding without a uid");
                }
                if spec.node_name.as_deref() != Some(node) {
                    return forbidden("node requested token bound to a pod scheduled on a different node");
                }
            }
            if let Some(node) = spec.node_name.filter(|node| !node.is_empty()) {
                let nodes = resources.get("", "v1", "nodes").ok_or_else(ApiError::no_such_resource)?;
                let entry = registry.get(&Target::object(nodes, "", node.as_str()), "").await.ok();
                let uid = entry.and_then(|entry| meta(&entry.value).ok()).map(|meta| meta.uid).unwrap_or_default();
                bound.node = Some(Named { name: node, uid });
            }
            bound.pod = Some(named);
        }
    }
    Ok(())
}

fn meta(stored: &[u8]) -> Result<Meta, ApiError> {
    serde_json::from_slice::<Object>(stored).map(|object| object.metadata).map_err(ApiError::internal)
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// An id in the form of a UUID.
fn random_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    // RFC 9562: version 4, variant 10.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
