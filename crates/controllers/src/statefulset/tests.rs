//! Tables for the StatefulSet's plan: a set and its Pods in, actions out.

use serde_json::{Value, from_value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("time")
}

fn set(spec: &Value) -> StatefulSet {
    let mut whole = json!({
        "replicas": 3, "serviceName": "db", "selector": { "matchLabels": { "app": "web" } },
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        "template": template("new"),
    });
    for (key, value) in spec.as_object().expect("members") {
        whole[key] = value.clone();
    }
    let metadata = json!({ "name": "web", "namespace": "ns", "uid": "set", "generation": 7 });
    from_value(json!({ "metadata": metadata, "spec": whole })).expect("set")
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn revision(name: &str) -> Revision {
    Revision { name: name.to_owned(), template: from_value(template(name)).expect("template") }
}

/// A Pod from a line such as `2 ready old deleting`; of the new revision unless it says `old`.
fn pod(line: &str) -> Arc<Pod> {
    let mut words = line.split(' ');
    let name = format!("web-{}", words.next().expect("an ordinal"));
    let words: Vec<_> = words.collect();
    let has = |word: &str| words.contains(&word);
    let phase = ["Pending", "Failed", "Succeeded"].into_iter().find(|phase| has(phase)).unwrap_or("Running");
    let since = if has("fresh") { "2026-01-01T00:59:55Z" } else { "2026-01-01T00:00:00Z" };
    let ready = has("ready") || has("fresh");
    let mut labels = json!({ "app": "web", "controller-revision-hash": if has("old") { "old" } else { "new" } });
    if !has("anonymous") {
        labels["statefulset.kubernetes.io/pod-name"] = name.clone().into();
    }
    let pod = json!({
        "metadata": {
            "name": name, "uid": format!("uid-{name}"), "labels": labels,
            "deletionTimestamp": has("deleting").then_some("2026-01-01T00:59:59Z"),
        },
        "status": {
            "phase": phase,
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since }],
        },
    });
    Arc::new(from_value(pod).expect("pod"))
}

fn planned(set: &StatefulSet, pods: &[&str], claims: &[Value]) -> Plan {
    let claims = claims.iter().map(|claim| {
        let claim: PersistentVolumeClaim = from_value(claim.clone()).expect("claim");
        (meta::name(&claim).to_owned(), Arc::new(claim))
    });
    let snapshot = Snapshot {
        pods: pods.iter().map(|line| pod(line)).collect(),
        claims: claims.collect(),
        current: revision("old"),
        update: revision("new"),
        collisions: 0,
    };
    plan::plan(&snapshot, set, &Owner::of(set), now())
}

/// The plan in short: `+NAME:REVISION` created, `-NAME` deleted, `~NAME` relabelled.
fn short(plan: &Plan) -> String {
    let created =
        plan.create.iter().map(|pod| format!("+{}:{}", meta::name(pod), history::of_pod(pod).expect("a revision")));
    let deleted = plan.delete.iter().map(|pod| format!("-{}", meta::name(&**pod)));
    let relabelled = plan.relabel.iter().map(|pod| format!("~{}", meta::name(&**pod)));
    created.chain(deleted).chain(relabelled).collect::<Vec<_>>().join(" ")
}

fn check(spec: Value, pods: &[&str], expect: &str) {
    assert_eq!(short(&planned(&set(&spec), pods, &[])), expect, "{spec} {pods:?}");
}

#[test]
fn ordered_creation_waits_for_each() {
    let plain = || json!({});
    check(plain(), &[], "+web-0:new");
    check(plain(), &["0 Pending"], "");
    check(plain(), &["0"], "");
    check(plain(), &["0 ready"], "+web-1:new");
    check(plain(), &["0 ready", "1 ready"], "+web-2:new");
    check(plain(), &["0 ready", "1 ready", "2 ready"], "");
    check(plain(), &["1 ready", "2 ready"], "+web-0:new");
    check(plain(), &["0 ready", "1 ready deleting", "2 ready"], "");
    check(plain(), &["0", "2 ready"], "");
    check(json!({ "minReadySeconds": 60 }), &["0 fresh"], "");
    check(json!({ "minReadySeconds": 5 }), &["0 fresh"], "+web-1:new");
    check(json!({ "replicas": 0 }), &[], "");
    check(json!({ "ordinals": { "start": 5 } }), &[], "+web-5:new");
    check(json!({ "ordinals": { "start": 5 } }), &["5 ready", "6 ready", "7 ready"], "");
}

#[test]
fn what_ended_is_made_again() {
    check(json!({}), &["0 ready", "1 Failed", "2 ready"], "-web-1");
    check(json!({}), &["0 ready", "1 Succeeded deleting", "2 ready"], "");
    check(json!({ "podManagementPolicy": "Parallel" }), &["0 Failed", "1 ready"], "+web-2:new -web-0");
    check(json!({}), &["0 ready anonymous", "1 ready", "2 ready"], "~web-0");
}

#[test]
fn scaling_down_takes_the_highest_first() {
    let to = |replicas: i32| json!({ "replicas": replicas });
    check(to(1), &["0 ready", "1 ready", "2 ready"], "-web-2");
    check(to(1), &["0 ready", "1 ready", "2 ready deleting"], "");
    check(to(1), &["0 ready", "1 ready"], "-web-1");
    check(to(0), &["0 ready"], "-web-0");
    // One that is not well blocks those above it, and goes itself.
    check(to(1), &["0 ready", "1", "2 ready"], "-web-2");
    check(to(1), &["0 ready", "1", "2"], "");
    check(to(1), &["0 ready", "1 ready", "2"], "-web-2");
    check(to(1), &["0", "1 ready", "2 ready"], "");
    check(json!({ "replicas": 1, "podManagementPolicy": "Parallel" }), &["0", "1", "2 ready"], "-web-2 -web-1");
    let shifted = json!({ "replicas": 2, "ordinals": { "start": 2 } });
    check(shifted.clone(), &["0 ready", "1 ready", "2 ready"], "+web-3:new");
    check(shifted, &["0 ready", "1 ready", "2 ready", "3 ready"], "-web-1");
}

fn rolling(update: &Value) -> Value {
    json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": update } })
}

#[test]
fn updates_go_downwards_one_by_one() {
    let plain = || json!({});
    check(plain(), &["0 ready old", "1 ready old", "2 ready old"], "-web-2");
    check(plain(), &["0 ready old", "1 ready old", "2 ready old deleting"], "");
    check(plain(), &["0 ready old", "1 ready old"], "+web-2:new");
    check(plain(), &["0 ready old", "1 ready old", "2"], "");
    check(plain(), &["0 ready old", "1 ready old", "2 ready"], "-web-1");
    check(plain(), &["0 ready", "1 ready", "2 ready"], "");
    // Upstream: a Pod that never became ready blocks the update until somebody deletes it.
    check(plain(), &["0 ready old", "1 old", "2 ready old"], "");
    check(rolling(&json!({ "partition": 2 })), &["0 ready old", "1 ready old", "2 ready old"], "-web-2");
    check(rolling(&json!({ "partition": 2 })), &["0 ready old", "1 ready old", "2 ready"], "");
    check(rolling(&json!({ "partition": 2 })), &["0 ready old", "2 ready"], "+web-1:old");
    check(rolling(&json!({ "partition": 9 })), &["0 ready old", "1 ready old", "2 ready old"], "");
    let two = json!({ "partition": 0, "maxUnavailable": 2 });
    check(rolling(&two), &["0 ready old", "1 ready old", "2 ready old"], "-web-2 -web-1");
    check(rolling(&json!({ "maxUnavailable": "10%" })), &["0 ready old", "1 ready old", "2 ready old"], "-web-2");
    let mut parallel = rolling(&two);
    parallel["podManagementPolicy"] = json!("Parallel");
    check(parallel.clone(), &["0 ready old", "1 ready old", "2"], "-web-1");
    check(parallel, &["0 ready old", "1 old", "2 ready old"], "-web-2 -web-1");
    let on_delete = json!({ "updateStrategy": { "type": "OnDelete" } });
    check(on_delete.clone(), &["0 ready old", "1 ready old", "2 ready old"], "");
    check(on_delete, &["0 ready old", "2 ready old"], "+web-1:new");
    check(json!({ "podManagementPolicy": "Parallel" }), &[], "+web-0:new +web-1:new +web-2:new");
}

#[test]
fn a_set_that_goes_does_nothing_but_count() {
    let mut set = set(&json!({}));
    set.metadata.deletion_timestamp = Some(meta::seconds(now()));
    let plan = planned(&set, &["0 ready"], &[]);
    assert_eq!((short(&plan), plan.status.replicas), (String::new(), 1));
}

#[test]
fn the_status_counts() {
    let status = |pods: &[&str]| serde_json::to_value(planned(&set(&json!({})), pods, &[]).status).expect("status");
    let expect = json!({
        "replicas": 3, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 1, "updatedReplicas": 1,
        "currentRevision": "old", "updateRevision": "new", "observedGeneration": 7, "collisionCount": 0,
    });
    assert_eq!(status(&["0 ready old", "1 ready old deleting", "2"]), {
        let mut expect = expect.clone();
        expect["availableReplicas"] = json!(2);
        expect
    });
    // All are there: the set has arrived.
    let arrived = status(&["0 ready", "1 ready", "2 ready"]);
    assert_eq!((&arrived["currentRevision"], &arrived["currentReplicas"]), (&json!("new"), &json!(3)));
    let plan = planned(&set(&json!({ "minReadySeconds": 60 })), &["0 fresh"], &[]);
    assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (Some(1), Some(0)));
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(55)));
}

#[test]
fn pods_have_an_identity() {
    let spec =
        json!({ "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": { "l": "v" } }, "spec": {} }] });
    let plan = planned(&set(&spec), &[], &[]);
    let pod = serde_json::to_value(&plan.create[0]).expect("pod");
    let expect = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-0", "generateName": "web-", "namespace": "ns",
            "labels": {
                "app": "web", "controller-revision-hash": "new", "apps.kubernetes.io/pod-index": "0",
                "statefulset.kubernetes.io/pod-name": "web-0",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "containers": [{ "name": "c", "image": "new" }], "hostname": "web-0", "subdomain": "db",
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data-web-0" } }],
        },
    });
    assert_eq!(pod, expect);
    let (of, claim) = &plan.claims[0];
    assert_eq!((of.as_str(), meta::name(claim)), ("web-0", "data-web-0"));
    assert_eq!(serde_json::to_value(&claim.metadata.labels).ok(), Some(json!({ "app": "web", "l": "v" })));
}

#[test]
fn claims_go_with_what_they_were_made_for() {
    let spec = |scaled: &str, deleted: &str, replicas: i32| {
        set(&json!({
            "replicas": replicas,
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
            "persistentVolumeClaimRetentionPolicy": { "whenScaled": scaled, "whenDeleted": deleted },
        }))
    };
    let claim = |pod: &str, owners: &[&str]| {
        let owners: Vec<_> = owners
            .iter()
            .map(|uid| {
                let (kind, name) = uid.strip_prefix("uid-").map_or(("StatefulSet", "web"), |pod| ("Pod", pod));
                json!({ "apiVersion": "v", "kind": kind, "name": name, "uid": uid, "controller": true })
            })
            .collect();
        json!({ "metadata": { "name": format!("data-{pod}"), "ownerReferences": owners } })
    };
    let owners = |set: &StatefulSet, pods: &[&str], claims: &[Value]| {
        let plan = planned(set, pods, claims);
        let reowned = plan.reown.iter().map(|(claim, owners)| {
            let owners: Vec<_> = owners.iter().map(|owner| owner.uid.as_str()).collect();
            format!("{}={}", meta::name(&**claim), owners.join("+"))
        });
        reowned.collect::<Vec<_>>().join(" ")
    };
    let (one, two) = (["0 ready"], ["0 ready", "1 ready"]);
    let free = [claim("web-0", &[]), claim("web-1", &[])];
    assert_eq!(owners(&spec("Retain", "Retain", 1), &one, &free), "");
    assert_eq!(owners(&spec("Retain", "Delete", 1), &one, &free), "data-web-0=set");
    assert_eq!(owners(&spec("Retain", "Retain", 1), &one, &[claim("web-0", &["set"])]), "data-web-0=");
    assert_eq!(owners(&spec("Delete", "Retain", 1), &two, &free), "data-web-1=uid-web-1");
    assert_eq!(owners(&spec("Delete", "Delete", 1), &two, &free), "data-web-0=set data-web-1=uid-web-1");
    // Scaled up again before the claim of the last one is gone: the new Pod must not get it.
    let stale = [claim("web-0", &[]), claim("web-1", &["uid-web-1"])];
    assert_eq!(short(&planned(&spec("Delete", "Retain", 2), &one, &stale)), "");
    assert_eq!(short(&planned(&spec("Retain", "Retain", 2), &one, &stale)), "+web-1:new");
    assert_eq!(planned(&spec("Retain", "Delete", 1), &[], &[]).claims[0].1.metadata.owner_references.iter().len(), 1);
}

#[test]
fn ordinals_are_read_from_names() {
    for (name, expect) in [
        ("web-0", Some(0)),
        ("web-12", Some(12)),
        ("web-01", None),
        ("web-", None),
        ("web-x", None),
        ("we-1", None),
        ("web-a-1", None),
    ] {
        assert_eq!(pods::ordinal("web", name), expect, "{name}");
    }
}

#[test]
fn templates_that_come_back_get_a_new_number() {
    let set = set(&json!({}));
    let owner = Owner::of(&set);
    let of = |image: &str, number: i64| {
        let template = from_value(template(image)).expect("template");
        let Choice::Create(mut revision) = history::choose(&owner, None, &template, 0, &[]) else { panic!("not new") };
        revision.revision = number;
        Arc::new(*revision)
    };
    let known = [of("a", 1), of("b", 2)];
    let choose =
        |image: &str| history::choose(&owner, None, &from_value(template(image)).expect("template"), 0, &known);
    assert_eq!(choose("b"), Choice::Latest(Arc::clone(&known[1])));
    assert_eq!(choose("a"), Choice::Renumber(Arc::clone(&known[0]), 3));
    assert!(matches!(choose("c"), Choice::Create(revision) if revision.revision == 3));
    assert_eq!(history::template(&known[0]), from_value(template("a")).ok());
    let names: Vec<_> =
        history::surplus(&known, |revision| revision.revision == 2, 0).iter().map(|r| r.revision).collect();
    assert_eq!(names, [1]);
}
