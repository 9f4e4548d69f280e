//! The definitions are ones that an API server takes, and take what their projects' manifests look like.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use machinery::field::Path;
use machinery::schema::{Schema, rules};
use serde_json::{Value, json};

use super::{ALL, Addon, GANG, LABEL, LWS, RBG, facts};

fn schemas(addon: &Addon) -> Vec<(String, String, JSONSchemaProps)> {
    let definitions = addon.definitions().into_iter();
    let definitions = definitions.map(|value| serde_json::from_value::<CustomResourceDefinition>(value).unwrap());
    definitions
        .flat_map(|definition| {
            let kind = definition.spec.names.kind.clone();
            definition
                .spec
                .versions
                .into_iter()
                .map(move |version| (kind.clone(), version.name, version.schema.unwrap().open_api_v3_schema.unwrap()))
        })
        .collect()
}

#[test]
fn definitions_are_sound() {
    for addon in &ALL {
        for definition in addon.definitions() {
            assert_eq!(definition["metadata"]["labels"][LABEL], addon.name);
            let versions = definition["spec"]["versions"].as_array().unwrap();
            assert_eq!(versions.iter().filter(|version| version["storage"] == true).count(), 1);
        }
        for (kind, version, schema) in schemas(addon) {
            let errors = rules::check(&schema, &Path::new("schema"));
            assert!(errors.is_empty(), "{kind} {version}: {errors}");
        }
    }
    assert!(Addon::find("lws").is_some() && Addon::find("nothing").is_none());
}

/// What is published does not change by accident: a line that goes, or says something else, breaks what people have stored.
#[test]
fn definitions_have_the_facts_that_they_were_published_with() {
    let published = [
        (GANG, include_str!("facts/gang.txt")),
        (LWS, include_str!("facts/lws.txt")),
        (RBG, include_str!("facts/rbg.txt")),
    ];
    for (addon, published) in published {
        let facts = facts::of(&Addon::find(addon).unwrap().definitions());
        let is_missing = |line: &&str, text: &str| !text.lines().any(|other| other == *line);
        let gone: Vec<&str> = published.lines().filter(|line| is_missing(line, &facts)).collect();
        let new: Vec<&str> = facts.lines().filter(|line| is_missing(line, published)).collect();
        assert!(gone.is_empty() && new.is_empty(), "{addon}: gone {gone:#?}, new {new:#?}");
    }
}

#[test]
fn manifests_are_taken() {
    let check = |addon: &str, kind: &str, version: &str, spec: Value, defaulted: &[(&str, Value)]| {
        let all = schemas(Addon::find(addon).unwrap());
        let (.., props) = all.iter().find(|(k, v, _)| k == kind && v == version).unwrap();
        let schema = Schema::parse(props);
        let mut object = json!({ "spec": spec });
        let mut unknown = Vec::new();
        schema.prune(&mut object, &mut |path| unknown.push(path));
        assert_eq!(unknown, [""; 0], "{kind} {version}");
        schema.default(&mut object);
        assert_eq!(schema.validate(&object, None).to_string(), "[]", "{kind} {version}");
        for (pointer, value) in defaulted {
            assert_eq!(object.pointer(pointer), Some(value), "{kind} {version} {pointer}");
        }
    };
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "main", "image": "nginx" }] } });
    check(
        "lws",
        "LeaderWorkerSet",
        "v1",
        json!({ "replicas": 2, "leaderWorkerTemplate": { "size": 4, "workerTemplate": template } }),
        &[
            ("/spec/startupPolicy", json!("LeaderCreated")),
            ("/spec/leaderWorkerTemplate/restartPolicy", json!("RecreateGroupOnPodRestart")),
        ],
    );
    check(
        "rbg",
        "RoleBasedGroup",
        "v1alpha1",
        json!({
            "podGroupPolicy": { "kubeScheduling": {} },
            "roles": [{ "name": "web", "replicas": 1, "template": template, "dependencies": ["db"] },
                { "name": "db", "workload": { "apiVersion": "apps/v1", "kind": "Deployment" }, "template": template }],
        }),
        &[
            ("/spec/roles/0/workload/kind", json!("StatefulSet")),
            ("/spec/roles/1/workload/kind", json!("Deployment")),
            ("/spec/roles/1/replicas", json!(1)),
            ("/spec/podGroupPolicy/kubeScheduling/scheduleTimeoutSeconds", json!(60)),
        ],
    );
    check(
        "rbg",
        "RoleBasedGroup",
        "v1alpha2",
        json!({ "roles": [{ "name": "web", "standalonePattern": { "template": template } }] }),
        &[("/spec/roles/0/podManagementPolicy", json!("Parallel"))],
    );
    check(
        "gang",
        "PodGroup",
        "v1alpha1",
        json!({ "minMember": 4, "minResources": { "cpu": "500m", "nvidia.com/gpu": 4 } }),
        &[],
    );
    check("gang", "PodGroup", "v1beta1", json!({ "minMember": 4 }), &[("/spec/queue", json!("default"))]);
    check("gang", "Queue", "v1beta1", json!({ "capability": { "cpu": 8 } }), &[("/spec/weight", json!(1))]);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let check = |template: Value, rolling: Value, expected: &str| {
        let all = schemas(Addon::find("lws").unwrap());
        let schema = Schema::parse(&all[0].2);
        let mut object = json!({ "spec": {
            "leaderWorkerTemplate": template, "rolloutStrategy": { "rollingUpdateConfiguration": rolling } } });
        object["spec"]["leaderWorkerTemplate"]["workerTemplate"] = json!({});
        schema.default(&mut object);
        let around = [("kind", json!("LeaderWorkerSet")), ("metadata", json!({ "name": "x" }))];
        assert_eq!(schema.evaluate((&object, &around), None).to_string(), expected);
    };
    let rolling = |unavailable: Value, surge: Value| json!({ "maxUnavailable": unavailable, "maxSurge": surge });
    let nothing = "spec.rolloutStrategy.rollingUpdateConfiguration.maxUnavailable: Invalid value: must not be 0 when \
                   `maxSurge` is 0";
    check(json!({}), json!({}), "[]");
    check(json!({}), rolling(json!(0), json!("10%")), "[]");
    check(json!({}), rolling(json!(0), json!(0)), nothing);
    check(json!({}), rolling(json!("0%"), json!(0)), nothing);
    let groups = |size: u32, of: u32, kind: &str| json!({ "size": size, "subGroupPolicy": { "subGroupSize": of, "subGroupPolicyType": kind } });
    let place = "spec.leaderWorkerTemplate.subGroupPolicy.subGroupSize: Invalid value: ";
    check(groups(4, 2, "LeaderWorker"), json!({}), "[]");
    check(groups(5, 2, "LeaderWorker"), json!({}), "[]");
    check(
        groups(5, 3, "LeaderWorker"),
        json!({}),
        &format!("{place}size or size - 1 must be divisible by subGroupSize"),
    );
    check(
        groups(4, 2, "LeaderExcluded"),
        json!({}),
        &format!("{place}size or size - 1 must be divisible by subGroupSize"),
    );
    check(groups(2, 3, "LeaderWorker"), json!({}), &format!("{place}subGroupSize cannot be larger than size"));
}
