//! Running `nft`.

use std::io;

use crate::tools::{NetworkTools, ToolOutput};

/// Why a transaction did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This machine cannot do it at all: the program or the privilege is missing. The text says what to do.
    Unavailable(String),
    /// This transaction was refused.
    Refused(String),
}

/// Runs a transaction: all of it or nothing.
pub(crate) async fn run(tools: &dyn NetworkTools, script: &str) -> Result<(), Failure> {
    judge(tools.run("nft", &["-f", "-"], script).await)
}

/// Whether a table is there.
pub(crate) async fn has(tools: &dyn NetworkTools, table: &str, chain: &str) -> bool {
    judge(tools.run("nft", &["list", "chain", "ip", table, chain], "").await).is_ok()
}

fn judge(output: io::Result<ToolOutput>) -> Result<(), Failure> {
    match output {
        Ok(output) if output.success => Ok(()),
        Ok(output) => {
            if output.stderr.contains("Operation not permitted") {
                return Err(Failure::Unavailable("this needs root (CAP_NET_ADMIN)".to_owned()));
            }
            Err(Failure::Refused(output.stderr))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::Unavailable("the program nft is missing: install the package nftables".to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::Unavailable(error.to_string())),
        Err(error) => Err(Failure::Refused(error.to_string())),
    }
}
