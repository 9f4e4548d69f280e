//! The queue's promises, on tokio's paused clock.

use super::*;
use crate::{Component, Reconciles};

const CAUSE: Cause = Cause::new("test");

fn queue() -> WorkQueue<&'static str> {
    Reconciles::default().queue("test")
}

#[tokio::test]
async fn a_key_is_handed_out_once_however_often_it_is_added() {
    let queue = queue();
    queue.add("a", CAUSE);
    queue.add("b", CAUSE);
    queue.add("a", CAUSE);
    assert_eq!(queue.next().await.key, "a");
    assert_eq!(queue.next().await.key, "b");
    assert!(queue.is_empty());
}

#[tokio::test]
async fn a_key_added_while_it_is_worked_on_comes_again_afterwards() {
    let queue = queue();
    queue.add("a", CAUSE);
    assert_eq!(queue.next().await.key, "a");
    queue.add("a", CAUSE);
    assert!(queue.is_empty(), "no second worker may get it meanwhile");
    queue.done("a", Action::AwaitChange);
    assert_eq!(queue.next().await.key, "a");
}

#[tokio::test(start_paused = true)]
async fn of_several_delays_the_earliest_counts() {
    let queue = queue();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10), CAUSE);
    queue.add_after("a", Duration::from_secs(2), CAUSE);
    queue.add_after("a", Duration::from_secs(5), CAUSE);
    assert_eq!(queue.next().await.key, "a");
    assert_eq!(start.elapsed().as_secs(), 2);
    queue.done("a", Action::AwaitChange);
    let again = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
    assert!(again.is_err(), "the later wishes were dropped");
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_worker_wakes_for_an_earlier_key() {
    let queue = queue();
    queue.add_after("late", Duration::from_secs(100), CAUSE);
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next().await.key }
    });
    tokio::task::yield_now().await;
    queue.add_after("early", Duration::from_secs(1), CAUSE);
    assert_eq!(worker.await.ok(), Some("early"));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_success_forgets_them() {
    let queue = queue();
    let mut delays = Vec::new();
    for _ in 0..4 {
        queue.add("a", CAUSE);
        let key = queue.next().await.key;
        delays.push(queue.failed(key).as_millis());
    }
    assert_eq!(delays, [5, 10, 20, 40]);
    let key = queue.next().await.key;
    queue.done(key, Action::AwaitChange);
    queue.add("a", CAUSE);
    let key = queue.next().await.key;
    assert_eq!(queue.failed(key), FIRST_RETRY);
}

#[tokio::test(start_paused = true)]
async fn back_off_is_bounded() {
    let queue = queue();
    for _ in 0..80 {
        queue.add("a", CAUSE);
        let key = queue.next().await.key;
        assert!(queue.failed(key) <= LONGEST_RETRY);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_tells_its_first_causes_and_how_long_it_waited() {
    let queue = queue();
    for _ in 0..6 {
        queue.add("a", CAUSE);
    }
    tokio::time::advance(Duration::from_secs(3)).await;
    let work = queue.next().await;
    let (causes, more) = work.causes.record();
    assert_eq!((causes.len(), more, work.causes.since().elapsed().as_secs()), (4, 2, 3));
    queue.add("a", Cause::new("meanwhile"));
    queue.done("a", Action::RequeueAfter(Duration::from_secs(1)));
    let work = queue.next().await;
    assert_eq!(format!("{:?}", work.causes.record().0), r#"[Text("meanwhile")]"#);
    queue.done("a", Action::AwaitChange);
    assert_eq!(format!("{:?}", queue.next().await.causes.record().0), r#"[Text("requeued after a time")]"#);
}

/// A queue, and the component that it is of.
fn reported() -> (WorkQueue<&'static str>, Component) {
    let reconciles = Reconciles::default();
    let queue = reconciles.queue("test");
    (queue, reconciles.components().remove(0))
}

#[tokio::test(start_paused = true)]
async fn a_paused_queue_takes_keys_and_hands_out_none() {
    let (queue, component) = reported();
    let pause = component.pause().expect("queues can be paused");
    // It waits for a key before the pause begins.
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { [queue.next().await, queue.next().await, queue.next().await].map(|work| work.key) }
    });
    tokio::task::yield_now().await;
    pause.pause();
    queue.add("a", CAUSE);
    queue.add_after("later", Duration::from_secs(5), CAUSE);
    queue.add("b", CAUSE);
    queue.add("a", CAUSE);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!worker.is_finished());
    assert_eq!((queue.len(), component.waiting()), (3, 3), "each key once, and what is due by now");
    assert_eq!(component.next(), Some(("a".to_owned(), Duration::from_secs(60))));
    pause.resume();
    assert_eq!(worker.await.expect("keys"), ["a", "b", "later"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_hands_out_one_key() {
    let (queue, component) = reported();
    let pause = component.pause().expect("queues can be paused");
    pause.pause();
    ["a", "b", "c"].into_iter().for_each(|key| queue.add(key, CAUSE));
    let next = || tokio::time::timeout(Duration::from_secs(60), queue.next());
    let second = Duration::from_secs(1);
    let (step, work) = tokio::join!(pause.step(second, second), next());
    let work = work.expect("one key");
    assert_eq!((work.key, matches!(step, crate::Step::UnderWay(_))), ("a", true));
    assert!(next().await.is_err(), "and no other");
    queue.done("a", Action::AwaitChange);
    pause.resume();
    assert_eq!([queue.next().await.key, queue.next().await.key], ["b", "c"]);
}
