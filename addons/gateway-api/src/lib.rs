//! The addon `gateway-api`: the kinds of the Gateway API that this cluster answers by.
//!
//! | kind | of gateway.networking.k8s.io | scope |
//! |---|---|---|
//! | [`api::gateway_class::GatewayClass`] | v1, and v1beta1 | cluster |
//! | [`api::gateway::Gateway`] | v1, and v1beta1 | namespaced |
//! | [`api::http_route::HTTPRoute`] | v1, and v1beta1 | namespaced |
//! | [`api::reference_grant::ReferenceGrant`] | v1, and v1beta1, in which it is stored | namespaced |
//!
//! They are those of the standard channel of [`BUNDLE_VERSION`], field by field. The channel's other kinds are left out: nothing
//! here would answer by them, and whose controller does brings all of them along.
//!
//! The crate has the kinds only. Who follows them is the gateway, whoever installed them: it acts on objects of its own class
//! alone, so that it needs no label to tell whose a definition is.

pub mod api;
#[cfg(test)]
mod tests;

use addons::{Addon, definition_in_versions};
use api::gateway::Gateway;
use api::gateway_class::GatewayClass;
use api::http_route::HTTPRoute;
use api::reference_grant::ReferenceGrant;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;

/// The addon's name.
pub const NAME: &str = "gateway-api";

/// The release of the Gateway API whose fields these are: its annotation on each definition, which controllers look at.
pub const BUNDLE_VERSION: &str = "v1.5.1";

/// What else the project writes on its definitions. An API server asks for the first, since the group is a protected one.
const ANNOTATIONS: [(&str, &str); 3] = [
    ("api-approved.kubernetes.io", "https://github.com/kubernetes-sigs/gateway-api/pull/4530"),
    ("gateway.networking.k8s.io/bundle-version", BUNDLE_VERSION),
    ("gateway.networking.k8s.io/channel", "standard"),
];

/// The addon.
pub static ADDON: Addon = Addon {
    name: NAME,
    about: "Gateways and HTTPRoutes, answered like Ingresses (Gateway API v1.5.1)",
    definitions,
    // What the gateway may do is not the addon's: it is the same for definitions that somebody else installed.
    policy: "",
    makes: &[("gatewayclasses.gateway.networking.k8s.io", "coracle")],
};

fn definitions() -> Vec<CustomResourceDefinition> {
    let mut gateways = with_spec::<Gateway>();
    for fields in ["spec", "status"] {
        each_schema(&mut gateways, |root| tell_addresses_apart(root, fields));
    }
    let grants = annotated(definition_in_versions::<ReferenceGrant>(&["v1", "v1beta1"], "v1beta1"));
    vec![with_spec::<GatewayClass>(), gateways, with_spec::<HTTPRoute>(), grants]
}

/// The definition of a kind that is nothing without a spec.
fn with_spec<K: CustomResourceExt>() -> CustomResourceDefinition {
    let mut definition = annotated(definition_in_versions::<K>(&["v1", "v1beta1"], "v1"));
    each_schema(&mut definition, |root| root.required = Some(vec!["spec".to_owned()]));
    definition
}

fn annotated(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let annotations = ANNOTATIONS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    definition.metadata.annotations.get_or_insert_default().extend(annotations);
    definition
}

fn each_schema(definition: &mut CustomResourceDefinition, change: impl Fn(&mut JSONSchemaProps)) {
    let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()).for_each(change);
}

/// Says of the items of `addresses` that the value of an IP address is one. A derive would take these alternatives for those
/// of a Rust enumeration.
fn tell_addresses_apart(root: &mut JSONSchemaProps, fields: &str) {
    let addresses = field(root, fields).and_then(|fields| field(fields, "addresses"));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = addresses.and_then(|addresses| addresses.items.as_mut()) {
        let alternatives = json!([
            {
                "properties": {
                    "type": { "enum": ["IPAddress"] },
                    "value": { "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] },
                },
            },
            { "properties": { "type": { "not": { "enum": ["IPAddress"] } } } },
        ]);
        items.one_of = serde_json::from_value(alternatives).ok();
    }
}

fn field<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}
