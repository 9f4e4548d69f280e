//! What the runner promises, and what it says of each reconcile.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::registry::Registry;

use super::*;
use crate::{Cause, ObjectKey, ObjectVersion, Reconciles};

#[tokio::test(start_paused = true)]
async fn a_panic_harms_no_other_key_and_is_tried_again() {
    let queue = Reconciles::default().queue("test");
    let cancel = CancellationToken::new();
    let bad = Arc::new(AtomicUsize::new(0));
    let good = Arc::new(AtomicUsize::new(0));
    queue.add("bad", Cause::new("test"));
    queue.add("good", Cause::new("test"));
    let running = run(queue.clone(), 1, cancel.clone(), |key| {
        let (bad, good, cancel) = (bad.clone(), good.clone(), cancel.clone());
        async move {
            if key == "bad" {
                assert!(bad.fetch_add(1, Ordering::SeqCst) > 0, "first time");
                cancel.cancel();
            } else {
                good.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, Infallible>(Action::AwaitChange)
        }
    });
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("the workers end when cancelled");
    assert_eq!((bad.load(Ordering::SeqCst), good.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn each_reconcile_is_recorded_and_counted() {
    let reconciles = Reconciles::default();
    let queue: WorkQueue<ObjectKey> = reconciles.queue("test");
    let cancel = CancellationToken::new();
    queue.add(ObjectKey::new("ns", "web"), Cause::new("a test"));
    let rounds = AtomicUsize::new(0);
    let running = run(queue.clone(), 1, cancel.clone(), |key: ObjectKey| {
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        let cancel = cancel.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let object = ObjectVersion { kind: "Pod".into(), key, revision: Some(7) };
            for _ in 0..20 {
                record_write(|| Write { verb: "create", object: object.clone(), subresource: "", refused: None });
            }
            match round {
                0 => Ok(Action::RequeueAfter(Duration::from_secs(1)).because("it is early")),
                1 => Err("no luck"),
                _ => {
                    cancel.cancel();
                    Ok(Action::AwaitChange)
                }
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("the workers end when cancelled");
    let latest = reconciles.latest("test");
    let texts: Vec<String> = latest.iter().map(ToString::to_string).collect();
    assert_eq!(latest[0].took.as_secs(), 2);
    assert!(texts[0].starts_with("woken by a test; wrote create Pod ns/web @7, "), "{}", texts[0]);
    assert!(texts[0].ends_with("and 4 more; again in 1s (it is early)"), "{}", texts[0]);
    assert!(texts[1].starts_with("woken by requeued after a time;") && texts[1].ends_with("; failed: no luck"));
    assert!(texts[2].starts_with("woken by retried after a failure;") && texts[2].ends_with("; waits for a change"));

    let mut registry = Registry::default();
    registry.register_collector(Box::new(reconciles));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("metrics");
    for expect in [
        r#"workqueue_adds_total{name="test"} 3"#,
        r#"workqueue_retries_total{name="test"} 1"#,
        r#"workqueue_depth{name="test"} 0.0"#,
        r#"workqueue_unfinished_work_seconds{name="test"} 0.0"#,
        r#"workqueue_longest_running_processor_seconds{name="test"} 0.0"#,
        r#"workqueue_queue_duration_seconds_count{name="test"} 3"#,
        r#"workqueue_work_duration_seconds_sum{name="test"} 6.0"#,
        r#"controller_runtime_reconcile_total{controller="test",result="requeue_after"} 1"#,
        r#"controller_runtime_reconcile_total{controller="test",result="error"} 1"#,
        r#"controller_runtime_reconcile_total{controller="test",result="success"} 1"#,
        r#"controller_runtime_reconcile_time_seconds_count{controller="test"} 3"#,
    ] {
        assert!(text.contains(expect), "{expect} is missing:\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_is_answered_with_what_was_done() {
    let reconciles = Reconciles::default();
    let queue: WorkQueue<ObjectKey> = reconciles.queue("test");
    let component = reconciles.components().remove(0);
    let pause = component.pause().expect("queues can be paused");
    pause.pause();
    ["a", "b"].into_iter().for_each(|name| queue.add(ObjectKey::new("ns", name), Cause::new("a test")));
    let cancel = CancellationToken::new();
    let running = run(queue.clone(), 4, cancel.clone(), |key: ObjectKey| async move {
        let object = ObjectVersion { kind: "Pod".into(), key, revision: Some(7) };
        record_write(|| Write { verb: "create", object, subresource: "", refused: None });
        Err::<Action, _>("no luck")
    });
    let stepping = async {
        let step = pause.step(Duration::from_secs(1), Duration::from_secs(1)).await;
        cancel.cancel();
        step
    };
    let ((), step) = tokio::join!(running, stepping);
    let crate::Step::Done(done) = step else { panic!("{step:?}") };
    let texts: Vec<String> = done.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["woken by a test; wrote create Pod ns/a @7; failed: no luck"]);
    assert_eq!((component.reconciles(), component.failures(), component.running()), (1, 1, 0));
    assert_eq!(component.next().map(|(key, _)| key).as_deref(), Some("ns/b"));
}
