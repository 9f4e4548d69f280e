//! `coracle start`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, anyhow, bail};
use cluster::Profile;
use serde::Serialize;

use super::status::{self, State};
use super::{addons, context, kubectl, minikube, node};
use crate::cli::Format;
use crate::daemon::{self, Report};
use crate::progress::Progress;
use crate::{cli, kubeconfig, output};

/// How long a cluster that stops is waited for: `coracle stop` kills its daemon after 30 s, and its containers 10 s later.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether another daemon has got further.
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn run(profile: Profile, start: &cli::Start) -> Result<ExitCode> {
    if start.daemon {
        daemon::run(profile, start)?;
        return Ok(ExitCode::SUCCESS);
    }
    minikube::check_start(&start.minikube)?;
    let configurations = configurations(&profile, start)?;
    addons::find(&start.addons)?;
    if start.dry_run {
        if !start.no_kubeconfig {
            kubeconfig::check(&kubeconfig::paths()?, &kubeconfig::Cluster::of(&profile))?;
        }
        return dry_run(&profile, start);
    }
    wait_for_stopping(&profile)?;
    let configured = !configurations.is_empty()
        || !start.disable_admission_plugins.is_empty()
        || !start.allowed_unsafe_sysctls.is_empty()
        || start.no_load_balancer
        || start.history.is_some()
        || !start.addresses.addresses().are_those_of(&profile)?
        || start.pod_max_pids.is_some();
    if profile.daemon().is_some() && configured {
        bail!(
            "the cluster {0} is already running, and reads its configuration when it starts; first: coracle stop -p {0}",
            profile.name()
        );
    }
    if start.foreground {
        keep(&profile, &configurations)?;
        daemon::run(profile, start)?;
        return Ok(ExitCode::SUCCESS);
    }
    minikube::pull(&start.images)?;
    let deadline = Instant::now() + start.timeout;
    // One that is there may be about to end: killed, or unable to start. Then this command starts another one.
    loop {
        if profile.daemon().is_some() {
            if join(&profile, start, deadline)? {
                break;
            }
            wait_for_stopping(&profile)?;
        } else if start_own(&profile, start, &configurations, deadline)? == Launched::Here {
            break;
        }
    }
    if !start.addons.is_empty() {
        addons::enable_named(&profile, &start.addons)?;
    }
    node::ensure_fake(&profile, start.fake_nodes)?;
    for path in &start.apply {
        kubectl::apply(&profile, path)?;
    }
    match start.output {
        Format::Json => status::run(&profile, &cli::Status { output: Format::Json }),
        Format::Text => Ok(ExitCode::SUCCESS),
    }
}

/// Starts a daemon, and points kubectl at it.
fn start_own(
    profile: &Profile,
    start: &cli::Start,
    configurations: &[(PathBuf, String)],
    deadline: Instant,
) -> Result<Launched> {
    if !start.no_kubeconfig {
        kubeconfig::check(&kubeconfig::paths()?, &kubeconfig::Cluster::of(profile))?;
    }
    let (is_new, home_is_new) = (!profile.exists(), profile.folder().parent().is_some_and(|home| !home.exists()));
    let launched = keep(profile, configurations).and_then(|()| launch(profile, start, deadline));
    if launched.is_err() && is_new && !profile.exists() && profile.daemon().is_none() {
        // It never came to be: nothing is kept of it.
        let _ = profile.remove();
        if let Some(home) = profile.folder().parent().filter(|_| home_is_new) {
            let _ = fs::remove_dir(home);
        }
    }
    let launched = launched?;
    if launched == Launched::Here {
        add_nodes(profile, start)?;
        write_context(profile, start)?;
        if !start.no_kubeconfig {
            output::note(format!("kubectl now uses the context \"{}\".", profile.name()));
        }
    }
    Ok(launched)
}

/// Waits until a daemon that is about to end has ended.
fn wait_for_stopping(profile: &Profile) -> Result<()> {
    let started = Instant::now();
    while profile.daemon().is_some_and(|daemon| daemon.stopping) {
        if started.elapsed() > STOPPING_TIMEOUT {
            bail!("the cluster {0} does not stop; see: coracle logs -p {0}", profile.name());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Points kubectl at a cluster that another command has started; waits until it is ready if it is only starting. False where
/// its daemon ended before it was.
fn join(profile: &Profile, start: &cli::Start, deadline: Instant) -> Result<bool> {
    let mut progress = Progress::new();
    let mut state = status::state(profile);
    // A cluster that served when it was first looked at has been ready, and need not be now.
    let is_enough = |state: &State| match state {
        State::Ready => true,
        State::Serving => !start.wait,
        State::Unreachable => false,
    };
    if state == State::Unreachable {
        progress.step("Waiting for the daemon that another command has started");
        while !is_enough(&state) {
            if profile.daemon().is_none_or(|daemon| daemon.stopping) {
                progress.clear();
                return Ok(false);
            }
            if Instant::now() > deadline {
                progress.clear();
                return Err(not_ready(profile, start));
            }
            thread::sleep(POLL);
            state = status::state(profile);
        }
    }
    progress.clear();
    write_context(profile, start)?;
    add_nodes(profile, start)?;
    output::note(format!("The cluster {} is already running.", profile.name()));
    Ok(true)
}

fn not_ready(profile: &Profile, start: &cli::Start) -> anyhow::Error {
    anyhow!(
        "the cluster {} did not get ready within {} s; see: coracle logs -p {0}",
        profile.name(),
        start.timeout.as_secs()
    )
}

/// Makes the profile's folder, and keeps in it the configurations that were given.
fn keep(profile: &Profile, configurations: &[(PathBuf, String)]) -> Result<()> {
    profile.create()?;
    for (kept, text) in configurations {
        if *kept == profile.encryption() {
            cluster::keep_previous_encryption_config(profile, text)?;
        }
        keep_config(kept, text)?;
    }
    Ok(())
}

/// The configurations that were given, and where each is kept.
fn configurations(profile: &Profile, start: &cli::Start) -> Result<Vec<(PathBuf, String)>> {
    type Check = fn(&Path, &str) -> Result<(), cluster::Error>;
    let known: [(&Option<PathBuf>, PathBuf, Check); 4] = [
        (&start.scheduler_config, profile.scheduler(), cluster::check_scheduler_config),
        (&start.pod_security_config, profile.pod_security(), cluster::check_pod_security_config),
        (&start.audit_policy, profile.audit_policy(), cluster::check_audit_policy),
        (&start.encryption_provider_config, profile.encryption(), cluster::check_encryption_config),
    ];
    let given = known.into_iter().filter_map(|(given, kept, check)| Some((given.as_ref()?, kept, check)));
    given.map(|(given, kept, check)| Ok((kept, read_config(given, check)?))).collect()
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

/// Whose daemon runs the cluster.
#[derive(Debug, PartialEq, Eq)]
enum Launched {
    /// This command's.
    Here,
    /// That of another command, which was faster.
    ByAnother,
}

/// Starts the daemon and shows what it reports, until it is as far as the person wants to wait.
fn launch(profile: &Profile, start: &cli::Start, deadline: Instant) -> Result<Launched> {
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
    let mut progress = Progress::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(report) = receiver.recv_timeout(left) else {
            progress.clear();
            return Err(not_ready(profile, start));
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
            Report::AlreadyRunning => {
                progress.clear();
                return Ok(Launched::ByAnother);
            }
            Report::Failed(why) => {
                progress.clear();
                bail!(why);
            }
        }
    }
    progress.clear();
    Ok(Launched::Here)
}

fn add_nodes(profile: &Profile, start: &cli::Start) -> Result<()> {
    if start.nodes < 2 {
        return Ok(());
    }
    node::ensure(profile, start.nodes, start.wait.then(|| Instant::now() + start.timeout))
}

fn write_context(profile: &Profile, start: &cli::Start) -> Result<()> {
    if start.no_kubeconfig { Ok(()) } else { context::point_kubectl(profile) }
}

/// What a start would do, for somebody who has given `--dry-run`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DryRun {
    profile: String,
    folder: PathBuf,
    /// Whether the cluster was started before.
    exists: bool,
    running: bool,
    nodes: u16,
    addons: Vec<String>,
    /// The kubeconfig that would be changed.
    kubeconfig: Option<PathBuf>,
}

impl DryRun {
    fn text(&self) -> String {
        let Self { profile, folder, nodes, .. } = self;
        let act = match (self.running, self.exists) {
            (true, _) => format!("The cluster {profile} is running: nothing would be started"),
            (false, true) => format!("The cluster {profile} would be started again"),
            (false, false) => format!("A new cluster {profile} would be started"),
        };
        let nodes = if *nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        let mut text = format!("{act}, with {nodes} and its state in {}", folder.display());
        if !self.addons.is_empty() {
            text.push_str(&format!(", the addons {}", self.addons.join(", ")));
        }
        match &self.kubeconfig {
            Some(path) => format!("{text}, and {} would point to it.", path.display()),
            None => format!("{text}; no kubeconfig would be changed."),
        }
    }
}

/// Says what would be done, after all that is given was checked.
fn dry_run(profile: &Profile, start: &cli::Start) -> Result<ExitCode> {
    let answer = DryRun {
        profile: profile.name().to_owned(),
        folder: profile.folder().to_owned(),
        exists: profile.exists(),
        running: profile.daemon().is_some(),
        nodes: start.nodes,
        addons: start.addons.clone(),
        kubeconfig: if start.no_kubeconfig { None } else { Some(kubeconfig::path()?) },
    };
    match start.output {
        Format::Json => output::json(&answer)?,
        Format::Text => output::line(answer.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_what_would_be_done() {
        let check = |exists: bool, running: bool, expected: &str| {
            let answer = DryRun {
                profile: "a".to_owned(),
                folder: PathBuf::from("/home/a"),
                exists,
                running,
                nodes: if exists { 1 } else { 3 },
                addons: if exists { Vec::new() } else { vec!["lws".to_owned()] },
                kubeconfig: exists.then(|| PathBuf::from("/config")),
            };
            assert_eq!(answer.text(), expected);
        };
        check(
            false,
            false,
            "A new cluster a would be started, with 3 nodes and its state in /home/a, the addons lws; no kubeconfig would be changed.",
        );
        check(
            true,
            false,
            "The cluster a would be started again, with 1 node and its state in /home/a, and /config would point to it.",
        );
        check(
            true,
            true,
            "The cluster a is running: nothing would be started, with 1 node and its state in /home/a, and /config would point to it.",
        );
    }
}
