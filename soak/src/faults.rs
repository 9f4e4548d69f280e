//! What is done to the cluster.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::cluster::{Victim, descriptors};
use crate::socket_proxy::{Passage, SocketProxy};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed, and started again.
    Killed,
    /// It is killed again while it starts.
    KilledTwice,
    /// It is stopped as a person would, and started again.
    Stopped,
    /// It gets no processor for a while.
    Paused,
    /// Its disk is full for a while.
    DiskFull,
    /// Its disk is full, and it is killed and started meanwhile.
    KilledOnFullDisk,
    /// It may open no more descriptors for a while.
    NoDescriptors,
    /// Somebody sets its clock, forward or back.
    ClockSet,
    /// Docker is cut, hangs or talks nonsense for a while.
    Docker(Passage),
}

const ALL: [Fault; 11] = [
    Fault::Killed,
    Fault::KilledTwice,
    Fault::Stopped,
    Fault::Paused,
    Fault::DiskFull,
    Fault::KilledOnFullDisk,
    Fault::NoDescriptors,
    Fault::ClockSet,
    Fault::Docker(Passage::Cut),
    Fault::Docker(Passage::Hanging),
    Fault::Docker(Passage::Garbled),
];

/// How far its clock may go: beyond every lease, token and history.
const CLOCK: Duration = Duration::from_secs(2 * 3600);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::KilledTwice => "killed, and again while it starts",
            Self::Stopped => "stopped and started",
            Self::Paused => "paused",
            Self::DiskFull => "disk full",
            Self::KilledOnFullDisk => "killed on a full disk",
            Self::NoDescriptors => "no descriptors",
            Self::ClockSet => "clock set",
            Self::Docker(Passage::Cut) => "Docker cut",
            Self::Docker(Passage::Hanging) => "Docker hangs",
            Self::Docker(Passage::Garbled | Passage::Open) => "Docker talks nonsense",
        })
    }
}

impl Fault {
    /// One of them.
    pub(crate) fn choose(random: &mut StdRng) -> Self {
        ALL[random.random_range(0..ALL.len())]
    }

    /// Does it, and undoes what can be undone. False where it is not possible.
    pub(crate) async fn apply(self, victim: &Victim, proxy: &SocketProxy, random: &mut StdRng) -> Result<bool> {
        let while_ = Duration::from_millis(random.random_range(500..15_000));
        let pid = victim.pid().await?;
        match self {
            Self::Killed => {
                kill_process(pid, Signal::KILL)?;
                victim.coracle(&["start"]).await?;
            }
            Self::KilledTwice => {
                kill_process(pid, Signal::KILL)?;
                let pause = Duration::from_millis(random.random_range(20..1_500));
                let killed = async {
                    tokio::time::sleep(pause).await;
                    if let Ok(pid) = victim.pid().await {
                        // It may have come to nothing by then.
                        let _ = kill_process(pid, Signal::KILL);
                    }
                };
                // Whether this start succeeds depends on who was faster.
                let _ = tokio::join!(victim.coracle(&["start"]), killed);
                victim.coracle(&["start"]).await?;
            }
            Self::Stopped => {
                victim.coracle(&["stop", "--keep-pods"]).await?;
                victim.coracle(&["start"]).await?;
            }
            Self::Paused => {
                kill_process(pid, Signal::STOP)?;
                tokio::time::sleep(while_).await;
                kill_process(pid, Signal::CONT)?;
            }
            Self::DiskFull | Self::KilledOnFullDisk => {
                let Some(disk) = victim.disk() else { return Ok(false) };
                let filler = disk.join("filler");
                fill(&filler)?;
                tokio::time::sleep(while_).await;
                if self == Self::KilledOnFullDisk {
                    kill_process(pid, Signal::KILL)?;
                    // It says that it is not ready, and runs.
                    let _ = victim.coracle(&["start"]).await;
                }
                fs::remove_file(filler)?;
                // Where it did not even run, it does now; where it does, this says so.
                victim.coracle(&["start"]).await?;
            }
            Self::NoDescriptors => {
                // Who may not raise the hard limit again must not touch it.
                let none = Rlimit { current: Some(descriptors(pid)? as u64), maximum: hard_limit(pid)? };
                let old = prlimit(Some(pid), Resource::Nofile, none)?;
                tokio::time::sleep(while_).await;
                prlimit(Some(pid), Resource::Nofile, old)?;
            }
            Self::ClockSet => {
                let ahead = random.random_range(0..CLOCK.as_secs());
                if !victim.set_clock(Duration::from_secs(ahead))? {
                    return Ok(false);
                }
                tokio::time::sleep(while_).await;
            }
            Self::Docker(passage) => proxy.disturb(passage, while_).await,
        }
        Ok(true)
    }
}

/// How many descriptors a process may allow itself; `None` for any number.
fn hard_limit(pid: Pid) -> Result<Option<u64>> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of files")?;
    let hard = line.split_whitespace().nth(1).context("no hard limit")?;
    Ok(if hard == "unlimited" { None } else { Some(hard.parse()?) })
}

/// Fills the file system of a file to the last byte.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    for size in [1 << 20, 1 << 12] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}
