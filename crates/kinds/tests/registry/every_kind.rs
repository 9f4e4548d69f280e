//! What must hold of every kind there is, so that nobody forgets it for the next one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::api_types::ApiType;
use registry::decode::Report;
use registry::kind::Context;
use registry::table::Resource;
use registry::user::User;
use serde_json::{Value, json};

use super::Fixture;

fn minimal(resource: &Resource) -> Value {
    let info = resource.info();
    let mut object = json!({ "apiVersion": info.api_version, "kind": info.kind, "metadata": { "name": "x", "resourceVersion": "1" } });
    if info.namespaced() {
        object["metadata"]["namespace"] = "default".into();
    }
    object
}

#[tokio::test]
async fn hooks_take_an_empty_object() {
    let fixture = Fixture::open().await;
    for resource in coracle_kinds::all() {
        let strategy = resource.strategy();
        let info = resource.info();
        let mut report = Report::collect();
        let body = minimal(&resource).to_string();
        let mut object = resource.decode(body.as_bytes(), &mut report).unwrap();
        assert_eq!(report.findings(), [""; 0], "{}", info.kind);
        let now = Timestamp::UNIX_EPOCH;
        let check = |object: &dyn registry::Object, state: &str| {
            strategy.validate(object, None, None).unwrap();
            for subresource in info.subresources.iter().copied().map(Some).chain([None]) {
                strategy.validate(object, Some(object), subresource).unwrap();
            }
            assert_eq!(resource.row(object, now).unwrap().len(), resource.columns().len(), "{} {state}", info.kind);
            let labels: Vec<&str> = strategy.fields(object).unwrap().into_iter().map(|(label, _)| label).collect();
            let selectable: Vec<&str> = info.selectable.iter().map(|label| resource.stored_label(label)).collect();
            assert!(selectable.iter().all(|label| labels.contains(label)), "{} {state}", info.kind);
            // An alternate version may offer less.
            assert!(resource.is_alternate() || labels == selectable, "{} {state}", info.kind);
            assert!(resource.columns().iter().any(|column| column.format == "name"), "{}", info.kind);
            strategy.has_other_finalizers(object).unwrap();
            strategy.deletion(object, None).unwrap();
        };
        check(object.as_ref(), "as sent");
        resource.strategy().default(object.as_mut()).unwrap();
        check(object.as_ref(), "with defaults");

        let mut once = Vec::new();
        resource.encode(object.as_ref(), &mut once).unwrap();
        let old = object.boxed_clone();
        resource.strategy().default(object.as_mut()).unwrap();
        let mut twice = Vec::new();
        resource.encode(object.as_ref(), &mut twice).unwrap();
        assert_eq!(
            String::from_utf8(once).unwrap(),
            String::from_utf8(twice).unwrap(),
            "{}: defaults twice",
            info.kind
        );
        let context = Context {
            now,
            user: &User::default(),
            namespace: "default",
            dry_run: false,
            allocators: fixture.registry.allocators(),
            store: fixture.registry.store(),
        };
        strategy.prepare(object.as_mut(), Some(old.as_ref()), None, &context).unwrap();
        strategy.mark_deleted(object.as_mut()).unwrap();
        for subresource in &info.subresources {
            strategy.prepare(object.as_mut(), Some(old.as_ref()), Some(*subresource), &context).unwrap();
        }
        assert_eq!(
            info.has(registry::Subresource::Scale),
            strategy.scale(object.as_ref()).unwrap().is_some(),
            "{}: scale is declared and offered",
            info.kind
        );
    }
}

#[test]
fn objects_survive_the_store() {
    for resource in coracle_kinds::all() {
        let body = minimal(&resource).to_string();
        let mut object = resource.decode(body.as_bytes(), &mut Report::ignore()).unwrap();
        resource.strategy().default(object.as_mut()).unwrap();
        let mut stored = Vec::new();
        resource.encode(object.as_ref(), &mut stored).unwrap();
        let again = resource.load(&stored).unwrap();
        let mut twice = Vec::new();
        resource.encode(again.as_ref(), &mut twice).unwrap();
        assert_eq!(stored, twice, "{}", resource.info().kind);
        let served = resource.served(&stored.into()).unwrap();
        let served: Value = serde_json::from_slice(&served).unwrap();
        assert_eq!(served["apiVersion"], resource.info().api_version);
        assert_eq!(served["kind"], resource.info().kind);
    }
}

#[test]
fn names_are_told_apart() {
    let mut seen = BTreeMap::new();
    for resource in coracle_kinds::all() {
        let info = resource.info();
        let mut names = vec![info.plural.clone(), info.singular.clone()];
        names.extend(info.short_names.clone());
        names.sort();
        names.dedup();
        for name in names {
            let other = seen.insert((info.group.clone(), name.clone()), info.kind.clone());
            // A kind may have several versions.
            let same = other.as_ref().is_none_or(|other| *other == info.kind);
            assert!(same, "{name} names two kinds of one group");
        }
        assert!(!info.openapi_name.is_empty());
        assert!(info.storage.contains('/'));
    }
}

/// A strategic merge, and whoever speaks protobuf, finds the types of all kinds in the table of `machinery`, which a test there
/// compares with the types themselves.
#[test]
fn kinds_are_in_the_table_of_types() {
    for resource in coracle_kinds::all() {
        let info = resource.info();
        let by_name = ApiType::by_openapi_name(&info.openapi_name).unwrap_or_else(|| panic!("{}", info.openapi_name));
        for (kind, name) in [(&info.kind, &info.kind), (&info.list_kind, &format!("{}List", info.kind))] {
            let by_kind = ApiType::of_kind(&info.api_version, kind);
            assert!(by_kind.is_some_and(|found| found.name == name), "{} {kind}", info.api_version);
        }
        assert!(by_name.member("metadata").is_some(), "{}", info.openapi_name);
    }
}

#[tokio::test]
async fn every_kind_is_listed_and_watched() {
    let fixture = Fixture::open().await;
    for resource in fixture.registry.resources().iter() {
        let target = registry::Target::collection(resource, "");
        let page = fixture.registry.list(&target, &Default::default()).await.unwrap();
        fixture.registry.list_body(resource, &page).unwrap();
        for entry in &page.entries {
            fixture.registry.row(resource, &entry.value, Timestamp::now()).unwrap();
        }
        fixture.registry.watch(&target, &Default::default()).await.unwrap();
    }
}

#[test]
fn an_object_of_another_type_is_an_internal_error() {
    #[derive(Clone, Default)]
    struct Stranger(ObjectMeta);
    impl k8s_openapi::Resource for Stranger {
        const API_VERSION: &'static str = "v1";
        const GROUP: &'static str = "";
        const KIND: &'static str = "Stranger";
        const VERSION: &'static str = "v1";
        const URL_PATH_SEGMENT: &'static str = "strangers";
        type Scope = k8s_openapi::ClusterResourceScope;
    }
    impl Metadata for Stranger {
        type Ty = ObjectMeta;
        fn metadata(&self) -> &ObjectMeta {
            &self.0
        }
        fn metadata_mut(&mut self) -> &mut ObjectMeta {
            &mut self.0
        }
    }
    for resource in coracle_kinds::all() {
        let (old, mut new) = (Stranger::default(), Stranger::default());
        let (old, strategy): (&dyn registry::Object, _) = (&old, resource.strategy());
        for result in [
            strategy.default(&mut new).err(),
            strategy.validate(old, None, None).err(),
            strategy.validate(old, Some(old), Some(registry::Subresource::Status)).err(),
            strategy.fields(old).err(),
            strategy.scale(old).err(),
            strategy.set_scale(&mut new, 1).err(),
            strategy.deletion(old, None).err(),
            strategy.mark_deleted(&mut new).err(),
            strategy.has_other_finalizers(old).err(),
            resource.encode(old, &mut Vec::new()).err(),
            resource.encode_served(old).err(),
            resource.row(old, Timestamp::UNIX_EPOCH).err(),
        ] {
            assert_eq!(result.map(|error| error.code), Some(500), "{}", resource.info().kind);
        }
    }
}
