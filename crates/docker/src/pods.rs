//! Containers: making, finding, ending them. As few requests as possible, for Docker's own time dominates the start of a
//! pod: two to make and start something.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, ContainerSummary, ContainerUpdateBody, ContainerWaitResponse};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use http_body_util::BodyExt;
use runtime::{Container, ContainerConfig, Error, Resources, Sandbox, labels};

use crate::{CALL_TIMEOUT, Docker, attach, create, error, inspect};

/// Inspections at a time: they are cheap, but a hundred at once would hold up what matters more.
const INSPECTIONS: usize = 8;

impl Docker {
    pub(crate) async fn list_pods(&self) -> Result<Vec<Sandbox>, Error> {
        let mut listed = self.list(vec![self.profile_label()]).await?;
        listed.retain(|found| self.is_own(found.labels.as_ref()));
        let ids: HashSet<&str> = listed.iter().filter_map(|found| found.id.as_deref()).collect();
        self.index().retain(&ids);
        let (sandboxes, others): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_sandbox);
        let containers: Vec<Option<Container>> =
            stream::iter(others).map(|found| self.listed_container(found)).buffered(INSPECTIONS).try_collect().await?;
        let mut pods: Vec<Sandbox> = sandboxes.iter().map(inspect::sandbox).collect();
        let mut index: HashMap<String, usize> =
            pods.iter().enumerate().map(|(position, sandbox)| (sandbox.id.clone(), position)).collect();
        for container in containers.into_iter().flatten() {
            let position = *index.entry(container.sandbox_id.clone()).or_insert_with(|| {
                pods.push(Sandbox {
                    id: container.sandbox_id.clone(),
                    pod: container.pod.clone(),
                    ..Sandbox::default()
                });
                pods.len() - 1
            });
            pods[position].containers.push(container);
        }
        for sandbox in &mut pods {
            sandbox.containers.sort_by_key(|container| container.created);
        }
        Ok(pods)
    }

    pub(crate) async fn make_container(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String, Error> {
        let negative = match config.oom_score_adj {
            Some(score) if score < 0 => self.negative_oom_score_allowed(sandbox).await?,
            _ => true,
        };
        let body = create::container(self.settings(), sandbox, config, negative)?;
        let name = labels::container_name(&config.name, &config.pod, config.attempt);
        let id = self.create(&name, &body).await?;
        self.index().set_terminal(&id, config.tty);
        if config.stdin {
            self.attachments().expect(&id);
        }
        Ok(id)
    }

    /// Starts a container. Whoever is to talk to it may not miss what it says first.
    pub(crate) async fn start(&self, id: &str) -> Result<(), Error> {
        if self.attachments().take_expected(id) {
            attach::hold(self, id).await;
        }
        self.call(CALL_TIMEOUT, self.client().start_container(id, None)).await.map_err(error::start_failed)
    }

    /// Changes limits and shares of a container.
    pub(crate) async fn update(&self, id: &str, resources: &Resources) -> Result<(), Error> {
        let body = ContainerUpdateBody {
            cpu_shares: resources.cpu_shares,
            cpu_quota: resources.cpu_quota_us,
            cpu_period: resources.cpu_period_us,
            memory: resources.memory_limit_bytes,
            // Equal to the memory limit: no swap on top.
            memory_swap: resources.memory_limit_bytes,
            ..ContainerUpdateBody::default()
        };
        self.call(CALL_TIMEOUT, self.client().update_container(id, body)).await
    }

    /// Signals a container to end, and kills it after `grace`. Docker's own request for that would be under way for the
    /// whole grace; of these none is, but for the one that waits.
    pub(crate) async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        if grace.is_zero() {
            return self.kill(id).await;
        }
        let stop = async {
            let signal = self.stop_signal(id).await?;
            let options = KillContainerOptionsBuilder::new().signal(&signal).build();
            self.signal(id, Some(options)).await?;
            match tokio::time::timeout(grace, self.ended(id)).await {
                Ok(ended) => ended,
                Err(_) => self.kill(id).await,
            }
        };
        idempotent(stop.await)
    }

    /// Signals a container to end, whichever node of the profile it is on, and does not wait for it.
    pub(crate) async fn ask_to_end(&self, id: &str) -> Result<(), Error> {
        let ask = async {
            let found = self.call(CALL_TIMEOUT, self.client().inspect_container(id, None)).await?;
            let signal = found.config.and_then(|config| config.stop_signal).filter(|signal| !signal.is_empty());
            let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
            self.signal(id, Some(KillContainerOptionsBuilder::new().signal(&signal).build())).await
        };
        idempotent(ask.await)
    }

    /// Ends a container at once; answers when it has ended.
    pub(crate) async fn kill(&self, id: &str) -> Result<(), Error> {
        idempotent(self.signal(id, None).await)
    }

    /// Signals a container; without options `SIGKILL`, which is answered when it has ended.
    async fn signal(&self, id: &str, options: Option<KillContainerOptions>) -> Result<(), Error> {
        match self.call(CALL_TIMEOUT, self.client().kill_container(id, options)).await {
            // Docker calls a container that does not run a conflict.
            Err(Error::Conflict(message)) if message.contains("is not running") => Ok(()),
            other => other,
        }
    }

    /// Answers when a container does not run any more.
    pub(crate) async fn ended(&self, id: &str) -> Result<(), Error> {
        let path = format!("/containers/{id}/wait?condition=not-running");
        let response = self.transport().send(Method::POST, &path, Bytes::new(), false).await?;
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| error::unavailable(&error, self.host()))?.to_bytes();
        // A daemon that goes away ends its answers, too, and knows nothing of the container.
        match serde_json::from_slice::<ContainerWaitResponse>(&body) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Unavailable(format!("lost the Docker daemon at {}", self.host()))),
        }
    }

    /// The signal that asks a container to end: its own, its image's, or `SIGTERM`.
    async fn stop_signal(&self, id: &str) -> Result<String, Error> {
        if let Some(signal) = self.index().stop_signal(id) {
            return Ok(signal);
        }
        self.inspect(id).await?;
        self.index().stop_signal(id).ok_or_else(|| no_container(id))
    }

    /// Kills and removes a container with its anonymous volumes.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        self.attachments().take_expected(id);
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.call(CALL_TIMEOUT, self.client().remove_container(id, Some(options))).await {
            Err(Error::Conflict(message)) if message.contains("already in progress") => Ok(()),
            other => idempotent(other),
        }
    }

    /// A container of this profile; `None` when it is gone or somebody else's.
    pub(crate) async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        let found = self.call(CALL_TIMEOUT, self.client().inspect_container(id, None)).await;
        let found = match found {
            Ok(found) => found,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let config = found.config.as_ref();
        let labels = config.and_then(|config| config.labels.as_ref());
        let profile = labels.and_then(|labels| labels.get(labels::PROFILE));
        if profile.map(String::as_str) != Some(self.profile()) || !self.is_own(labels) {
            return Ok(None);
        }
        let asked = config.and_then(|config| config.image.clone()).unwrap_or_default();
        let image = found.image.clone().unwrap_or_default();
        let signal = config.and_then(|config| config.stop_signal.clone()).filter(|signal| !signal.is_empty());
        let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
        let image_id = self.image_id(&asked, &image).await;
        let container = inspect::container(found, image_id);
        self.index().set_terminal(&container.id, container.tty);
        self.index().set_stop_signal(&container.id, signal);
        Ok(Some(container))
    }

    /// Whether the container has a terminal.
    pub(crate) async fn terminal(&self, id: &str) -> Result<bool, Error> {
        if let Some(tty) = self.index().terminal(id) {
            return Ok(tty);
        }
        match self.inspect(id).await? {
            Some(container) => Ok(container.tty),
            None => Err(no_container(id)),
        }
    }

    /// Containers with all these labels, whatever their state.
    pub(crate) async fn list(&self, labels: Vec<String>) -> Result<Vec<ContainerSummary>, Error> {
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        self.call(CALL_TIMEOUT, self.client().list_containers(Some(options))).await
    }

    /// Whether something of this profile belongs to this node.
    pub(crate) fn is_own(&self, all: Option<&HashMap<String, String>>) -> bool {
        let node = all.and_then(|all| all.get(labels::NODE));
        node == self.settings().node.as_ref()
    }

    pub(crate) fn profile_label(&self) -> String {
        format!("{}={}", labels::PROFILE, self.profile())
    }

    pub(crate) async fn containers_of(&self, sandbox: &str) -> Result<Vec<ContainerSummary>, Error> {
        let of_sandbox = format!("{}={sandbox}", labels::SANDBOX_ID);
        self.list(vec![self.profile_label(), of_sandbox]).await
    }

    /// A container from the list: from memory when nothing can have changed.
    async fn listed_container(&self, found: ContainerSummary) -> Result<Option<Container>, Error> {
        let (Some(id), Some(state)) = (found.id, found.state) else {
            return Ok(None);
        };
        if let Some(container) = self.index().container(&id, state) {
            return Ok(Some(container));
        }
        let container = self.inspect(&id).await?;
        if let Some(container) = &container {
            self.index().set_container(state, container);
        }
        Ok(container)
    }

    /// Creates a container. Where another cluster has a pod of the same UID, as one has that this is a copy of, the profile's name
    /// is added to the container's.
    pub(crate) async fn create(&self, name: &str, body: &ContainerCreateBody) -> Result<String, Error> {
        match self.create_named(name, body).await {
            Err(Error::Conflict(_)) if self.inspect(name).await?.is_none() => {
                self.create_named(&format!("{name}_{}", self.profile()), body).await
            }
            created => created,
        }
    }

    /// Creates a container of this name. A leftover of the same name, of this profile and not running, gives way.
    async fn create_named(&self, name: &str, body: &ContainerCreateBody) -> Result<String, Error> {
        match self.create_once(name, body).await {
            Err(Error::Conflict(message)) if message.contains("is already in use") => {
                match self.inspect(name).await? {
                    Some(leftover) if !leftover.state.is_running() => {
                        tracing::debug!(name, "removing a leftover container of the same name");
                        self.remove(&leftover.id).await?;
                    }
                    Some(_) => return Err(Error::Conflict(message)),
                    // It went away meanwhile, or is somebody else's: Docker will tell.
                    None => {}
                }
                self.create_once(name, body).await
            }
            other => other,
        }
    }

    async fn create_once(&self, name: &str, body: &ContainerCreateBody) -> Result<String, Error> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let created = self.call(CALL_TIMEOUT, self.client().create_container(Some(options), body.clone())).await?;
        for warning in created.warnings {
            tracing::debug!(name, warning, "Docker warns");
        }
        Ok(created.id)
    }

    /// Whether containers may have a negative `oom_score_adj`: found out by the first sandbox, or, when that ran before
    /// this process started, told by the sandbox itself.
    async fn negative_oom_score_allowed(&self, sandbox: &Sandbox) -> Result<bool, Error> {
        self.negative_oom_score()
            .get_or_try_init(|| async {
                let found = self.call(CALL_TIMEOUT, self.client().inspect_container(&sandbox.id, None)).await?;
                let score = found.host_config.and_then(|host| host.oom_score_adj);
                Ok(score.unwrap_or_default() < 0)
            })
            .await
            .copied()
    }
}

pub(crate) fn is_sandbox(found: &ContainerSummary) -> bool {
    found.labels.as_ref().and_then(|all| all.get(labels::TYPE)).is_some_and(|kind| kind == labels::TYPE_SANDBOX)
}

pub(crate) fn no_container(id: &str) -> Error {
    Error::NotFound(format!("No such container: {id}"))
}

fn idempotent(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}
