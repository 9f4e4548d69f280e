//! The doing: one function per action, without decisions. What comes of it is an [`OperationOutcome`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, ResourceRequirements};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use runtime::{Error, Image};
use tokio_util::sync::CancellationToken;

use super::resize::{self, Unfinished};
use super::status;
use crate::container::make::{self, Material};
use crate::container::sandbox;
use crate::hooks;
use crate::probes::Target;
use crate::shared::Shared;
use crate::types::References;
use crate::types::desired::{DesiredContainer, DesiredPod};
use crate::types::waiting::{Waiting, WaitingReason};
use crate::values::resources::kernel;
use crate::volumes::{self, Mounted, PodDirectory, Sources};

/// How long a post-start hook may take. Upstream has no limit; a worker that waits for ever helps nobody.
const POST_START: Duration = Duration::from_secs(600);

/// What came of an operation.
pub(super) enum OperationOutcome {
    /// Volumes are in place, or not; what the pod refers to is known.
    Volumes { result: Result<Mounted, volumes::Error>, references: References, renew: Option<Timestamp> },
    /// The sandbox was made, and the PLEG knows of it.
    Sandbox(Result<(), Error>),
    /// The image of a container is present, or why not.
    Image { container: String, result: Result<Image, Option<Waiting>> },
    /// A container was started, or why not.
    Started { container: String, result: Result<(), NotStarted> },
    /// A pre-stop hook has ended.
    HookDone { id: String },
    /// A container was given other resources, or must be restarted for that, or why not.
    Resized {
        id: String,
        container: String,
        resources: Option<ResourceRequirements>,
        result: Result<Resized, Unfinished>,
    },
    /// A container was stopped.
    Stopped { id: String, result: Result<(), Error> },
    /// A sandbox was stopped, a sandbox or container removed.
    Removed { id: String, result: Result<(), Error> },
    /// It is noted on disk that the pod was evicted.
    EvictionNoted(Result<(), String>),
    /// The volumes are gone.
    TornDown(Result<(), String>),
    /// The API has let go of the pod.
    Released(Result<(), kube::Error>),
    /// The status was written; the API's pod after that, none if it is gone.
    Written(Result<Option<Arc<Pod>>, kube::Error>),
}

/// How a container was resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resized {
    /// While it runs.
    InPlace,
    /// It has to be restarted.
    ByRestart,
}

/// Why a container was not started.
pub(super) enum NotStarted {
    /// The attempt was called off.
    Cancelled,
    /// It failed.
    Failed(Waiting),
    /// It runs, but its post-start hook failed, so it must end.
    Hook { id: String, waiting: Waiting },
}

fn failed(reason: WaitingReason, message: impl Into<String>) -> NotStarted {
    NotStarted::Failed(Waiting::new(reason, message))
}

pub(super) async fn set_up_volumes(shared: Arc<Shared>, desired: Arc<DesiredPod>) -> OperationOutcome {
    let (references, renew) = shared.objects.references(&desired.pod).await;
    let directory = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid);
    let allocatable = shared.allocatable();
    // In another user namespace an owner would be somebody else.
    let privileged = rustix::process::geteuid().is_root() && !shared.machine().info.user_namespaces;
    let (references, result) = tokio::task::spawn_blocking(move || {
        let result = directory
            .create()
            .map_err(|error| volumes::Error::SetUp {
                volume: String::new(),
                message: format!("{}: {error}", directory.path().display()),
            })
            .and_then(|()| {
                directory.set_up(Sources {
                    pod: desired.allocated_pod(),
                    references: &references,
                    allocatable,
                    privileged,
                })
            });
        (references, result)
    })
    .await
    .unwrap_or_else(|error| {
        let error = volumes::Error::SetUp { volume: String::new(), message: error.to_string() };
        (References::default(), Err(error))
    });
    OperationOutcome::Volumes { result, references, renew }
}

pub(super) async fn create_sandbox(
    shared: Arc<Shared>,
    desired: Arc<DesiredPod>,
    attempt: u32,
    cancel: CancellationToken,
) -> OperationOutcome {
    let Some(_permit) = permit(&shared, &cancel).await else {
        return OperationOutcome::Sandbox(Err(Error::Other("called off".to_owned())));
    };
    if attempt > 0 {
        let message = "Pod sandbox changed, it will be killed and re-created.";
        shared.reporter.pod(&desired, None, "SandboxChanged", message);
    }
    let config = sandbox::config(&desired, attempt, &shared.config.cluster_domain);
    let result = match sandbox::refusal(&desired, &shared.machine().info) {
        Some(message) => Err(Error::Invalid(message.to_owned())),
        None => shared.runtime.run_sandbox(&config).await,
    };
    OperationOutcome::Sandbox(match result {
        Ok(sandbox) => {
            shared.pleg.update(&desired.identity, |observed| observed.with_sandbox(sandbox.clone()));
            Ok(())
        }
        Err(error) => {
            let message = format!("Failed to create pod sandbox: {error}");
            let reason = "FailedCreatePodSandBox";
            shared.reporter.pod_warning(&desired, None, reason, &message);
            Err(error)
        }
    })
}

pub(super) async fn ensure_image(
    shared: Arc<Shared>,
    desired: Arc<DesiredPod>,
    container: DesiredContainer,
    cancel: CancellationToken,
) -> OperationOutcome {
    let name = container.name().to_owned();
    let secrets = tokio::select! {
        () = cancel.cancelled() => Vec::new(),
        secrets = shared.objects.pull_secrets(&desired.pod) => secrets,
    };
    let tell = |note: crate::images::Note| match note.warning {
        true => shared.reporter.pod_warning(&desired, Some(&name), note.reason, &note.message),
        false => shared.reporter.pod(&desired, Some(&name), note.reason, &note.message),
    };
    let result = shared.images.ensure(&container.spec, &secrets, &cancel, tell).await;
    OperationOutcome::Image { container: name, result }
}

pub(super) async fn start_container(
    shared: Arc<Shared>,
    material: Material,
    container: DesiredContainer,
    attempt: u32,
    cancel: CancellationToken,
) -> OperationOutcome {
    let name = container.name().to_owned();
    let result = start(&shared, material, container, attempt, &cancel).await;
    OperationOutcome::Started { container: name, result }
}

/// The outcome for a container for which there is nothing to start it from.
pub(super) async fn not_started(container: String) -> OperationOutcome {
    OperationOutcome::Started { container, result: Err(NotStarted::Cancelled) }
}

async fn start(
    shared: &Shared,
    mut material: Material,
    container: DesiredContainer,
    attempt: u32,
    cancel: &CancellationToken,
) -> Result<(), NotStarted> {
    let desired = Arc::clone(&material.desired);
    let sandbox = material.sandbox.clone();
    let permit = permit(shared, cancel).await.ok_or(NotStarted::Cancelled)?;
    let links = desired.spec().and_then(|spec| spec.enable_service_links) != Some(false);
    material.services = tokio::select! {
        () = cancel.cancelled() => return Err(NotStarted::Cancelled),
        services = shared.service_environment(&desired.identity.namespace, links) => services,
    };
    let name = container.name().to_owned();
    let spec = Arc::new(container.spec.clone());
    let warn = |message: &str| {
        let message = format!("Error: {message}");
        shared.reporter.pod_warning(&desired, Some(&name), "Failed", &message);
    };
    let tell = |reason, message| shared.reporter.pod(&desired, Some(&name), reason, message);

    let (config, held) = tokio::task::spawn_blocking(move || make::config(&material, &container, attempt))
        .await
        .unwrap_or_else(|error| Err(error.to_string().into()))
        .map_err(|error| {
            warn(&error.to_string());
            failed(error.reason(), error.to_string())
        })?;
    let created = shared.runtime.create_container(&sandbox, &config).await;
    let id = created.map_err(|error| {
        warn(&error.to_string());
        failed(WaitingReason::CreateContainerError, error.to_string())
    })?;
    tell("Created", "Container created");
    let started = shared.runtime.start_container(&id).await;
    // The container has mounts of its own now, or never will.
    held.release().await;
    if let Err(error) = started {
        warn(&error.to_string());
        // Best effort: the event stream brings it, too.
        let _ = shared.pleg.refresh(&desired.identity, &id).await;
        return Err(failed(WaitingReason::RunContainerError, error.to_string()));
    }
    tell("Started", "Container started");
    if let Err(error) = shared.pleg.refresh(&desired.identity, &id).await {
        tracing::debug!(%error, "a started container could not be looked at");
    }
    drop(permit);

    let lifecycle = spec.lifecycle.as_ref();
    let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
        return Ok(());
    };
    let target = Target {
        id: id.clone(),
        container: Arc::clone(&spec),
        ip: sandbox.ip().unwrap_or(shared.config.node_ip),
        user_agent: shared.probe_agent(),
    };
    let hook = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        hook = hooks::run(&shared.runtime, &target, handler, POST_START) => hook,
    };
    hook.map_err(|error| {
        tracing::debug!(%error, container = name, "post-start hook failed");
        let message = "PostStartHook failed";
        let reason = "FailedPostStartHook";
        shared.reporter.pod_warning(&desired, Some(&name), reason, message);
        NotStarted::Hook { id, waiting: Waiting::new(WaitingReason::PostStartHookError, error) }
    })
}

async fn permit<'a>(shared: &'a Shared, cancel: &CancellationToken) -> Option<tokio::sync::SemaphorePermit<'a>> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        permit = shared.starts.acquire() => permit.ok(),
    }
}

pub(super) async fn pre_stop(
    shared: Arc<Shared>,
    desired: Arc<DesiredPod>,
    target: Target,
    grace: Duration,
) -> OperationOutcome {
    let lifecycle = target.container.lifecycle.as_ref();
    if let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
        let hook = hooks::run(&shared.runtime, &target, handler, grace);
        let result = tokio::time::timeout(grace, hook).await;
        if !matches!(result, Ok(Ok(()))) {
            let name = &target.container.name;
            let message = "PreStopHook failed";
            shared.reporter.pod_warning(&desired, Some(name), "FailedPreStopHook", message);
        }
    }
    OperationOutcome::HookDone { id: target.id }
}

pub(super) async fn stop_container(
    shared: Arc<Shared>,
    desired: Arc<DesiredPod>,
    id: String,
    grace: Duration,
) -> OperationOutcome {
    let mut result = shared.runtime.stop_container(&id, grace).await;
    if result.is_ok() {
        result = shared.pleg.refresh(&desired.identity, &id).await;
    }
    OperationOutcome::Stopped { id, result }
}

pub(super) async fn remove_container(shared: Arc<Shared>, desired: Arc<DesiredPod>, id: String) -> OperationOutcome {
    let result = shared.runtime.remove_container(&id).await;
    if result.is_ok() {
        let observed = shared.pleg.observed(&desired.identity.uid);
        if let Some(container) = observed.container(&id) {
            let directory = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid);
            let log = directory.termination_log(&container.name, container.attempt);
            // It can be as long as the container liked. What is left goes with the pod.
            let _ = tokio::task::spawn_blocking(move || hostfs::remove_tree(&log)).await;
        }
        shared.pleg.update(&desired.identity, |observed| observed.with_container(&id, None));
    }
    OperationOutcome::Removed { id, result }
}

/// Gives a running container what is allocated to it, instead of `applied`.
pub(super) async fn resize_container(
    shared: Arc<Shared>,
    desired: Arc<DesiredPod>,
    container: DesiredContainer,
    id: String,
    applied: Option<ResourceRequirements>,
) -> OperationOutcome {
    let result = resize(&shared, &desired, &container, &id, applied.as_ref()).await;
    let (container, resources) = (container.name().to_owned(), container.spec.resources);
    OperationOutcome::Resized { id, container, resources, result }
}

async fn resize(
    shared: &Shared,
    desired: &DesiredPod,
    container: &DesiredContainer,
    id: &str,
    applied: Option<&ResourceRequirements>,
) -> Result<Resized, Unfinished> {
    let empty = PodSpec::default();
    let spec = desired.spec().unwrap_or(&empty);
    if resize::needs_restart(&container.spec, applied) {
        return Ok(Resized::ByRestart);
    }
    let resources = kernel(spec, &container.spec);
    // A limit below what is in use would kill the container, or fail, depending on the version of control groups.
    if let Some(limit) = resources.memory_limit_bytes.and_then(|limit| u64::try_from(limit).ok())
        && let Ok(stats) = shared.runtime.stats(id).await
        && stats.memory_working_set_bytes > limit
    {
        let (name, usage) = (container.name(), stats.memory_working_set_bytes);
        let message =
            format!("attempting to set container \"{name}\" memory limit ({limit}) below current usage ({usage})");
        return Err(Unfinished::error(message));
    }
    let updated = shared.runtime.update_container(id, &resources).await;
    updated.map(|()| Resized::InPlace).map_err(|error| Unfinished::error(error.to_string()))
}

pub(super) async fn stop_sandbox(shared: Arc<Shared>, desired: Arc<DesiredPod>, id: String) -> OperationOutcome {
    let result = shared.runtime.stop_sandbox(&id).await;
    if result.is_ok() {
        shared.pleg.update(&desired.identity, |observed| observed.with_sandbox_stopped(&id));
    }
    OperationOutcome::Removed { id, result }
}

pub(super) async fn remove_sandbox(shared: Arc<Shared>, desired: Arc<DesiredPod>, id: String) -> OperationOutcome {
    let result = shared.runtime.remove_sandbox(&id).await;
    if result.is_ok() {
        shared.pleg.update(&desired.identity, |observed| observed.without_sandbox(&id));
    }
    OperationOutcome::Removed { id, result }
}

pub(super) async fn note_eviction(directory: PodDirectory, message: String) -> OperationOutcome {
    let result =
        tokio::task::spawn_blocking(move || directory.set_evicted(&message).map_err(|error| error.to_string()));
    OperationOutcome::EvictionNoted(result.await.unwrap_or_else(|error| Err(error.to_string())))
}

/// Takes the volumes away; all of the pod's files when it is being deleted.
pub(super) async fn tear_down(shared: Arc<Shared>, desired: Arc<DesiredPod>) -> OperationOutcome {
    let directory = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid);
    let everything = desired.deleting();
    let result = tokio::task::spawn_blocking(move || {
        let result = match everything {
            true => directory.remove(),
            false => directory.tear_down(),
        };
        match result {
            // Files that containers made as another user, or what somebody has mounted there, when this process may
            // remove neither: not worth keeping the pod for.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let directory = directory.path().display().to_string();
                tracing::warn!(%error, directory, "files of a pod are left behind");
                Ok(())
            }
            result => result.map_err(|error| error.to_string()),
        }
    });
    OperationOutcome::TornDown(result.await.unwrap_or_else(|error| Err(error.to_string())))
}

/// Writes the difference between the API's status and this one.
pub(super) async fn write_status(
    shared: Arc<Shared>,
    desired: Arc<DesiredPod>,
    new: Arc<PodStatus>,
) -> OperationOutcome {
    let known = desired.status().cloned().unwrap_or_default();
    OperationOutcome::Written(write(&shared, &desired, &known, &new).await)
}

async fn write(
    shared: &Shared,
    desired: &DesiredPod,
    known: &PodStatus,
    new: &PodStatus,
) -> Result<Option<Arc<Pod>>, kube::Error> {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &desired.identity.namespace);
    let patch = status::patch(&desired.identity.uid, known, new);
    let parameters = PatchParams::default();
    let patch = Patch::Strategic(patch);
    match api.patch_status(&desired.identity.name, &parameters, &patch).await {
        Ok(pod) => Ok(Some(Arc::new(pod))),
        // Gone, or another pod of that name: nobody to tell.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the last status, then deletes the API's pod, this one and no namesake.
pub(super) async fn release(shared: Arc<Shared>, desired: Arc<DesiredPod>, new: Arc<PodStatus>) -> OperationOutcome {
    let result = async {
        let known = desired.status().cloned().unwrap_or_default();
        if status::differs(&known, &new) {
            write(&shared, &desired, &known, &new).await?;
        }
        let api: Api<Pod> = Api::namespaced(shared.client.clone(), &desired.identity.namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(desired.identity.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(&desired.identity.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    };
    OperationOutcome::Released(result.await)
}
