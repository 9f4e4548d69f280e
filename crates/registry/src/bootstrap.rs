//! The objects every cluster has from its first moment, and how components of the server write objects of their own:
//! through the same path as everybody.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Registry;
use crate::kinds::priority_class::SYSTEM_CLASSES;
use crate::request::{FieldValidation, Target, WriteOptions, Written};
use crate::user::User;
use machinery::status::ApiError;

/// The namespaces there always are.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What [`SYSTEM_CLASSES`] are for, in upstream's words.
const SYSTEM_CLASSES_ARE: [&str; 2] = [
    "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    "Used for system critical pods that must not be moved from their current node.",
];

/// How often an upsert is tried when the object comes and goes.
const ATTEMPTS: usize = 10;

impl Registry {
    /// Creates what is missing of the objects every cluster has: the namespaces with their accounts, the priority classes
    /// of the system, the default storage class, and the Services `kubernetes` (the API, on `port`) and `kube-dns`, whose
    /// endpoints are kept by whoever serves them.
    ///
    /// # Errors
    /// When the store takes no writes.
    pub async fn bootstrap(&self, port: u16) -> Result<(), ApiError> {
        let resources = self.resources();
        if let Some(namespaces) = resources.get("", "v1", "namespaces") {
            for name in NAMESPACES {
                let target = Target::object(namespaces, "", name);
                self.ensure(&target, json!({ "metadata": { "name": name } })).await?;
            }
        }
        // A controller makes the accounts of all namespaces; these are there for the first pods.
        if let Some(accounts) = resources.get("", "v1", "serviceaccounts") {
            for namespace in NAMESPACES {
                self.ensure(&Target::object(accounts, namespace, "default"), json!({ "metadata": {} })).await?;
            }
        }
        if let Some(services) = resources.get("", "v1", "services") {
            let target = Target::object(services, "default", "kubernetes");
            let address = self.allocators().services().kubernetes();
            self.ensure(&target, kubernetes_service(&address.to_string(), port)).await?;
            let target = Target::object(services, "kube-system", "kube-dns");
            let address = self.allocators().services().dns();
            self.ensure(&target, dns_service(&address.to_string())).await?;
        }
        if let Some(classes) = resources.get("scheduling.k8s.io", "v1", "priorityclasses") {
            for ((name, value), description) in SYSTEM_CLASSES.into_iter().zip(SYSTEM_CLASSES_ARE) {
                let class = json!({ "value": value, "description": description });
                self.ensure(&Target::object(classes, "", name), class).await?;
            }
        }
        if let Some(classes) = resources.get("storage.k8s.io", "v1", "storageclasses") {
            self.ensure(&Target::object(classes, "", "standard"), standard_class()).await?;
        }
        Ok(())
    }

    /// Creates the object at `target`, or replaces it whatever its version. `object` needs no more than what
    /// differs from the defaults: kind, version, name and namespace are filled in.
    ///
    /// # Errors
    /// As [`Registry::create`] and [`Registry::update`].
    pub async fn upsert(&self, target: &Target, object: Value) -> Result<Written, ApiError> {
        let body = complete(target, object).to_string();
        let options = internal();
        let collection = Target::collection(&target.resource, target.namespace.clone());
        for _ in 0..ATTEMPTS {
            let result = match self.lookup(target) {
                Some(_) => self.update(target, None, body.as_bytes(), &options).await,
                None => self.create(&collection, body.as_bytes(), &options).await,
            };
            match result {
                Err(error) if error.code == 404 && self.lookup(target).is_none() && error_is_about(&error, target) => {}
                Err(error) if error.code == 409 => {}
                result => return result,
            }
        }
        Err(ApiError::server_timeout(&target.resource.info().group_resource, "update", 1))
    }

    /// Creates the object at `target` unless there is one.
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub async fn ensure(&self, target: &Target, object: Value) -> Result<(), ApiError> {
        if self.lookup(target).is_some() {
            return Ok(());
        }
        let body = complete(target, object).to_string();
        let collection = Target::collection(&target.resource, target.namespace.clone());
        match self.create(&collection, body.as_bytes(), &internal()).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A 404 may also be about the namespace, which will not come by trying again.
fn error_is_about(error: &ApiError, target: &Target) -> bool {
    let details = error.details.as_ref();
    details.is_some_and(|details| details.kind == target.resource.info().plural && details.name == target.name)
}

fn internal() -> WriteOptions {
    WriteOptions {
        field_validation: FieldValidation::Strict,
        field_manager: "coracle".into(),
        user: Arc::new(User::master("system:apiserver")),
        ..WriteOptions::default()
    }
}

fn complete(target: &Target, mut object: Value) -> Value {
    let info = target.resource.info();
    object["apiVersion"] = info.api_version.as_str().into();
    object["kind"] = info.kind.as_str().into();
    object["metadata"]["name"] = target.name.as_str().into();
    if !target.namespace.is_empty() {
        object["metadata"]["namespace"] = target.namespace.as_str().into();
    }
    object
}

/// The default class. Its volumes are directories on this machine, which every node here reaches, so a claim need not
/// wait to be told which node it is for.
fn standard_class() -> Value {
    json!({
        "metadata": { "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": "coracle.dev/local-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
        "allowVolumeExpansion": true,
    })
}

fn kubernetes_service(address: &str, port: u16) -> Value {
    json!({
        "metadata": { "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": port }],
        },
    })
}

/// Under upstream's name and labels: tools look for it there, and `kubectl cluster-info` lists it.
fn dns_service(address: &str) -> Value {
    json!({
        "metadata": { "labels": {
            "k8s-app": "kube-dns",
            "kubernetes.io/cluster-service": "true",
            "kubernetes.io/name": "CoreDNS",
        } },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [
                { "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53 },
                { "name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53 },
            ],
        },
    })
}
