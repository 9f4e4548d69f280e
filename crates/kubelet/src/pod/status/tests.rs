//! The status a pod gets, for each state of its containers.

use serde_json::{Value, json};

use super::*;
use crate::pod::plan::plan;
use crate::probes::ProbeKind;
use crate::testing::World;

fn status(world: &World) -> PodStatus {
    let plan = plan(world.inputs());
    let facts = Facts {
        stage: plan.stage,
        waiting: &plan.waiting,
        messages: &[("a0".to_owned(), "goodbye".to_owned())].into(),
        node_ip: "192.168.0.1".parse().unwrap(),
        runtime: "docker",
    };
    compute(world.inputs(), facts)
}

/// `PHASE condition=STATUS(reason) ... | container: state ...` in short.
fn short(status: &PodStatus) -> String {
    let mut words = vec![status.phase.clone().unwrap()];
    for condition in status.conditions.iter().flatten() {
        let letter = match condition.type_.as_str() {
            "PodReadyToStartContainers" => "P",
            "Initialized" => "I",
            "Ready" => "R",
            "ContainersReady" => "C",
            _ => continue,
        };
        words.push(match (condition.status.as_str(), &condition.reason) {
            ("True", _) => letter.to_owned(),
            (_, Some(reason)) => format!("!{letter}({reason})"),
            (_, None) => format!("!{letter}"),
        });
    }
    let inits = status.init_container_statuses.iter().flatten();
    for container in inits.chain(status.container_statuses.iter().flatten()) {
        let state = container.state.clone().unwrap();
        let state = match (state.waiting, state.running, state.terminated) {
            (Some(waiting), _, _) => waiting.reason.unwrap(),
            (_, Some(_), _) => "running".to_owned(),
            (_, _, Some(ended)) => format!("{}({})", ended.reason.unwrap(), ended.exit_code),
            _ => "?".to_owned(),
        };
        let ready = if container.ready { "+" } else { "-" };
        words.push(format!("{}{ready}{state}", container.name));
    }
    words.join(" ")
}

fn check(world: &World, expect: &str) {
    assert_eq!(short(&status(world)), expect);
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "nginx:1"}]})
}

#[test]
fn from_nothing_to_running() {
    let mut world = World::new(one("Always"));
    check(&world, "Pending !P I !R(ContainersNotReady) !C(ContainersNotReady) a-ContainerCreating");
    world.sandbox(0, true);
    check(&world, "Pending P I !R(ContainersNotReady) !C(ContainersNotReady) a-ContainerCreating");
    world.container("a", 0, "running");
    check(&world, "Running P I R C a+running");
}

#[test]
fn all_of_a_running_pod() {
    let mut world = World::new(one("Always"));
    world.sandbox(0, true).container("a", 0, "running");
    let status = serde_json::to_value(status(&world)).unwrap();
    let true_ = |type_: &str| {
        json!({"type": type_, "status": "True", "lastTransitionTime": "2023-11-14T22:15:00Z",
            "observedGeneration": 1})
    };
    assert_eq!(
        status,
        json!({
            "phase": "Running",
            "observedGeneration": 1,
            "qosClass": "BestEffort",
            "hostIP": "192.168.0.1",
            "hostIPs": [{"ip": "192.168.0.1"}],
            "podIP": "10.0.0.2",
            "podIPs": [{"ip": "10.0.0.2"}],
            "startTime": "2023-11-14T22:13:20Z",
            "conditions": [true_("PodReadyToStartContainers"), true_("Initialized"), true_("Ready"),
                true_("ContainersReady"), true_("PodScheduled")],
            "containerStatuses": [{
                "name": "a",
                "image": "nginx",
                "imageID": "docker://sha256:1",
                "containerID": "docker://a0",
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": {"running": {"startedAt": "2023-11-14T22:14:10Z"}},
            }],
        })
    );
}

#[test]
fn readiness_follows_probes() {
    let probe = json!({"tcpSocket": {"port": 1}});
    let mut world = World::new(json!({"containers": [
        {"name": "a", "image": "x", "readinessProbe": probe, "startupProbe": probe}]}));
    world.sandbox(0, true).container("a", 0, "running");
    let unready = "Running P I !R(ContainersNotReady) !C(ContainersNotReady) a-running";
    check(&world, unready);
    assert_eq!(status(&world).container_statuses.unwrap()[0].started, Some(false));
    world.verdict("a0", ProbeKind::Startup, true);
    check(&world, unready);
    assert_eq!(status(&world).container_statuses.unwrap()[0].started, Some(true));
    world.verdict("a0", ProbeKind::Readiness, true);
    check(&world, "Running P I R C a+running");
    world.verdict("a0", ProbeKind::Readiness, false);
    check(&world, unready);
}

#[test]
fn completion() {
    for (policy, state, expect) in [
        ("Never", "exited 0", "Succeeded !P I !R(PodCompleted) !C(PodCompleted) a-Completed(0)"),
        ("Never", "exited 1", "Failed !P I !R(PodFailed) !C(PodFailed) a-Error(1)"),
        ("OnFailure", "exited 0", "Succeeded !P I !R(PodCompleted) !C(PodCompleted) a-Completed(0)"),
        ("OnFailure", "exited 1", "Running !P I !R(ContainersNotReady) !C(ContainersNotReady) a-Error(1)"),
        ("Always", "exited 0", "Running !P I !R(ContainersNotReady) !C(ContainersNotReady) a-Completed(0)"),
    ] {
        let mut world = World::new(one(policy));
        world.sandbox(0, false).container("a", 0, state);
        check(&world, expect);
    }
}

#[test]
fn a_crash_loop_shows_the_wait_and_the_end_before() {
    let mut world = World::new(one("Always"));
    world.sandbox(0, true).container("a", 1, "exited 1 at 95");
    let crashed = world.now;
    world.state.retry_mut("a").crashes.next(crashed, crashed);
    check(&world, "Running P I !R(ContainersNotReady) !C(ContainersNotReady) a-CrashLoopBackOff");
    let status = status(&world).container_statuses.unwrap().remove(0);
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.container_id.as_deref()), (1, Some("docker://a1")));
    assert_eq!(status.restart_count, 1);
}

#[test]
fn last_words_and_predecessors() {
    let mut world = World::new(one("Always"));
    world.sandbox(0, true).container("a", 0, "exited 2");
    world.container("a", 1, "running");
    let status = status(&world).container_statuses.unwrap().remove(0);
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.message.as_deref()), (2, Some("goodbye")));
}

#[test]
fn initialization() {
    let spec = json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [{"name": "i", "image": "x"}]});
    let mut world = World::new(spec);
    world.sandbox(0, true);
    let unready = "!R(ContainersNotReady) !C(ContainersNotReady)";
    check(&world, &format!("Pending P !I(ContainersNotInitialized) {unready} i-PodInitializing a-PodInitializing"));
    let conditions = status(&world).conditions.unwrap();
    assert_eq!(conditions[1].message.as_deref(), Some("containers with incomplete status: [i]"));
    world.container("i", 0, "running");
    check(&world, &format!("Pending P !I(ContainersNotInitialized) {unready} i-running a-PodInitializing"));
    world.container("i", 0, "exited 0");
    check(&world, &format!("Pending P I {unready} i+Completed(0) a-PodInitializing"));
    world.container("a", 0, "running");
    check(&world, "Running P I R C i+Completed(0) a+running");
}

#[test]
fn readiness_gates() {
    let mut world = World::new(json!({"containers": [{"name": "a", "image": "x"}],
        "readinessGates": [{"conditionType": "example.com/gate"}]}));
    world.sandbox(0, true).container("a", 0, "running");
    check(&world, "Running P I !R(ReadinessGatesNotReady) C a+running");
    let gate = |status: &str| {
        serde_json::from_value(json!({"conditions": [{"type": "example.com/gate", "status": status}]})).unwrap()
    };
    world.api(|pod| pod.status = Some(gate("False")));
    let message = status(&world).conditions.unwrap()[2].message.clone().unwrap();
    let expect = "the status of pod readiness gate \"example.com/gate\" is not \"True\", but False";
    assert_eq!(message, expect);
    world.api(|pod| pod.status = Some(gate("True")));
    check(&world, "Running P I R C a+running");
}

#[test]
fn the_end_is_final() {
    let mut world = World::new(one("Always"));
    world.state.deadline_exceeded = true;
    world.sandbox(0, true).container("a", 0, "running");
    let ending = status(&world);
    assert_eq!((ending.phase.as_deref(), ending.reason.as_deref()), (Some("Running"), None), "it is being stopped");
    world.api(|pod| pod.status = Some(ending));
    world.container("a", 0, "exited 0");
    let ending = status(&world);
    assert_eq!((ending.phase.as_deref(), ending.reason), (Some("Running"), None), "its sandbox is being stopped");
    world.sandbox(0, false);
    let failed = status(&world);
    assert_eq!(failed.phase.as_deref(), Some("Failed"));
    assert_eq!(failed.reason.as_deref(), Some("DeadlineExceeded"));
    world.api(|pod| pod.status = Some(failed));
    world.state.deadline_exceeded = false;
    world.sandbox(0, true).container("a", 0, "running");
    assert_eq!(status(&world).phase.as_deref(), Some("Failed"));
    assert_eq!(status(&world).reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn times_move_only_with_their_condition() {
    let mut world = World::new(one("Always"));
    let before = status(&world);
    world.api(|pod| pod.status = Some(before.clone()));
    world.now = crate::testing::at(200);
    assert!(!differs(&before, &status(&world)));
    world.sandbox(0, true).container("a", 0, "running");
    let after = status(&world);
    let time = |status: &PodStatus, index: usize| {
        let conditions = status.conditions.as_ref().unwrap();
        conditions[index].last_transition_time.clone()
    };
    assert_eq!(time(&before, 1), time(&after, 1));
    assert_ne!(time(&before, 2), time(&after, 2));
    assert!(differs(&before, &after) && urgent(&before, &after));
}

#[test]
fn a_patch_says_what_changed() {
    let mut world = World::new(one("Always"));
    let pending = status(&world);
    world.sandbox(0, true);
    let with_address = status(&world);
    assert!(!urgent(&pending, &with_address));
    let patch = patch("u", &pending, &with_address);
    assert_eq!(
        patch,
        json!({"metadata": {"uid": "u"}, "status": {
            "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "PodReadyToStartContainers", "status": "True", "observedGeneration": 1,
                "lastTransitionTime": "2023-11-14T22:15:00Z"}]}})
    );
    // What is no longer true is taken back.
    world.container("a", 0, "running");
    let running = status(&world);
    let patch = super::patch("u", &with_address, &running);
    assert_eq!(patch["status"]["conditions"][0]["type"], json!("Ready"));
    assert_eq!(patch["status"]["conditions"][0]["reason"], json!(null));
    let moved = PodStatus { pod_ips: Some(vec![PodIP { ip: "10.0.0.3".to_owned() }]), ..running.clone() };
    assert_eq!(
        super::patch("u", &running, &moved)["status"]["podIPs"],
        json!([{"ip": "10.0.0.2", "$patch": "delete"}, {"ip": "10.0.0.3"}])
    );
}

/// Upstream keeps the beginning of each, and takes no part of a character.
#[test]
fn the_messages_of_one_pod_are_limited_together() {
    let containers: Vec<Value> = (0..4).map(|n| json!({"name": format!("c{n}"), "image": "nginx:1"})).collect();
    let mut world = World::new(json!({"restartPolicy": "Never", "containers": containers}));
    world.sandbox(0, true);
    for n in 0..4 {
        world.container(&format!("c{n}"), 0, "exited 1");
    }
    let plan = plan(world.inputs());
    let message = format!("x{}", "ü".repeat(2047));
    let messages = (0..4).map(|n| (format!("c{n}0"), message.clone())).collect();
    let facts = Facts {
        stage: plan.stage,
        waiting: &plan.waiting,
        messages: &messages,
        node_ip: "192.168.0.1".parse().unwrap(),
        runtime: "docker",
    };
    let status = compute(world.inputs(), facts);
    for container in status.container_statuses.unwrap() {
        let ended = container.state.unwrap().terminated.unwrap();
        assert_eq!(ended.message.unwrap(), format!("x{}", "ü".repeat(1535)));
    }
}
