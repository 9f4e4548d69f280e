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
    let addresses = node.status.and_then(|status| status.addresses);
    let mut addresses = addresses.into_iter().flatten();
    let found = addresses.find(|address| address.type_ == "InternalIP");
    Ok(found.context("the node has no address yet")?.address)
}
