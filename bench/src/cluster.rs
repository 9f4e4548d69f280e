//! A coracle cluster of the benchmark's own, measured as a process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::Process;
use crate::report::Report;

/// So long the idle process is watched.
const IDLE: Duration = Duration::from_secs(20);

/// The cluster; deleted when dropped.
pub(crate) struct Own {
    binary: PathBuf,
    home: tempfile::TempDir,
    profile: String,
}

impl Own {
    /// Starts it twice, so that the second start, which is measured, finds network and store in place.
    pub(crate) fn start(only: Option<String>) -> Result<(Self, Report)> {
        let binary = std::env::var_os("CORACLE_BINARY").context("cargo xtask bench says where the binary is")?;
        let own = Self {
            binary: binary.into(),
            home: tempfile::tempdir()?,
            profile: format!("bench-{}", std::process::id()),
        };
        own.coracle(&["start"])?;
        thread::sleep(Duration::from_secs(3));
        let fresh = own.process()?.memory()?;
        own.coracle(&["stop"])?;
        // Heartbeats have whole seconds: the last one of before must not pass for the first one of now.
        thread::sleep(Duration::from_millis(1_100));
        let started = Instant::now();
        own.coracle(&["start"])?;
        let started = started.elapsed();
        let mut report = Report::new(only, vec![own.process()?]);
        report.add("memory, idle and fresh", fresh, "MB", "resident");
        report.add("start to node Ready, warm", started.as_secs_f64(), "s", "the whole command");
        Ok((own, report))
    }

    /// Its kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// What the process costs while 20 pods run and nothing happens.
    pub(crate) fn measure_idle(&self, report: &mut Report) -> Result<()> {
        if !report.wants("CPU idle, 20 pods") {
            return Ok(());
        }
        let kubectl = |arguments: &[&str]| -> Result<()> {
            let mut all = vec!["kubectl", "--"];
            all.extend(arguments);
            self.coracle(&all)
        };
        kubectl(&["create", "deployment", "idle", "--image=nginx:1.21.0", "--replicas=20"])?;
        kubectl(&["rollout", "status", "deployment/idle", "--timeout=120s"])?;
        thread::sleep(Duration::from_secs(5));
        let process = self.process()?;
        let before = process.cpu_seconds()?;
        thread::sleep(IDLE);
        let share = (process.cpu_seconds()? - before) / IDLE.as_secs_f64() * 100.0;
        report.add("CPU idle, 20 pods", share, "% of core", "");
        report.add("memory, 20 pods", process.memory()?, "MB", "resident");
        Ok(())
    }

    fn coracle(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command(arguments).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("coracle {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("CORACLE_HOME", self.home.path())
            .env("CORACLE_PROFILE", &self.profile)
            .env("KUBECONFIG", self.kubeconfig());
        command
    }

    fn process(&self) -> Result<Process> {
        let output = self.command(&["status", "-o", "json"]).output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        Process::new(status["pid"].as_u64().context("the cluster does not run")?.try_into()?)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Nothing more can be done about it here than to try.
        let _ = self.coracle(&["delete"]);
    }
}
