//! Commands that stop components, have them work step by step, and show what they do.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use super::{Format, duration};
use crate::complete;

/// Commands about the components of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Stepping {
    /// Pause controllers, the scheduler or the kubelet: what happens meanwhile waits in their queues
    Pause(Pause),
    /// Resume what is paused
    Resume(Resume),
    /// Let a paused component do one reconcile, and show what it is about to do and what it did
    Step(Step),
    /// Show queues, reconciles per second, watches and the store, again every two seconds
    Top(Top),
}

/// `coracle pause`.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// controllers, scheduler, kubelet, all, or the name of one controller, such as deployment
    #[arg(value_name = "WHAT", value_parser = component, add = ArgValueCandidates::new(complete::components))]
    pub(crate) what: Option<String>,
    /// Taken for minikube's sake
    #[arg(short = 'A', long, hide = true)]
    all_namespaces: bool,
    /// Taken for minikube's sake
    #[arg(short, long, value_delimiter = ',', hide = true)]
    namespaces: Vec<String>,
}

/// `coracle resume`.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// controllers, scheduler, kubelet, or the name of one controller
    #[arg(default_value = "all", value_name = "WHAT", value_parser = component, add = ArgValueCandidates::new(complete::components))]
    pub(crate) what: String,
}

/// `coracle step`.
#[derive(Debug, Args)]
pub(crate) struct Step {
    /// The controller, or scheduler or kubelet. Without: the one whose work has waited longest
    #[arg(default_value = "all", hide_default_value = true, value_name = "CONTROLLER", value_parser = component, add = ArgValueCandidates::new(complete::components))]
    pub(crate) what: String,
    /// Take a step in each such time, 1s for example, until interrupted: for a classroom
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "output")]
    pub(crate) slow: Option<Duration>,
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print the figures of one second once, in this format
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<TopFormat>,
}

/// The form of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The name of a component or group. Which there are is known to the cluster.
fn component(text: &str) -> Result<String, String> {
    let is_name =
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("give controllers, scheduler, kubelet, all, or the name of one controller, such as deployment".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_components() {
        for name in ["controllers", "endpoint_slice", "validatingadmissionpolicy-status", "ClusterRoleAggregator"] {
            assert_eq!(component(name).as_deref(), Ok(name));
        }
        for bad in ["", "deployment/web", "a b", "?x", "ä"] {
            assert!(component(bad).is_err_and(|why| why.contains("such as deployment")), "{bad}");
        }
    }
}
