//! `coracle status`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use cluster::{Daemon, Profile};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::{Api, Client};
use serde::Serialize;

use super::{ask, components};
use crate::cli::{self, Format};
use crate::{kubeconfig, output};

/// The exit code of a cluster that does not run: that of `systemctl status`.
const STOPPED: u8 = 3;
/// The exit code where there is no such cluster.
const ABSENT: u8 = 4;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    profile: String,
    /// `Running`, `Stopping`, `Stopped` or `Nonexistent`.
    daemon: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// `Running`, `Stopped` or `Unreachable`.
    apiserver: &'static str,
    /// `Writable`, why it is not, or `Unknown`.
    store: String,
    /// `Ready`, `NotReady` or `Unknown`.
    node: &'static str,
    /// Why the node is not Ready, in its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_message: Option<String>,
    /// `Available`, `Unavailable` or `Unknown`: whether cluster IPs work.
    network: &'static str,
    /// The components that are paused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paused: Vec<String>,
    /// Of a cluster that is stopped: `Running` if its containers were kept, `Stopped`, or `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<&'static str>,
    /// Whether the user's kubeconfig has the cluster's context.
    kubeconfig: &'static str,
}

pub(crate) fn run(profile: &Profile, status: &cli::Status) -> Result<ExitCode> {
    let running = profile.daemon();
    let (mut found, mut paused) = (None, Vec::new());
    let unknown = || "Unknown".to_owned();
    let (daemon, apiserver, store, code) = match running {
        None if !profile.exists() => ("Nonexistent", "Stopped", unknown(), ABSENT),
        None => ("Stopped", "Stopped", unknown(), STOPPED),
        Some(Daemon { stopping: true, .. }) => ("Stopping", "Stopped", unknown(), STOPPED),
        Some(_) => match ask(profile, async |client| {
            let looked = look(client.clone(), profile.name()).await?;
            // A daemon of an earlier version pauses nothing.
            Ok((looked, components::list(&client).await.unwrap_or_default()))
        }) {
            Ok(((store, node), components)) => {
                found = node;
                paused = components::paused(&components);
                ("Running", "Running", store, 0)
            }
            Err(_) => ("Running", "Unreachable", unknown(), 0),
        },
    };
    let network = condition(found.as_ref(), "NetworkUnavailable");
    let (network, problem) = match network.map(|condition| (condition.status.as_str(), &condition.message)) {
        Some(("False", _)) => ("Available", None),
        Some(("True", why)) => ("Unavailable", why.clone()),
        _ => ("Unknown", None),
    };
    let cluster = kubeconfig::Cluster::of(profile);
    let context =
        kubeconfig::paths().is_ok_and(|paths| paths.iter().any(|path| kubeconfig::has_context(path, &cluster)));
    let answer = Answer {
        profile: profile.name().to_owned(),
        daemon,
        pid: running.map(|daemon| daemon.pid),
        apiserver,
        store,
        node: readiness(found.as_ref()),
        node_message: trouble(found.as_ref()),
        network,
        paused,
        pods: (daemon == "Stopped").then(|| pods(profile)),
        kubeconfig: if context { "Configured" } else { "Misconfigured" },
    };
    match status.output {
        Format::Json => output::json(&answer)?,
        Format::Text => {
            output::line(format!("profile:    {}", answer.profile))?;
            output::line(format!("daemon:     {}", answer.daemon))?;
            output::line(format!("apiserver:  {}", answer.apiserver))?;
            output::line(format!("store:      {}", answer.store))?;
            output::line(format!("node:       {}", answer.node))?;
            output::line(format!("network:    {}", answer.network))?;
            if !answer.paused.is_empty() {
                output::line(format!("paused:     {}", answer.paused.join(", ")))?;
            }
            if let Some(pods) = answer.pods {
                output::line(format!("pods:       {pods}"))?;
            }
            output::line(format!("kubeconfig: {}", answer.kubeconfig))?;
        }
    }
    if !answer.paused.is_empty() {
        let (what, name) = (answer.paused.join(", "), &answer.profile);
        output::warning(format!("PAUSED: {what}; nothing is done by them until: coracle resume -p {name}"));
    }
    for problem in answer.node_message.into_iter().chain(problem) {
        output::warning(problem);
    }
    Ok(ExitCode::from(code))
}

/// Whether the containers of a cluster that does not run do.
fn pods(profile: &Profile) -> &'static str {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return "Unknown" };
    let count = async { tokio::time::timeout(LOOK_TIMEOUT, cluster::running_containers(profile)).await };
    match runtime.block_on(count) {
        Ok(Ok(0)) => "Stopped",
        Ok(Ok(_)) => "Running",
        Ok(Err(_)) | Err(_) => "Unknown",
    }
}

/// How long an API server that answers may take.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a cluster has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The API does not answer.
    Unreachable,
    /// It answers.
    Serving,
    /// The node is Ready.
    Ready,
}

/// How far the cluster of a profile has come.
pub(super) fn state(profile: &Profile) -> State {
    let look = async |client| tokio::time::timeout(LOOK_TIMEOUT, look(client, profile.name())).await?;
    match ask(profile, look) {
        Err(_) => State::Unreachable,
        Ok((_, node)) if readiness(node.as_ref()) == "Ready" => State::Ready,
        Ok(_) => State::Serving,
    }
}

/// The state of the store, and the node.
async fn look(client: Client, name: &str) -> Result<(String, Option<Node>)> {
    let request = http::Request::get("/readyz/etcd-readiness").body(Vec::new())?;
    let store = match client.request_text(request).await {
        Ok(_) => "Writable".to_owned(),
        Err(kube::Error::Api(error)) => reason(&error.message),
        Err(error) => return Err(error.into()),
    };
    Ok((store, Api::<Node>::all(client).get_opt(name).await?))
}

/// Why the store is not ready, out of the text of the check.
fn reason(text: &str) -> String {
    text.split_once("etcd-readiness failed: ").map_or(text, |(_, why)| why).to_owned()
}

/// The node's readiness in one word.
pub(super) fn readiness(node: Option<&Node>) -> &'static str {
    match condition(node, "Ready").map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    }
}

/// Why the node is not Ready.
fn trouble(node: Option<&Node>) -> Option<String> {
    condition(node, "Ready").filter(|condition| condition.status != "True")?.message.clone()
}

fn condition<'a>(node: Option<&'a Node>, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeStatus;

    use super::*;

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let check = |status: &str, word: &str, message: Option<&str>| {
            let condition = NodeCondition {
                type_: "Ready".to_owned(),
                status: status.to_owned(),
                message: Some("container runtime is down".to_owned()),
                ..NodeCondition::default()
            };
            let status = NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() };
            let node = Node { status: Some(status), ..Node::default() };
            assert_eq!((readiness(Some(&node)), trouble(Some(&node)).as_deref()), (word, message));
        };
        check("True", "Ready", None);
        check("False", "NotReady", Some("container runtime is down"));
        check("Unknown", "Unknown", Some("container runtime is down"));
        assert_eq!((readiness(None), trouble(None)), ("Unknown", None));
    }
}
