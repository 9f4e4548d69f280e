//! The objects every cluster has from its first moment.

use machinery::status::ApiError;
use machinery::well_known::{NODE_LEASES, PROVISIONER};
use registry::{Registry, Target};
use serde_json::{Value, json};

use crate::flowcontrol;
use crate::priority_class::SYSTEM_CLASSES;

/// The namespaces there always are.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", NODE_LEASES];

/// What [`SYSTEM_CLASSES`] are for, in upstream's words.
const SYSTEM_CLASSES_ARE: [&str; 2] = [
    "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    "Used for system critical pods that must not be moved from their current node.",
];

/// Creates what is missing of the objects every cluster has: the namespaces with their accounts, the priority classes
/// of the system, the default storage class, the flow schemas with their priority levels, and the Services `kubernetes` (the API, on `port`) and `kube-dns`, whose
/// endpoints are kept by whoever serves them.
///
/// # Errors
/// When the store takes no writes.
pub async fn bootstrap(registry: &Registry, port: u16) -> Result<(), ApiError> {
    let resources = registry.resources();
    if let Some(namespaces) = resources.get("", "v1", "namespaces") {
        for name in NAMESPACES {
            let target = Target::object(namespaces, "", name);
            registry.ensure(&target, json!({ "metadata": { "name": name } })).await?;
        }
    }
    // A controller makes the accounts of all namespaces; these are there for the first pods.
    if let Some(accounts) = resources.get("", "v1", "serviceaccounts") {
        for namespace in NAMESPACES {
            registry.ensure(&Target::object(accounts, namespace, "default"), json!({ "metadata": {} })).await?;
        }
    }
    if let Some(services) = resources.get("", "v1", "services") {
        let target = Target::object(services, "default", "kubernetes");
        let address = registry.allocators().services().kubernetes();
        registry.ensure(&target, kubernetes_service(&address.to_string(), port)).await?;
        let target = Target::object(services, "kube-system", "kube-dns");
        let address = registry.allocators().services().dns();
        registry.ensure(&target, dns_service(&address.to_string())).await?;
    }
    if let Some(classes) = resources.get("scheduling.k8s.io", "v1", "priorityclasses") {
        for ((name, value), description) in SYSTEM_CLASSES.into_iter().zip(SYSTEM_CLASSES_ARE) {
            let class = json!({ "value": value, "description": description });
            registry.ensure(&Target::object(classes, "", name), class).await?;
        }
    }
    if let Some(classes) = resources.get("storage.k8s.io", "v1", "storageclasses") {
        registry.ensure(&Target::object(classes, "", "standard"), standard_class()).await?;
    }
    flowcontrol::bootstrap(registry).await
}

/// The default class. Its volumes are directories on this machine, which every node here reaches, so a claim need not
/// wait to be told which node it is for.
fn standard_class() -> Value {
    json!({
        "metadata": { "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": PROVISIONER,
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
