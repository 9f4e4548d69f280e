//! From actions to operations, and from their outcomes to memory. No decisions.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use runtime::ContainerState;

use super::memory::{Step, StepEvent, Stopping, Waiting};
use super::operations::{self, NotStarted, Outcome};
use super::plan::Action;
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
    pub(super) fn act(&mut self, actions: &[Action], now: Timestamp) -> bool {
        let mut again = false;
        for action in actions {
            again |= self.begin(action, now);
        }
        again
    }

    fn begin(&mut self, action: &Action, now: Timestamp) -> bool {
        let (shared, wish) = (Arc::clone(&self.shared), Arc::clone(&self.wish));
        let making = self.making.clone();
        let operation = match action {
            Action::SetUpVolumes => {
                self.memory.volumes.apply(StepEvent::Begun);
                operations::set_up_volumes(shared, wish).boxed()
            }
            Action::CreateSandbox { attempt } => {
                self.memory.sandbox.apply(StepEvent::Begun);
                operations::create_sandbox(shared, wish, *attempt, making).boxed()
            }
            Action::EnsureImage { container } => {
                let Some(spec) = wish.container(container).cloned() else {
                    return false;
                };
                let memory = self.memory.container_mut(container);
                memory.image.apply(StepEvent::Begun);
                memory.pull_reported = false;
                operations::ensure_image(shared, wish, spec, making).boxed()
            }
            Action::StartContainer { container, attempt } => {
                return self.start(container, *attempt, now);
            }
            Action::ReportBackOff { container, ended, message } => {
                let pod = wish.describe();
                let event = format!("Back-off restarting failed container {container} in pod {pod}");
                shared.reporter.pod_warning(&wish, Some(container), "BackOff", &event);
                let memory = self.memory.container_mut(container);
                memory.reported = Some(ended.clone());
                memory.trouble = Some(Waiting { reason: "CrashLoopBackOff".to_owned(), message: message.clone() });
                return false;
            }
            Action::ReportPullBackOff { container, message } => {
                let image =
                    wish.container(container).and_then(|container| container.spec.image.clone()).unwrap_or_default();
                let event = format!("Back-off pulling image \"{image}\"");
                shared.reporter.pod(&wish, Some(container), "BackOff", &event);
                let event = "Error: ImagePullBackOff";
                shared.reporter.pod_warning(&wish, Some(container), "Failed", event);
                let memory = self.memory.container_mut(container);
                memory.pull_reported = true;
                memory.trouble = Some(Waiting { reason: "ImagePullBackOff".to_owned(), message: message.clone() });
                return true;
            }
            Action::BeginStop { id, container, message, grace } => {
                return self.begin_stop(id, container, message, *grace, now);
            }
            Action::StopContainer { id, left, grace } => {
                if let Some(stopping) = self.memory.stopping.get_mut(id) {
                    stopping.stop = Some(*grace);
                    stopping.retry = None;
                }
                operations::stop_container(shared, wish, id.clone(), *left).boxed()
            }
            Action::RemoveContainer { id } => {
                self.memory.busy.insert(id.clone());
                operations::remove_container(shared, wish, id.clone()).boxed()
            }
            Action::StopSandbox { id } => {
                self.memory.busy.insert(id.clone());
                operations::stop_sandbox(shared, wish, id.clone()).boxed()
            }
            Action::RemoveSandbox { id } => {
                self.memory.busy.insert(id.clone());
                operations::remove_sandbox(shared, wish, id.clone()).boxed()
            }
            Action::ExceedDeadline => {
                let (reason, message) = status::DEADLINE_EXCEEDED;
                shared.reporter.pod(&wish, None, reason, message);
                self.memory.deadline_exceeded = true;
                return true;
            }
            Action::TearDownVolumes => {
                self.memory.torn_down.apply(StepEvent::Begun);
                operations::tear_down(shared, wish).boxed()
            }
            Action::Release => {
                self.memory.released.apply(StepEvent::Begun);
                let known = wish.status().cloned().unwrap_or_default();
                operations::release(shared, wish, known, self.status.clone()).boxed()
            }
        };
        self.operations.push(operation);
        false
    }

    fn start(&mut self, name: &str, attempt: u32, now: Timestamp) -> bool {
        let (Some(container), Some(sandbox), Some(image)) =
            (self.wish.container(name).cloned(), self.runtime.ready_sandbox(), self.images.get(name))
        else {
            // The image was forgotten: it is asked for again.
            self.memory.container_mut(name).image.apply(StepEvent::Abandoned);
            return true;
        };
        let machine = self.shared.machine();
        let allocatable = self.shared.allocatable();
        let config = &self.shared.config;
        let target = container.target.as_deref().and_then(|name| self.runtime.current(name));
        let material = Material {
            target: target.map(|target| target.id.clone()),
            wish: Arc::clone(&self.wish),
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
        let memory = self.memory.container_mut(name);
        if let Some(ContainerState::Exited { finished, .. }) = ended {
            memory.crashes.next(finished, now);
        }
        memory.start.apply(StepEvent::Begun);
        // The next start asks for the image again.
        memory.image.apply(StepEvent::Abandoned);
        let start =
            operations::start_container(Arc::clone(&self.shared), material, container, attempt, self.making.clone());
        self.operations.push(start.boxed());
        false
    }

    fn begin_stop(&mut self, id: &str, name: &str, message: &str, grace: Duration, now: Timestamp) -> bool {
        let shared = Arc::clone(&self.shared);
        shared.reporter.pod(&self.wish, Some(name), "Killing", message);
        let spec = self.wish.container(name).map(|container| &container.spec);
        let lifecycle = spec.and_then(|spec| spec.lifecycle.as_ref());
        let hook = lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
        let running = self.runtime.container(id).is_some_and(|container| container.state.is_running());
        let hook = hook && running;
        self.memory.stopping.insert(id.to_owned(), Stopping { since: now, grace, hook, stop: None, retry: None });
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
        let hook = operations::pre_stop(shared, Arc::clone(&self.wish), target, grace);
        self.operations.push(hook.boxed());
        false
    }

    /// Remembers what came of an operation.
    pub(super) fn note(&mut self, outcome: Outcome) {
        let now = Timestamp::now();
        match outcome {
            Outcome::Volumes { result, references, renew } => {
                self.references = references;
                self.renew = renew;
                let event = match result {
                    Ok(mounted) => {
                        self.mounted = mounted;
                        self.memory.mounted = true;
                        self.volume_failures = 0;
                        StepEvent::Succeeded(())
                    }
                    Err(error) => {
                        let message = error.to_string();
                        let wish = Arc::clone(&self.wish);
                        self.shared.reporter.pod_warning(&wish, None, "FailedMount", &message);
                        let pause = pause(self.volume_failures, PAUSES.1);
                        self.volume_failures += 1;
                        StepEvent::Failed(after(now, pause))
                    }
                };
                self.memory.volumes.apply(event);
            }
            Outcome::Sandbox(Ok(())) => {
                self.sandbox_failures = 0;
                self.memory.sandbox.apply(StepEvent::Abandoned);
            }
            Outcome::Sandbox(Err(_)) => {
                let pause = pause(self.sandbox_failures, RETRY);
                self.sandbox_failures += 1;
                self.memory.sandbox.apply(StepEvent::Failed(after(now, pause)));
            }
            Outcome::Image { container, result } => {
                let spec = self.wish.container(&container);
                let policy = spec.map(|container| PullPolicy::of(&container.spec));
                let memory = self.memory.container_mut(&container);
                let event = match result {
                    // Of an image that is not asked for any more: its failures are no reason to wait.
                    _ if memory.image == Step::Outdated => StepEvent::Abandoned,
                    Ok(image) => {
                        let id = image.id.clone();
                        self.images.insert(container, image);
                        memory.pulls.reset();
                        StepEvent::Succeeded(id)
                    }
                    Err(None) => StepEvent::Abandoned,
                    Err(Some(waiting)) => {
                        let pulled = waiting.reason == "ErrImagePull" && policy != Some(PullPolicy::Never);
                        memory.trouble = Some(waiting);
                        let pause = match pulled {
                            true => {
                                memory.pulls.next(now, now);
                                memory.pulls.delay()
                            }
                            false => RETRY,
                        };
                        StepEvent::Failed(after(now, pause))
                    }
                };
                memory.image.apply(event);
            }
            Outcome::Started { container, result } => self.note_start(&container, result, now),
            Outcome::HookDone { id } => {
                if let Some(stopping) = self.memory.stopping.get_mut(&id) {
                    stopping.hook = false;
                }
            }
            Outcome::Stopped { id, result } => {
                let pause = removal_pause(self.memory.failures(&id));
                if let (Err(error), Some(stopping)) = (&result, self.memory.stopping.get_mut(&id)) {
                    tracing::warn!(%error, id, "a container could not be stopped");
                    stopping.stop = None;
                    stopping.retry = Some(after(now, pause));
                }
                self.memory.note_failure(&id, result.is_err());
            }
            Outcome::Removed { id, result } => {
                self.memory.busy.remove(&id);
                self.memory.retry.remove(&id);
                if let Err(error) = &result {
                    tracing::warn!(%error, id, "a sandbox or container could not be removed");
                    let pause = removal_pause(self.memory.failures(&id));
                    self.memory.retry.insert(id.clone(), after(now, pause));
                }
                self.memory.note_failure(&id, result.is_err());
            }
            Outcome::TornDown(result) => {
                let event = match result {
                    Ok(()) => StepEvent::Succeeded(()),
                    Err(error) => {
                        tracing::warn!(error, pod = self.wish.describe(), "volumes not removed");
                        StepEvent::Failed(after(now, RETRY_REMOVAL))
                    }
                };
                self.memory.torn_down.apply(event);
            }
            Outcome::Released(result) => {
                let event = match result {
                    Ok(()) => StepEvent::Succeeded(()),
                    Err(error) => {
                        tracing::debug!(%error, pod = self.wish.describe(), "pod not released");
                        StepEvent::Failed(after(now, RETRY_REMOVAL))
                    }
                };
                self.memory.released.apply(event);
            }
            Outcome::Written(result) => self.written(result),
        }
    }

    fn note_start(&mut self, name: &str, result: Result<(), NotStarted>, now: Timestamp) {
        let observed = self.shared.cache.observed(&self.wish.identity.uid);
        let ended = observed.latest(name).is_some_and(|latest| latest.state.is_exited());
        let memory = self.memory.container_mut(name);
        match result {
            Ok(()) => {
                memory.start.apply(StepEvent::Succeeded(()));
                memory.trouble = None;
            }
            Err(NotStarted::Cancelled) => memory.start.apply(StepEvent::Abandoned),
            Err(NotStarted::Failed(waiting)) => {
                // What was made and ended waits as a crash does; what was never made, by the clock.
                let pause = match waiting.reason.as_str() {
                    "RunContainerError" if ended => Duration::ZERO,
                    _ => RETRY,
                };
                memory.trouble = Some(waiting);
                memory.start.apply(StepEvent::Failed(after(now, pause)));
            }
            Err(NotStarted::Hook { id, waiting }) => {
                memory.trouble = Some(waiting);
                memory.start.apply(StepEvent::Abandoned);
                let stopping = Stopping { since: now, grace: self.wish.grace(), hook: false, stop: None, retry: None };
                self.memory.stopping.insert(id, stopping);
                let wish = Arc::clone(&self.wish);
                let message = "FailedPostStartHook";
                self.shared.reporter.pod(&wish, Some(name), "Killing", message);
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
        let mut memory = crate::pod::memory::Memory::default();
        memory.note_failure("c", true);
        memory.note_failure("c", true);
        assert_eq!((memory.failures("c"), memory.failures("d")), (2, 0));
        memory.note_failure("c", false);
        assert_eq!(memory.failures("c"), 0);
    }
}
