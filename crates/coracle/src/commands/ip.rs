//! `coracle ip`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use node::Profile;

use super::{ask, require_running};
use crate::output;

pub(crate) fn run(profile: &Profile) -> Result<ExitCode> {
    require_running(profile)?;
    let node = ask(profile, async |client| Ok(Api::<Node>::all(client).get(profile.name()).await?))?;
    let addresses = node.status.and_then(|status| status.addresses);
    let address = addresses
        .into_iter()
        .flatten()
        .find(|address| address.type_ == "InternalIP")
        .context("the node has no address yet")?;
    output::line(address.address)?;
    Ok(ExitCode::SUCCESS)
}
