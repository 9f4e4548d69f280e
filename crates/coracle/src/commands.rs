//! The commands, one file each.

mod addons;
mod autostart;
mod completion;
pub(crate) mod components;
mod config;
mod consent;
mod context;
mod delete;
mod explain;
mod ip;
mod kubectl;
mod learn;
mod logs;
mod minikube;
mod node;
mod packaging;
mod past;
mod profile;
pub(crate) mod resources;
mod schedule;
mod secrets;
mod service;
mod snapshot;
mod start;
mod status;
mod stepping;
mod stop;
mod store;
mod timeline;
mod top;
mod version;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cluster::{Home, Profile};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cli::{Arguments, Command, Global, Past};

/// Does what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let home = || Home::resolve(arguments.global.home.as_deref());
    let profile = || profile(&home()?, &arguments.global);
    match arguments.command {
        Command::Start(start) => start::run(profile()?, &start),
        Command::Status(status) => status::run(&profile()?, &status),
        Command::Stop(stop) => stop::run(&profile()?, &stop),
        Command::Delete(wanted) if wanted.all || wanted.purge => delete::run_all(&home()?, &wanted),
        Command::Delete(_) => delete::run(&profile()?),
        Command::Profile(wanted) => profile::run(&home()?, arguments.global.profile.as_deref(), &wanted),
        Command::UpdateContext => context::run(&profile()?),
        Command::Autostart(command) => autostart::run(&profile()?, &command),
        Command::Logs(logs) => logs::run(&profile()?, &logs),
        Command::Service(service) => service::run(&profile()?, &service),
        Command::Ip => ip::run(&profile()?),
        Command::Explain(explain) => explain::run(&profile()?, &explain),
        Command::Schedule(schedule) => schedule::run(&profile()?, &schedule),
        Command::Past(Past::At(at)) => past::at(&profile()?, &at),
        Command::Past(Past::History(history)) => past::history(&profile()?, &history),
        Command::Past(Past::Diff(diff)) => past::diff(&profile()?, &diff),
        Command::Timeline(timeline) => timeline::run(&profile()?, &timeline),
        Command::Stepping(command) => stepping::run(&profile()?, &command),
        Command::Store(command) => store::run(&profile()?, &command),
        Command::Snapshot(command) => snapshot::run(&home()?, &arguments.global, &command),
        Command::Learn(learn) => learn::run(profile, &learn),
        Command::Node(node) => node::run(&profile()?, &node),
        Command::Addons(command) => addons::run(&profile()?, &command),
        Command::Secrets(command) => secrets::run(&profile()?, &command),
        Command::Config(command) => config::run(&home()?, &command),
        Command::Minikube(command) => minikube::run(&profile()?, &command),
        Command::Kubectl(kubectl) => kubectl::run(&profile()?, &kubectl),
        Command::Version(version) => version::run(&version),
        Command::Completion { shell } => completion::run(shell),
        Command::Packaging(wanted) => packaging::run(&wanted),
    }
}

/// The cluster that is meant. One that belongs to somebody else is not one that is not there.
pub(crate) fn profile(home: &Home, global: &Global) -> Result<Profile> {
    let profile = match &global.profile {
        Some(name) => home.profile(name)?,
        None => home.profile(config::Settings::load(home)?.profile())?,
    };
    profile.check_readable()?;
    Ok(profile)
}

/// The way out, where a command needs a cluster that runs.
fn require_running(profile: &Profile) -> Result<()> {
    if profile.daemon().is_none_or(|daemon| daemon.stopping) {
        bail!("the cluster {0} is not running; start it with: coracle start -p {0}", profile.name());
    }
    Ok(())
}

/// Runs `question` with a client of the running cluster.
pub(crate) fn ask<T>(profile: &Profile, question: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(profile.kubeconfig()).context("cannot read the cluster's kubeconfig")?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("the cluster's kubeconfig cannot be used")?;
        question(Client::try_from(config)?).await
    })
}
