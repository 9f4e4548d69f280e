//! What must hold of every kind there is, so that nobody forgets it for the next one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use machinery::api_types::ApiType;
use serde_json::{Value, json};

use super::Fixture;
use crate::decode::Report;
use crate::kind::Context;
use crate::kinds;
use crate::table::Resource;
use crate::user::User;

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
    for resource in kinds::all() {
        let strategy = resource.strategy();
        let info = resource.info();
        let mut report = Report::collect();
        let body = minimal(&resource).to_string();
        let mut object = resource.decode(body.as_bytes(), &mut report).unwrap();
        assert_eq!(report.findings(), [""; 0], "{}", info.kind);
        let now = Timestamp::UNIX_EPOCH;
        let check = |object: &dyn crate::Object, state: &str| {
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
            info.has(crate::Subresource::Scale),
            strategy.scale(object.as_ref()).unwrap().is_some(),
            "{}: scale is declared and offered",
            info.kind
        );
    }
}

#[test]
fn objects_survive_the_store() {
    for resource in kinds::all() {
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
    for resource in kinds::all() {
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
    for resource in kinds::all() {
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
        let target = crate::Target::collection(resource, "");
        let page = fixture.registry.list(&target, &Default::default()).await.unwrap();
        fixture.registry.list_body(resource, &page).unwrap();
        for entry in &page.entries {
            fixture.registry.row(resource, &entry.value, Timestamp::now()).unwrap();
        }
        fixture.registry.watch(&target, &Default::default()).await.unwrap();
    }
}
