//! References from object to object.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Group, Kind, Namespace, ObjectName, Port, SectionName};
use super::rules;

/// An object of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct LocalObjectReference {
    /// The object's API group.
    pub group: Group,
    /// The object's kind.
    pub kind: Kind,
    /// The object's name.
    pub name: ObjectName,
}

/// An object.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct ObjectReference {
    /// The object's API group.
    pub group: Group,
    /// The object's kind.
    pub kind: Kind,
    /// The object's name.
    pub name: ObjectName,
    /// The object's namespace, if it has one. A ReferenceGrant there has to allow what leads from one namespace to another.
    pub namespace: Option<Namespace>,
}

/// A certificate with its key.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct SecretReference {
    /// The object's API group.
    #[schemars(extend("default" = ""))]
    pub group: Option<Group>,
    /// The object's kind.
    #[schemars(extend("default" = "Secret"))]
    pub kind: Option<Kind>,
    /// The object's name.
    pub name: ObjectName,
    /// The object's namespace, where it is another one. A ReferenceGrant there has to allow it.
    pub namespace: Option<Namespace>,
}

/// Where requests are sent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = rules::port_of_service()))]
pub struct BackendReference {
    /// The object's API group.
    #[schemars(extend("default" = ""))]
    pub group: Option<Group>,
    /// The object's kind.
    #[schemars(extend("default" = "Service"))]
    pub kind: Option<Kind>,
    /// The object's name.
    pub name: ObjectName,
    /// The object's namespace, where it is another one. A ReferenceGrant there has to allow it.
    pub namespace: Option<Namespace>,
    /// The port of the Service.
    pub port: Option<Port>,
}

/// What a route attaches to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// The object's API group.
    #[schemars(extend("default" = "gateway.networking.k8s.io"))]
    pub group: Option<Group>,
    /// The object's kind.
    #[schemars(extend("default" = "Gateway"))]
    pub kind: Option<Kind>,
    /// The object's name.
    pub name: ObjectName,
    /// The object's namespace, where it is another one. The listener has to allow it.
    pub namespace: Option<Namespace>,
    /// The listener; all of them without it.
    pub section_name: Option<SectionName>,
    /// The port of listeners; that of any without it.
    pub port: Option<Port>,
}
