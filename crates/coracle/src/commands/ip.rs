//! `coracle ip`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use cluster::Profile;
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use super::{ask, require_running};
use crate::output;

pub(crate) fn run(profile: &Profile) -> Result<ExitCode> {
    require_running(profile)?;
    output::line(address(profile)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The node's address.
pub(super) fn address(profile: &Profile) -> Result<String> {
    let node = ask(profile, async |client| Ok(Api::<Node>::all(client).get(profile.name()).await?))?;
    of_node(&node).context("the node has no address yet")
}

/// The address in a node's status.
pub(super) fn of_node(node: &Node) -> Option<String> {
    let mut addresses = node.status.iter().flat_map(|status| &status.addresses).flatten();
    Some(addresses.find(|address| address.type_ == "InternalIP")?.address.clone())
}
