//! The cluster that is tortured: the release binary with a home, and where root runs this a disk, of its own.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::traffic::client;

/// The tests' small image; see `cargo xtask images`.
const IMAGE: &str = "coracle.test/busybox:1";
/// The size of its disk: enough that the node is not under disk pressure.
const DISK: &str = "size=2g";
/// More than this it may hold at no time.
const MEMORY: u64 = 600 << 20;
const DESCRIPTORS: usize = 4_000;
/// No command takes longer than this.
const COMMAND: Duration = Duration::from_secs(180);

/// What the pods that mean harm do, each for ever.
const HOSTILE: [(&str, &str); 3] = [
    ("asks", "while :; do nslookup $RANDOM.$RANDOM.example.invalid >/dev/null 2>&1; done"),
    ("talks", "while :; do yes 0123456789012345678901234567890123456789 | head -n 200; sleep 0.1; done"),
    ("dies", "dd if=/dev/zero of=/dev/termination-log bs=1M seek=4095 count=1 2>/dev/null; sleep 1; exit 1"),
];

/// The cluster; deleted when dropped.
pub(crate) struct Victim {
    binary: PathBuf,
    home: tempfile::TempDir,
    profile: String,
    docker: String,
    /// Whether its home is a file system of its own.
    disk: bool,
    /// The library that shows it another clock, where there is one.
    faketime: Option<PathBuf>,
    /// How much of the log was read.
    read: Mutex<u64>,
}

impl Victim {
    /// Starts it, with pods that mean no harm and pods that do.
    pub(crate) async fn start(binary: &Path, docker: String) -> Result<Self> {
        let home = tempfile::tempdir()?;
        fs::create_dir(home.path().join("home"))?;
        let mount = ["-t", "tmpfs", "-o", DISK, "none"];
        let mounted = Command::new("mount").args(mount).arg(home.path().join("home")).stderr(Stdio::null()).status();
        let victim = Self {
            binary: binary.to_owned(),
            profile: format!("soak-{}", std::process::id()),
            docker,
            disk: mounted.await.is_ok_and(|status| status.success()),
            faketime: faketime(),
            home,
            read: Mutex::new(0),
        };
        victim.set_clock(Duration::ZERO)?;
        victim.coracle(&["start"]).await?;
        victim.make_pods().await?;
        Ok(victim)
    }

    async fn make_pods(&self) -> Result<()> {
        let api: Api<Deployment> = Api::default_namespaced(client(&self.kubeconfig()).await?);
        let calm = ("calm", "trap exit TERM; while :; do sleep 1; done");
        for (name, script) in HOSTILE.into_iter().chain([calm]) {
            let manifest = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
                "spec": {
                    "replicas": if name == "calm" { 3 } else { 1 },
                    "selector": { "matchLabels": { "app": name } },
                    "template": {
                        "metadata": { "labels": { "app": name } },
                        "spec": {
                            "terminationGracePeriodSeconds": 1,
                            "containers": [{
                                "name": "c", "image": IMAGE, "command": ["sh", "-c", script],
                                "resources": { "limits": { "cpu": "100m", "memory": "32Mi" } },
                            }],
                        },
                    },
                },
            });
            api.patch(name, &PatchParams::apply("soak"), &Patch::Apply(manifest)).await?;
        }
        Ok(())
    }

    /// Its kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// Where its state is, if that is a disk that may be filled.
    pub(crate) fn disk(&self) -> Option<PathBuf> {
        self.disk.then(|| self.home.path().join("home"))
    }

    /// Puts its clock ahead of the machine's by so much. False where nothing can be done about its clock.
    pub(crate) fn set_clock(&self, ahead: Duration) -> Result<bool> {
        // Its certificates are of the machine's time: before that, nobody would be believed.
        let text = format!("+{}", ahead.as_secs());
        // Never half a number.
        let new = self.home.path().join("clock.new");
        fs::write(&new, text)?;
        fs::rename(new, self.clock())?;
        Ok(self.faketime.is_some())
    }

    fn clock(&self) -> PathBuf {
        self.home.path().join("clock")
    }

    /// Runs the binary for this cluster.
    pub(crate) async fn coracle(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("CORACLE_HOME", self.home.path().join("home"))
            .env("CORACLE_PROFILE", &self.profile)
            .env("KUBECONFIG", self.kubeconfig())
            .env("DOCKER_HOST", &self.docker)
            .stdin(Stdio::null());
        if let Some(library) = &self.faketime {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.clock())
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let what = format!("coracle {}", arguments.join(" "));
        let output = tokio::time::timeout(COMMAND, command.output()).await;
        let output = output.with_context(|| format!("{what} does not end"))??;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its process.
    pub(crate) async fn pid(&self) -> Result<Pid> {
        let status: Value = serde_json::from_str(&self.coracle(&["status", "-o", "json"]).await?)?;
        let pid = status["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.context("the cluster does not run")
    }

    /// What is not as it should be; nothing when all is well.
    pub(crate) async fn missing(&self) -> Option<String> {
        let look = async {
            let client = client(&self.kubeconfig()).await?;
            let node = Api::<Node>::all(client.clone()).get(&self.profile).await?;
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            ensure!(ready.is_some_and(|ready| ready.status == "True"), "the node: {ready:?}");
            let calm = Api::<Deployment>::default_namespaced(client).get("calm").await?;
            let ready = calm.status.and_then(|status| status.ready_replicas);
            ensure!(ready == Some(3), "calm has {ready:?} of 3 pods");
            let health = self.coracle(&["kubectl", "--", "get", "--raw", "/readyz"]).await?;
            ensure!(health.trim() == "ok", "readyz: {health}");
            Ok(())
        };
        match tokio::time::timeout(Duration::from_secs(20), look).await {
            Ok(looked) => looked.err().map(|error: anyhow::Error| format!("{error:#}")),
            Err(_) => Some("it does not answer".to_owned()),
        }
    }

    /// What must hold of the process at any time: it lives, has not panicked, and holds no more than it may.
    pub(crate) fn check_process(&self) -> Result<()> {
        let fresh = self.fresh_log()?;
        if let Some(line) = fresh.lines().find(|line| line.contains("panicked at")) {
            bail!("{line}");
        }
        let pid = self.running()?;
        let memory = memory(pid)?;
        ensure!(memory <= MEMORY, "it holds {} MB", memory >> 20);
        let descriptors = descriptors(pid)?;
        ensure!(descriptors <= DESCRIPTORS, "it holds {descriptors} descriptors");
        Ok(())
    }

    /// Its memory and descriptors, in words.
    pub(crate) fn measures(&self) -> Result<String> {
        let pid = self.running()?;
        Ok(format!("{} MB, {} descriptors", memory(pid)? >> 20, descriptors(pid)?))
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("home").join(&self.profile)
    }

    /// The process whose number its lock file has.
    fn running(&self) -> Result<Pid> {
        let lock = fs::read_to_string(self.folder().join("lock"))?;
        let pid = lock.trim().parse().ok().and_then(Pid::from_raw).context("no process has the lock")?;
        ensure!(Path::new(&format!("/proc/{pid}")).exists(), "process {pid} died by itself");
        Ok(pid)
    }

    /// What was logged since the last look.
    fn fresh_log(&self) -> Result<String> {
        let mut read = self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut log = fs::File::open(self.folder().join("daemon.log"))?;
        // It begins anew when it has become too long.
        if log.metadata()?.len() < *read {
            *read = 0;
        }
        log.seek(SeekFrom::Start(*read))?;
        let mut fresh = Vec::new();
        log.read_to_end(&mut fresh)?;
        *read += fresh.len() as u64;
        Ok(String::from_utf8_lossy(&fresh).into_owned())
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.folder().join("daemon.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let home = self.home.path().join("home");
        // Nothing more can be done about it here than to try. Docker's own socket: the proxy may be gone.
        let _ = std::process::Command::new(&self.binary)
            .arg("delete")
            .env("CORACLE_HOME", &home)
            .env("CORACLE_PROFILE", &self.profile)
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null())
            .output();
        if self.disk {
            let _ = std::process::Command::new("umount").arg("--lazy").arg(home).output();
        }
    }
}

/// The library of Debian's package `libfaketime`.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|folder| folder.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

/// What a process holds, in bytes, without what it only maps.
fn memory(pid: Pid) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process is ending")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: Pid) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
