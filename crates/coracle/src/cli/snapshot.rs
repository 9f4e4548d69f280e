//! `coracle snapshot`.

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use super::{Format, Moment, past};
use crate::complete;

/// `coracle snapshot`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Keep all that a cluster has, objects and volumes, running or not
    Save(SaveSnapshot),
    /// List the snapshots of this home
    #[command(visible_alias = "ls")]
    List(ListSnapshots),
    /// Make a cluster what a snapshot has: the one that it is of, or another with -p NAME
    Restore(RestoreSnapshot),
    /// Make another cluster like this one, running or not
    Clone(CloneCluster),
    /// Print what somebody has written of a snapshot's objects, Secrets included, as YAML that another cluster takes: coracle snapshot
    /// export NAME | kubectl --context OTHER apply -f -; or all of it as etcd does
    Export(ExportSnapshot),
    /// Delete snapshots
    Delete(DeleteSnapshots),
}

/// `coracle snapshot save`.
#[derive(Debug, Args)]
pub(crate) struct SaveSnapshot {
    /// What it is to be called
    pub(crate) name: String,
    /// The moment whose objects are kept: a revision, a time ago such as -5m, or a time such as 2026-01-02T10:04:00Z. What was
    /// in volumes then nobody knows, so they are left out
    #[arg(long, allow_hyphen_values = true, value_parser = past::moment, value_name = "WHEN")]
    pub(crate) at: Option<Moment>,
    /// Leave out what pods keep in volumes
    #[arg(long)]
    pub(crate) no_volumes: bool,
}

/// `coracle snapshot list`.
#[derive(Debug, Args)]
pub(crate) struct ListSnapshots {
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle snapshot restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreSnapshot {
    /// The snapshot
    #[arg(add = ArgValueCandidates::new(complete::snapshots))]
    pub(crate) name: String,
    /// Do not ask before a cluster that is there is replaced
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `coracle snapshot clone`.
#[derive(Debug, Args)]
pub(crate) struct CloneCluster {
    /// What the new cluster is to be called
    #[arg(value_name = "CLUSTER")]
    pub(crate) name: String,
}

/// `coracle snapshot export`.
#[derive(Debug, Args)]
pub(crate) struct ExportSnapshot {
    /// The snapshot
    #[arg(add = ArgValueCandidates::new(complete::snapshots))]
    pub(crate) name: String,
    /// The form
    #[arg(long, value_enum, default_value_t = ExportFormat::Yaml)]
    pub(crate) format: ExportFormat,
}

/// What objects can be exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A document for each object
    Yaml,
    /// One list
    Json,
    /// All objects as a snapshot of etcd, for etcdutl snapshot restore; into a file: > FILE
    Etcd,
}

/// `coracle snapshot delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteSnapshots {
    /// The snapshots
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(complete::snapshots))]
    pub(crate) names: Vec<String>,
}
