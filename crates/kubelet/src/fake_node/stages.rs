//! What a pod of a fake node is said to go through: delays, failures and ends, as annotations of the pod or, for all that say
//! nothing themselves, of its node. The names are those of KWOK's stages (`kustomize/stage/pod/general` and `.../chaos`).
//!
//! | stage | what its `delay` is between |
//! |---|---|
//! | `pod-create` | the binding, and the kubelet's first word |
//! | `pod-init-container-running`, `pod-init-container-completed` | the stages of init containers |
//! | `pod-ready` | the stage before, and containers that run |
//! | `pod-readiness` | running, and Ready; it is not one of KWOK's, which knows no pod that runs and is not Ready |
//! | `pod-complete` | running, and the end; of pods of Jobs, and of others that are not restarted, if it is given |
//! | `pod-container-failed`, `pod-init-container-failed` | each start of a container, and its failure |
//! | `pod-container-restart`, `pod-init-container-restart` | a failure, and the next start; else the kubelet's back-off |
//! | `pod-container-running-failed` | running, and the pod's failure; switched on by a label of this name |
//!
//! A `jitter-delay` above the delay is a second bound: the time is one between both, another for each pod and each attempt.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::backoff::BackOff;

/// What the names of stages end with.
const SUFFIX: &str = ".stage.kwok.x-k8s.io";

/// What is said of a pod's stages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stages<'a> {
    pod: &'a Pod,
    node: Option<&'a BTreeMap<String, String>>,
}

/// How a container fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Which; all if it is left out.
    pub(super) container: Option<String>,
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: Option<String>,
}

impl<'a> Stages<'a> {
    /// Those of a pod on a node with these annotations; none where nothing is said.
    pub(super) fn of(pod: &'a Pod, node: Option<&'a BTreeMap<String, String>>) -> Option<Self> {
        let is_said = |all: Option<&BTreeMap<String, String>>| {
            all.is_some_and(|all| all.keys().any(|name| name.contains(SUFFIX)))
        };
        let metadata = &pod.metadata;
        let said = is_said(metadata.annotations.as_ref()) || is_said(metadata.labels.as_ref()) || is_said(node);
        said.then_some(Self { pod, node })
    }

    fn text(&self, stage: &str, field: &str) -> Option<&'a str> {
        let name = format!("{stage}{SUFFIX}/{field}");
        let own = self.pod.metadata.annotations.as_ref().and_then(|all| all.get(&name));
        own.or_else(|| self.node?.get(&name)).map(String::as_str)
    }

    /// How long a stage is waited for, the `attempt`th time; none where nothing that can be read is said.
    pub(super) fn delay(&self, stage: &str, attempt: i32) -> Option<Duration> {
        let read = |field| self.text(stage, field).and_then(go_duration);
        let (delay, most) = (read("delay"), read("jitter-delay"));
        let least = delay.or(most.map(|_| Duration::ZERO))?;
        let spread = most.unwrap_or_default().saturating_sub(least);
        Some(least + spread.mul_f64(self.share(stage, attempt)))
    }

    /// A number from 0 to 1 that is the same whenever it is asked for.
    fn share(&self, stage: &str, attempt: i32) -> f64 {
        // Without keys of the process: the same after a restart.
        let mut hasher = DefaultHasher::new();
        (stage, attempt, self.pod.metadata.uid.as_deref()).hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "half of the bits are enough")]
        let share = hasher.finish() as u32;
        f64::from(share) / f64::from(u32::MAX)
    }

    /// How containers fail, if they do: `stage` is that of init containers or that of the others.
    pub(super) fn failure(&self, stage: &str) -> Option<Failure> {
        let fields = ["name", "exit-code", "reason", "message", "delay"];
        let is_said = fields.iter().any(|field| self.text(stage, field).is_some());
        is_said.then(|| self.described(stage, "name", "Error"))
    }

    /// How the whole pod fails, if the label says that it does.
    pub(super) fn fatal(&self) -> Option<Failure> {
        let labels = self.pod.metadata.labels.as_ref()?;
        let is_on = labels.get(&format!("{FATAL}{SUFFIX}")).is_some_and(|value| value == "true");
        is_on.then(|| self.described(FATAL, "container-name", "containerFailed"))
    }

    fn described(&self, stage: &str, name: &str, reason: &str) -> Failure {
        let text = |field| self.text(stage, field).filter(|text| !text.is_empty());
        Failure {
            container: text(name).map(str::to_owned),
            exit_code: text("exit-code").and_then(|code| code.parse().ok()).unwrap_or(1),
            reason: text("reason").unwrap_or(reason).to_owned(),
            message: text("message").map(str::to_owned),
        }
    }

    /// How long a container that has failed so often before is not started again: as the kubelet has it, if nothing is said.
    pub(super) fn restart(&self, stage: &str, restarts: i32) -> Duration {
        let as_kubelet = || match u32::try_from(restarts) {
            Ok(restarts @ 1..) => BackOff::FIRST.saturating_mul(1 << (restarts - 1).min(10)).min(BackOff::LONGEST),
            _ => Duration::ZERO,
        };
        self.delay(stage, restarts).unwrap_or_else(as_kubelet)
    }
}

/// The stage in which a pod fails as a whole, and the label that switches it on.
pub(super) const FATAL: &str = "pod-container-running-failed";

/// `90s`, `1m30s`, `500ms`: the durations of Go, as far as people write them.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn pod(uid: &str, annotations: &serde_json::Value) -> Pod {
        from_value(json!({ "metadata": { "uid": uid, "annotations": annotations } })).expect("a pod")
    }

    #[test]
    fn delays_lie_between_their_bounds_and_stay_the_same() {
        let said =
            json!({ "pod-ready.stage.kwok.x-k8s.io/delay": "2s", "pod-ready.stage.kwok.x-k8s.io/jitter-delay": "4s" });
        let mut found = std::collections::BTreeSet::new();
        for number in 0..50 {
            let pod = pod(&format!("uid-{number}"), &said);
            let stages = Stages::of(&pod, None).expect("something is said");
            let delay = stages.delay("pod-ready", 0).expect("it is said");
            assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&delay), "{delay:?}");
            assert_eq!(stages.delay("pod-ready", 0), Some(delay));
            assert_ne!(stages.delay("pod-ready", 1), Some(delay));
            assert_eq!(stages.delay("pod-create", 0), None);
            found.insert(delay.as_millis() / 500);
        }
        assert_eq!(found.len(), 4, "all of the interval is used: {found:?}");
    }

    #[test]
    fn a_node_speaks_for_pods_that_say_nothing() {
        let node = BTreeMap::from([("pod-create.stage.kwok.x-k8s.io/delay".to_owned(), "7s".to_owned())]);
        let plain = pod("a", &json!({ "other": "1" }));
        assert!(Stages::of(&plain, None).is_none());
        assert_eq!(
            Stages::of(&plain, Some(&node)).expect("the node says it").delay("pod-create", 0),
            Some(Duration::from_secs(7))
        );
        let own = pod("a", &json!({ "pod-create.stage.kwok.x-k8s.io/delay": "1s" }));
        assert_eq!(Stages::of(&own, Some(&node)).expect("both").delay("pod-create", 0), Some(Duration::from_secs(1)));
        for bad in ["", "x", "5", "-1s", "1y", "99999999999999999999h"] {
            let bad = pod("a", &json!({ "pod-create.stage.kwok.x-k8s.io/delay": bad }));
            let delay = Stages::of(&bad, None).expect("something is said").delay("pod-create", 0);
            assert!(delay.is_none_or(|delay| delay.is_zero()), "{delay:?}");
        }
    }

    #[test]
    fn failures_have_defaults() {
        let said = |field: &str, value: &str| {
            pod("a", &json!({ format!("pod-container-failed.stage.kwok.x-k8s.io/{field}"): value }))
        };
        let named = said("name", "c");
        let failure = Stages::of(&named, None).expect("said").failure("pod-container-failed").expect("it fails");
        let expected =
            Failure { container: Some("c".to_owned()), exit_code: 1, reason: "Error".to_owned(), message: None };
        assert_eq!(failure, expected);
        let coded = said("exit-code", "137");
        let failure = Stages::of(&coded, None).expect("said").failure("pod-container-failed").expect("it fails");
        assert_eq!((failure.exit_code, failure.container), (137, None));
        assert_eq!(Stages::of(&coded, None).expect("said").failure("pod-init-container-failed"), None);
        assert_eq!(Stages::of(&coded, None).expect("said").fatal(), None);
        let seconds = |restarts: i32| {
            Stages::of(&coded, None).expect("said").restart("pod-container-restart", restarts).as_secs()
        };
        assert_eq!([0, 1, 2, 5, 6, 100].map(seconds), [0, 10, 20, 160, 300, 300]);
    }
}
