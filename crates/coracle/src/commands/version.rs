//! `coracle version`.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{self, Format};
use crate::output;

pub(crate) fn run(version: &cli::Version) -> Result<ExitCode> {
    let coracle = concat!("v", env!("CARGO_PKG_VERSION"));
    match version.output {
        Format::Text => output::line(format!("coracle {coracle} (Kubernetes {})", cluster::KUBERNETES_VERSION))?,
        Format::Json => output::json(&serde_json::json!({
            "coracle": coracle,
            "kubernetes": cluster::KUBERNETES_VERSION,
        }))?,
    }
    Ok(ExitCode::SUCCESS)
}
