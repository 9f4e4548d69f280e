//! Pauses of components without a work queue, on tokio's paused clock; those of queues are among the queue's tests.

use super::*;
use crate::{Cause, Causes, Ending, ReconcileReporter, Reconciler, Reconciles};

const SECOND: Duration = Duration::from_secs(1);

struct Tests;

impl Reconciler for Tests {
    const NAME: &'static str = "test";
    const DURATION: Option<crate::DurationMetric> = None;
    const IS_PAUSABLE: bool = true;
}

/// One piece of work, which takes a second.
async fn work(reporter: &ReconcileReporter, key: &str, since: Instant) {
    let step = reporter.pause().pass(&key, since, 1).await;
    let mut running = reporter.begin(&key, &Causes::new(Cause::new("a test")));
    running.set_step(step);
    tokio::time::sleep(SECOND).await;
    running.end(Ending::AwaitChange, &[]);
}

fn keys(reconciles: &[Arc<Reconcile>]) -> Vec<&str> {
    reconciles.iter().map(|reconcile| reconcile.key.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_oldest_work_goes_first_and_the_rest_waits() {
    let reconciles = Reconciles::default();
    let reporter = reconciles.reporter::<Tests>();
    let component = reconciles.components().remove(0);
    let switch = component.pause().expect("it can be paused");
    work(&reporter, "before", Instant::now()).await;
    assert!(switch.pause() && !switch.pause(), "paused once");

    let (late, early) = (Instant::now() + SECOND, Instant::now());
    let workers = ["late", "early"].map(|key| {
        let reporter = reporter.clone();
        tokio::spawn(async move { work(&reporter, key, if key == "late" { late } else { early }).await })
    });
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(component.latest().len(), 1, "nothing is done");
    assert_eq!((component.waiting(), component.next().map(|(key, _)| key).as_deref()), (2, Some("early")));

    let Step::Done(done) = switch.step(SECOND, 60 * SECOND).await else { panic!("there is work") };
    assert_eq!(keys(&done), ["early"]);
    assert_eq!((component.waiting(), component.next().map(|(key, _)| key).as_deref()), (1, Some("late")));
    assert!(switch.resume() && !switch.resume(), "resumed once");
    for worker in workers {
        worker.await.expect("it ends");
    }
    assert_eq!(keys(&component.latest()), ["before", "early", "late"]);
    assert_eq!((component.waiting(), component.next()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn two_steps_let_two_through() {
    let reporter = Reconciles::default().reporter::<Tests>();
    reporter.pause().pause();
    let now = Instant::now();
    let three = futures::future::join3(
        work(&reporter, "a", now),
        work(&reporter, "b", now + SECOND),
        work(&reporter, "c", now + 2 * SECOND),
    );
    let steps = async {
        let steps =
            futures::join!(reporter.pause().step(SECOND, 60 * SECOND), reporter.pause().step(SECOND, 60 * SECOND));
        assert_eq!(reporter.pause().waiting(), 1, "the third waits");
        reporter.pause().resume();
        steps
    };
    let (_, steps) = futures::join!(three, steps);
    let (Step::Done(first), Step::Done(second)) = steps else { panic!("both were taken") };
    assert_eq!((keys(&first), keys(&second)), (vec!["a"], vec!["b"]));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_nobody_takes_is_taken_back() {
    let reporter = Reconciles::default().reporter::<Tests>();
    let switch = reporter.pause();
    assert!(matches!(switch.step(SECOND, SECOND).await, Step::NotPaused));
    switch.pause();
    assert!(matches!(switch.step(SECOND, SECOND).await, Step::Idle));
    // Whoever asked has gone.
    let _ = timeout(SECOND, switch.step(60 * SECOND, SECOND)).await;
    let passed = timeout(SECOND, switch.pass(&"a", Instant::now(), 1)).await;
    assert!(passed.is_err(), "no step is left for later work");
    assert_eq!(switch.waiting(), 0, "nor does anybody who has gone wait");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_takes_long_or_comes_to_nothing_says_so() {
    let reporter = Reconciles::default().reporter::<Tests>();
    let switch = reporter.pause();
    switch.pause();
    let (step, ()) = futures::join!(switch.step(SECOND / 4, SECOND / 4), work(&reporter, "slow", Instant::now()));
    assert!(matches!(step, Step::UnderWay(done) if done.is_empty()));
    let (step, _) =
        futures::join!(switch.step(SECOND, SECOND), async { drop(switch.pass(&"a", Instant::now(), 1).await) });
    assert!(matches!(step, Step::Done(done) if done.is_empty()), "it was called off");
    let (step, _) = futures::join!(switch.step(SECOND, SECOND), async { switch.resume() });
    assert!(matches!(step, Step::NotPaused), "resumed meanwhile");
}
