//! From the actions of a plan to operations. No decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use machinery::resources::spec_requests;

use super::operations::{self, OperationOutcome};
use super::plan::Action;
use super::resize::{self, Unfinished};
use super::status;
use super::step::Step;
use super::transition::Event;
use super::worker::Worker;
use crate::allocation::Allocation;
use crate::container::make::Material;
use crate::probes::Target;

type Operation = BoxFuture<'static, OperationOutcome>;

impl Worker {
    /// Begins what the plan asks for. Answers whether something is done already, so that the plan is an old one.
    pub(super) fn execute(&mut self, actions: Vec<Action>) -> bool {
        let mut again = false;
        for action in actions {
            again |= self.execute_action(action);
        }
        again
    }

    fn execute_action(&mut self, action: Action) -> bool {
        if action == Action::AllocateResources {
            self.apply(Event::Begun(action));
            self.apply(Event::Allocated(self.allocate()));
            return true;
        }
        let operation = self.operation(&action);
        self.apply(Event::Begun(action));
        let done = operation.is_none();
        self.operations.extend(operation);
        done
    }

    /// Allocates to containers what they ask for, if the node has it.
    fn allocate(&self) -> Result<(), Unfinished> {
        let desired = &self.state.desired;
        let Some(asked) = desired.pod.spec.as_ref().map(Allocation::of) else {
            return Ok(());
        };
        let held = desired.spec().map(spec_requests).unwrap_or_default();
        let (wanted, node) = (asked.requests.clone(), self.shared.allocatable());
        let check = |others: &Allocation| resize::check(&held, &wanted, &others.requests, node);
        self.shared.allocations.allocate(&desired.identity.uid, asked, check)
    }

    /// The operation that carries an action out; none for what is done with a word to people.
    fn operation(&self, action: &Action) -> Option<Operation> {
        let (shared, desired) = (Arc::clone(&self.shared), Arc::clone(&self.state.desired));
        let making = self.making.clone();
        let operation = match action {
            Action::SetUpVolumes => operations::set_up_volumes(shared, desired).boxed(),
            Action::CreateSandbox { attempt } => operations::create_sandbox(shared, desired, *attempt, making).boxed(),
            Action::EnsureImage { container } => {
                let spec = desired.container(container)?.clone();
                operations::ensure_image(shared, desired, spec, making).boxed()
            }
            Action::StartContainer { container, attempt } => {
                let start = self.start(container, *attempt);
                start.unwrap_or_else(|| operations::not_started(container.clone()).boxed())
            }
            Action::ReportBackOff { container, .. } => {
                let pod = desired.describe();
                let event = format!("Back-off restarting failed container {container} in pod {pod}");
                shared.reporter.pod_warning(&desired, Some(container), "BackOff", &event);
                return None;
            }
            Action::ReportPullBackOff { container, .. } => {
                let spec = desired.container(container).map(|container| &container.spec);
                let image = spec.and_then(|spec| spec.image.as_deref()).unwrap_or_default();
                let event = format!("Back-off pulling image \"{image}\"");
                shared.reporter.pod(&desired, Some(container), "BackOff", &event);
                let event = "Error: ImagePullBackOff";
                shared.reporter.pod_warning(&desired, Some(container), "Failed", event);
                return None;
            }
            Action::BeginStop { id, container, message, grace } => {
                shared.reporter.pod(&desired, Some(container), "Killing", message);
                self.pre_stop(id, container, *grace)?
            }
            Action::StopContainer { id, left, .. } => {
                operations::stop_container(shared, desired, id.clone(), *left).boxed()
            }
            // That is no operation: it is done at once.
            Action::AllocateResources => return None,
            Action::ResizeContainer { id, container } => {
                let spec = desired.container(container)?.clone();
                let made = self.state.runtime.container(id)?;
                let applied = resize::applied(&self.state, &spec, made).cloned();
                operations::resize_container(shared, desired, spec, id.clone(), applied).boxed()
            }
            Action::RemoveContainer { id } => operations::remove_container(shared, desired, id.clone()).boxed(),
            Action::StopSandbox { id } => operations::stop_sandbox(shared, desired, id.clone()).boxed(),
            Action::RemoveSandbox { id } => operations::remove_sandbox(shared, desired, id.clone()).boxed(),
            Action::ExceedDeadline => {
                let (reason, message) = status::DEADLINE_EXCEEDED;
                shared.reporter.pod(&desired, None, reason, message);
                return None;
            }
            Action::NoteEviction => {
                let message = self.state.failure.as_ref().map(|failure| failure.message.clone());
                operations::note_eviction(self.directory.clone(), message.unwrap_or_default()).boxed()
            }
            Action::TearDownVolumes => operations::tear_down(shared, desired).boxed(),
            Action::Release => operations::release(shared, desired, Arc::clone(&self.state.status)).boxed(),
        };
        Some(operation)
    }

    /// Creates and starts a container; nothing where its sandbox or image is not there, which no plan asks for.
    fn start(&self, name: &str, attempt: u32) -> Option<Operation> {
        let container = self.state.desired.container(name)?.clone();
        let sandbox = self.state.runtime.ready_sandbox()?;
        let Step::Done(image) = &self.state.retry(name)?.image else {
            return None;
        };
        let machine = self.shared.machine();
        let allocatable = self.shared.allocatable();
        let config = &self.shared.config;
        let target = container.target.as_deref().and_then(|name| self.state.runtime.current(name));
        let material = Material {
            target: target.map(|target| target.id.clone()),
            desired: Arc::clone(&self.state.desired),
            sandbox: sandbox.clone(),
            image: image.clone(),
            volumes: self.state.mounted.clone().unwrap_or_default(),
            references: self.state.references.clone(),
            services: BTreeMap::new(),
            directory: self.directory.clone(),
            seccomp_profiles: config.seccomp_profile_root.clone(),
            app_armor: machine.info.app_armor,
            recursive_read_only: machine.info.recursive_read_only,
            pids_limit: config.pod_pids_limit,
            resolver: self.shared.resolver(),
            cluster_dns: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
            node_ip: config.node_ip,
            allocatable,
            memory_capacity: machine.allocatable().memory,
        };
        let (shared, making) = (Arc::clone(&self.shared), self.making.clone());
        Some(operations::start_container(shared, material, container, attempt, making).boxed())
    }

    /// Runs the pre-stop hook of a running container, if it has one.
    fn pre_stop(&self, id: &str, name: &str, grace: Duration) -> Option<Operation> {
        if !self.state.has_pre_stop(id, name) {
            return None;
        }
        let spec = &self.state.desired.container(name)?.spec;
        let ip = self.state.runtime.ready_sandbox().and_then(runtime::Sandbox::ip);
        let target = Target {
            id: id.to_owned(),
            container: Arc::new(spec.clone()),
            ip: ip.unwrap_or(self.shared.config.node_ip),
            user_agent: self.shared.probe_agent(),
        };
        let (shared, desired) = (Arc::clone(&self.shared), Arc::clone(&self.state.desired));
        Some(operations::pre_stop(shared, desired, target, grace).boxed())
    }
}
