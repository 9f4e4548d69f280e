//! ServiceAccounts: each namespace has one called `default`, as long as it lives.
//!
//! Watches Namespaces and ServiceAccounts; owns the ServiceAccounts called `default`.

use std::sync::Arc;

use informer::{Action, Informer, Informers, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::client::Error;
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

/// Runs the controller until `cancel` is triggered.
pub(crate) async fn run(client: Client, informers: Informers, cancel: CancellationToken) {
    let namespaces: Informer<Namespace> = informers.informer();
    let accounts: Informer<ServiceAccount> = informers.informer();
    let queue = WorkQueue::new();
    let wake = queue.clone();
    namespaces.on_change(move |change| wake.add(change.key().name));
    let wake = queue.clone();
    accounts.on_change(move |change| {
        let key = change.key();
        if key.name == DEFAULT && change.new.is_none() {
            wake.add(key.namespace);
        }
    });
    let synced = async {
        namespaces.synced().await;
        accounts.synced().await;
    };
    tokio::select! {
        () = cancel.cancelled() => return,
        () = synced => {}
    }
    let state = Arc::new((client, namespaces, accounts));
    informer::run("serviceaccount", queue, 1, cancel, |name: String| {
        let state = Arc::clone(&state);
        async move {
            let (client, namespaces, accounts) = &*state;
            reconcile(client, namespaces, accounts, &name).await
        }
    })
    .await;
}

async fn reconcile(
    client: &Client,
    namespaces: &Informer<Namespace>,
    accounts: &Informer<ServiceAccount>,
    name: &str,
) -> Result<Action, Error> {
    let Some(namespace) = namespaces.get(&ObjectKey::new("", name)) else {
        return Ok(Action::AwaitChange);
    };
    let present = accounts.get(&ObjectKey::new(name, DEFAULT)).is_some_and(|account| !meta::is_deleting(&*account));
    if let Some(account) = plan(&namespace, present) {
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        match api.create(&PostParams::default(), &account).await.map_err(Error::from) {
            Ok(_) => {}
            // The informer is behind, or the namespace is.
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Action::AwaitChange)
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
