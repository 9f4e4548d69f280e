//! Tokens of service accounts: issued on request ([`request`]), accepted as `Authorization: Bearer`, and explained to
//! others by the documents of OpenID Connect.
//!
//! A token is good as long as its signature, its times, its account and whatever it is bound to are. The signature is
//! looked at once; after that a token costs a hash, and a look at the revisions of account and pod.

mod claims;
mod key;
pub(crate) mod request;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use machinery::well_known::SERVICE_ACCOUNT_TOKEN;
use parking_lot::Mutex;
use registry::{Registry, User};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{Entry, Key, Revision};

pub use key::TokenKey;

use claims::{Claims, LEGACY_ISSUER, Named, Subject};

/// Who issues tokens, and whom they are for unless they say otherwise.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How many tokens are remembered; when there are more, all are forgotten.
const REMEMBERED: usize = 2048;
/// What is deleted may still be used for so many seconds.
const LEEWAY: i64 = 60;

const ACCOUNTS: &str = "core/serviceaccounts";
const PODS: &str = "core/pods";
const NODES: &str = "core/nodes";
const SECRETS: &str = "core/secrets";

/// Issues and accepts tokens.
pub(crate) struct Tokens {
    registry: Registry,
    /// Absent where nothing is signed, in a server without a certificate authority.
    key: OnceLock<Arc<TokenKey>>,
    known: Mutex<HashMap<[u8; 32], Arc<Known>>>,
}

/// A token whose signature is good.
struct Known {
    claims: Claims,
    subject: Subject,
    user: Arc<User>,
    /// What the token depends on, as of when it was last found to be there.
    seen: Mutex<Vec<(Key, Revision)>>,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is none of ours.
    #[error("invalid bearer token")]
    Unknown,
    /// It is ours, and is not good any more, or not for this.
    #[error("[invalid bearer token, {0}]")]
    Refused(String),
}

impl Tokens {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), key: OnceLock::new(), known: Mutex::default() }
    }

    /// From now on tokens are issued and accepted. What is set first stays.
    pub(crate) fn set_key(&self, key: Arc<TokenKey>) {
        let _ = self.key.set(key);
    }

    /// The user whose token this is. With `audiences` it must be for one of them, otherwise for the API server; answers
    /// with those it is for, too.
    pub(crate) fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(Arc<User>, Vec<String>), TokenError> {
        let known = self.known(token)?;
        known.claims.check_time(now).map_err(|why| TokenError::Refused(why.to_owned()))?;
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let legacy = known.claims.iss == LEGACY_ISSUER;
        let offered: &[String] = if legacy { &own } else { &known.claims.aud };
        let common: Vec<String> = wanted.iter().filter(|audience| offered.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Err(TokenError::Refused(format!(
                "token audiences {offered:?} is invalid for the target audiences {wanted:?}"
            )));
        }
        self.check_objects(&known, now).map_err(TokenError::Refused)?;
        Ok((Arc::clone(&known.user), common))
    }

    /// The token, if it is signed by us.
    fn known(&self, token: &str) -> Result<Arc<Known>, TokenError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.remembered().get(&hash) {
            return Ok(Arc::clone(known));
        }
        let key = self.key.get().ok_or(TokenError::Unknown)?;
        let claims: Claims = key.open(token).ok_or(TokenError::Unknown)?;
        if claims.iss != ISSUER && claims.iss != LEGACY_ISSUER {
            return Err(TokenError::Unknown);
        }
        let subject = claims.subject().ok_or(TokenError::Unknown)?;
        let user = Arc::new(user(&claims, &subject));
        let known = Arc::new(Known { claims, subject, user, seen: Mutex::default() });
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(hash, Arc::clone(&known));
        Ok(known)
    }

    fn remembered(&self) -> parking_lot::MutexGuard<'_, HashMap<[u8; 32], Arc<Known>>> {
        self.known.lock()
    }

    /// Whether the account is there, and what the token is bound to; why not, in upstream's words.
    fn check_objects(&self, known: &Known, now: Timestamp) -> Result<(), String> {
        let store = self.registry.store();
        let mut seen = known.seen.lock();
        let unchanged =
            |(key, revision): &(Key, Revision)| store.get(key).is_some_and(|entry| entry.revision == *revision);
        if !seen.is_empty() && seen.iter().all(unchanged) {
            return Ok(());
        }
        seen.clear();
        let Subject { namespace, account, pod, node, secret } = &known.subject;
        let gone = || "service account token has been invalidated".to_owned();
        let mut fresh = Vec::new();
        let mut look = |resource: &str, namespace: &str, name: &str| -> Option<(Meta, Arc<Entry>)> {
            let key = Key::new(resource, namespace, name);
            let entry = store.get(&key)?;
            let meta = serde_json::from_slice::<Object>(&entry.value).ok()?.metadata;
            // One that is being deleted is looked at every time.
            let revision = if meta.deletion_timestamp.is_none() { entry.revision } else { 0 };
            fresh.push((key, revision));
            Some((meta, entry))
        };
        let name = &account.name;
        let (found, _) =
            look(ACCOUNTS, namespace, name).ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
        if found.uid != account.uid {
            return Err(format!("service account UID ({}) does not match claim ({})", found.uid, account.uid));
        }
        if found.is_gone(now) {
            return Err(format!("service account {namespace}/{name} has been deleted"));
        }
        // A pod's node is only told.
        let node = node.as_ref().filter(|_| pod.is_none());
        let bound = [(PODS, "pod", pod.as_ref()), (NODES, "node", node), (SECRETS, "secret", secret.as_ref())];
        for (resource, what, named) in bound {
            let Some(Named { name, uid }) = named else { continue };
            let at = if resource == NODES { "" } else { namespace };
            let (found, entry) = look(resource, at, name).ok_or_else(gone)?;
            if !uid.is_empty() && found.uid != *uid {
                let claim = if what == "secret" { "secret ref claim" } else { &format!("{what} ref claim") };
                let kind = capitalized(what);
                return Err(format!("{kind} UID ({}) does not match service account {claim} ({uid})", found.uid));
            }
            if found.is_gone(now) {
                return Err(gone());
            }
            // A Secret that holds the token must be that of the account still.
            if uid.is_empty() && resource == SECRETS && !belongs(&entry, &account.name) {
                return Err(gone());
            }
        }
        *seen = fresh;
        Ok(())
    }

    /// The document that tells others how to check tokens; `address` is where the keys are.
    pub(crate) fn configuration(&self, address: &str) -> Option<Vec<u8>> {
        self.key.get()?;
        let document = json!({
            "issuer": ISSUER,
            "jwks_uri": format!("https://{address}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        serde_json::to_vec(&document).ok()
    }

    /// The public keys.
    pub(crate) fn key_set(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&self.key.get()?.key_set()).ok()
    }
}

impl TokenKey {
    /// A token of the older kind, which lives in a Secret and does not end.
    #[must_use]
    pub fn secret_token(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Option<String> {
        self.sign(&Claims {
            iss: LEGACY_ISSUER.to_owned(),
            sub: User::service_account(namespace, account).name,
            legacy_namespace: Some(namespace.to_owned()),
            legacy_secret: Some(secret.to_owned()),
            legacy_name: Some(account.to_owned()),
            legacy_uid: Some(uid.to_owned()),
            ..Claims::default()
        })
    }
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    uid: String,
    deletion_timestamp: Option<Timestamp>,
}

impl Meta {
    fn is_gone(&self, now: Timestamp) -> bool {
        self.deletion_timestamp.is_some_and(|deleted| deleted.as_second() < now.as_second() - LEEWAY)
    }
}

/// Whether a Secret is one with a token of that account.
fn belongs(secret: &Entry, account: &str) -> bool {
    let secret: serde_json::Value = serde_json::from_slice(&secret.value).unwrap_or_default();
    secret["type"] == SERVICE_ACCOUNT_TOKEN
        && secret["metadata"]["annotations"]["kubernetes.io/service-account.name"] == account
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The user of a token, with what else the token tells.
fn user(claims: &Claims, subject: &Subject) -> User {
    let mut user = User::service_account(&subject.namespace, &subject.account.name);
    user.uid.clone_from(&subject.account.uid);
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(id) = &claims.jti {
        tell("credential-id", &format!("JTI={id}"));
    }
    for (what, named) in [("pod", &subject.pod), ("node", &subject.node)] {
        if let Some(named) = named {
            tell(&format!("{what}-name"), &named.name);
            tell(&format!("{what}-uid"), &named.uid);
        }
    }
    user
}
