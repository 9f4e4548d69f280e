//! ReferenceGrant: `referencegrant_types.go`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Group, Kind, Namespace, ObjectName};

/// Who may refer to what.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "ReferenceGrant",
    namespaced,
    shortname = "refgrant",
    category = "gateway-api",
    doc = "Lets objects of other namespaces refer to objects of this one.",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct ReferenceGrantSpec {
    /// Whose references are allowed: those of any of these.
    #[schemars(extend("minItems" = 1, "maxItems" = 16, "x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<ReferenceGrantFrom>,
    /// What they may lead to: any of these.
    #[schemars(extend("minItems" = 1, "maxItems" = 16, "x-kubernetes-list-type" = "atomic"))]
    pub to: Vec<ReferenceGrantTo>,
}

/// Objects that refer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct ReferenceGrantFrom {
    /// Their API group.
    pub group: Group,
    /// Their kind: HTTPRoute for what leads to Services, Gateway for what leads to Secrets.
    pub kind: Kind,
    /// Their namespace.
    pub namespace: Namespace,
}

/// Objects of this namespace that are referred to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct ReferenceGrantTo {
    /// Their API group; that of Services and Secrets is empty.
    pub group: Group,
    /// Their kind.
    pub kind: Kind,
    /// The name of one; all of the kind without it.
    pub name: Option<ObjectName>,
}
