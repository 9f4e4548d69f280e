//! Gets and lists: selectors, pages, versions.

use registry::request::{ListRequest, Selection, VersionMatch};
use registry::{Target, WriteOptions};
use serde_json::{Value, json};

use super::{Fixture, config_map, labelled, pod};

async fn filled(count: usize) -> (Fixture, Target) {
    let fixture = Fixture::open().await;
    for n in 0..count {
        fixture
            .create("v1/configmaps", "default", labelled(&format!("c{n}"), if n < 3 { "a" } else { "b" }))
            .await
            .unwrap();
    }
    let target = Target::collection(&fixture.target("v1/configmaps", "", "").resource, "default");
    (fixture, target)
}

fn select(labels: &str, fields: &str) -> ListRequest {
    ListRequest { selection: Selection::parse(labels, fields).unwrap(), ..Default::default() }
}

#[tokio::test]
async fn selectors() {
    let (fixture, target) = filled(5).await;
    for (labels, fields, expect) in [
        ("", "", "c0 c1 c2 c3 c4"),
        ("app=a", "", "c0 c1 c2"),
        ("app!=a", "", "c3 c4"),
        ("app in (a,b),!x", "metadata.name!=c1", "c0 c2 c3 c4"),
        ("", "metadata.name=c2", "c2"),
        ("", "metadata.namespace=default", "c0 c1 c2 c3 c4"),
        ("", "metadata.namespace=other", ""),
        ("app=a", "metadata.name=c4", ""),
    ] {
        let names = fixture.names(&target, &select(labels, fields)).await.unwrap();
        assert_eq!(names.join(" "), expect, "{labels} {fields}");
    }
    let error = fixture.names(&target, &select("", "spec.x=1")).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (400, r#""spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#)
    );
    for (labels, fields) in [("a b", ""), ("", "x")] {
        assert_eq!(Selection::parse(labels, fields).unwrap_err().code, 400);
    }
    let everywhere = Target::collection(&target.resource, "");
    assert_eq!(fixture.names(&everywhere, &select("app=b", "")).await.unwrap(), ["c3", "c4"]);
}

#[tokio::test]
async fn fields_of_the_kind_are_selected_by() {
    let fixture = Fixture::open().await;
    for name in ["a", "b"] {
        fixture.create("v1/pods", "default", pod(name)).await.unwrap();
    }
    let target = fixture.target("v1/pods", "default", "a");
    let body = json!({ "metadata": { "name": "a" }, "target": { "name": "n1" } }).to_string();
    fixture.registry.bind(&target, body.as_bytes(), &WriteOptions::default()).await.unwrap();
    let pods = Target::collection(&target.resource, "");
    for (fields, expect) in [
        ("spec.nodeName=n1", "a"),
        ("spec.nodeName=", "b"),
        ("spec.nodeName!=n1", "b"),
        ("status.phase=Pending", "a b"),
    ] {
        assert_eq!(fixture.names(&pods, &select("", fields)).await.unwrap().join(" "), expect, "{fields}");
    }
    // The attributes are the same once the store has been read back.
    fixture.registry.close().await;
    let Fixture { registry, dir } = fixture;
    drop(registry);
    let fixture = Fixture { registry: Fixture::open_in(&dir), dir };
    assert_eq!(fixture.names(&pods, &select("", "spec.nodeName=n1")).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn pages_show_the_state_of_the_first_one() {
    let (fixture, target) = filled(5).await;
    let mut request = ListRequest { limit: 2, ..Default::default() };
    let first = fixture.registry.list(&target, &request).await.unwrap();
    assert_eq!(first.remaining, Some(3));
    fixture.delete(&fixture.target("v1/configmaps", "default", "c3"), &Default::default()).await.unwrap();
    fixture.create("v1/configmaps", "default", config_map("c30")).await.unwrap();

    let mut names = Vec::new();
    let mut page = first.clone();
    loop {
        assert_eq!(page.revision, first.revision);
        names.extend(page.entries.iter().map(|entry| entry.key.name.to_string()));
        let Some(token) = page.continue_token else { break };
        request.continue_token = token;
        page = fixture.registry.list(&target, &request).await.unwrap();
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"]);

    let mut selecting = select("app=a", "");
    selecting.limit = 2;
    let page = fixture.registry.list(&target, &selecting).await.unwrap();
    assert_eq!((page.entries.len(), page.remaining, page.continue_token.is_some()), (2, None, true));
}

#[tokio::test]
async fn an_expired_page_can_go_on_inconsistently() {
    let (fixture, target) = filled(5).await;
    let mut request = ListRequest { limit: 2, ..Default::default() };
    let page = fixture.registry.list(&target, &request).await.unwrap();
    fixture.delete(&fixture.target("v1/configmaps", "default", "c3"), &Default::default()).await.unwrap();
    // Far enough that neither the memory nor the log reaches back.
    for n in 0..1100 {
        fixture
            .registry
            .upsert(&fixture.target("v1/configmaps", "default", "c0"), labelled("c0", &format!("x{n}")))
            .await
            .unwrap();
    }
    let store = fixture.registry.store();
    store.compact(store.revision()).await.unwrap();
    request.continue_token = page.continue_token.unwrap();
    let error = fixture.registry.list(&target, &request).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (410, "Expired"));
    assert!(error.message.starts_with("The provided continue parameter is too old"), "{error}");
    request.continue_token = request.inconsistent_continue().unwrap();
    assert_eq!(fixture.names(&target, &request).await.unwrap(), ["c2", "c4"]);
}

#[tokio::test]
async fn resource_versions() {
    let (fixture, target) = filled(3).await;
    let before = fixture.registry.store().revision();
    fixture.create("v1/configmaps", "default", config_map("late")).await.unwrap();
    let now = fixture.registry.store().revision();
    let request = |version: &str, version_match: Option<VersionMatch>, limit: u64| ListRequest {
        resource_version: version.to_owned(),
        version_match,
        limit,
        ..Default::default()
    };
    let (exact, later) = (Some(VersionMatch::Exact), Some(VersionMatch::NotOlderThan));
    for (version, version_match, limit, expect) in [
        (String::new(), None, 0, Ok((4, now))),
        ("0".into(), None, 0, Ok((4, now))),
        ("0".into(), later, 0, Ok((4, now))),
        (before.to_string(), None, 0, Ok((4, now))),
        (before.to_string(), later, 0, Ok((4, now))),
        (before.to_string(), exact, 0, Ok((3, before))),
        (before.to_string(), None, 10, Ok((3, before))),
        ("0".into(), exact, 0, Err((422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#.into()))),
        (String::new(), exact, 0, Err((422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#.into()))),
        ("x".into(), None, 0, Err((400, r#"invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#.into()))),
        ("+1".into(), None, 0, Err((400, r#"invalid resource version: resourceVersion: Invalid value: "+1": strconv.ParseUint: parsing "+1": invalid syntax"#.into()))),
        ((now + 100).to_string(), later, 0, Err((504, format!("Timeout: Too large resource version: {}, current: {now}", now + 100)))),
    ] {
        let page = fixture.registry.list(&target, &request(&version, version_match, limit)).await;
        let found = page.map(|page| (page.entries.len(), page.revision)).map_err(|error| (error.code, error.message));
        assert_eq!(found, expect, "{version} {version_match:?} {limit}");
    }
    let error = fixture
        .registry
        .get(&fixture.target("v1/configmaps", "default", "c0"), &(now + 1).to_string())
        .await
        .unwrap_err();
    let details = error.details.unwrap();
    assert_eq!((details.causes[0].reason.as_str(), details.retry_after_seconds), ("ResourceVersionTooLarge", 1));
}

#[tokio::test]
async fn a_list_is_the_bytes_of_its_items() {
    let (fixture, target) = filled(2).await;
    let page = fixture.registry.list(&target, &ListRequest { limit: 1, ..Default::default() }).await.unwrap();
    let body: Value = serde_json::from_slice(&fixture.registry.list_body(&target.resource, &page).unwrap()).unwrap();
    let first = fixture.get(&fixture.target("v1/configmaps", "default", "c0")).await.unwrap();
    // The list says what they are.
    let item = json!({ "metadata": first["metadata"] });
    assert_eq!(
        body,
        json!({
            "kind": "ConfigMapList", "apiVersion": "v1", "items": [item],
            "metadata": { "resourceVersion": page.revision.to_string(), "continue": page.continue_token, "remainingItemCount": 1 },
        })
    );
    let empty = Target::collection(&target.resource, "kube-public");
    let page = fixture.registry.list(&empty, &ListRequest::default()).await.unwrap();
    let body: Value = serde_json::from_slice(&fixture.registry.list_body(&target.resource, &page).unwrap()).unwrap();
    assert_eq!(body["items"], json!([]));

    let partial: Value =
        serde_json::from_slice(&fixture.registry.partial_metadata(first.to_string().as_bytes())).unwrap();
    assert_eq!(
        partial,
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": first["metadata"] })
    );
}
