//! A differential test of the API: what `cargo xtask compare` runs.
//!
//! It sends the same requests to two API servers and prints where statuses, headers or bodies differ, once names, times
//! and addresses are taken out ([`normalize`]). What differs for a reason is listed in `docs/differences.md`; the rest is a
//! fault of ours. Without `--kubeconfig` our side is an API server in this process, with nothing beside it: no controller
//! changes an object between two requests.

mod accepted;
mod cases;
mod cluster;
mod diff;
mod mutations;
mod normalize;
mod objects;
mod own;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::accepted::Accepted;
use crate::cases::Cases;
use crate::cluster::{Cluster, Request};
use crate::diff::Difference;
use crate::own::Own;

/// Compare two API servers, request by request.
#[derive(Parser)]
#[command(name = "cargo xtask compare")]
struct Arguments {
    /// The cluster to compare with
    #[arg(long, value_name = "KUBECONFIG")]
    against: PathBuf,
    /// The cluster that is compared [default: an API server of its own, without controllers]
    #[arg(long, value_name = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The list of accepted differences
    #[arg(long, value_name = "FILE", default_value = "docs/differences.md")]
    accepted: PathBuf,
    /// Only the resources whose names contain this; `documents` and `reviews` are such names too
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many requests to print of those that differ in the same way
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    examples: usize,
}

/// The two sides, and what was found so far.
pub(crate) struct Comparison {
    ours: Cluster,
    theirs: Cluster,
    requests: usize,
    /// The requests that differ, by how they do.
    found: BTreeMap<String, Vec<Difference>>,
}

impl Comparison {
    /// Sends a request to both sides and notes what differs.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<()> {
        let (ours, theirs) = tokio::try_join!(self.ours.send(request), self.theirs.send(request))?;
        self.requests += 1;
        for difference in diff::replies(request, &ours, &theirs) {
            self.found.entry(difference.kind.clone()).or_default().push(difference);
        }
        Ok(())
    }

    /// Sends a request to both sides whose answer is of no interest.
    pub(crate) async fn prepare(&self, request: &Request) -> Result<()> {
        tokio::try_join!(self.ours.send(request), self.theirs.send(request))?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let accepted = Accepted::read(&arguments.accepted)?;
    let theirs = Cluster::connect(&arguments.against).await?;
    let (ours, own) = match &arguments.kubeconfig {
        Some(file) => (Cluster::connect(file).await?, None),
        None => {
            let own = Own::start().await?;
            (Cluster::of(own.kubeconfig()?).await?, Some(own))
        }
    };
    let mut comparison = Comparison { ours, theirs, requests: 0, found: BTreeMap::new() };
    let mut cases = Cases::new(&comparison.theirs, arguments.only.clone()).await?;
    let outcome = cases.run(&mut comparison).await;
    cases.clean_up(&comparison).await.context("cannot remove what was made")?;
    if let Some(own) = own {
        own.stop().await;
    }
    // Also what was found before something went wrong.
    let beyond = print(&comparison, &accepted, arguments.examples)?;
    outcome?;
    Ok(if beyond == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what differs and is not accepted; returns how many requests that concerns.
fn print(comparison: &Comparison, accepted: &Accepted, examples: usize) -> Result<usize> {
    let mut out = std::io::stdout().lock();
    let mut beyond = 0;
    let mut excused = 0;
    for (kind, differences) in &comparison.found {
        let (listed, rest): (Vec<_>, Vec<_>) = differences.iter().partition(|one| accepted.lists(one));
        excused += listed.len();
        beyond += rest.len();
        if rest.is_empty() {
            continue;
        }
        writeln!(out, "{kind} ({})", rest.len())?;
        for one in rest.iter().take(examples) {
            writeln!(out, "  {}\n    {}: {} | {}", one.request, one.path, one.ours, one.theirs)?;
        }
    }
    writeln!(out, "{} requests, {beyond} differences (ours | theirs), {excused} accepted", comparison.requests)?;
    Ok(beyond)
}
