//! A profile of its own per test on the machine's Docker daemon, and an image made from the machine's static busybox.
//! Everything is removed again, also when the test fails.

// Each test program uses some of it.
#![allow(dead_code)]

use std::future::Future;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::query_parameters::CreateImageOptionsBuilder;
use coracle_docker::{Config, Docker, Network, Subnet};
use futures::TryStreamExt;
use runtime::{ContainerConfig, ContainerState, Error, PodIdentity, Runtime, Sandbox, SandboxConfig};

/// What a test works with.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) docker: Docker,
    pub(crate) network: Network,
    /// A busybox image.
    pub(crate) image: String,
}

/// Runs a test with a fixture. Needs a Docker daemon, and fails without one.
pub(crate) async fn with<F: Future<Output = ()> + 'static>(test: impl FnOnce(Fixture) -> F) {
    let profile = unique();
    let docker = Docker::connect(Config::new(&profile)).await.expect("a Docker daemon");
    let network = prepare(&docker).await;
    let image = format!("coracle-test/{profile}:1");
    import_busybox(&image).await;
    let fixture = Fixture { docker: docker.clone(), network, image: image.clone() };
    // A task of its own turns a panic into a result; a local one, for tests hold what need not be `Send`.
    let local = tokio::task::LocalSet::new();
    let test = local.spawn_local(test(fixture));
    let result = tokio::time::timeout(Duration::from_secs(180), local.run_until(test)).await;
    docker.delete_profile().await.expect("the profile is removed");
    docker.remove_image(&image).await.expect("the image is removed");
    match result {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => resume_unwind(failure.into_panic()),
        Err(_) => panic!("the test takes too long"),
    }
}

/// A name nobody else uses.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t{:x}-{:x}-{next}", std::process::id(), now & 0xf_ffff)
}

/// Tests run side by side, so a subnet found free may be taken the next moment: try others then.
async fn prepare(docker: &Docker) -> Network {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    for attempt in 0..50 {
        let [_, b, c, _] = seed.wrapping_add(attempt * 7919).to_le_bytes();
        let subnet = Subnet::new(Ipv4Addr::new(10, 128 + (b & 63), c, 0), 24);
        match docker.prepare(subnet).await {
            Ok(network) => return network,
            Err(Error::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no free subnet");
}

async fn import_busybox(image: &str) {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(busybox.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    archive.append_data(&mut header, "bin/busybox", &busybox[..]).unwrap();
    let applets = ["sh", "sleep", "cat", "echo", "nc", "ps", "stty", "id", "tail", "true", "wget", "seq", "dd", "kill"];
    for applet in applets {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let (name, tag) = image.split_once(':').unwrap();
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(name)
        .tag(tag)
        .changes(vec!["ENV PATH=/bin".to_owned()])
        .build();
    let client = bollard::Docker::connect_with_defaults().unwrap();
    client
        .create_image(Some(options), Some(bollard::body_full(archive.into_inner().unwrap().into())), None)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
}

impl Fixture {
    /// Identity of a pod by this name.
    pub(crate) fn pod(&self, name: &str) -> PodIdentity {
        PodIdentity {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: format!("{}-{name}", self.docker.profile()),
        }
    }

    /// A sandbox by this name.
    pub(crate) async fn sandbox(&self, name: &str) -> Sandbox {
        self.docker.run_sandbox(&self.sandbox_config(name)).await.unwrap()
    }

    pub(crate) fn sandbox_config(&self, name: &str) -> SandboxConfig {
        SandboxConfig { pod: self.pod(name), hostname: name.to_owned(), ..SandboxConfig::default() }
    }

    /// A container that runs a shell script.
    pub(crate) fn container_config(&self, sandbox: &Sandbox, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            pod: sandbox.pod.clone(),
            name: name.to_owned(),
            image: self.image.clone(),
            hash: "h1".to_owned(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            ..ContainerConfig::default()
        }
    }

    /// Makes and starts a container.
    pub(crate) async fn run(&self, sandbox: &Sandbox, config: &ContainerConfig) -> String {
        let id = self.docker.create_container(sandbox, config).await.unwrap();
        self.docker.start_container(&id).await.unwrap();
        id
    }

    /// Makes and starts a container that runs a shell script.
    pub(crate) async fn run_script(&self, sandbox: &Sandbox, name: &str, script: &str) -> String {
        self.run(sandbox, &self.container_config(sandbox, name, script)).await
    }

    /// Waits for a container to end.
    pub(crate) async fn exited(&self, id: &str) -> ContainerState {
        eventually(async || {
            let container = self.docker.container(id).await.unwrap().expect("it exists");
            container.state.is_exited().then_some(container.state)
        })
        .await
    }
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "it never happens");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
