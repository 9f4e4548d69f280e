//! Gateway: `gateway_types.go`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{Conditions, pending};
use super::names::{
    AddressType, AnnotationValue, Group, Hostname, Kind, LabelValue, ObjectName, Port, Protocol, SectionName,
};
use super::references::{LocalObjectReference, ObjectReference, SecretReference};
use super::rules;

/// Where requests come in.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "Gateway",
    namespaced,
    shortname = "gtw",
    category = "gateway-api",
    status = "GatewayStatus",
    doc = "An entry to the cluster: addresses and ports, to which routes attach.",
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.gatewayClassName"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.addresses[*].value"}"#,
    printcolumn = r#"{"name":"Programmed","type":"string","jsonPath":".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The class: who answers for the Gateway.
    pub gateway_class_name: ObjectName,
    /// The ports at which it answers, and for whom.
    #[schemars(extend(
        "minItems" = 1,
        "maxItems" = 64,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
        "x-kubernetes-validations" = rules::listeners(),
    ))]
    pub listeners: Vec<Listener>,
    /// The addresses that are asked for. Without them it gets one.
    #[schemars(extend(
        "maxItems" = 16,
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = rules::addresses(),
    ))]
    pub addresses: Option<Vec<GatewaySpecAddress>>,
    /// What is made for the Gateway. Here nothing is.
    pub infrastructure: Option<GatewayInfrastructure>,
    /// Whose ListenerSets may attach. Here none do.
    pub allowed_listeners: Option<AllowedListeners>,
    /// What holds for TLS of all listeners. Certificates of clients are not asked for here.
    pub tls: Option<GatewayTls>,
}

/// An address that is asked for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = rules::address(false)))]
pub struct GatewaySpecAddress {
    /// What kind of address it is.
    #[serde(rename = "type")]
    #[schemars(extend("default" = "IPAddress"))]
    pub type_: Option<AddressType>,
    /// The address; any of its kind without it.
    #[schemars(extend("maxLength" = 253))]
    pub value: Option<String>,
}

/// What is said to whatever is made for a Gateway.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayInfrastructure {
    /// Labels of it.
    #[schemars(extend("maxProperties" = 8, "x-kubernetes-validations" = rules::keys()))]
    pub labels: Option<BTreeMap<String, LabelValue>>,
    /// Annotations of it.
    #[schemars(extend("maxProperties" = 8, "x-kubernetes-validations" = rules::keys()))]
    pub annotations: Option<BTreeMap<String, AnnotationValue>>,
    /// What the controller is told beyond the Gateway.
    pub parameters_ref: Option<LocalObjectReference>,
}

/// Whose ListenerSets may attach.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct AllowedListeners {
    /// Those of which namespaces.
    #[schemars(extend("default" = { "from": "None" }))]
    pub namespaces: Option<ListenerNamespaces>,
}

/// Namespaces with ListenerSets.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct ListenerNamespaces {
    /// All, Selector, Same or None.
    #[schemars(extend("default" = "None"))]
    pub from: Option<FromListenerNamespaces>,
    /// The labels of the namespaces, for Selector.
    pub selector: Option<LabelSelector>,
}

/// From which namespaces a ListenerSet may attach.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromListenerNamespaces {
    /// From any.
    All,
    /// From those that have the labels.
    Selector,
    /// From that of the Gateway.
    Same,
    /// From none.
    None,
}

/// A port at which a Gateway answers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name within the Gateway.
    pub name: SectionName,
    /// The port.
    pub port: Port,
    /// What is spoken there: HTTP or HTTPS here.
    pub protocol: Protocol,
    /// The host for which it answers, or all hosts below a domain; all hosts without it.
    pub hostname: Option<Hostname>,
    /// The certificates, for HTTPS.
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[schemars(extend("default" = { "namespaces": { "from": "Same" } }))]
    pub allowed_routes: Option<AllowedRoutes>,
}

/// How TLS of a listener is spoken.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::listener_tls()))]
pub struct ListenerTls {
    /// Terminate or Passthrough.
    #[schemars(extend("default" = "Terminate"))]
    pub mode: Option<TlsMode>,
    /// Secrets of type kubernetes.io/tls.
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "atomic"))]
    pub certificate_refs: Option<Vec<SecretReference>>,
    /// What the controller is told beyond that.
    #[schemars(extend("maxProperties" = 16))]
    pub options: Option<BTreeMap<String, AnnotationValue>>,
}

/// Where TLS ends.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// At the Gateway.
    Terminate,
    /// At the backend. Not supported here.
    Passthrough,
}

/// Which routes may attach to a listener.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct AllowedRoutes {
    /// Those of which namespaces.
    #[schemars(extend("default" = { "from": "Same" }))]
    pub namespaces: Option<RouteNamespaces>,
    /// Of which kinds; of those that its protocol allows without it.
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "atomic"))]
    pub kinds: Option<Vec<RouteGroupKind>>,
}

/// Namespaces with routes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct RouteNamespaces {
    /// All, Selector or Same.
    #[schemars(extend("default" = "Same"))]
    pub from: Option<FromNamespaces>,
    /// The labels of the namespaces, for Selector.
    pub selector: Option<LabelSelector>,
}

/// From which namespaces a route may attach.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromNamespaces {
    /// From any.
    All,
    /// From those that have the labels.
    Selector,
    /// From that of the Gateway.
    Same,
}

/// A kind of routes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct RouteGroupKind {
    /// Its API group.
    #[schemars(extend("default" = "gateway.networking.k8s.io"))]
    pub group: Option<Group>,
    /// Its name.
    pub kind: Kind,
}

/// Labels that are asked for: `metav1.LabelSelector`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    /// Labels with one value each, all of which are asked for.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further conditions, all of which are asked for.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Option<Vec<LabelSelectorRequirement>>,
}

/// A condition on a label.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct LabelSelectorRequirement {
    /// The label.
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: String,
    /// The values, for In and NotIn.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Option<Vec<String>>,
}

/// What holds for TLS of all listeners.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct GatewayTls {
    /// Towards backends.
    pub backend: Option<BackendTls>,
    /// Towards clients.
    pub frontend: Option<FrontendTls>,
}

/// How TLS is spoken to backends.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// The certificate that the Gateway shows.
    pub client_certificate_ref: Option<SecretReference>,
}

/// How TLS is spoken to clients.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTls {
    /// At all ports for HTTPS but those that are named.
    pub default: PortTls,
    /// At single ports.
    #[schemars(extend(
        "maxItems" = 64,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["port"],
    ))]
    pub per_port: Option<Vec<NamedPortTls>>,
}

/// How TLS is spoken at a port.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct NamedPortTls {
    /// The port.
    pub port: Port,
    /// How it is spoken there.
    pub tls: PortTls,
}

/// What is asked of clients.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct PortTls {
    /// Their certificates, and how they are checked.
    pub validation: Option<ClientValidation>,
}

/// How certificates of clients are checked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// The authorities that may have issued them: ConfigMaps with a key ca.crt.
    #[schemars(extend("minItems" = 1, "maxItems" = 8, "x-kubernetes-list-type" = "atomic"))]
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// AllowValidOnly or AllowInsecureFallback.
    #[schemars(extend("default" = "AllowValidOnly"))]
    pub mode: Option<ClientValidationMode>,
}

/// Who is let in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientValidationMode {
    /// Those whose certificate is valid.
    AllowValidOnly,
    /// Everybody: backends have to look.
    AllowInsecureFallback,
}

/// What the controller says of the Gateway.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "conditions": pending(&["Accepted", "Programmed"]) }))]
pub struct GatewayStatus {
    /// Where it answers.
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "atomic"))]
    pub addresses: Option<Vec<GatewayStatusAddress>>,
    /// How many ListenerSets are attached.
    pub attached_listener_sets: Option<i32>,
    /// Accepted: whether the controller answers for it. Programmed: whether it answers by now.
    #[schemars(extend("default" = pending(&["Accepted", "Programmed"])))]
    pub conditions: Option<Conditions>,
    /// What is to be said of each listener.
    #[schemars(extend(
        "maxItems" = 64,
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
    ))]
    pub listeners: Option<Vec<ListenerStatus>>,
}

/// An address at which a Gateway answers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = rules::address(true)))]
pub struct GatewayStatusAddress {
    /// What kind of address it is.
    #[serde(rename = "type")]
    #[schemars(extend("default" = "IPAddress"))]
    pub type_: Option<AddressType>,
    /// The address.
    #[schemars(extend("minLength" = 1, "maxLength" = 253))]
    pub value: String,
}

/// What is to be said of a listener.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: SectionName,
    /// How many routes are attached.
    pub attached_routes: i32,
    /// The kinds of routes that may attach.
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "atomic"))]
    pub supported_kinds: Option<Vec<RouteGroupKind>>,
    /// Accepted, Programmed, ResolvedRefs and Conflicted.
    pub conditions: Conditions,
}
