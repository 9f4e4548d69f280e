//! The flow schemas and priority levels every cluster has, and whose they are.

use coracle_kinds::flowcontrol;
use registry::DeleteRequest;
use registry::request::ListRequest;
use serde_json::{Value, json};

use super::Fixture;

const GROUP: &str = "flowcontrol.apiserver.k8s.io/v1";
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

fn annotated(follows: &str, spec: &Value) -> Value {
    json!({ "metadata": { "annotations": { AUTOUPDATE: follows } }, "spec": spec })
}

#[tokio::test]
async fn what_every_cluster_has() {
    let fixture = Fixture::open().await;
    let list = |plural: &str| fixture.target(&format!("{GROUP}/{plural}"), "", "");
    let levels = fixture.names(&list("prioritylevelconfigurations"), &ListRequest::default()).await.unwrap();
    let expect = [
        "catch-all",
        "exempt",
        "global-default",
        "leader-election",
        "node-high",
        "system",
        "workload-high",
        "workload-low",
    ];
    assert_eq!(levels, expect);
    let schemas = fixture.names(&list("flowschemas"), &ListRequest::default()).await.unwrap();
    assert_eq!(schemas.len(), 13, "{schemas:?}");
    for schema in &schemas {
        let found = fixture.get(&fixture.target(&format!("{GROUP}/flowschemas"), "", schema)).await.unwrap();
        let level = found["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap();
        assert!(levels.iter().any(|known| known == level), "{schema}: {level}");
        assert_eq!(found["metadata"]["annotations"][AUTOUPDATE], "true", "{schema}");
    }
}

#[tokio::test]
async fn the_suggested_ones_follow_until_somebody_keeps_them() {
    let fixture = Fixture::open().await;
    let level = |name: &str| fixture.target(&format!("{GROUP}/prioritylevelconfigurations"), "", name);
    let shares = async |name: &str| {
        fixture.get(&level(name)).await.unwrap()["spec"]["limited"]["nominalConcurrencyShares"].clone()
    };
    let changed = json!({ "limited": { "nominalConcurrencyShares": 77 } });
    fixture.merge(&level("system"), json!({ "spec": changed })).await.unwrap();
    fixture.merge(&level("workload-low"), annotated("false", &changed)).await.unwrap();
    fixture.merge(&level("node-high"), annotated("perhaps", &changed)).await.unwrap();
    fixture.delete(&level("global-default"), &DeleteRequest::default()).await.unwrap();
    fixture.delete(&level("exempt"), &DeleteRequest::default()).await.unwrap();
    flowcontrol::bootstrap(&fixture.registry).await.unwrap();
    assert_eq!(shares("system").await, 30, "it follows");
    assert_eq!(shares("workload-low").await, 77, "it is kept");
    assert_eq!(shares("node-high").await, 77, "somebody has changed what does not say");
    let said = fixture.get(&level("node-high")).await.unwrap()["metadata"]["annotations"][AUTOUPDATE].clone();
    assert_eq!(said, "false");
    assert_eq!(shares("global-default").await, 20, "it is there again");
    assert_eq!(fixture.get(&level("exempt")).await.unwrap()["spec"]["type"], "Exempt");

    let revision = fixture.registry.store().revision();
    flowcontrol::bootstrap(&fixture.registry).await.unwrap();
    assert_eq!(fixture.registry.store().revision(), revision, "what is right is not written");
}

/// The server keeps them while the start does.
#[tokio::test]
async fn two_who_keep_them_are_not_in_each_others_way() {
    let fixture = Fixture::open().await;
    let level = |name: &str| fixture.target(&format!("{GROUP}/prioritylevelconfigurations"), "", name);
    let expected = [("system", 30), ("node-high", 40), ("workload-low", 100)];
    for (name, _) in expected {
        let changed = json!({ "spec": { "limited": { "nominalConcurrencyShares": 77 } } });
        fixture.merge(&level(name), changed).await.unwrap();
    }
    let (start, server) =
        tokio::join!(flowcontrol::bootstrap(&fixture.registry), flowcontrol::bootstrap(&fixture.registry));
    start.unwrap();
    server.unwrap();
    for (name, shares) in expected {
        let found = fixture.get(&level(name)).await.unwrap();
        assert_eq!(found["spec"]["limited"]["nominalConcurrencyShares"], shares, "{name}");
    }
}

#[tokio::test]
async fn the_mandatory_ones_are_what_they_are() {
    let fixture = Fixture::open().await;
    let level = |name: &str| fixture.target(&format!("{GROUP}/prioritylevelconfigurations"), "", name);
    let more = json!({ "spec": { "limited": { "nominalConcurrencyShares": 77 } } });
    let refused = fixture.merge(&level("catch-all"), more).await.unwrap_err();
    assert_eq!(refused.code, 422);
    let schema = fixture.target(&format!("{GROUP}/flowschemas"), "", "exempt");
    let refused = fixture.merge(&schema, json!({ "spec": { "matchingPrecedence": 5 } })).await.unwrap_err();
    assert!(refused.to_string().contains("spec of 'exempt' must equal the fixed value"), "{refused}");
    let lends = json!({ "exempt": { "lendablePercent": 12, "nominalConcurrencyShares": 3 } });
    fixture.merge(&level("exempt"), annotated("false", &lends)).await.unwrap();
    flowcontrol::bootstrap(&fixture.registry).await.unwrap();
    assert_eq!(fixture.get(&level("exempt")).await.unwrap()["spec"]["exempt"], lends["exempt"]);
}

#[tokio::test]
async fn what_is_no_longer_suggested_goes() {
    let fixture = Fixture::open().await;
    let path = format!("{GROUP}/flowschemas");
    for (name, follows) in [("old", "true"), ("mine", "false")] {
        let mut schema = annotated(
            follows,
            &json!({ "priorityLevelConfiguration": { "name": "system" }, "rules": [{
                "subjects": [{ "kind": "User", "user": { "name": "x" } }],
                "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            }] }),
        );
        schema["metadata"]["name"] = name.into();
        fixture.create(&path, "", schema).await.unwrap();
    }
    flowcontrol::bootstrap(&fixture.registry).await.unwrap();
    assert_eq!(fixture.get(&fixture.target(&path, "", "old")).await.unwrap_err().code, 404);
    fixture.get(&fixture.target(&path, "", "mine")).await.unwrap();
}
