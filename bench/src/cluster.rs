//! A coracle cluster of the benchmark's own, measured as a process.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::report::Report;

/// So long the idle process is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Clock ticks a second in `/proc`: fixed for user space on every Linux.
const TICKS: f64 = 100.0;

/// The cluster; deleted when dropped.
pub(crate) struct Own {
    binary: PathBuf,
    home: tempfile::TempDir,
    profile: String,
}

impl Own {
    /// Starts it twice, so that the second start, which is measured, finds network and store in place.
    pub(crate) fn start(report: &mut Report) -> Result<Self> {
        let binary = std::env::var_os("CORACLE_BINARY").context("cargo xtask bench says where the binary is")?;
        let own = Self {
            binary: binary.into(),
            home: tempfile::tempdir()?,
            profile: format!("bench-{}", std::process::id()),
        };
        own.coracle(&["start"])?;
        thread::sleep(Duration::from_secs(3));
        report.add("memory, idle and fresh", own.memory()?, "MB", "resident");
        own.coracle(&["stop"])?;
        // Heartbeats have whole seconds: the last one of before must not pass for the first one of now.
        thread::sleep(Duration::from_millis(1_100));
        let started = Instant::now();
        own.coracle(&["start"])?;
        report.add("start to node Ready, warm", started.elapsed().as_secs_f64(), "s", "the whole command");
        Ok(own)
    }

    /// Its kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// What the process costs while 20 pods run and nothing happens.
    pub(crate) fn measure_process(&self, report: &mut Report) -> Result<()> {
        report.add("memory, after the load", self.memory()?, "MB", "resident");
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
        let before = self.cpu_seconds()?;
        thread::sleep(IDLE);
        let share = (self.cpu_seconds()? - before) / IDLE.as_secs_f64() * 100.0;
        report.add("CPU idle, 20 pods", share, "% of core", "");
        report.add("memory, 20 pods", self.memory()?, "MB", "resident");
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

    fn pid(&self) -> Result<u64> {
        let output = self.command(&["status", "-o", "json"]).output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        status["pid"].as_u64().context("the cluster does not run")
    }

    /// Resident memory in megabytes.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).context("VmRSS")?;
        Ok(kilobytes.trim().parse::<f64>()? / 1_000.0)
    }

    /// Processor time used so far.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // The name, in parentheses, may contain anything; user and system time are the 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')').context("a stat line")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / TICKS)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Nothing more can be done about it here than to try.
        let _ = self.coracle(&["delete"]);
    }
}
