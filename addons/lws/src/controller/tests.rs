//! Tables for the LeaderWorkerSet's plan: a set and what is there in, actions out.

use std::convert::Infallible;
use std::sync::Mutex;

use controllers::Config;
use informer::Informers;
use kube::CustomResourceExt;
use kube::client::Body;
use serde_json::{from_value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::LeaderWorkerSetStatus;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("time")
}

fn owner() -> Owner {
    let metadata = json!({ "name": "x", "namespace": "ns", "uid": "lws" });
    let object: LeaderWorkerSet = from_value(json!({ "metadata": metadata, "spec": spec(&json!({})) })).expect("a set");
    Owner::of(&object)
}

fn spec(more: &Value) -> Value {
    let template = json!({ "metadata": { "labels": { "app": "x" } }, "spec": { "containers": [{ "name": "c" }] } });
    let mut spec = json!({ "replicas": 2, "leaderWorkerTemplate": { "size": 3, "workerTemplate": template } });
    for (key, value) in more.as_object().expect("members") {
        match value {
            Value::Object(members) if spec[key].is_object() => {
                spec[key].as_object_mut().expect("members").extend(members.clone());
            }
            value => spec[key] = value.clone(),
        }
    }
    spec
}

/// A leader or worker from a line such as `x-0 ready old`, `x-0-1 restarted`.
fn pod(line: &str) -> Arc<Pod> {
    let words: Vec<_> = line.split(' ').collect();
    let has = |word: &str| words.contains(&word);
    let parts: Vec<_> = words[0].split('-').collect();
    let mut labels = json!({
        labels::NAME: "x", labels::GROUP_INDEX: parts[1], labels::REVISION: if has("old") { "old" } else { "new" },
        labels::WORKER_INDEX: parts.get(2).unwrap_or(&"0"),
    });
    let mut owners = json!([]);
    if parts.len() == 3 {
        let uid = format!("set-x-{}", parts[1]);
        owners =
            json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": uid, "controller": true }]);
    } else {
        labels["leaderworkerset.sigs.k8s.io/group-key"] = json!(format!("key-{}", parts[1]));
    }
    let status =
        json!({ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": i32::from(has("restarted")) });
    let pod = json!({
        "metadata": {
            "name": words[0], "namespace": "ns", "uid": words[0], "labels": labels, "ownerReferences": owners,
            "deletionTimestamp": has("deleting").then_some("2026-01-01T00:59:59Z"),
        },
        "status": {
            "phase": if has("pending") { "Pending" } else { "Running" }, "containerStatuses": [status],
            "conditions": [{ "type": "Ready", "status": if has("ready") { "True" } else { "False" } }],
        },
    });
    Arc::new(from_value(pod).expect("pod"))
}

/// A StatefulSet from a line: `x 2 0` is that of the leaders (size, partition), `x-0 ready` that of workers.
fn set(line: &str) -> (String, Arc<StatefulSet>) {
    let words: Vec<_> = line.split(' ').collect();
    let has = |word: &str| words.contains(&word);
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<i32>().ok()).unwrap_or(2);
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": words[0], "uid": words[0], "controller": true }]);
    let set = json!({
        "metadata": {
            "name": words[0], "namespace": "ns", "uid": format!("set-{}", words[0]), "generation": 1,
            "labels": { labels::REVISION: if has("old") { "old" } else { "new" } }, "ownerReferences": owner,
            "annotations": { labels::REPLICAS: "2" },
        },
        "spec": {
            "replicas": number(1), "selector": {}, "template": {},
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": number(2) } },
        },
        "status": {
            "replicas": number(1), "observedGeneration": 1, "readyReplicas": if has("ready") { 2 } else { 0 },
            "currentRevision": "r", "updateRevision": "r",
        },
    });
    (words[0].to_owned(), Arc::new(from_value(set).expect("set")))
}

fn planned(more: &Value, pods: &[&str], sets: &[&str]) -> plan::Plan {
    let snapshot = Snapshot {
        pods: pods.iter().map(|line| pod(line)).collect(),
        sets: sets.iter().map(|line| set(line)).collect(),
        revision: "new".to_owned(),
        ..Snapshot::default()
    };
    let spec = from_value(spec(more)).expect("a spec");
    plan::plan(&snapshot, &owner(), &spec, &LeaderWorkerSetStatus::default(), now())
}

/// The plan in short: size and partition of the leaders, `+` for workers created, `!` for groups that start anew.
fn check(more: Value, pods: &[&str], sets: &[&str], expect: &str) {
    let plan = planned(&more, pods, sets);
    let leaders = &plan.leaders["spec"];
    let partition = &leaders["updateStrategy"]["rollingUpdate"]["partition"];
    let mut words = vec![format!("{}/{partition}", leaders["replicas"])];
    words.extend(plan.workers.iter().map(|set| format!("+{}", set["metadata"]["name"].as_str().expect("a name"))));
    words.extend(plan.restart.iter().map(|pod| format!("!{}", meta::name(&**pod))));
    assert_eq!(words.join(" "), expect, "{more} {pods:?} {sets:?}");
}

#[test]
fn leaders_come_first_and_bring_their_workers() {
    check(json!({}), &[], &[], "2/0");
    check(json!({}), &["x-0", "x-1"], &["x 2 0"], "2/0 +x-0 +x-1");
    check(json!({}), &["x-0", "x-1"], &["x 2 0", "x-0"], "2/0 +x-1");
    check(json!({ "startupPolicy": "LeaderReady" }), &["x-0 ready", "x-1"], &["x 2 0"], "2/0 +x-0");
    check(json!({ "leaderWorkerTemplate": { "size": 1 } }), &["x-0"], &["x 2 0"], "2/0");
    check(json!({}), &["x-0 deleting"], &["x 2 0"], "2/0");
}

#[test]
fn a_group_fails_as_one() {
    let sets = ["x 2 0", "x-0 ready", "x-1 ready"];
    check(json!({}), &["x-0 ready", "x-0-1 restarted", "x-1 ready"], &sets, "2/0 !x-0");
    check(json!({}), &["x-0 ready", "x-0-1 deleting", "x-1 ready"], &sets, "2/0 !x-0");
    check(json!({}), &["x-0 ready restarted", "x-1 ready"], &sets, "2/0 !x-0");
    check(json!({}), &["x-0 ready deleting", "x-0-1 deleting", "x-1 ready"], &sets, "2/0");
    let none = json!({ "leaderWorkerTemplate": { "restartPolicy": "None" } });
    check(none, &["x-0 ready", "x-0-1 restarted", "x-1 ready"], &sets, "2/0");
    let after = json!({ "leaderWorkerTemplate": { "restartPolicy": "RecreateGroupAfterStart" } });
    check(after.clone(), &["x-0 ready", "x-0-1 restarted", "x-0-2 pending"], &sets, "2/0");
    check(after, &["x-0 ready", "x-0-1 restarted", "x-0-2"], &sets, "2/0 !x-0");
}

#[test]
fn rollouts_move_the_partition_down() {
    let old = ["x-0 ready old", "x-1 ready old"];
    let sets = |leaders| [leaders, "x-0 ready old", "x-1 ready old"];
    check(json!({}), &old, &sets("x 2 0 old"), "2/2");
    check(json!({}), &old, &sets("x 2 2"), "2/1");
    check(json!({}), &["x-0 ready old", "x-1"], &["x 2 1", "x-0 ready old", "x-1"], "2/1");
    check(json!({}), &["x-0 ready old", "x-1 ready"], &["x 2 1", "x-0 ready old", "x-1 ready"], "2/0");
    let partition = json!({ "rolloutStrategy": { "rollingUpdateConfiguration": { "partition": 1 } } });
    check(partition, &["x-0 ready old", "x-1 ready"], &["x 2 1", "x-0 ready old", "x-1 ready"], "2/1");
    let surge = json!({ "rolloutStrategy": { "rollingUpdateConfiguration": { "maxSurge": 1 } } });
    check(surge, &old, &sets("x 2 0 old"), "3/2");
}

#[test]
fn a_rollout_can_always_begin() {
    let most = |unavailable: Value, surge: Value| {
        let rolling = json!({ "maxUnavailable": unavailable, "maxSurge": surge });
        let plan = planned(&json!({ "rolloutStrategy": { "rollingUpdateConfiguration": rolling } }), &[], &[]);
        plan.leaders["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"].as_i64()
    };
    assert_eq!(most(json!(1), json!(0)), Some(1));
    assert_eq!(most(json!(0), json!(1)), Some(1));
    assert_eq!(most(json!(0), json!(0)), Some(1));
    assert_eq!(most(json!("10%"), json!(0)), Some(1));
    assert_eq!(most(json!("100%"), json!("50%")), Some(3));
}

#[test]
fn the_status_says_how_far_it_is() {
    let conditions = |plan: &plan::Plan| {
        let list = plan.status.conditions.iter().flatten();
        list.map(|one| format!("{}={}", one.type_, one.status)).collect::<Vec<_>>()
    };
    let plan = planned(&json!({}), &["x-0 ready", "x-1 ready"], &["x 2 0", "x-0 ready", "x-1 ready"]);
    assert_eq!(conditions(&plan), ["Available=True"]);
    assert_eq!((plan.status.ready_replicas, plan.status.updated_replicas), (Some(2), Some(2)));
    let selector = "leaderworkerset.sigs.k8s.io/name=x,leaderworkerset.sigs.k8s.io/worker-index=0";
    assert_eq!(plan.status.hpa_pod_selector.as_deref(), Some(selector));
    let plan = planned(&json!({}), &["x-0 ready old", "x-1 ready"], &["x 2 1", "x-0 ready old", "x-1 ready"]);
    assert_eq!(conditions(&plan), ["Progressing=True", "UpdateInProgress=True"]);
    let plan = planned(&json!({}), &["x-0"], &["x 2 0"]);
    assert_eq!(conditions(&plan), ["Progressing=True"]);
}

#[test]
fn what_is_made_has_the_published_names() {
    let plan = planned(&json!({}), &["x-0 ready"], &["x 2 0"]);
    let leaders = &plan.leaders;
    assert_eq!(leaders["spec"]["selector"]["matchLabels"], json!({ labels::NAME: "x", labels::WORKER_INDEX: "0" }));
    assert_eq!(
        leaders["spec"]["template"]["metadata"]["labels"],
        json!({ "app": "x", labels::NAME: "x", labels::WORKER_INDEX: "0", labels::REVISION: "new" })
    );
    assert_eq!(
        leaders["spec"]["template"]["metadata"]["annotations"],
        json!({ "leaderworkerset.sigs.k8s.io/size": "3" })
    );
    let workers = &plan.workers[0];
    assert_eq!((&workers["spec"]["replicas"], &workers["spec"]["ordinals"]["start"]), (&json!(2), &json!(1)));
    assert_eq!(workers["metadata"]["ownerReferences"][0]["kind"], "Pod");
    assert_eq!(workers["spec"]["serviceName"], "x");
    assert_eq!(plan.services[0]["spec"]["selector"], json!({ labels::NAME: "x" }));
    let own =
        planned(&json!({ "networkConfig": { "subdomainPolicy": "UniquePerReplica" } }), &["x-0 ready"], &["x 2 0"]);
    assert_eq!(
        (&own.services[0]["metadata"]["name"], &own.workers[0]["spec"]["serviceName"]),
        (&json!("x-0"), &json!("x-0"))
    );
}

/// Shows these LeaderWorkerSets once, and is silent otherwise.
fn client(sets: &[Value]) -> Client {
    let metadata = json!({ "resourceVersion": "42", "annotations": { "k8s.io/initial-events-end": "true" } });
    let end = json!({ "apiVersion": LeaderWorkerSet::api_resource().api_version, "kind": KIND, "metadata": metadata });
    let events = sets.iter().map(|set| json!({ "type": "ADDED", "object": set }));
    let events = events.chain([json!({ "type": "BOOKMARK", "object": end })]);
    let frames = Mutex::new(Some(events.map(|event| format!("{event}\n")).collect::<String>()));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let is_asked = request.uri().path().ends_with("/leaderworkersets");
        let frames = if is_asked { frames.lock().expect("a lock").take() } else { None };
        async move {
            match frames {
                Some(frames) => Ok::<_, Infallible>(http::Response::new(Body::from(frames.into_bytes()))),
                None => std::future::pending().await,
            }
        }
    });
    Client::new(service, "default")
}

fn context(client: Client, cluster: &CancellationToken, cancel: CancellationToken) -> Context {
    let informers = Informers::new(client.clone(), cluster.clone());
    let config = Arc::new(Config::new(String::new(), "/nowhere".into()));
    Context { client, informers, config, cancel }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_does_not_fit_its_type_does_not_hide_others() {
    let set = |name: &str, spec: Value| {
        let metadata = json!({ "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1" });
        json!({ "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": KIND, "metadata": metadata, "spec": spec })
    };
    let cluster = CancellationToken::new();
    let sets = [set("odd", json!({ "replicas": "three" })), set("x", spec(&json!({})))];
    let context = context(client(&sets), &cluster, cluster.clone());
    let controller = LeaderWorkerSets::new(&context, context.informers.queue(LeaderWorkerSets::NAME));
    controller.subjects.synced().await;
    let found = controller.subjects.get(&ObjectKey::new("ns", "x")).expect("it fits").expect("it is there");
    assert_eq!(found.spec.replicas, 2);
    let error = controller.subjects.get(&ObjectKey::new("ns", "odd")).expect_err("it does not fit");
    let error = error.to_string();
    assert!(error.starts_with("cannot decode LeaderWorkerSet ns/odd: "), "{error}");
    assert!(error.contains(r#"invalid type: string "three""#), "it says what is wrong: {error}");
    cluster.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_controller_of_a_custom_resource_goes_when_its_addon_does() {
    let (cluster, addon) = (CancellationToken::new(), CancellationToken::new());
    let context = context(client(&[]), &cluster, addon.clone());
    let queue = context.informers.queue(LeaderWorkerSets::NAME);
    let work = queue.downgrade();
    let informers = context.informers.clone();
    let controller = Arc::new(LeaderWorkerSets::new(&context, queue));
    controller.watch();
    assert!(work.upgrade().is_some());
    addon.cancel();
    drop((controller, context));
    // Its own informer ends; those that it shares go on, and must not keep it.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(work.upgrade().is_none(), "somebody keeps its queue");
    cluster.cancel();
    drop(informers);
}
