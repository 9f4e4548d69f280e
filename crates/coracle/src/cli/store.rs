//! `coracle store`.

use clap::{Args, Subcommand};

use super::Format;

/// `coracle store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// List keys: the revision that wrote them, the one that created them, and how many bytes they have
    #[command(visible_alias = "list")]
    Ls(StoreLs),
    /// Print what lies under a key
    Get(StoreGet),
    /// Print each change as it is committed, until Ctrl-C
    Watch(StoreWatch),
}

/// `coracle store ls`.
#[derive(Debug, Args)]
pub(crate) struct StoreLs {
    /// What the keys begin with, such as /registry/core/pods/ or pods/default/ [default: all keys]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Print the keys alone
    #[arg(long, conflicts_with = "output")]
    pub(crate) keys_only: bool,
    /// The output format; json has a key a line
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle store get`.
#[derive(Debug, Args)]
pub(crate) struct StoreGet {
    /// The key, such as /registry/core/pods/default/web, or pods/default/web
    pub(crate) key: String,
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle store watch`.
#[derive(Debug, Args)]
pub(crate) struct StoreWatch {
    /// What the keys begin with [default: all keys]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// The revision whose changes come first [default: the next one]
    #[arg(long, value_name = "REVISION")]
    pub(crate) from: Option<u64>,
    /// The output format; json has a change a line
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}
