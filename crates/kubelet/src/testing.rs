//! Pods and runtime states for tests, from a few words.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{Container, ContainerState, Image, PodIdentity, Sandbox, TerminationReason};
use serde_json::{Value, json};

use crate::pod::plan::Inputs;
use crate::pod::state::PodState;
use crate::pod::step::Step;
use crate::probes::ProbeKind;
use crate::time::after;
use crate::types::desired::DesiredPod;

/// A second of the test's clock.
pub(crate) fn at(second: u64) -> Timestamp {
    let begin = Timestamp::from_second(1_700_000_000).unwrap_or_default();
    after(begin, Duration::from_secs(second))
}

/// A pod called `web` in `default`, with uid `u`.
#[allow(clippy::needless_pass_by_value)] // Cases read best with `json!` in place.
pub(crate) fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "web", "namespace": "default", "uid": "u", "generation": 1});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
}

/// The state of a worker that begins with `pod` at second 0.
pub(crate) fn state_of(pod: Pod) -> PodState {
    PodState::new(DesiredPod::new(Arc::new(pod)), Duration::from_secs(60), at(0))
}

/// All that a plan depends on, changed step by step.
pub(crate) struct World {
    pub(crate) state: PodState,
    pub(crate) now: Timestamp,
}

impl World {
    /// A pod of which nothing exists yet; volumes and images are there.
    pub(crate) fn new(spec: Value) -> Self {
        let mut state = state_of(pod(spec));
        state.volumes = Step::Done(());
        let desired = Arc::clone(&state.desired);
        for container in &desired.containers {
            state.retry_mut(container.name()).image = Step::Done(Image::default());
        }
        Self { state, now: at(100) }
    }

    pub(crate) fn inputs(&self) -> Inputs<'_> {
        Inputs::new(&self.state, self.now)
    }

    /// Adds a sandbox `s0`, `s1`, ...
    pub(crate) fn sandbox(&mut self, attempt: u32, ready: bool) -> &mut Self {
        let sandbox = Sandbox {
            id: format!("s{attempt}"),
            attempt,
            ready,
            ips: vec!["10.0.0.2".parse().expect("an address")],
            ..Sandbox::default()
        };
        self.state.runtime = Arc::new(self.state.runtime.with_sandbox(sandbox));
        self
    }

    /// Puts a container into the newest sandbox: `created`, `running`, `exited CODE [at SECOND]`. Its id is its name and
    /// attempt.
    pub(crate) fn container(&mut self, name: &str, attempt: u32, state: &str) -> &mut Self {
        let words: Vec<&str> = state.split(' ').collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        let state = match words[0] {
            "created" => ContainerState::Created,
            "running" => ContainerState::Running { started: at(number(1).unwrap_or(50)) },
            "exited" => {
                let exit_code = i32::try_from(number(1).unwrap_or(0)).unwrap_or(0);
                ContainerState::Exited {
                    exit_code,
                    reason: TerminationReason::of(exit_code),
                    message: String::new(),
                    started: Some(at(50)),
                    finished: at(number(3).unwrap_or(90)),
                }
            }
            other => panic!("no such state: {other}"),
        };
        let desired = self.state.desired.container(name);
        let id = format!("{name}{attempt}");
        let container = Container {
            id: id.clone(),
            sandbox_id: self.state.runtime.sandbox().map_or_else(|| "s0".to_owned(), |sandbox| sandbox.id.clone()),
            pod: PodIdentity::default(),
            name: name.to_owned(),
            attempt,
            hash: desired.map_or_else(String::new, |desired| desired.hash.clone()),
            image: "nginx".to_owned(),
            image_id: "docker://sha256:1".to_owned(),
            created: Some(at(40 + u64::from(attempt))),
            state,
            ..Container::default()
        };
        self.state.runtime = Arc::new(self.state.runtime.with_container(&id, Some(container)));
        self
    }

    pub(crate) fn verdict(&mut self, id: &str, kind: ProbeKind, success: bool) -> &mut Self {
        self.state.probes.set(id, kind, success);
        self
    }

    /// Changes the API's object.
    pub(crate) fn api(&mut self, change: impl FnOnce(&mut Pod)) -> &mut Self {
        let mut pod = Pod::clone(&self.state.desired.pod);
        change(&mut pod);
        self.state.desired = Arc::new(DesiredPod::new(Arc::new(pod)));
        self
    }

    /// Somebody deletes the pod.
    pub(crate) fn delete(&mut self, grace: i64) -> &mut Self {
        let now = self.now;
        self.api(|pod| {
            pod.metadata.deletion_timestamp = Some(crate::time::api_time(now));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        })
    }
}
