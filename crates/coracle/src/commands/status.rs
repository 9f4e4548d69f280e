//! `coracle status`.

use std::process::ExitCode;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use node::Profile;
use serde::Serialize;

use super::ask;
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
    /// `Running`, `Stopped` or `Nonexistent`.
    daemon: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// `Running`, `Stopped` or `Unreachable`.
    apiserver: &'static str,
    /// `Ready`, `NotReady` or `Unknown`.
    node: &'static str,
    /// Whether the user's kubeconfig has the cluster's context.
    kubeconfig: &'static str,
}

pub(crate) fn run(profile: &Profile, status: &cli::Status) -> Result<ExitCode> {
    let pid = profile.daemon();
    let (daemon, apiserver, node, code) = match pid {
        None if !profile.exists() => ("Nonexistent", "Stopped", "Unknown", ABSENT),
        None => ("Stopped", "Stopped", "Unknown", STOPPED),
        Some(_) => match ask(profile, async |client| Ok(Api::<Node>::all(client).get_opt(profile.name()).await?)) {
            Ok(node) => ("Running", "Running", readiness(node.as_ref()), 0),
            Err(_) => ("Running", "Unreachable", "Unknown", 0),
        },
    };
    let cluster = kubeconfig::Cluster::of(profile);
    let context =
        kubeconfig::paths().is_ok_and(|paths| paths.iter().any(|path| kubeconfig::has_context(path, &cluster)));
    let answer = Answer {
        profile: profile.name().to_owned(),
        daemon,
        pid,
        apiserver,
        node,
        kubeconfig: if context { "Configured" } else { "Misconfigured" },
    };
    match status.output {
        Format::Json => output::json(&answer)?,
        Format::Text => {
            output::line(format!("profile:    {}", answer.profile))?;
            output::line(format!("daemon:     {}", answer.daemon))?;
            output::line(format!("apiserver:  {}", answer.apiserver))?;
            output::line(format!("node:       {}", answer.node))?;
            output::line(format!("kubeconfig: {}", answer.kubeconfig))?;
        }
    }
    Ok(ExitCode::from(code))
}

/// The node's readiness in one word.
pub(super) fn readiness(node: Option<&Node>) -> &'static str {
    let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    }
}
