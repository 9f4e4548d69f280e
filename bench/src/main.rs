//! A load generator for any Kubernetes cluster: what `cargo xtask bench` runs.
//!
//! Without `--kubeconfig` it starts a coracle cluster of its own in a temporary home, and measures that as a process too
//! (start, memory, idle CPU). With `--vs` the same client does the same to a second cluster, figure by figure in turn, and
//! prints ratios: machines differ and are noisy, ratios within one run less so. What the servers cost is read from their
//! processes: of a cluster of others, the caller says which these are.

mod api;
mod cluster;
mod dns;
mod process;
mod report;
mod scheduling;
mod workloads;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use crate::cluster::Own;
use crate::process::Process;
use crate::report::Report;

/// So long after the load a server may give its memory back.
const REST: Duration = Duration::from_secs(60);
const AFTER: &str = "memory, a minute after the load";

/// Measure a Kubernetes cluster.
#[derive(Parser)]
#[command(name = "cargo xtask bench --")]
struct Arguments {
    /// The cluster to measure [default: a coracle of its own]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The processes of its control plane, separated by commas: their CPU and memory are reported
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "kubeconfig")]
    pid: Vec<u32>,
    /// Another cluster to measure in turn with it
    #[arg(long, value_name = "FILE")]
    vs: Option<PathBuf>,
    /// The processes of the other cluster's control plane
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "vs")]
    vs_pid: Vec<u32>,
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

/// A cluster, and what was measured of it.
struct Side {
    cluster: api::Cluster,
    report: Report,
}

/// Figures that are measured without a break.
#[derive(Clone, Copy)]
enum Figures {
    Creations,
    Watches,
    Pods,
    Scheduling,
    Dns,
    Rollouts,
}

const ALL: [Figures; 6] =
    [Figures::Creations, Figures::Watches, Figures::Pods, Figures::Scheduling, Figures::Dns, Figures::Rollouts];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let only = || arguments.only.clone();
    let processes = |pids: &[u32]| pids.iter().map(|pid| Process::new(*pid)).collect::<Result<Vec<_>>>();
    let mut own = None;
    let mut sides = Vec::new();
    if let Some(kubeconfig) = &arguments.kubeconfig {
        sides.push(Side::connect(kubeconfig, Report::new(only(), processes(&arguments.pid)?)).await?);
    } else {
        let (cluster, report) = Own::start(only())?;
        sides.push(Side::connect(&cluster.kubeconfig(), report).await?);
        own = Some(cluster);
    }
    if let Some(kubeconfig) = &arguments.vs {
        sides.push(Side::connect(kubeconfig, Report::new(only(), processes(&arguments.vs_pid)?)).await?);
    }
    measure(&mut sides, &arguments).await?;
    if let Some(own) = own {
        own.measure_idle(&mut sides[0].report)?;
    }
    sides[0].report.print(sides.get(1).map(|side| &side.report));
    Ok(())
}

/// Measures all figures, and takes away what was made for them however that ends.
async fn measure(sides: &mut [Side], arguments: &Arguments) -> Result<()> {
    for side in &mut *sides {
        side.report.add_memory("memory, before the load")?;
    }
    let mut result = measure_in_turn(sides, arguments).await;
    for side in &mut *sides {
        let deleted = side.cluster.delete_namespace().await;
        result = result.and(deleted).and(side.report.add_memory("memory, after the load"));
    }
    result?;
    if sides.iter().any(|side| side.report.wants(AFTER)) {
        tokio::time::sleep(REST).await;
        for side in sides {
            side.report.add_memory(AFTER)?;
        }
    }
    Ok(())
}

async fn measure_in_turn(sides: &mut [Side], arguments: &Arguments) -> Result<()> {
    for side in &*sides {
        side.cluster.create_namespace().await?;
    }
    for figures in ALL {
        for side in &mut *sides {
            side.measure(figures, arguments).await?;
        }
    }
    Ok(())
}

impl Side {
    async fn connect(kubeconfig: &Path, report: Report) -> Result<Self> {
        Ok(Self { cluster: api::Cluster::connect(kubeconfig).await?, report })
    }

    async fn measure(&mut self, figures: Figures, arguments: &Arguments) -> Result<()> {
        let Self { cluster, report } = self;
        match figures {
            Figures::Creations => workloads::creations(cluster, report).await,
            Figures::Watches => workloads::watches(cluster, report).await,
            Figures::Pods => workloads::pods(cluster, report).await,
            Figures::Scheduling => scheduling::scheduling(cluster, report).await,
            Figures::Dns => dns::measure(cluster, report).await,
            Figures::Rollouts => workloads::rollouts(cluster, &arguments.image, &arguments.update_image, report).await,
        }
    }
}
