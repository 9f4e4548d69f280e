//! `coracle stop`: ends the daemon, and then the pods' containers.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use rustix::process::{Pid, Signal, kill_process};

use crate::{cli, output};

/// So long the daemon may take to end its work before it is killed. Killing it loses nothing that was acknowledged.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// So long all containers together may take to end by themselves: Docker's own patience. Upstream's kubelet takes its
/// `shutdownGracePeriod`, whatever the pods' own grace.
const PODS_GRACE: Duration = Duration::from_secs(10);

/// What became of the pods' containers.
#[derive(Debug, PartialEq, Eq)]
enum Pods {
    /// They keep running, as was asked for.
    Kept,
    /// So many were stopped.
    Stopped(usize),
    /// Somebody started the cluster again before they were.
    StartedAgain,
}

pub(crate) fn run(profile: &Profile, wanted: &cli::Stop) -> Result<ExitCode> {
    if !profile.exists() {
        bail!("there is no cluster {}", profile.name());
    }
    let ended = stop(profile)?;
    let pods = if wanted.keep_pods { Pods::Kept } else { stop_pods(profile)? };
    output::note(text(profile.name(), ended, &pods));
    Ok(ExitCode::SUCCESS)
}

/// What was done; `ended` is whether there was a daemon.
fn text(name: &str, ended: bool, pods: &Pods) -> String {
    match (ended, pods) {
        (true, Pods::Kept) => {
            format!("The cluster {name} is stopped; its pods' containers keep running, and the next start adopts them.")
        }
        (true, Pods::Stopped(0)) => format!("The cluster {name} is stopped."),
        (true, Pods::Stopped(1)) => format!("The cluster {name} is stopped, and so is 1 container of its pods."),
        (true, Pods::Stopped(count)) => {
            format!("The cluster {name} is stopped, and so are {count} containers of its pods.")
        }
        (true, Pods::StartedAgain) => format!("The cluster {name} was stopped, and somebody has started it again."),
        (false, Pods::StartedAgain) => format!("The cluster {name} was not running, and somebody has started it."),
        (false, Pods::Kept | Pods::Stopped(0)) => format!("The cluster {name} was not running."),
        (false, Pods::Stopped(count)) => {
            format!("The cluster {name} was not running; its pods' containers were, and are stopped ({count}).")
        }
    }
}

fn stop_pods(profile: &Profile) -> Result<Pods> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(cluster::stop_pods(profile, PODS_GRACE)) {
        Ok(count) => Ok(Pods::Stopped(count)),
        Err(cluster::Error::Running(_)) => Ok(Pods::StartedAgain),
        Err(error) => {
            Err(error).context("cannot stop the containers of the cluster's pods; its control plane is stopped")
        }
    }
}

/// Ends the daemon; false if there was none.
pub(crate) fn stop(profile: &Profile) -> Result<bool> {
    let Some(daemon) = profile.daemon() else {
        return Ok(false);
    };
    let pid = Pid::from_raw(daemon.pid).context("the daemon's process id is not one")?;
    let started = Instant::now();
    let mut signal = Signal::TERM;
    // One that ends already needs no telling; it may be another command that stops the pods.
    let mut told = daemon.stopping;
    while profile.daemon().is_some_and(|now| now.pid == daemon.pid) {
        if started.elapsed() >= STOP_TIMEOUT {
            signal = Signal::KILL;
        }
        if signal == Signal::KILL || !told {
            told = true;
            match kill_process(pid, signal) {
                Err(rustix::io::Errno::SRCH) | Ok(()) => {}
                Err(error) => return Err(error).context("cannot signal the daemon"),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_is_said() {
        let check = |ended: bool, pods: Pods, expected: &str| assert_eq!(text("a", ended, &pods), expected);
        check(true, Pods::Stopped(0), "The cluster a is stopped.");
        check(true, Pods::Stopped(1), "The cluster a is stopped, and so is 1 container of its pods.");
        check(true, Pods::Stopped(3), "The cluster a is stopped, and so are 3 containers of its pods.");
        check(
            true,
            Pods::Kept,
            "The cluster a is stopped; its pods' containers keep running, and the next start adopts them.",
        );
        check(true, Pods::StartedAgain, "The cluster a was stopped, and somebody has started it again.");
        check(false, Pods::StartedAgain, "The cluster a was not running, and somebody has started it.");
        check(false, Pods::Kept, "The cluster a was not running.");
        check(false, Pods::Stopped(0), "The cluster a was not running.");
        check(
            false,
            Pods::Stopped(2),
            "The cluster a was not running; its pods' containers were, and are stopped (2).",
        );
    }
}
