//! Probes: is a container up, alive, and ready for traffic?
//!
//! [`AttemptResult`] is what one attempt says, [`Tally`] counts attempts against the thresholds, [`run()`] is the task of one
//! probe of one container. Verdicts go to the pod's worker; nothing here decides what follows from them.

mod attempt;
mod counts;
mod frozen;
mod grpc;
mod http;
mod results;
mod run;
mod tally;

pub(crate) use attempt::{Target, attempt};
pub(crate) use counts::{PodProbeCounts, ProbeCounts};
pub(crate) use frozen::unfrozen;
pub(crate) use http::get;
pub(crate) use results::{ProbeKind, ProbeResults};
pub(crate) use run::{Assignment, run};
pub(crate) use tally::Tally;

/// What one attempt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptResult {
    /// All is well.
    Success,
    /// All is well, but people should know something.
    Warning(String),
    /// It is not well, for this reason.
    Failure(String),
    /// The attempt itself failed, which says nothing about the container.
    Error(String),
}

/// The most of an answer that is shown to people, in bytes.
const SHOWN: usize = 10 * 1024;

/// Cuts an answer down to what is shown.
fn shown(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(SHOWN)]).into_owned()
}
