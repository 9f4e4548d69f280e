//! The task of one probe of one container: one timer, no thread.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{AttemptResult, ProbeKind, Tally};
use crate::time::between;

/// A failed attempt (not: an unwell container) is made again so often before it is given up, as upstream does.
const ATTEMPTS: usize = 3;

/// The first pause between the first attempts on a container that is coming up.
const WARM_UP: Duration = Duration::from_millis(50);

/// What to probe, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    /// Which probe.
    pub(crate) kind: ProbeKind,
    /// Its settings.
    pub(crate) probe: Probe,
    /// When the container started.
    pub(crate) started: Timestamp,
    /// The last verdict on this container, for a task that goes on where another ended.
    pub(crate) last: Option<bool>,
}

impl Assignment {
    fn seconds(value: Option<i32>, default: u64) -> Duration {
        let value = value.and_then(|value| u64::try_from(value).ok());
        Duration::from_secs(value.unwrap_or(default))
    }

    /// How long one attempt may take.
    pub(crate) fn timeout(&self) -> Duration {
        Self::seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1))
    }
}

/// Probes until a verdict ends the probe's duty: success for a startup probe, failure for startup and liveness. Drop the
/// future to stop it. `attempt` makes one attempt; `count` is told how each probe ended, `tell` passes on what it says to
/// people, `verdict` to the worker.
///
/// `again` asks for an attempt right now: a container that has just started need not wait a period for its readiness.
pub(crate) async fn run<F: Future<Output = AttemptResult>>(
    assignment: Assignment,
    again: &Notify,
    attempt: impl Fn() -> F,
    count: impl Fn(&AttemptResult),
    tell: impl Fn(&'static str, String),
    verdict: impl Fn(bool),
) {
    let Assignment { kind, probe, started, last } = assignment;
    let delay = Assignment::seconds(probe.initial_delay_seconds, 0);
    let period = Assignment::seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let passed = between(started, Timestamp::now());
    let mut timer = interval_at(Instant::now() + delay.saturating_sub(passed), period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tally = Tally::new(&probe);
    let mut known = last;
    // A server that listens a moment after its container started need not wait a whole period to be found: failures
    // within the first one are tried again soon, and count once. Not with commands, which are costly, and not for
    // liveness, where a failure is a failure.
    let network = probe.exec.is_none();
    let mut coming_up = network && kind != ProbeKind::Liveness && last != Some(true);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = again.notified() => timer.reset(),
        }
        let mut outcome = attempt().await;
        if std::mem::take(&mut coming_up) {
            let (end, mut pause) = (Instant::now() + period, WARM_UP);
            while !matches!(outcome, AttemptResult::Success | AttemptResult::Warning(_)) && Instant::now() + pause < end
            {
                tokio::time::sleep(pause).await;
                pause *= 2;
                outcome = attempt().await;
            }
        }
        for _ in 1..ATTEMPTS {
            if !matches!(outcome, AttemptResult::Error(_)) {
                break;
            }
            outcome = attempt().await;
        }
        count(&outcome);
        let title = kind.title();
        let success = match outcome {
            AttemptResult::Success => true,
            AttemptResult::Warning(message) => {
                tell("ProbeWarning", format!("{title} probe warning: {message}"));
                true
            }
            AttemptResult::Failure(message) => {
                tell("Unhealthy", format!("{title} probe failed: {message}"));
                false
            }
            AttemptResult::Error(message) => {
                let what = "probe errored and resulted in unknown state";
                tell("Unhealthy", format!("{title} {what}: {message}"));
                continue;
            }
        };
        let Some(verdict_now) = tally.count(success) else {
            continue;
        };
        if known != Some(verdict_now) {
            known = Some(verdict_now);
            verdict(verdict_now);
        }
        match (kind, verdict_now) {
            (ProbeKind::Startup, _) | (ProbeKind::Liveness, false) => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Runs a probe on a scripted container: `+` well, `-` unwell, `?` the attempt fails; answers verdicts and events.
    async fn check(kind: ProbeKind, script: &'static str) -> (String, Vec<String>) {
        let exec = Some(k8s_openapi::api::core::v1::ExecAction::default());
        let (verdicts, events, _) = check_probe(kind, exec, script).await;
        (verdicts, events)
    }

    async fn check_probe(
        kind: ProbeKind,
        exec: Option<k8s_openapi::api::core::v1::ExecAction>,
        script: &'static str,
    ) -> (String, Vec<String>, String) {
        let assignment = Assignment {
            kind,
            probe: Probe { exec, failure_threshold: Some(2), period_seconds: Some(1), ..Probe::default() },
            started: Timestamp::now(),
            last: None,
        };
        let next = AtomicUsize::new(0);
        let (verdicts, events) = (Mutex::new(String::new()), Mutex::new(Vec::new()));
        let counted = Mutex::new(String::new());
        let attempt = || async {
            match script.as_bytes().get(next.fetch_add(1, Ordering::Relaxed)) {
                Some(b'+') => AttemptResult::Success,
                Some(b'-') => AttemptResult::Failure("unwell".to_owned()),
                Some(_) => AttemptResult::Error("broken".to_owned()),
                None => std::future::pending().await,
            }
        };
        let tell = |reason, message| events.lock().unwrap().push(format!("{reason}: {message}"));
        let verdict = |well| verdicts.lock().unwrap().push(if well { '+' } else { '-' });
        let again = Notify::new();
        let count = |result: &AttemptResult| {
            let letter = match result {
                AttemptResult::Success | AttemptResult::Warning(_) => '+',
                AttemptResult::Failure(_) => '-',
                AttemptResult::Error(_) => '?',
            };
            counted.lock().unwrap().push(letter);
        };
        let probe = run(assignment, &again, attempt, count, tell, verdict);
        let _ = tokio::time::timeout(Duration::from_secs(60), probe).await;
        (verdicts.into_inner().unwrap(), events.into_inner().unwrap(), counted.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_are_told_when_they_change() {
        let (verdicts, events) = check(ProbeKind::Readiness, "++--++").await;
        assert_eq!(verdicts, "+-+");
        assert_eq!(events, ["Unhealthy: Readiness probe failed: unwell"; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_container_is_probed_no_more() {
        assert_eq!(check(ProbeKind::Liveness, "+--+").await.0, "+-");
        assert_eq!(check(ProbeKind::Startup, "-+-").await.0, "+");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_says_nothing() {
        let (verdicts, events) = check(ProbeKind::Liveness, "-???-").await;
        assert_eq!(verdicts, "-");
        assert_eq!(events.len(), 3);
        let exec = Some(k8s_openapi::api::core::v1::ExecAction::default());
        assert_eq!(check_probe(ProbeKind::Liveness, exec, "-???-").await.2, "-?-");
        // Twice made again, and then it worked.
        assert_eq!(check(ProbeKind::Readiness, "??+").await.0, "+");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_up_is_found_soon() {
        let begun = Instant::now();
        let (verdicts, events, counted) = check_probe(ProbeKind::Readiness, None, "---+").await;
        assert_eq!((verdicts.as_str(), events.len()), ("+", 0));
        assert_eq!(counted, "+", "one probe, however many attempts");
        // 50 + 100 + 200 ms; then the script is over and the check waits for its own end.
        assert!(begun.elapsed() >= Duration::from_millis(350));
        // What does not come up fails as often as its thresholds say.
        let (verdicts, events, _) = check_probe(ProbeKind::Readiness, None, "-----------").await;
        assert_eq!((verdicts.as_str(), events.len() > 1), ("-", true));
    }
}
