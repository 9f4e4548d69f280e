//! `coracle start`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use std::{fs, io};

use anyhow::{Context, Result, bail};
use cluster::Profile;

use super::node;
use crate::daemon::{self, Report};
use crate::progress::Progress;
use crate::{cli, kubeconfig, output};

pub(crate) fn run(profile: Profile, start: &cli::Start) -> Result<ExitCode> {
    if start.daemon || start.foreground {
        daemon::run(profile, start)?;
        return Ok(ExitCode::SUCCESS);
    }
    let scheduling = start.scheduler_config.as_deref();
    let scheduling = scheduling.map(|given| read_config(given, cluster::check_scheduler_config)).transpose()?;
    let pod_security = start.pod_security_config.as_deref();
    let pod_security = pod_security.map(|given| read_config(given, cluster::check_pod_security_config)).transpose()?;
    if profile.daemon().is_some() {
        let admission = pod_security.is_some() || !start.disable_admission_plugins.is_empty();
        if scheduling.is_some() || admission || start.pod_max_pids.is_some() {
            bail!(
                "the cluster {0} is already running, and reads its configuration when it starts; first: coracle stop -p {0}",
                profile.name()
            );
        }
        write_context(&profile, start)?;
        add_nodes(&profile, start)?;
        output::note(format!("The cluster {} is already running.", profile.name()));
        return Ok(ExitCode::SUCCESS);
    }
    if !start.no_kubeconfig {
        kubeconfig::check(&kubeconfig::paths()?, &kubeconfig::Cluster::of(&profile))?;
    }
    let (is_new, home_is_new) = (!profile.exists(), profile.folder().parent().is_some_and(|home| !home.exists()));
    let launched = profile.create().map_err(Into::into).and_then(|()| {
        for (kept, text) in [(profile.scheduler(), &scheduling), (profile.pod_security(), &pod_security)] {
            if let Some(text) = text {
                keep_config(&kept, text)?;
            }
        }
        launch(&profile, start)
    });
    if launched.is_err() && is_new && !profile.exists() && profile.daemon().is_none() {
        // It never came to be: nothing is kept of it.
        let _ = profile.remove();
        if let Some(home) = profile.folder().parent().filter(|_| home_is_new) {
            let _ = fs::remove_dir(home);
        }
    }
    launched?;
    add_nodes(&profile, start)?;
    write_context(&profile, start)?;
    if !start.no_kubeconfig {
        output::note(format!("kubectl now uses the context \"{}\".", profile.name()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a configuration and checks it: one that is no use must not cost the next start.
fn read_config(given: &Path, check: fn(&Path, &str) -> Result<(), cluster::Error>) -> Result<String> {
    let text = fs::read_to_string(given).with_context(|| format!("cannot read {}", given.display()))?;
    if !text.trim().is_empty() {
        check(given, &text)?;
    }
    Ok(text)
}

/// Keeps a configuration with the profile, where every start finds it.
fn keep_config(kept: &Path, text: &str) -> Result<()> {
    let done = match text.trim().is_empty() {
        true => fs::remove_file(kept).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }),
        false => hostfs::write_private(kept, text),
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
            Report::Warning(what) => {
                progress.clear();
                output::warning(what);
            }
            Report::Serving if !start.wait => break,
            Report::Serving => {}
            Report::Ready => break,
            Report::NotReady(why) => {
                progress.clear();
                write_context(profile, start)?;
                bail!(
                    "the cluster {} runs, but is not ready: {why}; it goes on by itself once that is mended",
                    profile.name()
                );
            }
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
    kubeconfig::merge(&kubeconfig::path()?, &kubeconfig::Cluster::of(profile), &own)
}
