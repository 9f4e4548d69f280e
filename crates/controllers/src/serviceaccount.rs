//! ServiceAccounts: each namespace has one called `default`, as long as it lives.
//!
//! Watches Namespaces and ServiceAccounts; owns the ServiceAccounts called `default`.

use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::PostParams;

use crate::client::{Api, Error};
use crate::controller::{Context, Controller};
use crate::{meta, namespace};

/// The account of Pods that ask for none.
const DEFAULT: &str = "default";

/// What `namespace` lacks: the account to create, given whether it is there.
pub(crate) fn plan(namespace: &Namespace, present: bool) -> Option<ServiceAccount> {
    (!present && namespace::is_active(namespace)).then(|| ServiceAccount {
        metadata: ObjectMeta {
            name: Some(DEFAULT.to_owned()),
            namespace: namespace.metadata.name.clone(),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    })
}

/// The controller of the ServiceAccount `default`.
pub(crate) struct ServiceAccounts {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
    queue: WorkQueue<String>,
}

impl Controller for ServiceAccounts {
    const NAME: &'static str = "serviceaccount";
    const WORKERS: fn(usize) -> usize = |_| 1;
    /// The name of a namespace.
    type Key = String;

    fn new(context: &Context, queue: WorkQueue<String>) -> Self {
        let client = context.client.clone();
        Self { client, namespaces: context.informer(), accounts: context.informer(), queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.namespaces.on_change(move |change| queue.add(change.key().name, change.cause()));
        let queue = self.queue.clone();
        self.accounts.on_change(move |change| {
            let key = change.key();
            if key.name == DEFAULT && change.new.is_none() {
                queue.add(key.namespace, change.cause());
            }
        });
    }

    async fn synced(&self) {
        self.namespaces.synced().await;
        self.accounts.synced().await;
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(namespace) = self.namespaces.get(&ObjectKey::new("", name)) else {
            return Ok(Action::AwaitChange.because("the namespace is gone"));
        };
        let account = self.accounts.get(&ObjectKey::new(name, DEFAULT));
        let present = account.is_some_and(|account| !meta::is_deleting(&*account));
        if let Some(account) = plan(&namespace, present) {
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
            match api.create(&PostParams::default(), &account).await.map_err(Error::from) {
                Ok(_) => {}
                // The informer is behind, or the namespace is.
                Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Action::AwaitChange)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn every_active_namespace_gets_its_account() {
        for (phase, present, expect) in
            [("Active", false, true), ("Active", true, false), ("Terminating", false, false), ("", false, true)]
        {
            let namespace: Namespace =
                from_value(json!({ "metadata": { "name": "ns" }, "status": { "phase": phase } })).expect("namespace");
            let account = plan(&namespace, present);
            assert_eq!(account.is_some(), expect, "{phase} {present}");
            if let Some(account) = account {
                assert_eq!((meta::namespace(&account), meta::name(&account)), ("ns", "default"));
            }
        }
    }
}
