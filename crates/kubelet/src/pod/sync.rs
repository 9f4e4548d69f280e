//! What a worker says of one sync of its pod: what kind it is, what it did, and why it did nothing.

use std::borrow::Cow;

use informer::Cause;

use super::operations::OperationOutcome;
use super::plan::{Action, Plan, Stage};
use super::state::{PodState, StatusWrite};

/// The kind of a sync (upstream: `SyncPodType` in `pkg/kubelet/types/pod_update.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyncPodType {
    /// The first of its pod.
    Create,
    /// The API's pod has changed.
    Update,
    /// Something else has, or time has passed.
    Sync,
    /// The pod is being ended.
    Kill,
}

impl SyncPodType {
    /// The value of the label `operation_type`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Sync => "sync",
            Self::Kill => "kill",
        }
    }
}

/// An action in a few words.
pub(super) fn describe(action: &Action) -> Cow<'static, str> {
    let text = match action {
        Action::SetUpVolumes => return "set up the volumes".into(),
        Action::CreateSandbox { .. } => return "create the sandbox".into(),
        Action::AllocateResources => return "allocate what containers ask for".into(),
        Action::ExceedDeadline => return "fail the pod for its deadline".into(),
        Action::NoteEviction => return "note that the pod was evicted".into(),
        Action::TearDownVolumes => return "take the volumes away".into(),
        Action::Release => return "let go of the API's object".into(),
        Action::EnsureImage { container } => format!("ensure the image of container {container}"),
        Action::StartContainer { container, .. } => format!("start container {container}"),
        Action::ReportBackOff { container, .. } => format!("report the back-off of container {container}"),
        Action::ReportPullBackOff { container, .. } => {
            format!("report the back-off of pulling for container {container}")
        }
        Action::BeginStop { container, .. } => format!("begin to stop container {container}"),
        Action::StopContainer { id, .. } => format!("stop container {id}"),
        Action::ResizeContainer { container, .. } => format!("resize container {container}"),
        Action::RemoveContainer { id } => format!("remove container {id}"),
        Action::StopSandbox { id } => format!("stop sandbox {id}"),
        Action::RemoveSandbox { id } => format!("remove sandbox {id}"),
    };
    text.into()
}

/// Why a plan asks for nothing, or for no more than it does.
pub(super) fn idle_reason(plan: &Plan, state: &PodState, under_way: bool) -> &'static str {
    if under_way {
        return "operations are under way";
    }
    if let Some(waiting) = plan.waiting.values().next() {
        return waiting.reason.as_str();
    }
    match plan.stage {
        Stage::Syncing if matches!(state.write, StatusWrite::Pending { .. }) => {
            "the status is written together with what follows"
        }
        Stage::Syncing => "the pod is as it should be",
        Stage::Terminating => "containers are given the time to end",
        Stage::Terminated if state.desired.deleting() => "the API has not let go of the pod yet",
        Stage::Terminated => "the pod has ended, and is kept until it is deleted",
        Stage::Removing => "a removal that failed is tried again later",
        Stage::Gone => "nothing of the pod is left",
    }
}

impl OperationOutcome {
    /// The outcome as the cause of a sync.
    pub(super) fn cause(&self) -> Cause {
        let (succeeded, texts) = match self {
            Self::Volumes { result, .. } => (result.is_ok(), ("volumes are set up", "setting up volumes failed")),
            Self::Sandbox(result) => (result.is_ok(), ("the sandbox was created", "creating the sandbox failed")),
            Self::Image { result, .. } => (result.is_ok(), ("an image is present", "getting an image failed")),
            Self::Started { result, .. } => {
                (result.is_ok(), ("a container was started", "starting a container failed"))
            }
            Self::HookDone { .. } => (true, ("a pre-stop hook has ended", "")),
            Self::Resized { result, .. } => {
                (result.is_ok(), ("a container was resized", "resizing a container failed"))
            }
            Self::Stopped { result, .. } => {
                (result.is_ok(), ("a container was stopped", "stopping a container failed"))
            }
            Self::Removed { result, .. } => (result.is_ok(), ("a removal is done", "a removal failed")),
            Self::EvictionNoted(result) => {
                (result.is_ok(), ("it is noted that the pod was evicted", "noting that the pod was evicted failed"))
            }
            Self::TornDown(result) => (result.is_ok(), ("volumes are taken away", "taking volumes away failed")),
            Self::Released(result) => {
                (result.is_ok(), ("the API has let go of the pod", "letting go of the pod failed"))
            }
            Self::Written(result) => (result.is_ok(), ("the status was written", "writing the status failed")),
        };
        Cause::new(if succeeded { texts.0 } else { texts.1 })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::testing::{pod, state_of};
    use crate::types::waiting::{Waiting, WaitingReason};

    #[test]
    fn why_nothing_is_done() {
        let state = state_of(pod(json!({"containers": []})));
        let check = |stage, waiting: Option<WaitingReason>, under_way, expect: &str| {
            let waiting = waiting.map(|reason| ("a".to_owned(), Waiting::new(reason, "")));
            let waiting: BTreeMap<String, Waiting> = waiting.into_iter().collect();
            let plan = Plan { stage, actions: Vec::new(), waiting, wake_at: None };
            assert_eq!(idle_reason(&plan, &state, under_way), expect);
        };
        check(Stage::Syncing, None, false, "the pod is as it should be");
        check(Stage::Syncing, Some(WaitingReason::CrashLoopBackOff), false, "CrashLoopBackOff");
        check(Stage::Syncing, Some(WaitingReason::ContainerCreating), true, "operations are under way");
        check(Stage::Terminating, None, false, "containers are given the time to end");
        check(Stage::Terminated, None, false, "the pod has ended, and is kept until it is deleted");
    }
}
