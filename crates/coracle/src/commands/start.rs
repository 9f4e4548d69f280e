//! `coracle start`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use std::{fs, io};

use ::node::Profile;
use anyhow::{Context, Result, bail};

use super::node;
use crate::daemon::{self, Report};
use crate::progress::Progress;
use crate::{cli, kubeconfig, output};

pub(crate) fn run(profile: Profile, start: &cli::Start) -> Result<ExitCode> {
    if start.daemon || start.foreground {
        daemon::run(profile, start)?;
        return Ok(ExitCode::SUCCESS);
    }
    if profile.daemon().is_some() {
        write_context(&profile, start)?;
        add_nodes(&profile, start)?;
        output::note(format!("The cluster {} is already running.", profile.name()));
        return Ok(ExitCode::SUCCESS);
    }
    profile.create()?;
    if let Some(given) = &start.scheduler_config {
        keep_scheduler_config(&profile, given)?;
    }
    launch(&profile, start)?;
    add_nodes(&profile, start)?;
    write_context(&profile, start)?;
    if !start.no_kubeconfig {
        output::note(format!("kubectl now uses the context \"{}\".", profile.name()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps the scheduler's configuration with the profile, where every start finds it.
fn keep_scheduler_config(profile: &Profile, given: &Path) -> Result<()> {
    let text = fs::read_to_string(given).with_context(|| format!("cannot read {}", given.display()))?;
    let kept = profile.scheduler();
    let done = match text.trim().is_empty() {
        true => fs::remove_file(&kept).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }),
        false => fs::write(&kept, text),
    };
    done.with_context(|| format!("cannot write {}", kept.display()))
}

/// Starts the daemon and shows what it reports, until it is as far as the person wants to wait.
fn launch(profile: &Profile, start: &cli::Start) -> Result<()> {
    let reports = daemon::spawn(profile, start)?;
    // The pipe is read on a thread, so that waiting for it can have an end.
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for report in reports {
            if sender.send(report).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + start.timeout;
    let mut progress = Progress::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(report) = receiver.recv_timeout(left) else {
            progress.clear();
            bail!(
                "the cluster {} did not get ready within {} s; see: coracle logs -p {0}",
                profile.name(),
                start.timeout.as_secs()
            );
        };
        match report {
            Report::Doing(what) => progress.step(&what),
            Report::Done(what) => progress.done(&what),
            Report::Serving if !start.wait => break,
            Report::Serving => {}
            Report::Ready => break,
            Report::Failed(why) => {
                progress.clear();
                bail!(why);
            }
        }
    }
    progress.clear();
    Ok(())
}

fn add_nodes(profile: &Profile, start: &cli::Start) -> Result<()> {
    if start.nodes < 2 {
        return Ok(());
    }
    node::ensure(profile, start.nodes, start.wait.then(|| Instant::now() + start.timeout))
}

fn write_context(profile: &Profile, start: &cli::Start) -> Result<()> {
    if start.no_kubeconfig {
        return Ok(());
    }
    let own = std::fs::read_to_string(profile.kubeconfig()).context("cannot read the cluster's kubeconfig")?;
    kubeconfig::merge(&kubeconfig::path()?, profile.name(), &own)
}
