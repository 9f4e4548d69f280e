//! What is read besides the object that is explained.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A list that an explanation is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The resource, with its group: `replicasets.apps`.
    pub resource: &'static str,
    /// Which objects of it.
    pub scope: Scope,
}

/// Which objects of a resource are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of the object's namespace.
    Namespace,
    /// Those of the cluster.
    Cluster,
    /// Those whose field has the object's name as its value.
    Field(&'static str),
    /// Those of the namespace that is called as the object is.
    Named,
}

/// An owner of the object, or an owner's owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// How it is called: `replicaset.apps/web-1`.
    pub called: String,
    /// Whether it is the one that manages the object.
    pub controller: bool,
    /// Whether it is there, under the unique id that the reference names; nothing if that could not be read.
    pub exists: Option<bool>,
}

/// What is related to an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Related {
    lists: BTreeMap<String, Vec<Value>>,
    /// The owners, the nearest first.
    pub owners: Vec<Owner>,
    /// What could not be read, in words.
    pub unknown: Vec<String>,
    /// For a namespace that is being deleted: what is left in it, each as it is called and as it is.
    pub content: Vec<(String, Value)>,
}

impl Related {
    /// Adds what there is of a resource.
    pub fn add(&mut self, resource: &str, objects: Vec<Value>) {
        self.lists.entry(resource.to_owned()).or_default().extend(objects);
    }

    /// Whether the resource could be read: else that there is none means nothing.
    pub(crate) fn knows(&self, resource: &str) -> bool {
        self.lists.contains_key(resource)
    }

    /// All objects of a resource. Those that cannot be read as the type are none.
    pub(crate) fn all<T: DeserializeOwned>(&self, resource: &str) -> Vec<T> {
        self.lists.get(resource).into_iter().flatten().filter_map(|object| T::deserialize(object).ok()).collect()
    }
}

const fn own(resource: &'static str) -> Need {
    Need { resource, scope: Scope::Namespace }
}

const fn cluster(resource: &'static str) -> Need {
    Need { resource, scope: Scope::Cluster }
}

/// What an explanation of an object of `resource` is made from, besides its owners and the events of its namespace.
pub fn needs(resource: &str) -> &'static [Need] {
    match resource {
        "pods" => const { &[own("persistentvolumeclaims"), cluster("nodes"), own("poddisruptionbudgets.policy")] },
        "deployments.apps" => const { &[own("replicasets.apps"), own("pods"), own("resourcequotas")] },
        "replicasets.apps" | "jobs.batch" => const { &[own("pods"), own("resourcequotas")] },
        "statefulsets.apps" => {
            const {
                &[
                    own("pods"),
                    own("persistentvolumeclaims"),
                    own("controllerrevisions.apps"),
                    own("services"),
                    own("resourcequotas"),
                ]
            }
        }
        "daemonsets.apps" => {
            const { &[own("pods"), cluster("nodes"), own("controllerrevisions.apps"), own("resourcequotas")] }
        }
        "cronjobs.batch" => const { &[own("jobs.batch")] },
        "services" => const { &[own("pods"), own("endpointslices.discovery.k8s.io")] },
        "persistentvolumeclaims" => {
            const { &[own("pods"), cluster("persistentvolumes"), cluster("storageclasses.storage.k8s.io")] }
        }
        "namespaces" => const { &[Need { resource: "resourcequotas", scope: Scope::Named }] },
        "nodes" => {
            const {
                &[
                    Need { resource: "pods", scope: Scope::Field("spec.nodeName") },
                    Need { resource: "leases.coordination.k8s.io", scope: Scope::Field("metadata.name") },
                ]
            }
        }
        _ => const { &[] },
    }
}
