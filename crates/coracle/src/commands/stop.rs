//! `coracle stop`.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use rustix::process::{Pid, Signal, kill_process};

use crate::output;

/// So long the daemon may take to end its work before it is killed. Killing it loses nothing that was acknowledged.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn run(profile: &Profile) -> Result<ExitCode> {
    if !profile.exists() {
        bail!("there is no cluster {}", profile.name());
    }
    if stop(profile)? {
        output::note(format!("The cluster {} is stopped.", profile.name()));
    } else {
        output::note(format!("The cluster {} was not running.", profile.name()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon; false if there was none.
pub(crate) fn stop(profile: &Profile) -> Result<bool> {
    let Some(daemon) = profile.daemon() else {
        return Ok(false);
    };
    let pid = Pid::from_raw(daemon.pid).context("the daemon's process id is not one")?;
    let started = Instant::now();
    let mut signal = Signal::TERM;
    while profile.daemon().is_some_and(|now| now.pid == daemon.pid) {
        if started.elapsed() >= STOP_TIMEOUT {
            signal = Signal::KILL;
        }
        if signal == Signal::KILL || started.elapsed() < Duration::from_millis(50) {
            match kill_process(pid, signal) {
                Err(rustix::io::Errno::SRCH) | Ok(()) => {}
                Err(error) => return Err(error).context("cannot signal the daemon"),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}
