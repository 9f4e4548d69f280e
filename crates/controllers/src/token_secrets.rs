//! Secrets of type `kubernetes.io/service-account-token`: who makes one by hand gets a token in it that does not end.
//!
//! Watches these Secrets and ServiceAccounts; owns the content of the Secrets, and deletes those whose account is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Client;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::watcher;
use machinery::well_known::SERVICE_ACCOUNT_TOKEN;

use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::{SignToken, meta};

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
    let annotation = |key: &str| meta::annotation(secret, key);
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

/// The controller of service account token Secrets.
pub(crate) struct TokenSecrets {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    ca: String,
    sign: Option<SignToken>,
    queue: WorkQueue<ObjectKey>,
}

fn account_of(secret: &Secret) -> Option<String> {
    let name = secret.metadata.annotations.as_ref()?.get(ACCOUNT)?;
    Some(format!("{}/{name}", meta::namespace(secret)))
}

impl Controller for TokenSecrets {
    const NAME: &'static str = "serviceaccount_tokens_secret";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let of_type = watcher::Config::default().fields(&format!("type={SERVICE_ACCOUNT_TOKEN}"));
        let secrets: Informer<Secret> = context.informer_of_selected(of_type);
        secrets.index(BY_ACCOUNT, |secret| account_of(secret).into_iter().collect());
        Self {
            client: context.client.clone(),
            secrets,
            accounts: context.informer(),
            ca: context.config.ca_certificate.clone(),
            sign: context.config.sign_token.clone(),
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.secrets.on_change(move |change| queue.add_changed(change));
        let controller = Arc::clone(self);
        self.accounts.on_change(move |change| {
            for secret in controller.secrets.by_index(BY_ACCOUNT, &change.key().to_string()) {
                controller.queue.add(ObjectKey::of(&*secret), change.cause());
            }
        });
    }

    async fn synced(&self) {
        self.accounts.synced().await;
        self.secrets.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(secret) = self.secrets.get(key) else {
            return Ok(Action::AwaitChange.because("the secret is gone"));
        };
        let Some(sign) = &self.sign else {
            return Ok(Action::AwaitChange.because("nobody signs tokens"));
        };
        let name = meta::annotation(&*secret, ACCOUNT).unwrap_or_default();
        let mut account = self.accounts.get(&ObjectKey::new(key.namespace.as_str(), name));
        if account.is_none() {
            // The informer may be behind, and a deletion cannot be taken back.
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
            account = ok_if_not_found(api.get(name).await)?.map(Arc::new);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        match plan(&secret, account.as_deref(), &self.ca, &*sign.0) {
            None => {}
            Some(SecretWrite::Replace(secret)) => {
                ok_if_not_found(api.replace(&key.name, &PostParams::default(), &secret).await)?;
            }
            Some(SecretWrite::Delete) => {
                let uid = secret.metadata.uid.clone();
                let preconditions = Some(Preconditions { uid, resource_version: None });
                ok_if_not_found(
                    api.delete(&key.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await,
                )?;
            }
        }
        Ok(Action::AwaitChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let check = |annotations: Value, data: Value, uid: Option<&str>, expect: &str| {
            let secret: Secret = serde_json::from_value(json!({ "type": SERVICE_ACCOUNT_TOKEN,
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
