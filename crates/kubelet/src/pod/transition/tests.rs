//! What follows from what happens.

use serde_json::json;

use super::*;
use crate::pod::resize;
use crate::testing::{World, at, pod, state_of};

#[test]
fn failed_removals_wait_longer_each_time() {
    let seconds: Vec<u64> = (0..8).map(|failures| removal_pause(failures).as_secs()).collect();
    assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 122, 122]);
    assert_eq!(removal_pause(u32::MAX), PAUSES.1);
    let mut state = state_of(pod(json!({"containers": []})));
    state.note_failure("c", true);
    state.note_failure("c", true);
    assert_eq!((state.failures("c"), state.failures("d")), (2, 0));
    state.note_failure("c", false);
    assert_eq!(state.failures("c"), 0);
}

#[test]
fn a_status_is_written_once_and_again_after_a_failure() {
    let mut state = StateMachine(state_of(pod(json!({"containers": [{"name": "a", "image": "x"}]}))));
    let status = Arc::new(PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() });
    let mut apply = |event, second, expect: Option<u64>| {
        state.apply(event, at(second));
        assert_eq!(state.write_at(Stage::Syncing, at(second)), expect.map(at), "at {second}");
    };
    apply(Event::StatusComputed(Arc::clone(&status)), 1, Some(1));
    apply(Event::WriteBegun, 1, None);
    // While it is written, another difference waits.
    apply(Event::StatusComputed(Arc::clone(&status)), 2, None);
    apply(Event::Finished(OperationOutcome::Written(Ok(None))), 3, None);
    apply(Event::StatusComputed(Arc::clone(&status)), 3, Some(4));
    apply(Event::WriteBegun, 4, None);
    let mut written = pod(json!({"containers": [{"name": "a", "image": "x"}]}));
    written.status = Some(PodStatus::clone(&status));
    apply(Event::Finished(OperationOutcome::Written(Ok(Some(Arc::new(written))))), 5, None);
    apply(Event::StatusComputed(status), 6, None);
}

#[test]
fn a_pod_that_has_completed_is_not_failed() {
    for (container, fails) in [("exited 0", false), ("running", true)] {
        let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}));
        world.sandbox(0, true).container("a", 0, container);
        let mut state = StateMachine(world.state);
        let failure = Failure::evicted("The node was low on memory".to_owned());
        let effect = state.apply(Event::Message(Message::Fail(failure)), at(100));
        assert_eq!((effect.is_some(), state.failure.is_some()), (fails, fails), "{container}");
    }
}

#[test]
fn an_older_pod_is_left_aside() {
    let with_version = |version: &str, image: &str| {
        let mut pod = pod(json!({"containers": [{"name": "a", "image": image}]}));
        pod.metadata.resource_version = Some(version.to_owned());
        Arc::new(pod)
    };
    let mut state = StateMachine(state_of(Pod::clone(&with_version("9", "x"))));
    let mut image_after = |version, image| {
        let effect = state.apply(
            Event::Message(Message::Updated(with_version(version, image), informer::Cause::new("a test"))),
            at(1),
        );
        (state.desired.container("a").and_then(|a| a.spec.image.clone()).unwrap_or_default(), effect)
    };
    assert_eq!(image_after("10", "y"), ("y".to_owned(), Some(Effect::TrackReferences)));
    assert_eq!(image_after("9", "x"), ("y".to_owned(), None));
    // What changes nothing of the specification needs no other objects.
    assert_eq!(image_after("11", "y"), ("y".to_owned(), None));
}

/// What a running container has is what was given to it, whatever is asked for, allocated or tried meanwhile.
#[test]
fn what_a_container_has_while_a_resize_is_under_way() {
    let spec =
        |cpu: &str| json!({"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": cpu}}}]});
    let resources = |cpu: &str| serde_json::from_value::<ResourceRequirements>(json!({"requests": {"cpu": cpu}})).ok();
    let mut world = World::new(spec("1"));
    world.sandbox(0, true);
    let started = |result| Event::Finished(OperationOutcome::Started { container: "a".to_owned(), result });
    let resized = |id: &str, cpu: &str, result| {
        let (id, container) = (id.to_owned(), "a".to_owned());
        Event::Finished(OperationOutcome::Resized { id, container, resources: resources(cpu), result })
    };
    let start = |attempt| Event::Begun(Action::StartContainer { container: "a".to_owned(), attempt });
    let asks = |state: &StateMachine, cpu: &str| {
        let mut pod = Pod::clone(&state.desired.pod);
        pod.spec = serde_json::from_value(spec(cpu)).ok();
        Event::Message(Message::Updated(Arc::new(pod), informer::Cause::new("a test")))
    };
    let check = |state: &StateMachine, expect: &str, is_needed: bool| {
        let (desired, latest) = (&state.desired.containers[0], state.runtime.latest("a").unwrap());
        let applied = resize::applied(state, desired, latest).unwrap();
        assert_eq!(applied.requests.as_ref().unwrap()["cpu"].0, expect);
        assert_eq!(resize::is_needed(state, desired, latest), is_needed);
    };

    // While its post-start hook runs, something else is asked for, and allocated.
    let mut state = StateMachine(world.state);
    state.apply(start(0), at(1));
    let mut with_container = World { state: state.0, now: at(1) };
    with_container.container("a", 0, "running");
    let mut state = StateMachine(with_container.state);
    check(&state, "1", false);
    state.apply(asks(&state, "2"), at(2));
    assert!(state.desired.has_unallocated_resize());
    check(&state, "1", false);
    state.apply(Event::Allocated(Ok(())), at(2));
    check(&state, "1", true);
    state.apply(started(Ok(())), at(3));
    check(&state, "1", true);

    // A resize that fails is tried again, and what is tried then is not what is asked for by now.
    let failed = || Err(Unfinished::error("no".to_owned()));
    state.apply(resized("a0", "2", failed()), at(4));
    check(&state, "1", true);
    state.apply(asks(&state, "3"), at(5));
    state.apply(Event::Allocated(Err(Unfinished::deferred("later".to_owned()))), at(5));
    check(&state, "1", true);
    state.apply(resized("a0", "2", Ok(Resized::InPlace)), at(6));
    check(&state, "2", false);
    assert!(state.desired.has_unallocated_resize() && state.pending_resize.is_some());

    // A restart gives it what is allocated, not what is asked for.
    let mut world = World { state: state.0, now: at(7) };
    world.container("a", 0, "exited 1");
    let mut state = StateMachine(world.state);
    state.apply(start(1), at(7));
    let mut world = World { state: state.0, now: at(8) };
    world.container("a", 1, "running");
    let mut state = StateMachine(world.state);
    state.apply(Event::Allocated(Ok(())), at(8));
    check(&state, "2", true);
    // A word on its predecessor changes nothing.
    state.apply(resized("a0", "3", Ok(Resized::ByRestart)), at(8));
    state.apply(started(Ok(())), at(9));
    check(&state, "2", true);
    assert!(state.restarting.is_empty() && state.pending_resize.is_none());
}
