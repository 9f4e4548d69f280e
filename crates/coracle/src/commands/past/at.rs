//! `coracle at`: a command that sees the cluster as it was.

use std::io::{self, Write};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow};
use cluster::Profile;
use kube::config::Kubeconfig;

use super::revision;
use crate::commands::{ask, require_running};
use crate::{cli, output};

pub(crate) fn run(profile: &Profile, wanted: &cli::At) -> Result<ExitCode> {
    require_running(profile)?;
    let known = ask(profile, async |client| revision(&client, profile, wanted.when).await)?;
    let Some((program, arguments)) = wanted.command.split_first() else {
        output::line(known.text())?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut kubeconfig = Kubeconfig::read_from(profile.kubeconfig()).context("cannot read the cluster's kubeconfig")?;
    for server in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()?.server.as_mut()) {
        *server = format!("{}/at/{}", server.trim_end_matches('/'), known.revision);
    }
    // Readable by its owner alone, and gone with this command. JSON is YAML.
    let mut file = tempfile::Builder::new().prefix("coracle-at-").tempfile().context("cannot make a kubeconfig")?;
    file.write_all(serde_json::to_string(&kubeconfig)?.as_bytes()).context("cannot write a kubeconfig")?;
    let status = Command::new(program).args(arguments).env("KUBECONFIG", file.path()).status();
    let status = status.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!("{} is not on the PATH", program.to_string_lossy()),
        _ => anyhow!(error).context(format!("cannot run {}", program.to_string_lossy())),
    })?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
