//! Secrets of type `kubernetes.io/service-account-token`: who makes one by hand gets a token in it that does not end.
//!
//! Watches these Secrets and ServiceAccounts; owns the content of the Secrets, and deletes those whose account is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use informer::{Action, Informer, Informers, ObjectKey, WorkQueue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::client::{Error, ok_if_not_found, requeue_on_conflict};
use crate::{SignToken, meta};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
const BY_ACCOUNT: &str = "account";

/// What is to be done about a Secret.
#[derive(Debug, PartialEq)]
pub(crate) enum SecretWrite {
    /// Write this instead.
    Replace(Box<Secret>),
    /// It is of an account that is gone.
    Delete,
}

/// What `secret` needs, given the account it names.
pub(crate) fn plan(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    ca: &str,
    sign: impl FnOnce(&str, &str, &str, &str) -> Option<String>,
) -> Option<SecretWrite> {
    if meta::is_deleting(secret) {
        return None;
    }
    let annotation = |key: &str| secret.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let uid = account.and_then(|account| account.metadata.uid.as_deref());
    let wanted = annotation(UID).filter(|uid| !uid.is_empty());
    let Some(uid) = uid.filter(|uid| wanted.is_none_or(|wanted| wanted == *uid)) else {
        return Some(SecretWrite::Delete);
    };
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let mut new = secret.clone();
    let data = new.data.get_or_insert_with(BTreeMap::new);
    let mut set = |key: &str, value: &[u8]| data.insert(key.to_owned(), ByteString(value.to_vec()));
    set("ca.crt", ca.as_bytes());
    set("namespace", namespace.as_bytes());
    if data.get("token").is_none_or(|token| token.0.is_empty()) {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let token = sign(namespace, annotation(ACCOUNT).unwrap_or_default(), uid, name)?;
        data.insert("token".to_owned(), ByteString(token.into_bytes()));
    }
    new.metadata.annotations.get_or_insert_default().insert(UID.to_owned(), uid.to_owned());
    (new != *secret).then(|| SecretWrite::Replace(Box::new(new)))
}

struct State {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    ca: String,
    sign: SignToken,
}

/// Runs the controller until `cancel` is triggered.
pub(crate) async fn run(client: Client, informers: Informers, ca: String, sign: SignToken, cancel: CancellationToken) {
    let accounts: Informer<ServiceAccount> = informers.informer();
    let config = watcher::Config::default().streaming_lists().fields(&format!("type={TYPE}"));
    let secrets: Informer<Secret> = Informer::start(Api::all(client.clone()), config, cancel.clone());
    let account_of = |secret: &Secret| {
        let name = secret.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT));
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        name.map(|name| format!("{namespace}/{name}"))
    };
    secrets.index(BY_ACCOUNT, move |secret| account_of(secret).into_iter().collect());
    let queue = WorkQueue::new();
    let wake = queue.clone();
    secrets.on_change(move |change| wake.add(change.key()));
    let (wake, known) = (queue.clone(), secrets.clone());
    accounts.on_change(move |change| {
        let key = change.key();
        for secret in known.by_index(BY_ACCOUNT, &format!("{}/{}", key.namespace, key.name)) {
            wake.add(ObjectKey::new(key.namespace.clone(), secret.metadata.name.clone().unwrap_or_default()));
        }
    });
    let synced = async {
        accounts.synced().await;
        secrets.synced().await;
    };
    tokio::select! {
        () = cancel.cancelled() => return,
        () = synced => {}
    }
    let state = Arc::new(State { client, secrets, accounts, ca, sign });
    informer::run("token-secrets", queue, 1, cancel, |key: ObjectKey| {
        let state = Arc::clone(&state);
        async move { requeue_on_conflict(reconcile(&state, &key).await) }
    })
    .await;
}

async fn reconcile(state: &State, key: &ObjectKey) -> Result<Action, Error> {
    let Some(secret) = state.secrets.get(key) else {
        return Ok(Action::AwaitChange);
    };
    let name = secret.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT)).cloned().unwrap_or_default();
    let account_key = ObjectKey::new(key.namespace.clone(), name.clone());
    let mut account = state.accounts.get(&account_key);
    if account.is_none() {
        // The informer may be behind, and a deletion cannot be taken back.
        let api: Api<ServiceAccount> = Api::namespaced(state.client.clone(), &key.namespace);
        account = ok_if_not_found(api.get(&name).await)?.map(Arc::new);
    }
    let api: Api<Secret> = Api::namespaced(state.client.clone(), &key.namespace);
    match plan(&secret, account.as_deref(), &state.ca, &*state.sign.0) {
        None => {}
        Some(SecretWrite::Replace(secret)) => {
            ok_if_not_found(api.replace(&key.name, &PostParams::default(), &secret).await)?;
        }
        Some(SecretWrite::Delete) => {
            let uid = secret.metadata.uid.clone();
            let preconditions = Some(Preconditions { uid, resource_version: None });
            ok_if_not_found(api.delete(&key.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await)?;
        }
    }
    Ok(Action::AwaitChange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let check = |annotations: Value, data: Value, uid: Option<&str>, expect: &str| {
            let secret: Secret = serde_json::from_value(json!({ "type": TYPE,
                "metadata": { "name": "t", "namespace": "ns", "annotations": annotations }, "data": data }))
            .expect("a secret");
            let account = uid.map(|uid| {
                serde_json::from_value::<ServiceAccount>(json!({ "metadata": { "name": "robot", "uid": uid } }))
                    .expect("an account")
            });
            let sign = |namespace: &str, account: &str, uid: &str, secret: &str| {
                Some(format!("{namespace}/{account}/{uid}/{secret}"))
            };
            let found = match plan(&secret, account.as_ref(), "ca", sign) {
                None => "nothing".to_owned(),
                Some(SecretWrite::Delete) => "delete".to_owned(),
                Some(SecretWrite::Replace(secret)) => {
                    let token = secret.data.and_then(|mut data| data.remove("token")).expect("a token");
                    String::from_utf8(token.0).expect("text")
                }
            };
            assert_eq!(found, expect);
        };
        let named = json!({ ACCOUNT: "robot" });
        let bound = json!({ ACCOUNT: "robot", UID: "1" });
        // ca, ns and old in Base64.
        let full = json!({ "ca.crt": "Y2E=", "namespace": "bnM=", "token": "b2xk" });
        check(named.clone(), json!({}), Some("1"), "ns/robot/1/t");
        check(bound.clone(), full.clone(), Some("1"), "nothing");
        check(bound.clone(), json!({ "token": "b2xk" }), Some("1"), "old");
        check(bound, full.clone(), Some("2"), "delete");
        check(named, full, None, "delete");
    }
}
