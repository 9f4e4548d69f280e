//! CustomResourceDefinitions as the API server keeps them, of what `kube` derives from Rust types.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use kube::core::crd::merge_crds;

/// The CustomResourceDefinition of a kind with one version.
#[must_use]
pub fn definition<K: CustomResourceExt>() -> CustomResourceDefinition {
    as_published(K::crd())
}

/// The CustomResourceDefinition of a kind with several versions, of which `stored` is the one that is stored.
///
/// # Panics
/// When `versions` are not versions of one kind: a test of each addon makes its definitions.
#[must_use]
pub fn definition_of_versions(versions: Vec<CustomResourceDefinition>, stored: &str) -> CustomResourceDefinition {
    match merge_crds(versions, stored) {
        Ok(merged) => as_published(merged),
        Err(error) => panic!("versions of one kind: {error}"),
    }
}

/// The CustomResourceDefinition of a kind that is the same in several versions, of which `stored` is the one that is stored.
#[must_use]
pub fn definition_in_versions<K: CustomResourceExt>(versions: &[&str], stored: &str) -> CustomResourceDefinition {
    let mut definition = definition::<K>();
    let derived = std::mem::take(&mut definition.spec.versions);
    for name in versions {
        definition.spec.versions.extend(derived.iter().cloned().map(|mut version| {
            version.storage = *name == stored;
            version.name = (*name).to_owned();
            version
        }));
    }
    definition
}

/// As controller-gen writes it, by which the published definitions are made: the name of the list is there; a spec is not
/// required, nothing is nullable, no schema has a title, and what may be a number or a string says so twice.
fn as_published(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    definition.spec.names.list_kind.get_or_insert_with(|| format!("{}List", definition.spec.names.kind));
    let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for root in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        root.required = None;
        tidy(root);
    }
    definition
}

fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    if schema.x_kubernetes_int_or_string == Some(true) {
        let of_type = |type_: &str| JSONSchemaProps { type_: Some(type_.to_owned()), ..JSONSchemaProps::default() };
        schema.any_of = Some(vec![of_type("integer"), of_type("string")]);
    }
    schema.properties.iter_mut().flat_map(BTreeMap::values_mut).for_each(tidy);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}
