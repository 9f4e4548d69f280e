//! `coracle explain`.

use clap::{Args, Subcommand};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};

use super::Format;
use super::parse::pod;
use crate::complete;

/// `coracle explain`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Explain {
    #[command(subcommand)]
    pub(crate) command: Option<ExplainCommand>,
    #[command(flatten)]
    pub(crate) object: ExplainObject,
}

/// What can be explained besides objects.
#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// Say whether somebody may do something, and which binding and role allow it
    Access(ExplainAccess),
}

/// `coracle explain KIND/NAME`.
#[derive(Debug, Args)]
pub(crate) struct ExplainObject {
    /// The object, as KIND/NAME or KIND NAME, such as deployment/web
    #[arg(value_name = "KIND/NAME", add = ArgValueCompleter::new(complete::objects))]
    pub(crate) object: Option<String>,
    /// Its name, where the kind stands alone
    #[arg(value_parser = pod, add = ArgValueCandidates::new(complete::pods))]
    pub(crate) name: Option<String>,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle explain access`.
#[derive(Debug, Args)]
pub(crate) struct ExplainAccess {
    /// The user; serviceaccount/NAME for a service account of the namespace, system:serviceaccount:NAMESPACE:NAME for any
    pub(crate) user: String,
    /// What the user wants to do, such as get, list, create or delete
    pub(crate) verb: String,
    /// To what: RESOURCE, RESOURCE/NAME or a path such as /metrics
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: String,
    /// A subresource, such as log
    #[arg(long)]
    pub(crate) subresource: Option<String>,
    /// A group that the user is in, besides those that the name implies; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// The namespace
    #[arg(short, long, default_value = "default", conflicts_with = "all_namespaces")]
    pub(crate) namespace: String,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}
