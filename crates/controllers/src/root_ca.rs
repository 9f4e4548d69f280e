//! The certificate of the cluster's authority, published to Pods as the ConfigMap `kube-root-ca.crt` in each namespace.
//!
//! Watches Namespaces and these ConfigMaps alone (others may be many and large); owns the ConfigMaps.

use std::collections::BTreeMap;
use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::PostParams;
use kube::runtime::watcher;

use crate::client::{Api, Error};
use crate::controller::{Context, Controller};
use crate::{meta, namespace};

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";

/// What is to be done for one namespace.
#[derive(Debug, PartialEq)]
pub(crate) enum ConfigMapWrite {
    /// Create the ConfigMap.
    Create(ConfigMap),
    /// Put its content right.
    Replace(ConfigMap),
}

/// What `namespace` needs, given the ConfigMap that it has.
pub(crate) fn plan(namespace: &Namespace, current: Option<&ConfigMap>, ca: &str) -> Option<ConfigMapWrite> {
    if !namespace::is_active(namespace) {
        return None;
    }
    let data = Some(BTreeMap::from([(KEY.to_owned(), ca.to_owned())]));
    let Some(current) = current else {
        let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
            endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
            distributions of Kubernetes clusters.";
        return Some(ConfigMapWrite::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: namespace.metadata.name.clone(),
                annotations: Some(BTreeMap::from([("kubernetes.io/description".to_owned(), description.to_owned())])),
                ..ObjectMeta::default()
            },
            data,
            ..ConfigMap::default()
        }));
    };
    (current.data != data && !meta::is_deleting(current))
        .then(|| ConfigMapWrite::Replace(ConfigMap { data, ..current.clone() }))
}

/// The controller of the ConfigMap `kube-root-ca.crt`.
pub(crate) struct RootCaPublisher {
    client: Client,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    ca: String,
    queue: WorkQueue<String>,
}

impl Controller for RootCaPublisher {
    const NAME: &'static str = "root_ca_cert_publisher";
    const WORKERS: fn(usize) -> usize = |_| 1;
    /// The name of a namespace.
    type Key = String;

    fn new(context: &Context, queue: WorkQueue<String>) -> Self {
        let named = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        Self {
            client: context.client.clone(),
            namespaces: context.informer(),
            maps: context.informer_of_selected(named),
            ca: context.config.ca_certificate.clone(),
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.namespaces.on_change(move |change| queue.add(change.key().name, change.cause()));
        let queue = self.queue.clone();
        self.maps.on_change(move |change| queue.add(change.key().namespace, change.cause()));
    }

    async fn synced(&self) {
        self.namespaces.synced().await;
        self.maps.synced().await;
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(namespace) = self.namespaces.get(&ObjectKey::new("", name)) else {
            return Ok(Action::AwaitChange.because("the namespace is gone"));
        };
        let current = self.maps.get(&ObjectKey::new(name, NAME));
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), name);
        let answer = match plan(&namespace, current.as_deref(), &self.ca) {
            None => return Ok(Action::AwaitChange),
            Some(ConfigMapWrite::Create(map)) => api.create(&PostParams::default(), &map).await,
            Some(ConfigMapWrite::Replace(map)) => api.replace(NAME, &PostParams::default(), &map).await,
        };
        match answer.map_err(Error::from) {
            Ok(_) => Ok(Action::AwaitChange),
            // The informer is behind, or the namespace is.
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => {
                Ok(Action::AwaitChange)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn the_certificate_is_in_every_active_namespace() {
        let map = |data: &str| json!({ "metadata": { "name": NAME, "uid": "u" }, "data": { KEY: data } });
        let table = [
            ("Active", Value::Null, "create"),
            ("Active", map("ca"), "none"),
            ("Active", map("old"), "replace"),
            ("Terminating", Value::Null, "none"),
        ];
        for (phase, current, expect) in table {
            let namespace: Namespace =
                from_value(json!({ "metadata": { "name": "ns" }, "status": { "phase": phase } })).expect("namespace");
            let current: Option<ConfigMap> = from_value(current).expect("map");
            let (found, map) = match plan(&namespace, current.as_ref(), "ca") {
                None => ("none", None),
                Some(ConfigMapWrite::Create(map)) => ("create", Some(map)),
                Some(ConfigMapWrite::Replace(map)) => ("replace", Some(map)),
            };
            assert_eq!(found, expect);
            if let Some(map) = map {
                assert_eq!(map.data.unwrap_or_default()[KEY], "ca");
            }
        }
    }
}
