//! A container runtime without containers, and a machine of invented numbers: for tests, and for fake nodes.
//!
//! [`TestRuntime`] keeps sandboxes and containers in memory and behaves as the [`Runtime`] trait promises, at once.
//! Containers run until they are stopped or [`TestRuntime::exit`] ends them. Every image is present, unless
//! [`TestRuntime::lose_image`] says otherwise. [`TestRuntime::set_down`] takes the whole runtime away and brings it back.
//! [`TestMachine`] has as much left of everything as it is told.

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use runtime::{
    Auth, Container, ContainerConfig, ContainerState, DiskUsage, Error, Event, EventKind, EventStream, ExecOutput,
    Image, PodIdentity, Resources, Runtime, RuntimeInfo, RuntimeStatus, Sandbox, SandboxConfig, Stats,
    TerminationReason,
};
use streaming::{CommandOptions, Duplex, LogChunks, LogOptions, Streams};
use tokio::sync::{broadcast, watch};

pub use machine::TestMachine;

/// Events that a slow reader may lag behind.
const EVENTS: usize = 4096;

/// What a pull of an image ends with, instead of success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    /// The registry does not have it.
    NotFound,
    /// The registry is out of reach.
    Offline,
}

/// A runtime in memory. Cheap to clone; all clones are the same runtime.
#[derive(Clone)]
pub struct TestRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    info: RuntimeInfo,
    state: Mutex<State>,
    events: broadcast::Sender<Result<Event, Error>>,
    /// Whether its health check gets no answer.
    silent: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    configs: BTreeMap<String, ContainerConfig>,
    next: u32,
    down: bool,
    /// Why nothing that it was asked to do comes back.
    stuck: Option<String>,
    /// Images that are not here.
    lost: BTreeSet<String>,
    /// What pulls end with that do not succeed.
    pulls: BTreeMap<String, Pull>,
    /// Exit codes and outputs of commands, by the command's first word.
    commands: BTreeMap<String, (i32, String)>,
    /// What containers use, and take of the disk, by `POD/CONTAINER`.
    usage: BTreeMap<String, (Stats, DiskUsage)>,
    /// The images in lists.
    images: Vec<Image>,
    /// What was asked, in order.
    calls: Vec<String>,
}

impl Default for TestRuntime {
    fn default() -> Self {
        Self::new(8, 16 << 30)
    }
}

impl TestRuntime {
    /// A runtime on a machine with so many processors and bytes of memory.
    pub fn new(cpus: u64, memory_bytes: u64) -> Self {
        let info = RuntimeInfo {
            name: "fake".to_owned(),
            version: "1.0".to_owned(),
            api_version: "1.0".to_owned(),
            os_image: "Paper".to_owned(),
            kernel: "0.0".to_owned(),
            architecture: "amd64".to_owned(),
            operating_system: "linux".to_owned(),
            cpus,
            memory_bytes,
            cgroup_driver: "none".to_owned(),
            cgroup_version: "2".to_owned(),
            root_dir: String::new(),
            user_namespaces: false,
            recursive_read_only: false,
            app_armor: false,
        };
        Self {
            shared: Arc::new(Shared {
                info,
                state: Mutex::default(),
                events: broadcast::Sender::new(EVENTS),
                silent: watch::Sender::new(false),
            }),
        }
    }

    /// Ends the running container `name` of the pod called `pod` with this code. Answers whether there was one.
    pub fn exit(&self, pod: &str, name: &str, exit_code: i32) -> bool {
        let running =
            self.find(|container| container.pod.name == pod && container.name == name && container.state.is_running());
        match running {
            Some(container) => {
                self.end(&container.id, exit_code);
                true
            }
            None => false,
        }
    }

    /// Ends the sandbox of the pod called `pod`, with all in it, as a machine does that restarts.
    pub fn kill_sandbox(&self, pod: &str) {
        let sandboxes: Vec<Sandbox> = {
            let state = self.state();
            let of_pod = |sandbox: &&Sandbox| sandbox.pod.name == pod && sandbox.ready;
            state.sandboxes.values().filter(of_pod).cloned().collect()
        };
        for sandbox in sandboxes {
            self.halt(&sandbox.id);
            self.tell(&sandbox.id, None, &sandbox.pod, EventKind::Died { exit_code: 137 });
        }
    }

    /// Makes an image missing, until it is pulled.
    pub fn lose_image(&self, image: &str) {
        self.state().lost.insert(image.to_owned());
    }

    /// Lets pulls of an image fail.
    pub fn fail_pulls(&self, image: &str, pull: Pull) {
        self.state().pulls.insert(image.to_owned(), pull);
    }

    /// Lets commands whose first word is `word` exit with this code and output.
    pub fn set_command(&self, word: &str, exit_code: i32, output: &str) {
        let result = (exit_code, output.to_owned());
        self.state().commands.insert(word.to_owned(), result);
    }

    /// Lets the container `name` of the pod called `pod` use so much memory, and take so much of the disk.
    pub fn set_usage(&self, pod: &str, name: &str, memory: u64, disk: DiskUsage) {
        let stats = Stats { memory_usage_bytes: memory, memory_working_set_bytes: memory, ..Stats::default() };
        self.state().usage.insert(format!("{pod}/{name}"), (stats, disk));
    }

    /// Lets the runtime list these images.
    pub fn set_images(&self, images: Vec<Image>) {
        self.state().images = images;
    }

    /// Takes the runtime away, or brings it back.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
        if down {
            // Nobody may be listening.
            let _ = self.shared.events.send(Err(unavailable()));
        }
    }

    /// Lets health checks, and questions for all pods, all images or the machine, wait until the runtime is not silent any
    /// more.
    pub fn set_silent(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }

    /// Lets health checks tell that nothing comes back, or that all is well again.
    pub fn set_stuck(&self, why: Option<&str>) {
        self.state().stuck = why.map(str::to_owned);
    }

    /// All containers, oldest first.
    pub fn containers(&self) -> Vec<Container> {
        let state = self.state();
        let sandboxes = state.sandboxes.values();
        let mut containers: Vec<Container> = sandboxes.flat_map(|sandbox| sandbox.containers.clone()).collect();
        containers.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        containers
    }

    /// What the container with this id was made from.
    pub fn config(&self, id: &str) -> Option<ContainerConfig> {
        self.state().configs.get(id).cloned()
    }

    /// What changed the runtime so far: `run POD`, `start POD/CONTAINER`, `stop POD/CONTAINER`, `remove …`, `pull IMAGE`,
    /// in order.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    /// The state, unless the runtime is away.
    async fn answering(&self) {
        let mut silent = self.shared.silent.subscribe();
        // It cannot be closed while this runs.
        let _ = silent.wait_for(|silent| !silent).await;
    }

    fn up(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state();
        match state.down {
            true => Err(unavailable()),
            false => Ok(state),
        }
    }

    fn find(&self, which: impl Fn(&Container) -> bool) -> Option<Container> {
        let state = self.state();
        let sandboxes = state.sandboxes.values();
        let mut containers = sandboxes.flat_map(|sandbox| &sandbox.containers);
        containers.find(|container| which(container)).cloned()
    }

    async fn usage(&self, id: &str) -> Result<(Stats, DiskUsage), Error> {
        let container = self.container(id).await?.ok_or_else(|| no_container(id))?;
        let name = format!("{}/{}", container.pod.name, container.name);
        Ok(self.state().usage.get(&name).cloned().unwrap_or_default())
    }

    fn end(&self, id: &str, exit_code: i32) {
        let ended = self.state().change(id, |container| {
            let ContainerState::Running { started } = container.state else {
                return None;
            };
            container.state = ContainerState::Exited {
                exit_code,
                reason: TerminationReason::of(exit_code),
                message: String::new(),
                started: Some(started),
                finished: Timestamp::now(),
            };
            Some((container.name.clone(), container.pod.clone()))
        });
        if let Some(Some((name, pod))) = ended {
            self.tell(id, Some(name), &pod, EventKind::Died { exit_code });
        }
    }

    /// Ends a sandbox with all in it.
    fn halt(&self, id: &str) {
        let running: Vec<String> = {
            let mut state = self.state();
            let Some(sandbox) = state.sandboxes.get_mut(id) else {
                return;
            };
            sandbox.ready = false;
            sandbox.ips.clear();
            let containers = sandbox.containers.iter();
            containers.map(|container| container.id.clone()).collect()
        };
        for id in running {
            self.end(&id, 137);
        }
    }

    fn tell(&self, id: &str, container: Option<String>, pod: &PodIdentity, kind: EventKind) {
        let event = Event { id: id.to_owned(), container, pod: pod.clone(), kind, time: Timestamp::now() };
        // Nobody may be listening.
        let _ = self.shared.events.send(Ok(event));
    }
}

fn unavailable() -> Error {
    Error::Unavailable("the fake runtime is down".to_owned())
}

fn no_container(id: &str) -> Error {
    Error::NotFound(format!("No such container: {id}"))
}

impl State {
    fn id(&mut self) -> String {
        self.next += 1;
        format!("{:064x}", self.next)
    }

    fn change<T>(&mut self, id: &str, change: impl FnOnce(&mut Container) -> T) -> Option<T> {
        let sandboxes = self.sandboxes.values_mut();
        let mut containers = sandboxes.flat_map(|sandbox| &mut sandbox.containers);
        containers.find(|container| container.id == id).map(change)
    }

    fn image(&self, reference: &str) -> Option<Image> {
        let image = Image {
            id: format!("sha256:{reference}"),
            repo_tags: vec![reference.to_owned()],
            size: 1 << 20,
            ..Image::default()
        };
        (!self.lost.contains(reference)).then_some(image)
    }
}

#[async_trait]
impl Runtime for TestRuntime {
    async fn info(&self) -> Result<RuntimeInfo, Error> {
        self.answering().await;
        self.up().map(|_| self.shared.info.clone())
    }

    async fn status(&self) -> Result<RuntimeStatus, Error> {
        self.answering().await;
        Ok(RuntimeStatus { not_ready: self.up()?.stuck.clone() })
    }

    async fn pods(&self) -> Result<Vec<Sandbox>, Error> {
        self.answering().await;
        Ok(self.up()?.sandboxes.values().cloned().collect())
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox, Error> {
        let mut state = self.up()?;
        state.calls.push(format!("run {}", config.pod.name));
        let id = state.id();
        let [.., high, low] = state.next.to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(10, 244, high, low));
        let sandbox = Sandbox {
            id: id.clone(),
            pod: config.pod.clone(),
            attempt: config.attempt,
            ready: true,
            ips: match config.host_network {
                true => Vec::new(),
                false => vec![ip],
            },
            host_network: config.host_network,
            host_pid: config.host_pid,
            host_ipc: config.host_ipc,
            share_process_namespace: config.share_process_namespace,
            created: Some(Timestamp::now()),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            containers: Vec::new(),
        };
        state.sandboxes.insert(id, sandbox.clone());
        Ok(sandbox)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        drop(self.up()?);
        let pod = self.state().sandboxes.get(id).map(|sandbox| sandbox.pod.clone());
        if let Some(pod) = pod {
            self.halt(id);
            self.tell(id, None, &pod, EventKind::Died { exit_code: 0 });
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        drop(self.up()?);
        self.halt(id);
        let removed = {
            let mut state = self.state();
            let removed = state.sandboxes.remove(id);
            if let Some(sandbox) = &removed {
                let call = format!("remove {}", sandbox.pod.name);
                state.calls.push(call);
                for container in &sandbox.containers {
                    state.configs.remove(&container.id);
                }
            }
            removed
        };
        if let Some(sandbox) = removed {
            self.tell(id, None, &sandbox.pod, EventKind::Removed);
        }
        Ok(())
    }

    async fn create_container(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String, Error> {
        let mut state = self.up()?;
        if state.image(&config.image).is_none() {
            return Err(Error::ImageNotFound { image: config.image.clone() });
        }
        let id = state.id();
        let container = Container {
            id: id.clone(),
            sandbox_id: sandbox.id.clone(),
            pod: config.pod.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            hash: config.hash.clone(),
            image: config.image.clone(),
            image_id: format!("fake://sha256:{}", config.image),
            created: Some(Timestamp::now()),
            state: ContainerState::Created,
            tty: config.tty,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        let missing = Error::NotFound(format!("No such sandbox: {}", sandbox.id));
        let sandbox = state.sandboxes.get_mut(&sandbox.id).ok_or(missing)?;
        sandbox.containers.push(container);
        state.configs.insert(id.clone(), config.clone());
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        let (name, pod) = {
            let mut state = self.up()?;
            let started = state.change(id, |container| {
                container.state = ContainerState::Running { started: Timestamp::now() };
                (container.name.clone(), container.pod.clone())
            });
            let (name, pod) = started.ok_or_else(|| no_container(id))?;
            state.calls.push(format!("start {}/{name}", pod.name));
            (name, pod)
        };
        self.tell(id, Some(name), &pod, EventKind::Started);
        Ok(())
    }

    async fn update_container(&self, id: &str, resources: &Resources) -> Result<(), Error> {
        let container = self.container(id).await?.ok_or_else(|| no_container(id))?;
        let mut state = self.up()?;
        state.calls.push(format!("update {}/{}", container.pod.name, container.name));
        if let Some(config) = state.configs.get_mut(id) {
            config.resources.clone_from(resources);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, _grace: Duration) -> Result<(), Error> {
        drop(self.up()?);
        if let Some(container) = self.find(|container| container.id == id) {
            if container.state.is_running() {
                let call = format!("stop {}/{}", container.pod.name, container.name);
                self.state().calls.push(call);
            }
            self.end(id, 0);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        drop(self.up()?);
        self.end(id, 137);
        let Some(container) = self.find(|container| container.id == id) else {
            return Ok(());
        };
        {
            let mut state = self.state();
            for sandbox in state.sandboxes.values_mut() {
                sandbox.containers.retain(|container| container.id != id);
            }
            state.configs.remove(id);
            let call = format!("remove {}/{}", container.pod.name, container.name);
            state.calls.push(call);
        }
        self.tell(id, Some(container.name), &container.pod, EventKind::Removed);
        Ok(())
    }

    async fn container(&self, id: &str) -> Result<Option<Container>, Error> {
        drop(self.up()?);
        Ok(self.find(|container| container.id == id))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        Ok(self.up()?.image(reference))
    }

    async fn pull_image(&self, reference: &str, _auth: Option<Auth>) -> Result<String, Error> {
        let mut state = self.up()?;
        state.calls.push(format!("pull {reference}"));
        let image = reference.to_owned();
        match state.pulls.get(reference).cloned() {
            None => {
                state.lost.remove(reference);
                Ok(format!("sha256:{reference}"))
            }
            Some(Pull::NotFound) => {
                Err(Error::PullFailed { message: format!("manifest for {image} not found: manifest unknown"), image })
            }
            Some(Pull::Offline) => Err(Error::RegistryUnavailable {
                message: "dial tcp: lookup registry-1.docker.io: no such host".to_owned(),
                image,
            }),
        }
    }

    async fn images(&self) -> Result<Vec<Image>, Error> {
        self.answering().await;
        self.up().map(|state| state.images.clone())
    }

    async fn remove_image(&self, reference: &str) -> Result<(), Error> {
        let mut state = self.up()?;
        state.calls.push(format!("remove image {reference}"));
        state.images.retain(|image| image.id != reference && !image.repo_tags.iter().any(|tag| tag == reference));
        state.lost.insert(reference.to_owned());
        Ok(())
    }

    fn events(&self) -> EventStream {
        if self.state().down {
            return stream::once(async { Err(unavailable()) }).boxed();
        }
        let receiver = self.shared.events.subscribe();
        let next = async |mut receiver: broadcast::Receiver<Result<Event, Error>>| {
            let event = match receiver.recv().await {
                Ok(event) => event,
                // Whoever lost events subscribes and lists again.
                Err(_) => Err(Error::Other("events were lost".to_owned())),
            };
            Some((event, receiver))
        };
        stream::unfold(receiver, next).boxed()
    }

    async fn logs(&self, id: &str, _options: &LogOptions) -> Result<LogChunks, Error> {
        let container = self.container(id).await?.ok_or_else(|| no_container(id))?;
        let line = format!("{} attempt {}\n", container.name, container.attempt);
        Ok(stream::once(async move { Ok(Bytes::from(line)) }).boxed())
    }

    async fn exec(
        &self,
        id: &str,
        command: Vec<String>,
        _options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, Error> {
        let result = self.exec_sync(id, command, Duration::MAX).await?;
        if let Some(stdout) = streams.stdout {
            // A caller that is gone misses nothing.
            let _ = stdout.send(result.output).await;
        }
        Ok(result.exit_code)
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, _timeout: Duration) -> Result<ExecOutput, Error> {
        let container = self.container(id).await?.ok_or_else(|| no_container(id))?;
        if !container.state.is_running() {
            return Err(Error::Conflict(format!("Container {id} is not running")));
        }
        let mut state = self.state();
        state.calls.push(format!("exec {}/{}", container.pod.name, command.join(" ")));
        let result = command.first().and_then(|word| state.commands.get(word));
        let (exit_code, output) = result.cloned().unwrap_or_default();
        Ok(ExecOutput { exit_code, output: Bytes::from(output) })
    }

    async fn attach(&self, id: &str, _options: CommandOptions, _streams: Streams) -> Result<i32, Error> {
        self.container(id).await?.ok_or_else(|| no_container(id))?;
        Ok(0)
    }

    async fn port_forward(&self, _sandbox_id: &str, _port: u16, mut io: Box<dyn Duplex>) -> Result<(), Error> {
        // An echo is the simplest server there is.
        let (mut read, mut write) = tokio::io::split(&mut io);
        let copied = tokio::io::copy(&mut read, &mut write).await;
        copied.map(|_| ()).map_err(|error| Error::Other(error.to_string()))
    }

    async fn stats(&self, id: &str) -> Result<Stats, Error> {
        let (stats, _) = self.usage(id).await?;
        Ok(Stats { time: Timestamp::now(), ..stats })
    }

    async fn disk_usage(&self, id: &str) -> Result<DiskUsage, Error> {
        let (_, disk) = self.usage(id).await?;
        Ok(disk)
    }
}
