//! Discovery, verb for verb and short name for short name, against upstream's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::support::Fixture;

const FACTS: &str = include_str!("discovery.facts");
/// What upstream serves and is not here yet.
const MISSING: &[&str] = &[
    "resource.k8s.io/v1/deviceclasses",
    "resource.k8s.io/v1/resourceclaims",
    "resource.k8s.io/v1/resourceclaims/status",
    "resource.k8s.io/v1/resourceclaimtemplates",
    "resource.k8s.io/v1/resourceslices",
];

/// The facts by `GROUP/VERSION/RESOURCE`.
fn facts() -> BTreeMap<String, String> {
    let mut version = "";
    let mut facts = BTreeMap::new();
    for line in FACTS.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(' ') {
            None => version = line,
            Some((name, fact)) => {
                let fact = fact.replace(" rw", " create,delete,deletecollection,get,list,patch,update,watch");
                let fact = fact.replace(" status", " get,patch,update");
                facts.insert(format!("{version}/{name}"), fact);
            }
        }
    }
    facts
}

fn words(value: &Value) -> String {
    let words: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.join(",")
}

/// What is listed, in the words of the facts.
fn listed(resource: &Value) -> String {
    let scope = if resource["namespaced"] == true { "namespaced" } else { "cluster" };
    let mut fact = format!("{} {scope} {}", resource["kind"].as_str().unwrap_or_default(), words(&resource["verbs"]));
    for (member, name) in [("shortNames", "short"), ("categories", "categories")] {
        let words = words(&resource[member]);
        if !words.is_empty() {
            fact = format!("{fact} {name} {words}");
        }
    }
    fact
}

#[tokio::test]
async fn discovery_is_upstreams() {
    let fixture = Fixture::new().await;
    let groups = fixture.json("GET /apis", 200, &Value::Null).await;
    let versions = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["versions"].as_array().unwrap());
    let versions = versions.map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
    let mut served = BTreeMap::new();
    for path in versions.chain(["/api/v1".to_owned()]) {
        let list = fixture.json(&format!("GET {path}"), 200, &Value::Null).await;
        let version = list["groupVersion"].as_str().unwrap().to_owned();
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        assert!(names.is_sorted(), "{names:?}");
        for resource in list["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            if !name.contains('/') {
                let singular = resource["kind"].as_str().unwrap().to_lowercase();
                assert_eq!(resource["singularName"], *singular, "{version}/{name}");
            }
            served.insert(format!("{version}/{name}"), listed(resource));
        }
    }
    let facts = facts();
    let differences: Vec<String> = served
        .iter()
        .filter(|(name, fact)| facts.get(*name) != Some(fact))
        .map(|(name, fact)| format!("{name} is {fact:?} and upstream's is {:?}", facts.get(name)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let missing: BTreeSet<&str> = facts.keys().filter(|name| !served.contains_key(*name)).map(String::as_str).collect();
    assert_eq!(missing, MISSING.iter().copied().collect());
}

/// The hashes are those of a kube-apiserver 1.36.
#[tokio::test]
async fn discovery_tells_the_version_of_what_is_stored() {
    let fixture = Fixture::new().await;
    for (version, resource, hash) in [
        ("api/v1", "configmaps", Some("qFsyl6wFWjQ=")),
        ("api/v1", "events", Some("r2yiGXH7wu8=")),
        ("apis/events.k8s.io/v1", "events", Some("r2yiGXH7wu8=")),
        ("apis/autoscaling/v1", "horizontalpodautoscalers", Some("qwQve8ut294=")),
        ("apis/autoscaling/v2", "horizontalpodautoscalers", Some("qwQve8ut294=")),
        ("apis/apps/v1", "deployments", Some("8aSe+NMegvE=")),
        ("apis/apps/v1", "deployments/scale", None),
        ("api/v1", "bindings", None),
        ("api/v1", "componentstatuses", None),
        ("apis/authorization.k8s.io/v1", "subjectaccessreviews", None),
    ] {
        let list = fixture.json(&format!("GET /{version}"), 200, &Value::Null).await;
        let found = list["resources"].as_array().unwrap().iter().find(|one| one["name"] == resource).unwrap();
        assert_eq!(found["storageVersionHash"].as_str(), hash, "{version} {resource}");
    }
}
