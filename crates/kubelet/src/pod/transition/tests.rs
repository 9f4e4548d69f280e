//! What follows from what happens.

use serde_json::json;

use super::*;
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
