//! What a component says of a reconcile without a work queue.

use prometheus_client::registry::Registry;

use super::*;
use crate::{Cause, Causes, ObjectKey};

struct Tests;

impl Reconciler for Tests {
    const NAME: &'static str = "test";
    const DURATION: Option<DurationMetric> = Some(DurationMetric {
        name: "test_duration_seconds",
        help: "Time of a test",
        labels: &["result"],
        counter: Some(("test_runs", "Tests")),
    });
}

fn metrics(reconciles: Reconciles) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(reconciles));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("metrics");
    text
}

#[tokio::test(start_paused = true)]
async fn a_component_reports_what_it_did_and_why_not_more() {
    let reconciles = Reconciles::default();
    let reporter = reconciles.reporter::<Tests>();
    let mut causes = Causes::new(Cause::new("a test"));
    causes.push(Cause::new("another"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let key = ObjectKey::new("ns", "web");

    let mut first = reporter.begin(&key, &causes);
    (0..20).for_each(|number| first.act(|| format!("start container {number}")));
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.end(Ending::RequeueAfter(Duration::from_secs(1)), &["good"]);
    let mut second = reporter.begin(&key, &causes);
    second.because("x".repeat(5000));
    second.end(Ending::AwaitChange, &["bad"]);
    drop(reporter.begin(&key, &causes));

    let latest = reconciles.latest("test");
    assert_eq!(latest.len(), 2, "one that was called off is not reported");
    assert_eq!((latest[0].waited.as_secs(), latest[0].took.as_secs()), (3, 2));
    let text = latest[0].to_string();
    assert!(text.starts_with("woken by a test, another; did start container 0, "), "{text}");
    assert!(text.ends_with("start container 15 and 4 more; again in 1s"), "{text}");
    let text = latest[1].to_string();
    assert!(text.starts_with("woken by a test, another; wrote nothing; waits for a change (xxx"), "{text}");
    assert!(text.len() < 1200);

    let text = metrics(reconciles);
    for expect in [
        r#"controller_runtime_reconcile_total{controller="test",result="requeue_after"} 1"#,
        r#"controller_runtime_reconcile_total{controller="test",result="success"} 1"#,
        r#"test_duration_seconds_count{result="good"} 1"#,
        r#"test_runs_total{result="bad"} 1"#,
    ] {
        assert!(text.contains(expect), "{expect} is missing:\n{text}");
    }
    assert!(!text.contains(r#"name="test""#), "it has no work queue:\n{text}");
}

#[test]
fn controllers_that_start_during_a_pause_are_paused() {
    let reconciles = Reconciles::default();
    let _early: WorkQueue<ObjectKey> = reconciles.queue("early");
    reconciles.set_pauses_new(true);
    let _again: WorkQueue<ObjectKey> = reconciles.queue("early");
    let _late: WorkQueue<ObjectKey> = reconciles.queue("late");
    reconciles.set_pauses_new(false);
    let _later: WorkQueue<ObjectKey> = reconciles.queue("later");
    let paused = |component: &Component| (component.name(), component.is_paused());
    let expected = [("early", false), ("late", true), ("later", false)];
    assert_eq!(reconciles.components().iter().map(paused).collect::<Vec<_>>(), expected);
}

#[test]
fn a_component_that_panics_has_said_so() {
    let reconciles = Reconciles::default();
    let reporter = reconciles.reporter::<Tests>();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _running = reporter.begin(&"key", &Causes::new(Cause::new("a test")));
        panic!("in a test");
    }));
    assert!(panicked.is_err());
    assert_eq!(reconciles.latest("test")[0].ending, Ending::Panicked);
}

#[test]
fn what_is_kept_is_bounded() {
    let reconciles = Reconciles::default();
    let reporter = reconciles.reporter::<Tests>();
    let causes = Causes::new(Cause::new("a test"));
    (0..1000).for_each(|number| reporter.begin(&number, &causes).end(Ending::AwaitChange, &[]));
    let latest = reconciles.latest("test");
    assert_eq!((latest.len(), latest[63].key.as_str()), (64, "999"));
}
