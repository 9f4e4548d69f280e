//! What a server's processes cost, by `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks a second in `/proc`: fixed for user space on every Linux.
const TICKS: f64 = 100.0;

/// A process of a control plane.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pid: u32,
    /// Its name, as `/proc/PID/comm` has it.
    pub(crate) name: String,
}

impl Process {
    /// The process with this id.
    pub(crate) fn new(pid: u32) -> Result<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).with_context(|| format!("process {pid}"))?;
        Ok(Self { pid, name: name.trim().to_owned() })
    }

    /// Resident memory in megabytes.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).context("VmRSS")?;
        Ok(kilobytes.trim().parse::<f64>()? / 1_000.0)
    }

    /// Processor time used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name, in parentheses, may contain anything; user and system time are the 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')').context("a stat line")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / TICKS)
    }
}

/// The processor time that processes use between two moments.
pub(crate) struct Meter(Vec<(Process, f64)>);

impl Meter {
    /// Starts to measure.
    pub(crate) fn start(processes: &[Process]) -> Result<Self> {
        processes.iter().map(|process| Ok((process.clone(), process.cpu_seconds()?))).collect::<Result<_>>().map(Self)
    }

    /// The seconds that each process has used since.
    pub(crate) fn read(&self) -> Result<Vec<(String, f64)>> {
        self.0.iter().map(|(process, before)| Ok((process.name.clone(), process.cpu_seconds()? - before))).collect()
    }
}
