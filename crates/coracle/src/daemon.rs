//! The process that runs the cluster, and what it tells the command that started it.
//!
//! `coracle start` runs this same program again, with its standard output a pipe and its standard error the log file.
//! The daemon reports its start on the pipe, a JSON [`Report`] a line, and goes on alone once it said
//! [`Report::Ready`]; a start that fails says why in [`Report::Failed`], so that the person sees the reason, not the
//! name of a log file.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::{Cluster, Config, Profile, Progress};
use memory::Quiet;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tracing::{debug, info};

use crate::{cli, log};

/// How long what was started by a start that failed may take to end.
const FAILED_TIMEOUT: Duration = Duration::from_secs(5);

/// One line from the daemon to the command that started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Report {
    /// A step began.
    Doing(String),
    /// The step ended well.
    Done(String),
    /// The cluster runs, but something does not work on this machine.
    Warning(String),
    /// The API server answers, and the profile's kubeconfig is written.
    Serving,
    /// The node is Ready.
    Ready,
    /// The cluster runs, but the node will not be Ready until somebody does something.
    NotReady(String),
    /// Another daemon runs the cluster; this one is gone.
    AlreadyRunning,
    /// The start failed; the daemon is gone.
    Failed(String),
}

/// How the daemon's two allocators hold memory, where the user does not say otherwise: the C library's, which RocksDB uses, has
/// one heap instead of eight for each processor and maps blocks of 64 KiB and more by themselves, so that what a burst of work
/// leaves goes back to the kernel; jemalloc, which all else uses, has two, and puts small objects of one size on single pages,
/// so that one which stays keeps no more than its page. `docs/implementation-notes-components.md` has the
/// figures. Both read this before the program's first line, which could not set it any more.
const ALLOCATORS: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("_RJEM_MALLOC_CONF", "narenas:2,slab_sizes:1-4096:1"),
];

/// Starts the daemon and returns its reports.
pub(crate) fn spawn(profile: &Profile, start: &cli::Start) -> Result<impl Iterator<Item = Report> + use<>> {
    let log = profile.log();
    let log_file = log::open(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let home = profile.folder().parent().context("a profile has a folder")?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["start", "--daemon", "--profile", profile.name(), "--home"])
        .arg(home)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .envs(ALLOCATORS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
    command.arg("--hpa-sync-period").arg(start.hpa_sync_period.as_secs().to_string());
    command.args(start.addresses.arguments());
    if let Some(history) = start.history {
        command.arg("--history").arg(match history {
            cluster::History::Age(age) => age.as_secs().to_string(),
            cluster::History::Bytes(bytes) => format!("{bytes}B"),
        });
    }
    if start.no_load_balancer {
        command.arg("--no-load-balancer");
    }
    if let Some(limit) = start.pod_max_pids {
        command.arg("--pod-max-pids").arg(limit.to_string());
    }
    if !start.allowed_unsafe_sysctls.is_empty() {
        command.arg("--allowed-unsafe-sysctls").arg(start.allowed_unsafe_sysctls.join(","));
    }
    if !start.disable_admission_plugins.is_empty() {
        command.arg("--disable-admission-plugins").arg(start.disable_admission_plugins.join(","));
    }
    for (given, flag) in [(start.accept_data_loss, "--accept-data-loss"), (start.unsafe_no_fsync, "--unsafe-no-fsync")]
    {
        if given {
            command.arg(flag);
        }
    }
    let mut child = command.spawn().context("cannot start the daemon")?;
    let reports = child.stdout.take().context("the daemon has a pipe")?;
    Ok(read(reports, log.display().to_string()))
}

/// The reports in a pipe. A pipe that ends early is a daemon that died without a word.
fn read(pipe: ChildStdout, log: String) -> impl Iterator<Item = Report> {
    let mut lines = BufReader::new(pipe).lines();
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let report = match lines.next() {
            Some(Ok(line)) => serde_json::from_str(&line).unwrap_or(Report::Doing(line)),
            _ => Report::Failed(format!("the daemon died while it started; see {log}")),
        };
        over = matches!(report, Report::Ready | Report::NotReady(_) | Report::AlreadyRunning | Report::Failed(_));
        Some(report)
    })
}

/// Is the daemon: starts the cluster and runs until it is told to stop.
pub(crate) fn run(profile: Profile, start: &cli::Start) -> Result<()> {
    if start.daemon {
        // A session of its own: closing the terminal must not end the cluster.
        let _ = rustix::process::setsid();
    }
    log::start(start.daemon.then(|| profile.log()));
    let report = |report: &Report| {
        if start.daemon {
            // The command may be gone; the cluster starts all the same.
            let line = serde_json::to_string(report).unwrap_or_default();
            let _ = writeln!(io::stdout(), "{line}");
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(profile, start, &report));
    // Whatever still runs on a blocking thread has nothing left to save. What else has been started ends before anybody is told
    // that the start failed: it would be in the way of the next one.
    runtime.shutdown_timeout(if result.is_err() { FAILED_TIMEOUT } else { Duration::ZERO });
    if let Err(error) = &result {
        tracing::error!("{error:#}");
        report(&match error.downcast_ref() {
            Some(cluster::Error::Running(_)) => Report::AlreadyRunning,
            _ => Report::Failed(format!("{error:#}")),
        });
    }
    if start.daemon { Ok(()) } else { result }
}

async fn serve(profile: Profile, start: &cli::Start, report: &(dyn Fn(&Report) + Send + Sync)) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stop = std::pin::pin!(async {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                // In the foreground: the terminal is gone, and with it whoever watched. A daemon has none; whoever sends it
                // the signal wants a new configuration, and not the end of the cluster.
                _ = hangup.recv() => match start.daemon {
                    false => return,
                    true => info!("SIGHUP is ignored: the configuration is read at the start"),
                },
            }
        }
    });
    let config = Config {
        profile,
        accept_data_loss: start.accept_data_loss,
        fsync: !start.unsafe_no_fsync,
        autoscaler_period: start.hpa_sync_period,
        history: start.history,
        addresses: start.addresses.addresses(),
        load_balancer: !start.no_load_balancer,
        pod_pids_limit: start.pod_max_pids,
        allowed_unsafe_sysctls: start.allowed_unsafe_sysctls.clone(),
        disabled_admission_plugins: start.disable_admission_plugins.clone(),
    };
    let progress = |progress: Progress| match progress {
        Progress::Doing(text) => report(&Report::Doing(text)),
        Progress::Done(text) => {
            info!("{text}");
            report(&Report::Done(text));
        }
    };
    let cluster = tokio::select! {
        started = Cluster::start(config, &progress) => started?,
        () = &mut stop => return Ok(()),
    };
    // Ends with the runtime.
    tokio::spawn(give_back_when_quiet());
    report(&Report::Serving);
    progress(Progress::Doing("Waiting for the node".to_owned()));
    let ready = async {
        cluster.ready().await?;
        let problem = cluster.network_problem().await;
        progress(Progress::Done(format!("Node {} is Ready", cluster.name())));
        if let Some(problem) = problem {
            report(&Report::Warning(problem));
        }
        Ok(())
    };
    tokio::select! {
        ready = ready => {
            report(&ready.map_or_else(Report::NotReady, |()| Report::Ready));
            stop.await;
        }
        () = &mut stop => {}
    }
    info!("stopping");
    cluster.shutdown().await;
    info!("stopped");
    Ok(())
}

/// Gives back what the start and each burst of work leave in memory, once it is over, and does so again while little happens.
async fn give_back_when_quiet() {
    let mut quiet = Quiet::new(Quiet::used());
    loop {
        tokio::time::sleep(Quiet::PERIOD).await;
        if !quiet.look(Quiet::used()) {
            continue;
        }
        // Without it more memory is held, and nothing else is wrong.
        match spawn_blocking(memory::give_back).await {
            Ok(Err(error)) => debug!(%error, "cannot give back memory"),
            Err(error) => debug!(%error, "cannot give back memory"),
            Ok(Ok(())) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(script: &str) -> Vec<Report> {
        let mut child = Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("a shell");
        let reports = read(child.stdout.take().expect("a pipe"), "LOG".to_owned()).collect();
        child.wait().expect("it ends");
        reports
    }

    #[test]
    fn reports_end_with_ready() {
        let done = serde_json::to_string(&Report::Done("Store".to_owned())).expect("JSON");
        let ready = serde_json::to_string(&Report::Ready).expect("JSON");
        let script = format!("echo '{done}'; echo '{ready}'; echo rest");
        assert_eq!(reports(&script), [Report::Done("Store".to_owned()), Report::Ready]);
    }

    #[test]
    fn a_daemon_that_dies_is_a_failure() {
        let all = reports("exit 3");
        assert!(matches!(&all[..], [Report::Failed(why)] if why.contains("LOG")), "{all:?}");
    }
}
