//! What would be decided about a pod that is not there: for `coracle schedule --dry-run`.
//!
//! The running scheduler is asked, between two decisions, so the answer is that of its own books, plugins and profiles. It
//! only looks: nothing is charged, nominated, recorded or written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::error;

use super::{Message, Scheduler};
use crate::record::{Record, unschedulable_hint};
use crate::schedule::{Trace, schedule};
use crate::types::Candidate;

/// So many nodes are told of with their scores, and with each reason for a refusal.
const NODES: usize = 1000;

/// Why nothing can be said of a pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreviewError {
    /// There is no scheduler (any more).
    #[error("the scheduler is not running")]
    NotRunning,
    /// The pod is somebody else's affair.
    #[error(
        "no scheduler of this cluster is called {0}: leave out spec.schedulerName, or name a profile of the scheduler's configuration"
    )]
    UnknownScheduler(String),
    /// No scheduler is asked about the pod.
    #[error("the pod names the node {0} itself, so no scheduler is asked: leave out spec.nodeName")]
    HasNode(String),
    /// A plugin failed on the pod: one that no API server would have let in, for example.
    #[error("the scheduler cannot decide about this pod; see: coracle logs")]
    Failed,
}

/// Asks the scheduler. Cheap to clone; all clones ask the same one, from its start on.
#[derive(Debug, Clone, Default)]
pub struct Previews(Arc<OnceLock<mpsc::UnboundedSender<Message>>>);

/// A pod, and whom to tell.
pub(super) struct Question {
    pod: Box<Pod>,
    answer: oneshot::Sender<Result<Record, PreviewError>>,
}

impl Previews {
    /// Who is asked from now on.
    pub(super) fn set(&self, messages: mpsc::UnboundedSender<Message>) {
        // A configuration is that of one scheduler.
        let _ = self.0.set(messages);
    }

    /// What would be decided about `pod` now. A pod of a group that is placed whole is looked at alone.
    ///
    /// # Errors
    /// Why nothing can be said.
    pub async fn ask(&self, pod: Pod) -> Result<Record, PreviewError> {
        let messages = self.0.get().ok_or(PreviewError::NotRunning)?;
        let (answer, answered) = oneshot::channel();
        let question = Question { pod: Box::new(pod), answer };
        messages.send(Message::Preview(question)).map_err(|_| PreviewError::NotRunning)?;
        answered.await.unwrap_or(Err(PreviewError::NotRunning))
    }
}

impl Scheduler {
    pub(super) fn handle_preview(&self, question: Question) {
        let Question { pod, answer } = question;
        // Nothing is changed, so nothing is left half done; and pods come here that no API server has validated.
        let found = catch_unwind(AssertUnwindSafe(|| self.preview(*pod)));
        let found = found.unwrap_or_else(|_| {
            error!("a plugin failed in a preview");
            Err(PreviewError::Failed)
        });
        // Whoever asked may have gone.
        let _ = answer.send(found);
    }

    fn preview(&self, pod: Pod) -> Result<Record, PreviewError> {
        let spec = pod.spec.as_ref();
        if let Some(node) = spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()) {
            return Err(PreviewError::HasNode(node));
        }
        let scheduler = spec.and_then(|spec| spec.scheduler_name.clone()).unwrap_or_default();
        let Some(mut profile) = self.profile_of(&pod).cloned() else {
            return Err(PreviewError::UnknownScheduler(scheduler));
        };
        // Of every node something is to be said, also where a share of them is enough to choose among.
        profile.percentage = 100;
        let is_gated = spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        let pod = Candidate::new(Arc::new(pod));
        let started = Instant::now();
        let mut trace = Trace::default();
        let decided = schedule(&self.cache, &profile, &pod, &mut self.first.clone(), &mut trace);
        let record =
            |decision| Record::new(&pod, &scheduler, started.elapsed()).trace_of(NODES, &self.cache, &trace, decision);
        let mut record = match decided {
            Ok(decision) => record(Some(&decision)),
            Err(mut refused) => {
                let found = self.find_victims(&profile, &pod, &mut refused);
                let mut record = record(None);
                record.message = refused.to_string();
                match found {
                    Some(found) => {
                        record.victims = found.victims.iter().map(|victim| victim.full_name()).collect();
                        record.nominated = Some(found.node);
                    }
                    None => {
                        record.waits_for = refused.plugins.iter().map(|plugin| unschedulable_hint(plugin)).collect();
                    }
                }
                record
            }
        };
        if is_gated {
            record.waits_for.insert(0, "its scheduling gates to be removed");
        }
        record.group = pod.group.as_ref().filter(|group| self.groups.govern(group)).map(ToString::to_string);
        Ok(record)
    }
}
