//! `coracle start`.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use node::Profile;

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
        output::note(format!("The cluster {} is already running.", profile.name()));
        return Ok(ExitCode::SUCCESS);
    }
    profile.create()?;
    launch(&profile, start)?;
    write_context(&profile, start)?;
    if !start.no_kubeconfig {
        output::note(format!("kubectl now uses the context \"{}\".", profile.name()));
    }
    Ok(ExitCode::SUCCESS)
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

fn write_context(profile: &Profile, start: &cli::Start) -> Result<()> {
    if start.no_kubeconfig {
        return Ok(());
    }
    let own = std::fs::read_to_string(profile.kubeconfig()).context("cannot read the cluster's kubeconfig")?;
    kubeconfig::merge(&kubeconfig::path()?, profile.name(), &own)
}
