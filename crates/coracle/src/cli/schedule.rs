//! `coracle schedule`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Format;

/// `coracle schedule`.
#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// Only ask: nothing is created, bound or preempted. There is no other way: whoever creates a pod has it scheduled
    #[arg(long, required = true)]
    dry_run: bool,
    /// A manifest with one pod, or one object with a template of pods; - is standard input
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub(crate) filename: PathBuf,
    /// The namespace, where the manifest names none [default: default]
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}
