//! The queue's promises, on tokio's paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn a_key_is_handed_out_once_however_often_it_is_added() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("b");
    queue.add("a");
    assert_eq!(queue.next().await, "a");
    assert_eq!(queue.next().await, "b");
    assert!(queue.is_empty());
}

#[tokio::test]
async fn a_key_added_while_it_is_worked_on_comes_again_afterwards() {
    let queue = WorkQueue::new();
    queue.add("a");
    assert_eq!(queue.next().await, "a");
    queue.add("a");
    assert!(queue.is_empty(), "no second worker may get it meanwhile");
    queue.done("a", Action::AwaitChange);
    assert_eq!(queue.next().await, "a");
}

#[tokio::test(start_paused = true)]
async fn of_several_delays_the_earliest_counts() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(2));
    queue.add_after("a", Duration::from_secs(5));
    assert_eq!(queue.next().await, "a");
    assert_eq!(start.elapsed().as_secs(), 2);
    queue.done("a", Action::AwaitChange);
    let again = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
    assert!(again.is_err(), "the later wishes were dropped");
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_worker_wakes_for_an_earlier_key() {
    let queue = WorkQueue::new();
    queue.add_after("late", Duration::from_secs(100));
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next().await }
    });
    tokio::task::yield_now().await;
    queue.add_after("early", Duration::from_secs(1));
    assert_eq!(worker.await.ok(), Some("early"));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_success_forgets_them() {
    let queue = WorkQueue::new();
    let mut delays = Vec::new();
    for _ in 0..4 {
        queue.add("a");
        let key = queue.next().await;
        delays.push(queue.failed(key).as_millis());
    }
    assert_eq!(delays, [5, 10, 20, 40]);
    let key = queue.next().await;
    queue.done(key, Action::AwaitChange);
    queue.add("a");
    let key = queue.next().await;
    assert_eq!(queue.failed(key), FIRST_RETRY);
}

#[tokio::test(start_paused = true)]
async fn back_off_is_bounded() {
    let queue = WorkQueue::new();
    for _ in 0..80 {
        queue.add("a");
        let key = queue.next().await;
        assert!(queue.failed(key) <= LONGEST_RETRY);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_harms_no_other_key_and_is_tried_again() {
    let queue = WorkQueue::new();
    let cancel = CancellationToken::new();
    let bad = std::sync::Arc::new(AtomicUsize::new(0));
    let good = std::sync::Arc::new(AtomicUsize::new(0));
    queue.add("bad");
    queue.add("good");
    let running = run("test", queue.clone(), 1, cancel.clone(), |key| {
        let (bad, good, cancel) = (bad.clone(), good.clone(), cancel.clone());
        async move {
            if key == "bad" {
                assert!(bad.fetch_add(1, Ordering::SeqCst) > 0, "first time");
                cancel.cancel();
            } else {
                good.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, std::convert::Infallible>(Action::AwaitChange)
        }
    });
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("the workers end when cancelled");
    assert_eq!((bad.load(Ordering::SeqCst), good.load(Ordering::SeqCst)), (2, 1));
}
