//! GatewayClass: `gatewayclass_types.go`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{Conditions, pending};
use super::names::ControllerName;
use super::references::ObjectReference;

/// Who answers for the Gateways of the class.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GatewayClass",
    shortname = "gc",
    category = "gateway-api",
    status = "GatewayClassStatus",
    doc = "A class of Gateways: who answers for them. That of this cluster is coracle.",
    printcolumn = r#"{"name":"Controller","type":"string","jsonPath":".spec.controllerName"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// The controller that answers for Gateways of the class. It stays what it is: coracle.dev/gateway is this cluster's.
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self == oldSelf", "message": "field is immutable" }]))]
    pub controller_name: ControllerName,
    /// What the class is, for people.
    #[schemars(extend("maxLength" = 64))]
    pub description: Option<String>,
    /// What the controller is told beyond the class. That of this cluster takes none.
    pub parameters_ref: Option<ObjectReference>,
}

/// What the controller says of the class.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "conditions": pending(&["Accepted"]) }))]
pub struct GatewayClassStatus {
    /// Accepted: whether the controller answers for the class.
    #[schemars(extend("default" = pending(&["Accepted"])))]
    pub conditions: Option<Conditions>,
    /// What the controller can do, in the words of the project's conformance tests.
    #[schemars(extend(
        "maxItems" = 64,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
    ))]
    pub supported_features: Option<Vec<SupportedFeature>>,
}

/// Something that a controller can do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct SupportedFeature {
    /// What it is called.
    pub name: String,
}
