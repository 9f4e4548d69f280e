//! Tables for the Deployment's plan: objects in, actions out.

use jiff::Timestamp;
use serde_json::{Value, from_value, json};

use super::plan::{Plan, plan};
use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("time")
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": image }] },
    })
}

/// A Deployment of `replicas` Pods of the image `v2`, with whatever else `spec` says.
fn deployment(replicas: i32, spec: Value) -> Deployment {
    let mut object = json!({
        "metadata": { "name": "web", "namespace": "ns", "uid": "d", "generation": 2 },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("v2"),
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 3, "maxUnavailable": 2 } },
        },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    from_value(object).expect("deployment")
}

fn with_status(mut deployment: Deployment, status: Value) -> Deployment {
    deployment.status = from_value(status).expect("status");
    deployment
}

/// A ReplicaSet called like its image: wanted, existing and available Pods, revision, the Deployment's scale, age.
fn set(image: &str, sizes: [i32; 3], revision: i64, scale: [i32; 2], minute: i32) -> Arc<ReplicaSet> {
    let [wanted, actual, available] = sizes;
    let mut template = template(image);
    template["metadata"]["labels"][history::HASH_LABEL] = json!(image);
    let rs = json!({
        "metadata": {
            "name": format!("web-{image}"), "namespace": "ns", "uid": format!("uid-{image}"), "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:0{minute}:00Z"),
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true }],
            "annotations": {
                history::REVISION: revision.to_string(),
                history::DESIRED_REPLICAS: scale[0].to_string(),
                history::MAX_REPLICAS: scale[1].to_string(),
            },
        },
        "spec": { "replicas": wanted, "selector": { "matchLabels": { "app": "web" } }, "template": template },
        "status": {
            "replicas": actual, "readyReplicas": available, "availableReplicas": available,
            "terminatingReplicas": 0, "observedGeneration": 1,
        },
    });
    Arc::new(from_value(rs).expect("replica set"))
}

fn snapshot(sets: &[Arc<ReplicaSet>]) -> Snapshot {
    Snapshot { sets: sets.to_vec(), running: BTreeMap::new() }
}

/// The actions other than status writes, in words.
fn words(plan: &Plan) -> Vec<String> {
    let words = plan.actions.iter().filter_map(|action| {
        Some(match action {
            RolloutStep::Create(rs) => format!("create {} revision {}", replicas::wanted(rs), history::revision(rs)),
            RolloutStep::Update(Update { name, scale: Some((from, to)), .. }) => format!("scale {name} {from}->{to}"),
            RolloutStep::Update(Update { name, annotations, .. }) => {
                let names = annotations.keys().filter_map(|key| key.rsplit('/').next());
                format!("annotate {name} {}", names.collect::<Vec<_>>().join(" "))
            }
            RolloutStep::Delete(rs) => format!("delete {}", meta::name(&**rs)),
            RolloutStep::SetRevision(revision) => format!("revision {revision}"),
            RolloutStep::Warn { reason, .. } => format!("warn {reason}"),
            RolloutStep::UpdateStatus(_) => return None,
        })
    });
    words.collect()
}

fn check(deployment: &Deployment, sets: &[Arc<ReplicaSet>], expect: &[&str]) {
    let plan = plan(&snapshot(sets), deployment, now());
    assert_eq!(words(&plan), expect, "{:#?}", plan.actions);
}

fn status(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> DeploymentStatus {
    let plan = plan(&snapshot(sets), deployment, now());
    let status = plan.actions.into_iter().find_map(|action| match action {
        RolloutStep::UpdateStatus(status) => Some(*status),
        _ => None,
    });
    status.or(deployment.status.clone()).unwrap_or_default()
}

fn conditions(status: &DeploymentStatus) -> Vec<String> {
    let conditions = status.conditions.iter().flatten();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    conditions
        .map(|condition| {
            format!(
                "{}={} {}: {}",
                condition.type_,
                condition.status,
                text(&condition.reason),
                text(&condition.message)
            )
        })
        .collect()
}

#[test]
fn the_first_rollout_creates_the_whole_replica_set() {
    let deployment = deployment(3, json!({}));
    check(&deployment, &[], &["create 3 revision 1", "revision 1"]);
    let status = status(&deployment, &[]);
    let hash = history::hash(&deployment.spec.as_ref().expect("spec").template, None);
    assert_eq!(
        conditions(&status),
        [
            format!("Progressing=True NewReplicaSetCreated: Created new replica set \"web-{hash}\""),
            "Available=False MinimumReplicasUnavailable: Deployment does not have minimum availability.".to_owned(),
        ]
    );
    assert_eq!(status.unavailable_replicas, Some(3));
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn a_new_replica_set_is_made_as_upstream_makes_it() {
    let mut deployment = deployment(10, json!({ "minReadySeconds": 5 }));
    deployment.metadata.annotations = Some(BTreeMap::from([
        ("kubernetes.io/change-cause".to_owned(), "because".to_owned()),
        ("kubectl.kubernetes.io/last-applied-configuration".to_owned(), "{}".to_owned()),
    ]));
    let plan = plan(&snapshot(&[]), &deployment, now());
    let Some(RolloutStep::Create(rs)) = plan.actions.first() else {
        panic!("{:?}", plan.actions);
    };
    let labels = rs.metadata.labels.clone().unwrap_or_default();
    let hash = labels[history::HASH_LABEL].clone();
    let name = rs.metadata.name.clone().unwrap_or_default();
    assert_eq!(name, format!("web-{hash}"));
    assert!(hash.bytes().all(|letter| machinery::names::ALPHABET.contains(&letter)), "{hash}");
    let spec = rs.spec.clone().unwrap_or_default();
    assert_eq!(spec.min_ready_seconds, Some(5));
    assert_eq!(spec.selector.match_labels.unwrap_or_default()[history::HASH_LABEL], hash);
    assert_eq!(
        rs.metadata.annotations.clone().unwrap_or_default(),
        [
            (history::DESIRED_REPLICAS, "10"),
            (history::MAX_REPLICAS, "13"),
            (history::REVISION, "1"),
            ("kubernetes.io/change-cause", "because"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    );
}

#[test]
fn rolling_steps_stay_within_surge_and_unavailable() {
    let ten = deployment(10, json!({}));
    let old = |sizes| set("v1", sizes, 1, [10, 13], 1);
    let new = |sizes| set("v2", sizes, 2, [10, 13], 2);
    let same = |old_size, new_size, expect: &[&str]| {
        let mut expect = expect.to_vec();
        expect.push("revision 2");
        check(&ten, &[old(old_size), new(new_size)], &expect);
    };
    // The image changed: up to the surge, and down by what may be unavailable, at once.
    check(&ten, &[old([10, 10, 10])], &["create 3 revision 2", "scale web-v1 10->8", "revision 2"]);
    // No room to grow: shrink by what may be unavailable.
    same([10, 10, 10], [3, 3, 0], &["scale web-v1 10->8"]);
    // Room again: grow.
    same([8, 8, 8], [3, 3, 0], &["scale web-v2 3->5"]);
    // The new Pods are not available: nothing more to take.
    same([8, 8, 8], [5, 5, 0], &[]);
    same([8, 8, 8], [5, 5, 2], &["scale web-v1 8->6"]);
    // The old one's status lags behind its size: it must not be counted twice.
    same([6, 8, 8], [7, 7, 2], &[]);
    // Unhealthy old Pods go before healthy ones, and although nothing is available beyond the minimum.
    same([8, 8, 3], [5, 5, 5], &["scale web-v1 8->3"]);
    same([1, 1, 1], [10, 10, 9], &["scale web-v1 1->0"]);
    same([0, 0, 0], [10, 10, 10], &[]);
    // Scaled down meanwhile: never more than asked for.
    let five = deployment(5, json!({}));
    check(
        &five,
        &[set("v1", [0, 0, 0], 1, [5, 8], 1), set("v2", [7, 7, 7], 2, [5, 8], 2)],
        &["scale web-v2 7->5", "revision 2"],
    );
}

#[test]
fn a_change_in_the_middle_of_a_rollout_rolls_over() {
    let deployment = deployment(10, json!({}));
    let sets = [set("v0", [5, 5, 5], 1, [10, 13], 1), set("v1", [8, 8, 3], 2, [10, 13], 2)];
    check(&deployment, &sets, &["create 0 revision 3", "scale web-v1 8->3", "revision 3"]);
}

#[test]
fn margins_of_nothing_leave_one_unavailable() {
    for (surge, unavailable, replicas, expect) in [
        (json!(0), json!(0), 4, (4, 3)),
        (json!("25%"), json!("25%"), 4, (5, 3)),
        (json!("25%"), json!("25%"), 1, (2, 1)),
        (json!("25%"), json!("25%"), 10, (13, 8)),
        (json!("0%"), json!("10%"), 3, (3, 2)),
        (json!(1), json!("100%"), 3, (4, 0)),
        (json!(1), json!(9), 3, (4, 0)),
        (json!("25%"), json!("25%"), 0, (0, 0)),
    ] {
        let strategy =
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
        let bounds = replicas::Bounds::of(&deployment(replicas, json!({ "strategy": strategy })));
        assert_eq!((bounds.max_total(), bounds.min_available()), expect, "{strategy} of {replicas}");
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let sets = |v1: i32, v2: i32, scale| [set("v1", [v1, v1, v1], 1, scale, 1), set("v2", [v2, v2, 0], 2, scale, 2)];
    // The example of upstream's documentation: 10 to 15 with 8 old and 5 new.
    let fifteen = deployment(15, json!({}));
    check(&fifteen, &sets(8, 5, [10, 13]), &["scale web-v2 5->7", "scale web-v1 8->11", "revision 2"]);
    let five = deployment(5, json!({}));
    check(&five, &sets(8, 5, [10, 13]), &["scale web-v2 5->3", "scale web-v1 8->5", "revision 2"]);
    let zero = deployment(0, json!({}));
    check(&zero, &sets(8, 5, [10, 13]), &["scale web-v2 5->0", "scale web-v1 8->0", "revision 2"]);
    // One ReplicaSet alone just takes the new size.
    let twenty = deployment(20, json!({}));
    check(&twenty, &[set("v2", [2, 2, 2], 2, [2, 3], 2)], &["scale web-v2 2->20", "revision 2"]);
    // The new one is complete: what is left of the old ones goes.
    let done = [set("v1", [1, 1, 1], 1, [4, 7], 1), set("v2", [5, 5, 5], 2, [5, 8], 2)];
    check(&five, &done, &["scale web-v1 1->0", "revision 2"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let paused = deployment(10, json!({ "paused": true }));
    check(&paused, &[set("v1", [10, 10, 10], 1, [10, 13], 1)], &[]);
    check(&paused, &[set("v1", [5, 5, 5], 1, [5, 7], 1)], &["scale web-v1 5->10"]);
    let status = status(&paused, &[set("v1", [10, 10, 10], 1, [10, 13], 1)]);
    assert_eq!(conditions(&status)[0], "Progressing=Unknown DeploymentPaused: Deployment is paused");
    let resumed = with_status(deployment(10, json!({})), serde_json::to_value(&status).expect("status"));
    let status = self::status(&resumed, &[set("v1", [10, 10, 10], 1, [10, 13], 1)]);
    assert!(
        conditions(&status)[0].starts_with("Progressing=True NewReplicaSetCreated") || conditions(&status).len() == 2
    );
}

#[test]
fn rolling_back_reuses_the_replica_set_under_a_new_revision() {
    // The Deployment asks for v2 again, which was revision 1; v3 was revision 2.
    let deployment = deployment(2, json!({}));
    let sets = [set("v2", [0, 0, 0], 1, [2, 5], 1), set("v3", [2, 2, 2], 2, [2, 5], 2)];
    let plan = plan(&snapshot(&sets), &deployment, now());
    let Some(RolloutStep::Update(update)) = plan.actions.first() else {
        panic!("{:?}", plan.actions);
    };
    assert_eq!((update.name.as_str(), update.scale), ("web-v2", Some((0, 2))));
    assert_eq!(update.annotations[history::REVISION], "3");
    assert_eq!(update.annotations[history::REVISION_HISTORY], "1");
    assert!(plan.actions.contains(&RolloutStep::SetRevision("3".to_owned())));
}

#[test]
fn revisions_never_go_back() {
    // Older ReplicaSets are gone: the number stays what it was.
    check(&deployment(2, json!({})), &[set("v2", [2, 2, 2], 7, [2, 5], 1)], &["revision 7"]);
}

#[test]
fn recreate_waits_for_the_end_of_the_last_old_pod() {
    let recreate = deployment(3, json!({ "strategy": { "type": "Recreate" } }));
    let old = |sizes| set("v1", sizes, 1, [3, 3], 1);
    check(&recreate, &[old([3, 3, 3])], &["scale web-v1 3->0"]);
    check(&recreate, &[old([0, 3, 3])], &[]);
    let ending = Snapshot { sets: vec![old([0, 0, 0])], running: BTreeMap::from([("uid-v1".to_owned(), 1)]) };
    assert_eq!(words(&plan(&ending, &recreate, now())), Vec::<String>::new());
    check(&recreate, &[old([0, 0, 0])], &["create 3 revision 2", "revision 2"]);
    check(&recreate, &[old([0, 0, 0]), set("v2", [0, 0, 0], 2, [3, 3], 2)], &["scale web-v2 0->3", "revision 2"]);
}

#[test]
fn history_is_cut_to_its_limit_once_a_rollout_is_complete() {
    let complete = json!({
        "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2, "observedGeneration": 2,
        "conditions": [{ "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" }],
    });
    let deployment = with_status(deployment(2, json!({ "revisionHistoryLimit": 1 })), complete);
    let in_use = set("v1", [0, 1, 1], 1, [2, 5], 1);
    let sets = |oldest| {
        [
            oldest,
            set("v0", [0, 0, 0], 3, [2, 5], 3),
            set("v9", [0, 0, 0], 2, [2, 5], 2),
            set("v2", [2, 2, 2], 4, [2, 5], 4),
        ]
    };
    check(&deployment, &sets(set("v1", [0, 0, 0], 1, [2, 5], 1)), &["revision 4", "delete web-v1", "delete web-v9"]);
    check(&deployment, &sets(in_use), &["revision 4", "delete web-v9"]);
}

#[test]
fn progress_is_judged_with_upstreams_words() {
    let base = |reason: &str, updated_at: &str| {
        json!({
            "replicas": 2, "updatedReplicas": 1, "observedGeneration": 2,
            "conditions": [{
                "type": "Progressing", "status": "True", "reason": reason, "message": "before",
                "lastUpdateTime": updated_at, "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        })
    };
    let table = [
        // Both Pods are there and available.
        (
            "ReplicaSetUpdated",
            "2026-01-01T00:09:00Z",
            [2, 2, 2],
            "Progressing=True NewReplicaSetAvailable: ReplicaSet \"web-v2\" has successfully progressed.",
        ),
        // One more than before.
        (
            "NewReplicaSetCreated",
            "2026-01-01T00:09:00Z",
            [2, 2, 1],
            "Progressing=True ReplicaSetUpdated: ReplicaSet \"web-v2\" is progressing.",
        ),
        // Nothing new, in time and out of time.
        ("ReplicaSetUpdated", "2026-01-01T00:09:00Z", [2, 1, 0], "Progressing=True ReplicaSetUpdated: before"),
        (
            "ReplicaSetUpdated",
            "2025-12-31T23:59:00Z",
            [2, 1, 0],
            "Progressing=False ProgressDeadlineExceeded: ReplicaSet \"web-v2\" has timed out progressing.",
        ),
    ];
    for (reason, updated_at, sizes, expect) in table {
        let old = set("v1", [1, 1, 0], 1, [2, 5], 1);
        let sets = if sizes == [2, 2, 2] {
            vec![set("v2", sizes, 2, [2, 5], 2)]
        } else {
            vec![old, set("v2", sizes, 2, [2, 5], 2)]
        };
        let deployment = with_status(deployment(2, json!({})), base(reason, updated_at));
        let status = status(&deployment, &sets);
        assert!(conditions(&status).contains(&expect.to_owned()), "{expect}: {:#?}", conditions(&status));
    }
}

#[test]
fn the_deadline_is_looked_at_when_it_comes() {
    let progressing = json!({
        "replicas": 1, "updatedReplicas": 1, "observedGeneration": 2, "unavailableReplicas": 1,
        "conditions": [{
            "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": "2026-01-01T00:03:00Z",
        }],
    });
    let deployment = with_status(deployment(1, json!({})), progressing);
    let plan = plan(&snapshot(&[set("v2", [1, 1, 0], 1, [1, 4], 1)]), &deployment, now());
    assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(3 * 60 + 1)));
}

#[test]
fn a_settled_deployment_needs_nothing() {
    let mut deployment = deployment(2, json!({}));
    deployment.metadata.annotations = Some(BTreeMap::from([(history::REVISION.to_owned(), "1".to_owned())]));
    let sets = [set("v2", [2, 2, 2], 1, [2, 5], 1)];
    deployment.status = Some(status(&deployment, &sets));
    let plan = plan(&snapshot(&sets), &deployment, now());
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_failing_replica_set_is_reported() {
    let mut failing = ReplicaSet::clone(&set("v2", [2, 0, 0], 1, [2, 5], 1));
    failing.status = from_value(json!({ "replicas": 0, "conditions": [{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota",
    }] }))
    .expect("status");
    let status = status(&deployment(2, json!({})), &[Arc::new(failing)]);
    assert!(conditions(&status).contains(&"ReplicaFailure=True FailedCreate: exceeded quota".to_owned()));
}

#[test]
fn what_selects_everything_is_refused() {
    check(&deployment(2, json!({ "selector": {} })), &[], &["warn SelectingAll"]);
}

#[test]
fn a_deployment_being_deleted_creates_nothing() {
    let mut deployment = deployment(2, json!({}));
    deployment.metadata.deletion_timestamp = Some(meta::seconds(now()));
    check(&deployment, &[], &[]);
}

#[test]
fn templates_are_the_same_if_they_ask_for_the_same() {
    let parse = |value: Value| from_value(value).expect("template");
    let base = template("v1");
    let changed = |change: fn(&mut Value)| {
        let mut value = template("v1");
        change(&mut value);
        value
    };
    let table = [
        (base.clone(), true),
        (changed(|t| t["metadata"]["labels"][history::HASH_LABEL] = json!("abc")), true),
        (changed(|t| t["metadata"]["annotations"] = json!({})), true),
        (changed(|t| t["spec"]["containers"][0]["env"] = json!([])), true),
        (changed(|t| t["spec"]["containers"][0]["resources"] = json!({ "limits": {} })), true),
        (changed(|t| t["spec"]["containers"][0]["image"] = json!("v2")), false),
        (changed(|t| t["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": {} }])), false),
    ];
    for (other, expect) in table {
        let (a, b) = (parse(base.clone()), parse(other.clone()));
        assert_eq!(history::same_template(&a, &b), expect, "{other}");
        assert_eq!(history::hash(&a, None) == history::hash(&b, None), expect, "{other}");
    }
    let volume = |source: Value| {
        parse(
            changed(|_| {})["spec"]
                .clone()
                .as_object()
                .map(|spec| {
                    let mut spec = spec.clone();
                    spec.insert("volumes".to_owned(), json!([source]));
                    json!({ "spec": spec })
                })
                .unwrap_or_default(),
        )
    };
    assert!(
        !history::same_template(&volume(json!({ "name": "v" })), &volume(json!({ "name": "v", "emptyDir": {} }))),
        "an empty object that means something"
    );
}
