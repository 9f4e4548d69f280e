//! `coracle autostart`, and what makers of packages ask for.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;

/// `coracle autostart`.
#[derive(Debug, Subcommand)]
pub(crate) enum Autostart {
    /// Start the cluster at your login, or, when root says so, when the machine boots
    Enable,
    /// Do not start it any more; a cluster that runs goes on
    Disable,
    /// Show whether it is started (exit code 0: enabled, 3: disabled)
    Status(AutostartStatus),
}

/// `coracle autostart status`.
#[derive(Debug, Args)]
pub(crate) struct AutostartStatus {
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle packaging`.
#[derive(Debug, Args)]
pub(crate) struct Packaging {
    /// The folder to write to, which is made if it is not there
    pub(crate) folder: PathBuf,
}
