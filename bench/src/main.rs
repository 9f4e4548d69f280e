//! A load generator for any Kubernetes cluster: what `cargo xtask bench` runs.
//!
//! Without `--kubeconfig` it starts a coracle cluster of its own in a temporary home, and measures that as a process too
//! (start, memory, idle CPU). With `--vs` it measures a second cluster in the same run and prints ratios: machines differ
//! and are noisy, ratios within one run less so.

mod api;
mod cluster;
mod dns;
mod report;
mod scheduling;
mod workloads;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::cluster::Own;
use crate::report::Report;

/// Measure a Kubernetes cluster.
#[derive(Parser)]
#[command(name = "cargo xtask bench --")]
struct Arguments {
    /// The cluster to measure [default: a coracle of its own]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Another cluster to measure beside it
    #[arg(long, value_name = "FILE")]
    vs: Option<PathBuf>,
    /// Only the figures whose names contain this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// The image that rollouts run
    #[arg(long, default_value = "nginx:1.21.0")]
    image: String,
    /// The image that they are updated to
    #[arg(long, default_value = "nginx:latest")]
    update_image: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut first = Report::new(arguments.only.clone());
    if let Some(kubeconfig) = &arguments.kubeconfig {
        measure(&arguments, kubeconfig, &mut first).await?;
    } else {
        let own = Own::start(&mut first)?;
        measure(&arguments, &own.kubeconfig(), &mut first).await?;
        own.measure_process(&mut first)?;
    }
    let second = match &arguments.vs {
        None => None,
        Some(kubeconfig) => {
            let mut report = Report::new(arguments.only.clone());
            measure(&arguments, kubeconfig, &mut report).await?;
            Some(report)
        }
    };
    first.print(second.as_ref());
    Ok(())
}

async fn measure(arguments: &Arguments, kubeconfig: &std::path::Path, report: &mut Report) -> Result<()> {
    let cluster = api::Cluster::connect(kubeconfig).await?;
    cluster.create_namespace().await?;
    let result = async {
        workloads::objects(&cluster, report).await?;
        scheduling::scheduling(&cluster, report).await?;
        dns::measure(&cluster, report).await?;
        workloads::rollouts(&cluster, &arguments.image, &arguments.update_image, report).await
    }
    .await;
    cluster.delete_namespace().await?;
    result
}
