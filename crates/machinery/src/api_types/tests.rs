//! The table against the types of `k8s-openapi`, and against itself.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, certificates, coordination, core,
    discovery, events, flowcontrol, networking, node, policy, rbac, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use serde_json::{Map, Value};

use super::*;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn member(definition: &str, name: &str) -> Option<&'static Field> {
    ApiType::by_openapi_name(definition)?.member(name)
}

fn openapi_name(api_type: &ApiType) -> String {
    format!("{}.{}", api_type.package, api_type.name)
}

/// The schemas of all Rust types of the kinds in the table, and of what they refer to.
fn schemas() -> Map<String, Value> {
    let mut generator = schemars::SchemaGenerator::default();
    macro_rules! add {
        ($($package:ident::$version:ident::{$($kind:ident),* $(,)?})*) => {
            $($(generator.subschema_for::<$package::$version::$kind>();)*)*
        };
    }
    add! {
        meta::v1::{APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, Status}
        core::v1::{
            Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
            PodTemplate, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
        }
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet}
        batch::v1::{CronJob, Job}
        autoscaling::v1::{HorizontalPodAutoscaler, Scale}
        autoscaling::v2::{HorizontalPodAutoscaler}
        policy::v1::{Eviction, PodDisruptionBudget}
        networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR}
        discovery::v1::{EndpointSlice}
        events::v1::{Event}
        coordination::v1::{Lease}
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding}
        storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass}
        scheduling::v1::{PriorityClass}
        flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration}
        node::v1::{RuntimeClass}
        certificates::v1::{CertificateSigningRequest}
        admissionregistration::v1::{
            MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
            ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
        }
        authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview}
        authorization::v1::{LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview}
        apiextensions::v1::{CustomResourceDefinition}
        apiregistration::v1::{APIService}
    }
    generator.take_definitions(true)
}

/// The types which are no message of their own in the table.
fn is_special(definition: &str) -> bool {
    const SPECIAL: [&str; 8] =
        ["Quantity", "IntOrString", "Time", "MicroTime", "RawExtension", "JSON", "FieldsV1", "Patch"];
    SPECIAL.contains(&definition.rsplit('.').next().unwrap_or_default())
}

/// Every type that the Rust types know, with every property it has, and nothing else.
#[test]
fn the_table_knows_the_fields_of_the_rust_types_and_no_others() {
    let schemas = schemas();
    let (mut wrong, mut compared) = (Vec::new(), BTreeSet::new());
    for (definition, schema) in schemas.iter().filter(|(definition, _)| !is_special(definition)) {
        let Some(api_type) = ApiType::by_openapi_name(definition) else {
            wrong.push(format!("{definition} is not in the table"));
            continue;
        };
        compared.insert(openapi_name(api_type));
        if api_type.is_either {
            continue;
        }
        let names: BTreeSet<&str> = api_type.members().iter().map(|member| member.field.name).collect();
        let mut properties: BTreeMap<&str, &Value> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str(), schema))
            .collect();
        if kinds().any(|(.., of_kind)| std::ptr::eq(of_kind, api_type)) || api_type.name == "DeleteOptions" {
            properties.remove("apiVersion");
            properties.remove("kind");
        }
        for missing in properties.keys().filter(|name| !names.contains(*name)) {
            wrong.push(format!("{definition}.{missing} is not in the table"));
        }
        for name in names {
            match (properties.get(name), api_type.member(name)) {
                (Some(property), Some(field)) if fits(field, property) => {}
                (found, field) => wrong.push(format!("{definition}.{name} is {found:?} and not {field:?}")),
            }
        }
    }
    // An embedded struct is no type in OpenAPI; neither are lists, which the table makes itself.
    let embedded = |api_type: &ApiType| {
        all().any(|other| other.fields.iter().any(|field| field.name.is_empty() && is(field, api_type)))
    };
    let lists: BTreeSet<&str> = kinds().map(|(_, kind, _)| kind).filter(|kind| kind.ends_with("List")).collect();
    // Upstream's OpenAPI knows nothing of aggregated discovery; the API server compares it with the types of `kube-core`.
    let of_discovery =
        |api_type: &ApiType| api_type.package.contains(".apidiscovery.") || api_type.name == "GroupVersionKind";
    for api_type in all().filter(|api_type| !embedded(api_type) && !lists.contains(api_type.name)) {
        let unknown = of_discovery(api_type) || api_type.name == "PartialObjectMetadata";
        if !compared.contains(&openapi_name(api_type)) && !unknown {
            wrong.push(format!("{} is no type of k8s-openapi", openapi_name(api_type)));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(compared.len() > 350, "{}", compared.len());
}

fn is(field: &Field, api_type: &ApiType) -> bool {
    matches!(field.kind, Type::Message(id) if std::ptr::eq(id.get(), api_type))
}

/// Whether a property has the shape and type that the table says.
fn fits(field: &Field, property: &Value) -> bool {
    let reference = |value: &Value| value["$ref"].as_str().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    let value = match field.cardinality {
        Cardinality::Once => property,
        Cardinality::List => &property["items"],
        Cardinality::Map => &property["additionalProperties"],
    };
    match field.kind {
        Type::String => value["type"] == "string",
        Type::Bool => value["type"] == "boolean",
        Type::Int => value["type"] == "integer",
        Type::Double => value["type"] == "number",
        Type::Bytes => value["format"] == "byte",
        Type::Strings => value["items"]["type"] == "string",
        Type::Time { .. } | Type::Quantity | Type::IntOrString | Type::Raw => {
            reference(value).is_none_or(|definition| is_special(&definition))
        }
        Type::Message(id) => reference(value) == Some(openapi_name(id.get())),
    }
}

#[test]
fn numbers_are_told_apart_and_embedded_structs_are_structs() {
    for api_type in all() {
        let what = openapi_name(api_type);
        assert!(api_type.fields.windows(2).all(|pair| pair[0].number < pair[1].number), "{what} has a number twice");
        let unique = api_type.members.windows(2).all(|pair| pair[0].field.name < pair[1].field.name);
        assert!(unique, "{what} has a name twice");
        for field in api_type.fields.iter().filter(|field| field.name.is_empty()) {
            assert!(field.message().is_some() && field.cardinality == Cardinality::Once, "{what} {field:?}");
        }
    }
}

#[test]
fn keys_fit_their_lists() {
    for (api_type, field) in all().flat_map(|api_type| api_type.fields.iter().map(move |field| (api_type, field))) {
        let what = format!("{}.{}", api_type.name, field.name);
        let is_list = field.cardinality == Cardinality::List;
        assert_eq!(field.list_type == ListType::Map, field.list_map_keys().next().is_some(), "{what}");
        assert!(field.patch_merge_key.is_none() || field.patch_merge, "{what}");
        assert!(!field.patch_merge || is_list || field.cardinality == Cardinality::Map, "{what}");
        assert!(field.list_type == ListType::Atomic || is_list, "{what}");
        let message = field.message();
        assert!(!(field.patch_merge && message.is_some()) || field.patch_merge_key.is_some(), "{what}");
        let keys = field.patch_merge_key.into_iter().chain(field.list_map_keys().map(|(key, _)| key));
        for key in keys {
            assert!(message.is_some_and(|message| message.member(key).is_some()), "{what} has no {key}");
        }
    }
}

#[test]
fn some_facts() {
    let ports = member("io.k8s.api.core.v1.ServiceSpec", "ports").unwrap();
    let keys: Vec<_> = ports.list_map_keys().map(|(key, _)| key).collect();
    assert_eq!((ports.patch_merge_key, keys.as_slice()), (Some("port"), ["port", "protocol"].as_slice()));
    let volumes = member("io.k8s.api.core.v1.PodSpec", "volumes").unwrap();
    assert_eq!(volumes.patch_strategy(), Some("merge,retainKeys"));
    let strategy = member("io.k8s.api.apps.v1.DeploymentSpec", "strategy").unwrap();
    assert_eq!(strategy.patch_strategy(), Some("retainKeys"));
    let finalizers = member(OBJECT_META, "finalizers").unwrap();
    assert_eq!((finalizers.patch_merge, finalizers.patch_merge_key, finalizers.list_type), (true, None, ListType::Set));
    let tolerations = member("io.k8s.api.core.v1.PodSpec", "tolerations").unwrap();
    assert_eq!((tolerations.patch_strategy(), tolerations.list_type), (None, ListType::Atomic));
    assert!(ApiType::by_openapi_name("io.k8s.api.core.v1.SecretKeySelector").unwrap().is_atomic);
    assert!(!ApiType::by_openapi_name("io.k8s.api.core.v1.PodSpec").unwrap().is_atomic);
    let volume = ApiType::by_openapi_name("io.k8s.api.core.v1.Volume").unwrap();
    let empty_dir = volume.members().iter().find(|member| member.field.name == "emptyDir").unwrap();
    assert_eq!((&*empty_dir.embedded_in, empty_dir.field.number), (&[2][..], 2));
}

/// From every workload a patch finds the way down to the containers' lists.
#[test]
fn the_way_down() {
    for (kind, path) in [
        ("io.k8s.api.apps.v1.Deployment", "spec template spec containers env"),
        ("io.k8s.api.apps.v1.StatefulSet", "spec template spec initContainers volumeMounts"),
        ("io.k8s.api.batch.v1.CronJob", "spec jobTemplate spec template spec containers ports"),
        ("io.k8s.api.core.v1.Pod", "metadata ownerReferences"),
        ("io.k8s.api.core.v1.Pod", "spec ephemeralContainers env"),
        ("io.k8s.api.core.v1.Node", "status conditions"),
        ("io.k8s.api.core.v1.ServiceAccount", "secrets"),
    ] {
        let mut api_type = ApiType::by_openapi_name(kind);
        let mut last = None;
        for name in path.split(' ') {
            last = api_type.unwrap_or_else(|| panic!("{kind} {path}")).member(name);
            api_type = last.and_then(Field::message);
        }
        assert!(last.unwrap().patch_merge, "{kind} {path}");
    }
}
