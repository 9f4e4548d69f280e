//! From actions to operations, and from their outcomes to state. No decisions.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use runtime::ContainerState;

use super::operations::{self, NotStarted, Outcome};
use super::plan::Action;
use super::state::{Step, StepEvent, Stopping, Waiting};
use super::status;
use super::worker::Worker;
use crate::container::make::Material;
use crate::images::PullPolicy;
use crate::probes::Target;
use crate::time::after;

/// What failed for a reason that only somebody else can remove is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
/// Volumes that could not be removed and a pod that could not be released are tried again after this time; what the runtime
/// failed to stop or remove for the first time, too.
const RETRY_REMOVAL: Duration = Duration::from_secs(2);
/// The first and the longest pause before volumes or a sandbox are tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));

fn pause(failures: u32, longest: Duration) -> Duration {
    double(PAUSES.0, failures).min(longest)
}

/// The pause after a failure to stop or remove something that has failed so often before: a runtime that is overloaded is
/// not helped by being asked again and again.
fn removal_pause(failures: u32) -> Duration {
    double(RETRY_REMOVAL, failures).min(PAUSES.1)
}

fn double(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16))
}

impl Worker {
    /// Begins what the plan asks for. Answers whether something is done already, so that the plan is an old one.
    pub(super) fn execute(&mut self, actions: &[Action], now: Timestamp) -> bool {
        let mut again = false;
        for action in actions {
            again |= self.execute_action(action, now);
        }
        again
    }

    fn execute_action(&mut self, action: &Action, now: Timestamp) -> bool {
        let (shared, desired) = (Arc::clone(&self.shared), Arc::clone(&self.desired));
        let making = self.making.clone();
        let operation = match action {
            Action::SetUpVolumes => {
                self.state.volumes.apply(StepEvent::Begun);
                operations::set_up_volumes(shared, desired).boxed()
            }
            Action::CreateSandbox { attempt } => {
                self.state.sandbox.apply(StepEvent::Begun);
                operations::create_sandbox(shared, desired, *attempt, making).boxed()
            }
            Action::EnsureImage { container } => {
                let Some(spec) = desired.container(container).cloned() else {
                    return false;
                };
                let retry = self.state.retry_mut(container);
                retry.image.apply(StepEvent::Begun);
                retry.pull_reported = false;
                operations::ensure_image(shared, desired, spec, making).boxed()
            }
            Action::StartContainer { container, attempt } => {
                return self.start(container, *attempt, now);
            }
            Action::ReportBackOff { container, ended, message } => {
                let pod = desired.describe();
                let event = format!("Back-off restarting failed container {container} in pod {pod}");
                shared.reporter.pod_warning(&desired, Some(container), "BackOff", &event);
                let retry = self.state.retry_mut(container);
                retry.reported = Some(ended.clone());
                retry.waiting = Some(Waiting { reason: "CrashLoopBackOff".to_owned(), message: message.clone() });
                return false;
            }
            Action::ReportPullBackOff { container, message } => {
                let image =
                    desired.container(container).and_then(|container| container.spec.image.clone()).unwrap_or_default();
                let event = format!("Back-off pulling image \"{image}\"");
                shared.reporter.pod(&desired, Some(container), "BackOff", &event);
                let event = "Error: ImagePullBackOff";
                shared.reporter.pod_warning(&desired, Some(container), "Failed", event);
                let retry = self.state.retry_mut(container);
                retry.pull_reported = true;
                retry.waiting = Some(Waiting { reason: "ImagePullBackOff".to_owned(), message: message.clone() });
                return true;
            }
            Action::BeginStop { id, container, message, grace } => {
                return self.begin_stop(id, container, message, *grace, now);
            }
            Action::StopContainer { id, left, grace } => {
                if let Some(stopping) = self.state.stopping.get_mut(id) {
                    stopping.stop = Some(*grace);
                    stopping.retry_at = None;
                }
                operations::stop_container(shared, desired, id.clone(), *left).boxed()
            }
            Action::RemoveContainer { id } => {
                self.state.busy.insert(id.clone());
                operations::remove_container(shared, desired, id.clone()).boxed()
            }
            Action::StopSandbox { id } => {
                self.state.busy.insert(id.clone());
                operations::stop_sandbox(shared, desired, id.clone()).boxed()
            }
            Action::RemoveSandbox { id } => {
                self.state.busy.insert(id.clone());
                operations::remove_sandbox(shared, desired, id.clone()).boxed()
            }
            Action::ExceedDeadline => {
                let (reason, message) = status::DEADLINE_EXCEEDED;
                shared.reporter.pod(&desired, None, reason, message);
                self.state.deadline_exceeded = true;
                return true;
            }
            Action::TearDownVolumes => {
                self.state.torn_down.apply(StepEvent::Begun);
                operations::tear_down(shared, desired).boxed()
            }
            Action::Release => {
                self.state.released.apply(StepEvent::Begun);
                let known = desired.status().cloned().unwrap_or_default();
                operations::release(shared, desired, known, self.status.clone()).boxed()
            }
        };
        self.operations.push(operation);
        false
    }

    fn start(&mut self, name: &str, attempt: u32, now: Timestamp) -> bool {
        let (Some(container), Some(sandbox), Some(image)) =
            (self.desired.container(name).cloned(), self.runtime.ready_sandbox(), self.images.get(name))
        else {
            // The image was forgotten: it is asked for again.
            self.state.retry_mut(name).image.apply(StepEvent::Abandoned);
            return true;
        };
        let machine = self.shared.machine();
        let allocatable = self.shared.allocatable();
        let config = &self.shared.config;
        let target = container.target.as_deref().and_then(|name| self.runtime.current(name));
        let material = Material {
            target: target.map(|target| target.id.clone()),
            desired: Arc::clone(&self.desired),
            sandbox: sandbox.clone(),
            image: image.clone(),
            volumes: self.mounted.clone(),
            references: self.references.clone(),
            services: std::collections::BTreeMap::new(),
            directory: self.directory.clone(),
            seccomp_profiles: config.seccomp_profile_root.clone(),
            resolver: self.shared.resolver(),
            cluster_dns: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
            node_ip: config.node_ip,
            allocatable,
            memory_capacity: machine.allocatable().memory,
        };
        let ended = self.runtime.latest(name).map(|latest| latest.state.clone());
        let retry = self.state.retry_mut(name);
        if let Some(ContainerState::Exited { finished, .. }) = ended {
            retry.crashes.next(finished, now);
        }
        retry.start.apply(StepEvent::Begun);
        // The next start asks for the image again.
        retry.image.apply(StepEvent::Abandoned);
        let start =
            operations::start_container(Arc::clone(&self.shared), material, container, attempt, self.making.clone());
        self.operations.push(start.boxed());
        false
    }

    fn begin_stop(&mut self, id: &str, name: &str, message: &str, grace: Duration, now: Timestamp) -> bool {
        let shared = Arc::clone(&self.shared);
        shared.reporter.pod(&self.desired, Some(name), "Killing", message);
        let spec = self.desired.container(name).map(|container| &container.spec);
        let lifecycle = spec.and_then(|spec| spec.lifecycle.as_ref());
        let hook = lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
        let running = self.runtime.container(id).is_some_and(|container| container.state.is_running());
        let hook = hook && running;
        self.state.stopping.insert(id.to_owned(), Stopping { since: now, grace, hook, stop: None, retry_at: None });
        let (Some(spec), true) = (spec, hook) else {
            return true;
        };
        let ip = self.runtime.ready_sandbox().and_then(runtime::Sandbox::ip);
        let target = Target {
            id: id.to_owned(),
            container: Arc::new(spec.clone()),
            ip: ip.unwrap_or(shared.config.node_ip),
            user_agent: shared.probe_agent(),
        };
        let hook = operations::pre_stop(shared, Arc::clone(&self.desired), target, grace);
        self.operations.push(hook.boxed());
        false
    }

    /// Remembers what came of an operation.
    pub(super) fn record_outcome(&mut self, outcome: Outcome) {
        let now = Timestamp::now();
        match outcome {
            Outcome::Volumes { result, references, renew } => {
                self.references = references;
                self.renew = renew;
                let event = match result {
                    Ok(mounted) => {
                        self.mounted = mounted;
                        self.state.mounted = true;
                        self.volume_failures = 0;
                        StepEvent::Succeeded(())
                    }
                    Err(error) => {
                        let message = error.to_string();
                        let desired = Arc::clone(&self.desired);
                        self.shared.reporter.pod_warning(&desired, None, "FailedMount", &message);
                        let pause = pause(self.volume_failures, PAUSES.1);
                        self.volume_failures += 1;
                        StepEvent::Failed(after(now, pause))
                    }
                };
                self.state.volumes.apply(event);
            }
            Outcome::Sandbox(Ok(())) => {
                self.sandbox_failures = 0;
                self.state.sandbox.apply(StepEvent::Abandoned);
            }
            Outcome::Sandbox(Err(_)) => {
                let pause = pause(self.sandbox_failures, RETRY);
                self.sandbox_failures += 1;
                self.state.sandbox.apply(StepEvent::Failed(after(now, pause)));
            }
            Outcome::Image { container, result } => {
                let spec = self.desired.container(&container);
                let policy = spec.map(|container| PullPolicy::of(&container.spec));
                let retry = self.state.retry_mut(&container);
                let event = match result {
                    // Of an image that is not asked for any more: its failures are no reason to wait.
                    _ if retry.image == Step::Outdated => StepEvent::Abandoned,
                    Ok(image) => {
                        let id = image.id.clone();
                        self.images.insert(container, image);
                        retry.pulls.reset();
                        StepEvent::Succeeded(id)
                    }
                    Err(None) => StepEvent::Abandoned,
                    Err(Some(waiting)) => {
                        let pulled = waiting.reason == "ErrImagePull" && policy != Some(PullPolicy::Never);
                        retry.waiting = Some(waiting);
                        let pause = match pulled {
                            true => {
                                retry.pulls.next(now, now);
                                retry.pulls.delay()
                            }
                            false => RETRY,
                        };
                        StepEvent::Failed(after(now, pause))
                    }
                };
                retry.image.apply(event);
            }
            Outcome::Started { container, result } => self.record_start(&container, result, now),
            Outcome::HookDone { id } => {
                if let Some(stopping) = self.state.stopping.get_mut(&id) {
                    stopping.hook = false;
                }
            }
            Outcome::Stopped { id, result } => {
                let pause = removal_pause(self.state.failures(&id));
                if let (Err(error), Some(stopping)) = (&result, self.state.stopping.get_mut(&id)) {
                    tracing::warn!(%error, id, "a container could not be stopped");
                    stopping.stop = None;
                    stopping.retry_at = Some(after(now, pause));
                }
                self.state.note_failure(&id, result.is_err());
            }
            Outcome::Removed { id, result } => {
                self.state.busy.remove(&id);
                self.state.retry_at.remove(&id);
                if let Err(error) = &result {
                    tracing::warn!(%error, id, "a sandbox or container could not be removed");
                    let pause = removal_pause(self.state.failures(&id));
                    self.state.retry_at.insert(id.clone(), after(now, pause));
                }
                self.state.note_failure(&id, result.is_err());
            }
            Outcome::TornDown(result) => {
                let event = match result {
                    Ok(()) => StepEvent::Succeeded(()),
                    Err(error) => {
                        tracing::warn!(error, pod = self.desired.describe(), "volumes not removed");
                        StepEvent::Failed(after(now, RETRY_REMOVAL))
                    }
                };
                self.state.torn_down.apply(event);
            }
            Outcome::Released(result) => {
                let event = match result {
                    Ok(()) => StepEvent::Succeeded(()),
                    Err(error) => {
                        tracing::debug!(%error, pod = self.desired.describe(), "pod not released");
                        StepEvent::Failed(after(now, RETRY_REMOVAL))
                    }
                };
                self.state.released.apply(event);
            }
            Outcome::Written(result) => self.written(result),
        }
    }

    fn record_start(&mut self, name: &str, result: Result<(), NotStarted>, now: Timestamp) {
        let observed = self.shared.pleg.observed(&self.desired.identity.uid);
        let ended = observed.latest(name).is_some_and(|latest| latest.state.is_exited());
        let retry = self.state.retry_mut(name);
        match result {
            Ok(()) => {
                retry.start.apply(StepEvent::Succeeded(()));
                retry.waiting = None;
            }
            Err(NotStarted::Cancelled) => retry.start.apply(StepEvent::Abandoned),
            Err(NotStarted::Failed(waiting)) => {
                // What was made and ended waits as a crash does; what was never made, by the clock.
                let pause = match waiting.reason.as_str() {
                    "RunContainerError" if ended => Duration::ZERO,
                    _ => RETRY,
                };
                retry.waiting = Some(waiting);
                retry.start.apply(StepEvent::Failed(after(now, pause)));
            }
            Err(NotStarted::Hook { id, waiting }) => {
                retry.waiting = Some(waiting);
                retry.start.apply(StepEvent::Abandoned);
                let stopping =
                    Stopping { since: now, grace: self.desired.grace(), hook: false, stop: None, retry_at: None };
                self.state.stopping.insert(id, stopping);
                let desired = Arc::clone(&self.desired);
                let message = "FailedPostStartHook";
                self.shared.reporter.pod(&desired, Some(name), "Killing", message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_removals_wait_longer_each_time() {
        let seconds: Vec<u64> = (0..8).map(|failures| removal_pause(failures).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 122, 122]);
        assert_eq!(removal_pause(u32::MAX), PAUSES.1);
        let mut state = crate::pod::state::PodState::default();
        state.note_failure("c", true);
        state.note_failure("c", true);
        assert_eq!((state.failures("c"), state.failures("d")), (2, 0));
        state.note_failure("c", false);
        assert_eq!(state.failures("c"), 0);
    }
}
