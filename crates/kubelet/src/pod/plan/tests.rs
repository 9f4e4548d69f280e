//! What is to be done next, for each state a pod can be in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::pod::state::Stopping;
use crate::pod::step::Step;
use crate::testing::{World, at};
use crate::types::failure::Failure;

/// The plan in a few words: the stage, then what to do.
fn words(world: &World) -> String {
    let plan = plan(world.inputs());
    let mut words = vec![format!("{:?}:", plan.stage)];
    words.extend(plan.actions.iter().map(|action| match action {
        Action::SetUpVolumes => "volumes".to_owned(),
        Action::CreateSandbox { attempt } => format!("sandbox#{attempt}"),
        Action::EnsureImage { container } => format!("image({container})"),
        Action::StartContainer { container, attempt } => format!("start({container}#{attempt})"),
        Action::ReportBackOff { ended, .. } => format!("back-off({ended})"),
        Action::ReportPullBackOff { container, .. } => format!("pull-back-off({container})"),
        Action::BeginStop { id, message, grace, .. } => {
            format!("end({id}, {}s, {message})", grace.as_secs())
        }
        Action::StopContainer { id, left, .. } => format!("stop({id}, {}s)", left.as_secs()),
        Action::AllocateResources => "allocate".to_owned(),
        Action::ResizeContainer { id, .. } => format!("resize {id}"),
        Action::RemoveContainer { id } => format!("remove({id})"),
        Action::StopSandbox { id } => format!("stop-sandbox({id})"),
        Action::RemoveSandbox { id } => format!("remove-sandbox({id})"),
        Action::ExceedDeadline => "deadline".to_owned(),
        Action::NoteEviction => "note-eviction".to_owned(),
        Action::TearDownVolumes => "tear-down".to_owned(),
        Action::Release => "release".to_owned(),
    }));
    words.extend(plan.waiting.iter().map(|(name, waiting)| format!("[{name} {}]", waiting.reason)));
    words.join(" ")
}

fn check(world: &World, expect: &str) {
    assert_eq!(words(world), expect);
}

fn one() -> Value {
    json!({"containers": [{"name": "a", "image": "nginx"}]})
}

fn two() -> Value {
    json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]})
}

fn with_policy(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "nginx"}]})
}

fn with_inits() -> Value {
    json!({"containers": [{"name": "a", "image": "x"}],
        "initContainers": [{"name": "i1", "image": "x"}, {"name": "side", "image": "x", "restartPolicy": "Always"},
            {"name": "i2", "image": "x"}]})
}

#[test]
fn a_new_pod_gets_everything_at_once() {
    let mut world = World::new(two());
    world.state.volumes = Step::Idle;
    world.state.containers.clear();
    check(&world, "Syncing: sandbox#0 volumes image(a) image(b)");
    // What is under way is not begun again.
    world.state.volumes = Step::Busy;
    world.state.sandbox = Step::Busy;
    world.state.retry_mut("a").image = Step::Busy;
    world.state.retry_mut("b").image = Step::Done(runtime::Image::default());
    check(&world, "Syncing:");
}

#[test]
fn containers_start_together_when_all_is_there() {
    let mut world = World::new(two());
    world.sandbox(0, true);
    check(&world, "Syncing: start(a#0) start(b#0)");
    world.state.volumes = Step::Failed(at(200));
    check(&world, "Syncing:");
    assert_eq!(plan(world.inputs()).wake_at, Some(at(200)));
    world.state.volumes = Step::Done(());
    world.container("a", 0, "running");
    world.state.retry_mut("b").start = Step::Busy;
    check(&world, "Syncing:");
}

#[test]
fn a_post_start_hook_holds_what_comes_after() {
    let hook = json!({"postStart": {"exec": {"command": ["true"]}}});
    let mut world = World::new(json!({"containers": [
        {"name": "a", "image": "x", "lifecycle": hook}, {"name": "b", "image": "y"}]}));
    world.sandbox(0, true);
    check(&world, "Syncing: start(a#0)");
    world.state.retry_mut("a").start = Step::Busy;
    world.container("a", 0, "running");
    check(&world, "Syncing:");
    world.state.retry_mut("a").start = Step::Done(());
    check(&world, "Syncing: start(b#0)");
}

#[test]
fn init_containers_run_in_order() {
    let mut world = World::new(with_inits());
    check(&world, "Syncing: sandbox#0");
    world.sandbox(0, true);
    check(&world, "Syncing: start(i1#0)");
    world.container("i1", 0, "running");
    check(&world, "Syncing:");
    world.container("i1", 0, "exited 0");
    check(&world, "Syncing: start(side#0)");
    world.container("side", 0, "running");
    check(&world, "Syncing: start(i2#0)");
    world.container("i2", 0, "exited 1");
    check(&world, "Syncing: start(i2#1)");
    world.container("i2", 1, "exited 0");
    check(&world, "Syncing: start(a#0)");
    world.container("a", 0, "running");
    check(&world, "Syncing:");
    // A sidecar is kept running; init containers are not run again.
    world.container("side", 0, "exited 0");
    check(&world, "Syncing: start(side#1)");
}

#[test]
fn a_sidecar_with_a_startup_probe_is_waited_for() {
    let probe = json!({"tcpSocket": {"port": 1}});
    let mut world = World::new(json!({"containers": [{"name": "a", "image": "x"}],
        "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always", "startupProbe": probe}]}));
    world.sandbox(0, true).container("side", 0, "running");
    check(&world, "Syncing:");
    world.verdict("side0", ProbeKind::Startup, true);
    check(&world, "Syncing: start(a#0)");
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}],
        "initContainers": [{"name": "i", "image": "x"}]}));
    world.sandbox(0, true).container("i", 0, "exited 3");
    check(&world, "Terminating: stop-sandbox(s0)");
    world.state.runtime = Arc::new(world.state.runtime.with_sandbox_stopped("s0"));
    check(&world, "Terminated: tear-down");
}

#[test]
fn restart_policies() {
    for (policy, state, expect) in [
        ("Always", "exited 0", "Syncing: start(a#1)"),
        ("Always", "exited 1", "Syncing: start(a#1)"),
        ("OnFailure", "exited 0", "Terminating: stop-sandbox(s0)"),
        ("OnFailure", "exited 1", "Syncing: start(a#1)"),
        ("Never", "exited 0", "Terminating: stop-sandbox(s0)"),
        ("Never", "exited 1", "Terminating: stop-sandbox(s0)"),
    ] {
        let mut world = World::new(with_policy(policy));
        world.sandbox(0, true).container("a", 0, state);
        check(&world, expect);
    }
}

#[test]
fn a_container_can_have_rules_of_its_own() {
    let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x",
        "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}));
    world.sandbox(0, true).container("a", 0, "exited 42");
    check(&world, "Syncing: start(a#1)");
    world.container("a", 0, "exited 1");
    check(&world, "Terminating: stop-sandbox(s0)");
}

#[test]
fn crashes_back_off() {
    let mut world = World::new(one());
    world.sandbox(0, true).container("a", 1, "exited 1 at 95");
    let retry = world.state.retry_mut("a");
    retry.crashes.next(at(60), at(60));
    check(&world, "Syncing: back-off(a1) [a CrashLoopBackOff]");
    let planned = plan(world.inputs());
    assert_eq!(planned.wake_at, Some(at(105)));
    assert_eq!(planned.waiting["a"].message, "back-off 10s restarting failed container=a pod=web_default(u)");
    world.state.retry_mut("a").reported = Some("a1".to_owned());
    check(&world, "Syncing: [a CrashLoopBackOff]");
    world.now = at(105);
    check(&world, "Syncing: start(a#2)");
}

#[test]
fn pulls_back_off() {
    let mut world = World::new(one());
    world.sandbox(0, true);
    let retry = world.state.retry_mut("a");
    retry.pulls.next(at(100), at(100));
    retry.image = Step::Failed(at(110));
    retry.waiting = Some(Waiting::new(WaitingReason::ErrImagePull, "no such host"));
    check(&world, "Syncing: [a ErrImagePull]");
    assert_eq!(plan(world.inputs()).wake_at, Some(at(105)));
    world.now = at(105);
    check(&world, "Syncing: pull-back-off(a) [a ImagePullBackOff]");
    assert_eq!(
        plan(world.inputs()).waiting["a"].message,
        "Back-off pulling image \"nginx\": ErrImagePull: no such host"
    );
    world.now = at(110);
    check(&world, "Syncing: image(a) [a ErrImagePull]");
}

#[test]
fn unwell_containers_are_ended_and_come_back() {
    let probe = json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 3});
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "containers": [
            {"name": "a", "image": "x", "livenessProbe": probe, "startupProbe": probe}]})
    };
    for (policy, kind, expect) in [
        ("Always", ProbeKind::Liveness, "Syncing: end(a0, 3s, Container a failed liveness probe, will be restarted)"),
        ("Always", ProbeKind::Startup, "Syncing: end(a0, 3s, Container a failed startup probe, will be restarted)"),
        ("Never", ProbeKind::Liveness, "Syncing: end(a0, 3s, Container a failed liveness probe)"),
    ] {
        let mut world = World::new(spec(policy));
        world.sandbox(0, true).container("a", 0, "running");
        world.verdict("a0", kind, false);
        check(&world, expect);
        world.state.stopping.insert("a0".to_owned(), stopping(3));
        check(&world, "Syncing: stop(a0, 3s)");
    }
}

#[test]
fn a_changed_image_needs_a_new_container() {
    let mut world = World::new(one());
    world.sandbox(0, true).container("a", 0, "running");
    check(&world, "Syncing:");
    world.api(|pod| {
        let spec = pod.spec.as_mut().unwrap();
        spec.containers[0].image = Some("nginx:2".to_owned());
    });
    check(&world, "Syncing: end(a0, 30s, Container a definition changed, will be restarted)");
}

#[test]
fn a_dead_sandbox_is_replaced() {
    let mut world = World::new(one());
    world.sandbox(0, false).container("a", 0, "running");
    check(&world, "Syncing: end(a0, 30s, Stopping container a)");
    world.container("a", 0, "exited 137");
    check(&world, "Syncing: sandbox#1");
    world.sandbox(1, true);
    check(&world, "Syncing: start(a#1)");
    // A pod that never restarts does not get a new one.
    let mut world = World::new(with_policy("Never"));
    world.sandbox(0, false).container("a", 0, "exited 137");
    check(&world, "Terminated: tear-down");
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let mut world = World::new(with_inits());
    world.sandbox(0, true).container("i1", 0, "exited 0");
    world.container("side", 0, "exited 137").container("i2", 0, "exited 0");
    world.container("a", 0, "exited 137");
    world.sandbox(0, false).sandbox(1, true);
    check(&world, "Syncing: start(i1#1)");
}

#[test]
fn leftovers_of_an_interrupted_start_are_discarded() {
    let mut world = World::new(one());
    world.sandbox(0, true).container("a", 0, "created");
    check(&world, "Syncing: remove(a0)");
    world.state.retry_mut("a").start = Step::Busy;
    check(&world, "Syncing:");
}

#[test]
fn only_the_last_two_containers_are_kept() {
    let mut world = World::new(one());
    world.sandbox(0, true);
    world.container("a", 0, "exited 1").container("a", 1, "exited 1");
    world.container("a", 2, "running");
    check(&world, "Syncing: remove(a0)");
}

#[test]
fn restart_counts_survive_the_runtime() {
    let mut world = World::new(one());
    world.sandbox(0, true).api(|pod| {
        let status = json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true,
            "restartCount": 4, "containerID": "docker://x", "state": {"running": {}}}]});
        pod.status = Some(serde_json::from_value(status).unwrap());
    });
    check(&world, "Syncing: start(a#5)");
}

fn stopping(grace: u64) -> Stopping {
    Stopping { since: at(100), grace: Duration::from_secs(grace), hook: false, stop: None, retry_at: None }
}

#[test]
fn deletion_ends_everything_in_order() {
    let mut world = World::new(with_inits());
    world.sandbox(0, true).container("i1", 0, "exited 0");
    world.container("side", 0, "running").container("a", 0, "running");
    world.container("i2", 0, "exited 0");
    world.delete(30);
    let end = |id: &str, name: &str| format!("end({id}, 30s, Stopping container {name})");
    let plan = words(&world);
    assert!(plan.contains(&end("a0", "a")) && plan.contains(&end("side0", "side")), "{plan}");
    for id in ["a0", "side0"] {
        world.state.stopping.insert(id.to_owned(), stopping(30));
    }
    check(&world, "Terminating: stop(a0, 30s)");
    world.now = at(110);
    world.container("a", 0, "exited 0");
    check(&world, "Terminating: stop(side0, 20s)");
    world.container("side", 0, "exited 0");
    check(&world, "Terminating: stop-sandbox(s0)");
    world.state.busy.insert("s0".to_owned());
    check(&world, "Terminating:");
    world.state.busy.clear();
    world.state.runtime = Arc::new(world.state.runtime.with_sandbox_stopped("s0"));
    check(&world, "Terminated: tear-down");
    world.state.torn_down = Step::Done(());
    check(&world, "Terminated: release");
    world.state.released = Step::Done(());
    check(&world, "Removing: remove-sandbox(s0)");
    world.state.runtime = Arc::default();
    check(&world, "Gone:");
}

#[test]
fn a_pre_stop_hook_comes_before_the_signal_and_uses_up_the_grace() {
    let mut world = World::new(one());
    world.sandbox(0, true).container("a", 0, "running").delete(30);
    let mut hook = stopping(30);
    hook.hook = true;
    world.state.stopping.insert("a0".to_owned(), hook.clone());
    check(&world, "Terminating:");
    assert_eq!(plan(world.inputs()).wake_at, Some(at(130)));
    world.now = at(129);
    hook.hook = false;
    world.state.stopping.insert("a0".to_owned(), hook.clone());
    // However little is left, the signal comes before the kill.
    check(&world, "Terminating: stop(a0, 2s)");
    hook.hook = true;
    world.now = at(130);
    world.state.stopping.insert("a0".to_owned(), hook);
    check(&world, "Terminating: stop(a0, 2s)");
}

#[test]
fn a_second_deletion_may_be_in_a_greater_hurry() {
    let mut world = World::new(one());
    world.sandbox(0, true).container("a", 0, "running").delete(30);
    let mut under_way = stopping(30);
    under_way.stop = Some(Duration::from_secs(30));
    world.state.stopping.insert("a0".to_owned(), under_way.clone());
    check(&world, "Terminating:");
    world.delete(5);
    check(&world, "Terminating: stop(a0, 5s)");
    under_way.stop = Some(Duration::from_secs(5));
    world.state.stopping.insert("a0".to_owned(), under_way);
    check(&world, "Terminating:");
}

#[test]
fn a_start_under_way_is_waited_for() {
    let mut world = World::new(one());
    world.sandbox(0, true).delete(30);
    world.state.retry_mut("a").start = Step::Busy;
    check(&world, "Terminating:");
}

#[test]
fn a_pod_that_never_ran_goes_at_once() {
    let mut world = World::new(one());
    world.delete(30);
    check(&world, "Terminated: tear-down");
    world.state.torn_down = Step::Done(());
    check(&world, "Terminated: release");
    world.state.released = Step::Done(());
    check(&world, "Gone:");
}

#[test]
fn orphans_are_ended_and_removed() {
    let mut world = World::new(one());
    world.sandbox(0, true).container("a", 0, "running");
    world.state.desired = Arc::new(DesiredPod::orphan(&runtime::PodIdentity::default()));
    check(&world, "Terminating: end(a0, 1s, Stopping container a)");
    world.container("a", 0, "exited 0");
    world.state.runtime = Arc::new(world.state.runtime.with_sandbox_stopped("s0"));
    world.state.torn_down = Step::Done(());
    check(&world, "Removing: remove-sandbox(s0)");
}

#[test]
fn what_an_evicted_pod_used_comes_back_before_the_api_knows() {
    let mut world = World::new(one());
    world.sandbox(0, false).container("a", 0, "exited 137");
    world.state.torn_down = Step::Done(());
    world.state.failure = Some(Failure::rejected("Other", ""));
    check(&world, "Terminated:");
    world.state.failure = Some(Failure::evicted(String::new()));
    world.state.eviction_noted = Step::Done(());
    check(&world, "Terminated: remove(a0)");
}

#[test]
fn a_completed_pod_keeps_its_containers() {
    let mut world = World::new(with_policy("Never"));
    world.sandbox(0, false).container("a", 0, "exited 0");
    world.state.torn_down = Step::Done(());
    check(&world, "Terminated:");
    world.delete(30);
    check(&world, "Terminated: release");
}

#[test]
fn the_deadline_of_a_pod() {
    let mut world = World::new(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a", "image": "x"}]}));
    world.now = at(59);
    world.sandbox(0, true).container("a", 0, "running");
    check(&world, "Syncing:");
    assert_eq!(plan(world.inputs()).wake_at, Some(at(60)));
    world.now = at(60);
    check(&world, "Terminating: deadline end(a0, 30s, Stopping container a)");
    world.state.deadline_exceeded = true;
    check(&world, "Terminating: end(a0, 30s, Stopping container a)");
    // A clock that is set back does not revive it.
    world.now = at(59);
    check(&world, "Terminating: end(a0, 30s, Stopping container a)");
}

#[test]
fn a_deadline_is_exceeded_by_what_was_active_then() {
    let spec = json!({"activeDeadlineSeconds": 60, "restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}],
        "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always"}]});
    for (state, exceeded) in [
        ("running", true),
        ("exited 0 at 59", false),
        ("exited 0 at 60", true),
        ("exited 0 at 70", true),
        ("exited 1 at 59", false),
    ] {
        let mut world = World::new(spec.clone());
        world.sandbox(0, true).container("side", 0, "exited 0 at 80").container("a", 0, state);
        assert_eq!(deadline_exceeded(world.inputs()), exceeded, "{state}");
    }
    // One that waits for its image is active, too.
    assert!(deadline_exceeded(World::new(spec).inputs()));
}

#[test]
fn volumes_that_are_in_place_serve_while_they_cannot_be_renewed() {
    let mut world = World::new(one());
    world.sandbox(0, true);
    for (mounted, step, expect) in [
        (true, Step::Idle, "Syncing: volumes"),
        (true, Step::Busy, "Syncing:"),
        (true, Step::Outdated, "Syncing: start(a#0)"),
        (true, Step::Failed(at(200)), "Syncing: start(a#0)"),
        (false, Step::Outdated, "Syncing:"),
        (false, Step::Failed(at(200)), "Syncing:"),
    ] {
        world.state.mounted = mounted.then(crate::volumes::Mounted::new);
        world.state.volumes = step;
        check(&world, expect);
    }
}

#[test]
fn an_evicted_pod_keeps_its_containers_until_that_is_noted() {
    let mut world = World::new(with_policy("Never"));
    world.sandbox(0, false).container("a", 0, "exited 137");
    world.state.failure = Some(Failure::evicted(String::new()));
    world.state.torn_down = Step::Done(());
    check(&world, "Terminated: note-eviction");
    world.state.eviction_noted = Step::Busy;
    check(&world, "Terminated:");
    world.state.eviction_noted = Step::Done(());
    check(&world, "Terminated: remove(a0)");
    // They make the room that it needs.
    world.state.eviction_noted = Step::Failed(at(200));
    check(&world, "Terminated: remove(a0)");
    assert_eq!(plan(world.inputs()).wake_at, Some(at(200)));
}

#[test]
fn what_is_asked_for_is_allocated_before_anything_else() {
    let spec =
        |cpu: &str| json!({"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": cpu}}}]});
    let mut world = World::new(spec("1"));
    world.sandbox(0, true);
    let allocated = world.state.desired.allocated();
    world.api(|pod| pod.spec = serde_json::from_value(spec("2")).ok());
    let desired = DesiredPod::clone(&world.state.desired).with_allocated(&allocated);
    world.state.desired = Arc::new(desired);
    check(&world, "Syncing: allocate");
    // What the node does not have keeps nothing from running.
    world.state.allocation = Step::Failed(at(200));
    check(&world, "Syncing: start(a#0)");
    assert_eq!(plan(world.inputs()).wake_at, Some(at(200)));
}
