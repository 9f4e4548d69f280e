//! `coracle profile`: the clusters of a home, and which of them is meant where nobody says so.

use std::process::ExitCode;

use anyhow::{Context, Result};
use cluster::{Home, Profile};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;

use super::config::{self, Settings};
use super::{ask, context, ip, status};
use crate::cli::{Format, ProfileArguments};
use crate::output;

/// A cluster in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    /// `Running`, `Unreachable`, `Stopping`, `Stopped`, or `Unreadable` if it is another user's.
    state: &'static str,
    /// How many nodes it has; unknown unless it runs.
    nodes: Option<usize>,
    /// The first node's address; unknown unless it runs.
    address: Option<String>,
    /// Whether commands without `-p` mean it.
    current: bool,
}

/// `named` is the cluster that `-p` or `$CORACLE_PROFILE` names, if one does.
pub(crate) fn run(home: &Home, named: Option<&str>, arguments: &ProfileArguments) -> Result<ExitCode> {
    let settings = Settings::load(home)?;
    let current = named.unwrap_or(settings.profile());
    match arguments.wanted.as_deref() {
        None => output::line(current)?,
        Some("list") => {
            let rows: Vec<Row> = home.profiles()?.iter().map(|profile| row(profile, current)).collect();
            match arguments.output {
                Format::Json => output::json(&rows)?,
                Format::Text => table(&rows).iter().try_for_each(output::line)?,
            }
        }
        Some(name) => {
            config::set_profile(home, Some(name))?;
            let profile = home.profile(name)?;
            profile.check_readable()?;
            output::note(format!("Commands without -p now mean the cluster {name}."));
            if profile.kubeconfig().exists() {
                context::point_kubectl(&profile)?;
                output::note(format!("kubectl now uses the context \"{name}\"."));
            } else {
                output::note(format!("It was not started yet; start it with: coracle start -p {name}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(profile: &Profile, current: &str) -> Row {
    let mut row = Row {
        name: profile.name().to_owned(),
        state: "Stopped",
        nodes: None,
        address: None,
        current: profile.name() == current,
    };
    row.state = match profile.daemon() {
        _ if profile.check_readable().is_err() => "Unreadable",
        None => "Stopped",
        Some(daemon) if daemon.stopping => "Stopping",
        Some(_) => match nodes(profile) {
            Ok(nodes) => {
                let own = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(profile.name()));
                row.address = own.and_then(ip::of_node);
                row.nodes = Some(nodes.len());
                "Running"
            }
            Err(_) => "Unreachable",
        },
    };
    row
}

fn nodes(profile: &Profile) -> Result<Vec<Node>> {
    ask(profile, async |client| {
        let api: Api<Node> = Api::all(client);
        let params = ListParams::default();
        let list = tokio::time::timeout(status::LOOK_TIMEOUT, api.list(&params)).await;
        Ok(list.context("the API server does not answer")??.items)
    })
}

fn table(rows: &[Row]) -> Vec<String> {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default().max(8);
    let line = |name: &str, state: &str, nodes: &str, address: &str, current: &str| {
        format!("{name:<width$} {state:<12} {nodes:<6} {address:<16} {current}").trim_end().to_owned()
    };
    let head = line("NAME", "STATE", "NODES", "ADDRESS", "CURRENT");
    let rows = rows.iter().map(|row| {
        let nodes = row.nodes.map(|nodes| nodes.to_string());
        let current = if row.current { "*" } else { "" };
        let address = row.address.as_deref().unwrap_or("-");
        line(&row.name, row.state, nodes.as_deref().unwrap_or("-"), address, current)
    });
    std::iter::once(head).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_cluster() {
        let row = |name: &str, state, nodes, current| Row {
            name: name.to_owned(),
            state,
            nodes,
            address: nodes.map(|_| "10.0.0.1".to_owned()),
            current,
        };
        let rows = [row("dev", "Running", Some(2), true), row("a-longer-name", "Stopped", None, false)];
        assert_eq!(
            table(&rows),
            [
                "NAME          STATE        NODES  ADDRESS          CURRENT",
                "dev           Running      2      10.0.0.1         *",
                "a-longer-name Stopped      -      -",
            ]
        );
        assert_eq!(table(&[]).len(), 1);
    }

    #[test]
    fn clusters_that_do_not_run_are_listed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::resolve(Some(folder.path())).expect("a path");
        let profile = home.profile("one").expect("a legal name");
        profile.create().expect("created");
        let row = row(&profile, "one");
        assert_eq!((row.state, row.nodes, row.current), ("Stopped", None, true));
    }
}
