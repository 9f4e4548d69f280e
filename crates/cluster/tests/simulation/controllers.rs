//! What the controllers owe without any faults: they put right what others wrote into a status, end what they began, and
//! leave alone what an addon did not install.

use std::time::Duration;

use coracle_cluster::addons;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::faults::Faults;
use crate::objects::{self, template};
use crate::world::{Component, NAMESPACE, World};

/// In what time, on the clock that jumps, something has to come about: a few periods of the autoscaler.
const DEADLINE: Duration = Duration::from_secs(120);
/// For so long nothing may be written once all is as it is to be.
const QUIET: Duration = Duration::from_secs(60);

/// Runs `test` on a cluster with one fake node and these addons.
fn on_cluster(addons: &[&str], test: impl AsyncFnOnce(&World)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new(Faults::new(0)).await;
        world.create(objects::namespace()).await;
        for addon in addons {
            for definition in addons::find(addon).expect("an addon").definitions() {
                world.create(json!(definition)).await;
            }
        }
        world.create(objects::node("node", 4)).await;
        for component in [Component::Paper, Component::Scheduler, Component::Controllers] {
            world.start(component);
        }
        test(&world).await;
        world.end().await;
    });
}

async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, Value>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match probe().await {
            Ok(answer) => return answer,
            Err(seen) if Instant::now() >= deadline => panic!("{what}: {seen:#}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits until an object has, among others, these members.
async fn reaches(world: &World, kind: &str, name: &str, expected: &Value) {
    until(&format!("{kind} {name} does not reach {expected}"), async || {
        let object = world.get(kind, name).await;
        if has(&object, expected) { Ok(()) } else { Err(object["status"].clone()) }
    })
    .await;
}

/// Whether `object` has the members of `expected`, null for those that are not to be there.
fn has(object: &Value, expected: &Value) -> bool {
    match expected {
        Value::Object(members) => members.iter().all(|(name, value)| has(&object[name], value)),
        value => object == value,
    }
}

/// Waits until nobody writes any more.
async fn comes_to_rest(world: &World) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let before = world.registry.store().revision();
        sleep(QUIET).await;
        let after = world.registry.store().revision();
        if before == after {
            return;
        }
        assert!(Instant::now() < deadline, "somebody goes on writing: {} revisions in {QUIET:?}", after - before);
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let (api_version, kind) = kind.rsplit_once('/').expect("VERSION/KIND");
    json!({
        "apiVersion": api_version, "kind": kind, "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
    })
}

fn labels(app: &str) -> Value {
    json!({ "matchLabels": { "app": app } })
}

#[test]
fn a_status_that_somebody_spoiled_is_put_right() {
    on_cluster(&["lws"], async |world| {
        let budget = json!({ "minAvailable": 1, "selector": labels("deployment") });
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "deployment" });
        let mut task = template("task", 0);
        task["spec"]["restartPolicy"] = json!("Never");
        let cpu = json!({ "type": "Resource", "resource": {
            "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 },
        } });
        let workers = json!({ "size": 1, "workerTemplate": template("lws", 0) });
        let claim = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": { "requests": { "storage": "1Gi" } },
        });
        let volume = json!({
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/nowhere" },
        });
        let mine = |kind: &str, name: &str| json!([{ "apiVersion": "batch/v1", "kind": kind, "name": name, "namespace": NAMESPACE, "uid": "gone" }]);
        // Each with what it has to say of itself, and what somebody writes over it.
        let table = [
            (
                "apps/v1/ReplicaSet",
                json!({ "replicas": 2, "selector": labels("replicaset"), "template": template("replicaset", 0) }),
                json!({ "replicas": 2, "readyReplicas": 2, "terminatingReplicas": 0 }),
                json!({ "replicas": 9, "readyReplicas": null, "availableReplicas": null, "terminatingReplicas": 3 }),
            ),
            (
                "v1/ReplicationController",
                json!({
                    "replicas": 2, "selector": { "app": "replicationcontroller" },
                    "template": template("replicationcontroller", 0),
                }),
                json!({ "replicas": 2, "availableReplicas": 2 }),
                json!({ "replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1 }),
            ),
            (
                "apps/v1/Deployment",
                json!({ "replicas": 2, "selector": labels("deployment"), "template": template("deployment", 0) }),
                json!({ "replicas": 2, "updatedReplicas": 2, "unavailableReplicas": null }),
                json!({ "replicas": 5, "updatedReplicas": 1, "unavailableReplicas": 4 }),
            ),
            (
                "apps/v1/StatefulSet",
                json!({
                    "replicas": 2, "serviceName": "db", "selector": labels("statefulset"),
                    "template": template("statefulset", 0),
                }),
                json!({ "replicas": 2, "readyReplicas": 2, "observedGeneration": 1 }),
                json!({ "replicas": 7, "readyReplicas": 1, "availableReplicas": 1 }),
            ),
            (
                "apps/v1/DaemonSet",
                json!({ "selector": labels("daemonset"), "template": template("daemonset", 0) }),
                json!({ "numberReady": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0 }),
                json!({ "numberReady": 0, "numberAvailable": 0, "desiredNumberScheduled": 4, "numberMisscheduled": 2 }),
            ),
            (
                "batch/v1/Job",
                json!({ "suspend": true, "template": task }),
                json!({ "active": null, "ready": 0 }),
                json!({ "active": 3, "ready": 2 }),
            ),
            (
                "batch/v1/CronJob",
                json!({ "suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": { "spec": { "template": task } } }),
                json!({ "active": null }),
                json!({ "active": mine("Job", "gone") }),
            ),
            (
                "policy/v1/PodDisruptionBudget",
                budget,
                json!({ "disruptionsAllowed": 1, "currentHealthy": 2 }),
                json!({ "disruptionsAllowed": 9, "currentHealthy": 10 }),
            ),
            (
                "v1/ResourceQuota",
                json!({ "hard": { "pods": "100", "configmaps": "10" } }),
                json!({ "used": { "configmaps": "1" } }),
                json!({ "used": { "configmaps": "7" } }),
            ),
            (
                "autoscaling/v2/HorizontalPodAutoscaler",
                json!({ "minReplicas": 2, "maxReplicas": 2, "scaleTargetRef": target, "metrics": [cpu] }),
                json!({ "currentReplicas": 2 }),
                json!({ "currentReplicas": 8 }),
            ),
            (
                "leaderworkerset.x-k8s.io/v1/LeaderWorkerSet",
                json!({ "replicas": 1, "leaderWorkerTemplate": workers }),
                json!({ "replicas": 1, "readyReplicas": 1 }),
                json!({ "replicas": 6, "readyReplicas": 5 }),
            ),
            ("v1/PersistentVolume", volume, json!({ "phase": "Bound" }), json!({ "phase": "Available" })),
            ("v1/PersistentVolumeClaim", claim, json!({ "phase": "Bound" }), json!({ "phase": "Pending" })),
        ];
        let name = |kind: &str| kind.rsplit('/').next().unwrap_or_default().to_lowercase();
        for (kind, spec, ..) in &table {
            world.create(object(kind, &name(kind), spec.clone())).await;
        }
        for (kind, _, right, wrong) in &table {
            let right = json!({ "status": right });
            reaches(world, kind, &name(kind), &right).await;
            // Twice, as the second time nothing is new about who has written it.
            for _ in 0..2 {
                world.patch_status(kind, &name(kind), wrong.clone()).await;
                reaches(world, kind, &name(kind), &right).await;
            }
        }
        // What has no metrics goes on saying so.
        world.delete("autoscaling/v2/HorizontalPodAutoscaler", "horizontalpodautoscaler").await;
        comes_to_rest(world).await;
    });
}

#[test]
fn a_replica_set_that_is_scaled_down_has_nothing_terminating_in_the_end() {
    on_cluster(&[], async |world| {
        let spec = json!({ "replicas": 0, "selector": labels("set"), "template": template("set", 0) });
        world.create(object("apps/v1/ReplicaSet", "set", spec)).await;
        for _ in 0..6 {
            for size in [3, 0] {
                world.patch("apps/v1/ReplicaSet", "set", json!({ "spec": { "replicas": size } })).await;
                let ready = if size == 0 { Value::Null } else { size.into() };
                let status = json!({ "replicas": size, "readyReplicas": ready, "terminatingReplicas": 0 });
                reaches(world, "apps/v1/ReplicaSet", "set", &json!({ "status": status })).await;
            }
        }
    });
}

#[test]
fn a_recreate_rollout_ends() {
    on_cluster(&[], async |world| {
        let with_image = |image: usize| {
            let mut template = template("web", image);
            template["spec"]["terminationGracePeriodSeconds"] = 0.into();
            template
        };
        let spec = json!({
            "replicas": 1, "strategy": { "type": "Recreate" }, "selector": labels("web"), "template": with_image(0),
        });
        world.create(object("apps/v1/Deployment", "web", spec)).await;
        for image in 1..=6 {
            world.patch("apps/v1/Deployment", "web", json!({ "spec": { "template": with_image(image) } })).await;
            until("the new version runs", async || {
                let web = world.get("apps/v1/Deployment", "web").await;
                let pods = world.list("v1/Pod").await;
                let images = pods.iter().map(|pod| pod.data["spec"]["containers"][0]["image"].as_str());
                let is_new = images.eq([Some(image.to_string().as_str())]);
                let observed = web["metadata"]["generation"] == web["status"]["observedGeneration"];
                let done = json!({ "status": { "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1 } });
                if is_new && observed && has(&web, &done) { Ok(()) } else { Err(web["status"].clone()) }
            })
            .await;
        }
    });
}

/// Definitions under the names of the addons' that somebody else installed, with objects and pods. Nothing becomes of
/// them, until the definitions are handed over to the addons, and nothing more once they are taken back.
#[test]
fn what_an_addon_did_not_install_is_left_alone() {
    const DEFINITION: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition";
    const LWS: &str = "leaderworkerset.x-k8s.io/v1/LeaderWorkerSet";
    const QUEUE: &str = "scheduling.volcano.sh/v1beta1/Queue";
    const GROUP: &str = "scheduling.x-k8s.io/v1alpha1/PodGroup";
    on_cluster(&[], async |world| {
        let foreign = ["lws", "rbg", "gang"].map(|name| addons::find(name).expect("an addon"));
        for addon in foreign {
            for mut definition in addon.definitions() {
                definition.metadata.labels = None;
                world.create(json!(definition)).await;
            }
        }
        let label = async |value: fn(&'static str) -> Value| {
            for addon in foreign {
                for definition in addon.definitions() {
                    let name = definition.metadata.name.as_deref().expect("a name");
                    let patch = json!({ "metadata": { "labels": { "coracle.dev/addon": value(addon.name) } } });
                    assert!(world.patch(DEFINITION, name, patch).await);
                }
            }
        };
        let set = json!({ "replicas": 1, "leaderWorkerTemplate": { "size": 1, "workerTemplate": template("x", 0) } });
        world.create(object(LWS, "theirs", set.clone())).await;
        let role = json!({ "name": "web", "replicas": 1, "template": template("web", 0) });
        let group = json!({ "roles": [role] });
        world.create(object("workloads.x-k8s.io/v1alpha2/RoleBasedGroup", "theirs", group)).await;
        let mut queue = object(QUEUE, "theirs", json!({ "weight": 1 }));
        queue["metadata"].as_object_mut().expect("metadata").remove("namespace");
        world.create(queue).await;
        world.create(object(GROUP, "theirs", json!({ "minMember": 2 }))).await;
        let pod = |name: &str, scheduler: &str, labels: Value| {
            let mut pod = object("v1/Pod", name, template("x", 0)["spec"].clone());
            pod["spec"]["schedulerName"] = scheduler.into();
            pod["metadata"]["labels"] = labels;
            pod["metadata"]["annotations"] = json!({ "leaderworkerset.sigs.k8s.io/size": "2" });
            pod
        };
        let lws = || json!({ "leaderworkerset.sigs.k8s.io/name": "theirs" });
        world.create(pod("volcanos-0", "volcano", json!({}))).await;
        world.create(pod("plugins-0", "scheduler-plugins-scheduler", json!({}))).await;
        world.create(pod("member-1", "default-scheduler", lws())).await;
        // One of two: a gang of ours would wait.
        let of_group = json!({ "scheduling.x-k8s.io/pod-group": "theirs" });
        world.create(pod("grouped-0", "default-scheduler", of_group.clone())).await;

        let bound = json!({ "spec": { "nodeName": "node" } });
        reaches(world, "v1/Pod", "grouped-0", &bound).await;
        reaches(world, "v1/Pod", "member-1", &bound).await;
        comes_to_rest(world).await;
        for name in ["volcanos-0", "plugins-0"] {
            assert_eq!(world.get("v1/Pod", name).await["spec"]["nodeName"], Value::Null, "{name}");
        }
        let member = world.get("v1/Pod", "member-1").await;
        assert_eq!(member["spec"]["containers"][0]["env"], Value::Null);
        assert_eq!(member["metadata"]["labels"], lws());
        for kind in ["apps/v1/StatefulSet", "apps/v1/Deployment", "apps/v1/ControllerRevision", "v1/Service"] {
            assert!(world.list(kind).await.is_empty(), "{kind}");
        }
        let queues = world.list(QUEUE).await;
        assert_eq!(queues.len(), 1, "no queue of ours: {queues:?}");
        for (kind, name) in [(LWS, "theirs"), (QUEUE, "theirs"), (GROUP, "theirs")] {
            assert_eq!(world.get(kind, name).await["status"], Value::Null, "{kind}");
        }

        // Handed over.
        label(Into::into).await;
        reaches(world, LWS, "theirs", &json!({ "status": { "readyReplicas": 1 } })).await;
        reaches(world, QUEUE, "theirs", &json!({ "status": { "state": "Open" } })).await;
        reaches(world, GROUP, "theirs", &json!({ "status": { "phase": "Pending" } })).await;
        for name in ["volcanos-0", "plugins-0", "theirs-web-0"] {
            reaches(world, "v1/Pod", name, &bound).await;
        }
        world.create(pod("member-2", "default-scheduler", lws())).await;
        let member = world.get("v1/Pod", "member-2").await;
        assert_eq!(member["spec"]["containers"][0]["env"][1]["name"], "LWS_GROUP_SIZE");

        // Taken back: what comes now is not ours any more.
        label(|_| Value::Null).await;
        world.create(object(LWS, "later", set)).await;
        world.create(pod("volcanos-1", "volcano", json!({}))).await;
        world.create(pod("member-3", "default-scheduler", lws())).await;
        world.create(pod("grouped-1", "default-scheduler", of_group)).await;
        reaches(world, "v1/Pod", "member-3", &bound).await;
        reaches(world, "v1/Pod", "grouped-1", &bound).await;
        comes_to_rest(world).await;
        assert_eq!(world.get(LWS, "later").await["status"], Value::Null);
        assert_eq!(world.get("v1/Pod", "volcanos-1").await["spec"]["nodeName"], Value::Null);
        assert_eq!(world.get("v1/Pod", "member-3").await["spec"]["containers"][0]["env"], Value::Null);
    });
}
