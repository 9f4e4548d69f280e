//! Components: how they are called, which belong together, and how they are shown.

use std::time::Duration;

use informer::{Component, Ending, Reconcile};
use serde_json::{Value, json};

use super::{GROUP, VERSION};
use crate::own_api;

/// Everything that can be paused.
pub(super) const ALL: &str = "all";
/// What upstream runs in the controller manager, and the controllers of addons.
const CONTROLLERS: &str = "controllers";
/// The same by the name of upstream's program.
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "scheduler";
/// The workers of pods, those of fake nodes among them.
const KUBELET: &str = "kubelet";

/// The group that a component belongs to. The others are parts of no component of upstream's.
fn group(component: &Component) -> Option<&'static str> {
    match component.name() {
        "kube-scheduler" => Some(SCHEDULER),
        "kubelet" | "fake_node" => Some(KUBELET),
        // It starts the kubelets of further nodes: without it these are not Ready.
        "extra_node" => None,
        _ => component.has_queue().then_some(CONTROLLERS),
    }
}

/// Whether a name stands for all controllers, those that have not started yet among them.
pub(super) fn is_all_controllers(what: &str) -> bool {
    [CONTROLLERS, CONTROLLER_MANAGER, ALL].contains(&what)
}

/// The components of a name, or of a group's, that can be paused.
///
/// # Errors
/// What is wrong with the name, and which are right.
pub(super) fn find(all: &[Component], what: &str) -> Result<Vec<Component>, String> {
    let pausable = || all.iter().filter(|component| component.pause().is_some());
    let what = if what == CONTROLLER_MANAGER { CONTROLLERS } else { what };
    let of_group = pausable().filter(|component| what == ALL || group(component) == Some(what));
    let mut found: Vec<Component> = of_group.cloned().collect();
    if found.is_empty() {
        found.extend(pausable().filter(|component| is_called(component.name(), what)).cloned());
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let problem = if all.iter().any(|component| is_called(component.name(), what)) {
        format!("{what} cannot be paused")
    } else {
        format!("nothing is called {what}")
    };
    let names: Vec<&str> = pausable().map(Component::name).filter(|name| *name != KUBELET).collect();
    Err(format!("{problem}; give {CONTROLLERS}, {SCHEDULER}, {KUBELET}, {ALL}, or one of: {}", names.join(", ")))
}

/// Whether a component's name is meant: also `Deployments`, and `endpoint-slice` of `endpoint_slice`.
fn is_called(name: &str, word: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let (name, word) = (plain(name), plain(word));
    name == word || word.strip_suffix('s') == Some(name.as_str())
}

/// A component as it is now.
pub(super) fn object(component: &Component) -> Value {
    let next = component.next();
    let latest = component.latest();
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Component",
        "metadata": { "name": component.name() },
        "status": {
            "group": group(component),
            "pausable": component.pause().is_some(),
            "paused": component.is_paused(),
            "waiting": component.waiting(),
            "next": next.map(|(key, waited)| json!({ "key": key, "waitedMillis": millis(waited) })),
            "running": component.running(),
            "reconciles": component.reconciles(),
            "failures": component.failures(),
            "latestTookMicros": mean_micros(latest.iter().map(|reconcile| reconcile.took)),
            "latest": latest.last().map(|latest| reconcile(latest)),
        },
    })
}

/// A reconcile that has ended.
pub(super) fn reconcile(reconcile: &Reconcile) -> Value {
    let ending = match &reconcile.ending {
        Ending::AwaitChange => "AwaitChange",
        Ending::RequeueAfter(_) => "RequeueAfter",
        Ending::Failed(_) => "Failed",
        Ending::Panicked => "Panicked",
    };
    let again = match &reconcile.ending {
        Ending::RequeueAfter(after) => Some(millis(*after)),
        _ => None,
    };
    let error = match &reconcile.ending {
        Ending::Failed(error) => Some(error),
        _ => None,
    };
    let texts = |texts: Vec<String>, more: usize| {
        let more = (more > 0).then(|| format!("{more} more"));
        texts.into_iter().chain(more).collect::<Vec<_>>()
    };
    json!({
        "key": reconcile.key,
        "startedAt": reconcile.started_at.to_string(),
        "waitedMillis": millis(reconcile.waited),
        "tookMicros": u64::try_from(reconcile.took.as_micros()).unwrap_or(u64::MAX),
        "causes": texts(reconcile.causes.iter().map(ToString::to_string).collect(), reconcile.more_causes),
        "writes": texts(reconcile.writes.iter().map(ToString::to_string).collect(), reconcile.more_writes),
        "actions": texts(reconcile.actions.iter().map(ToString::to_string).collect(), reconcile.more_actions),
        "ending": ending,
        "requeueAfterMillis": again,
        "error": error,
        "reason": reconcile.reason,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn mean_micros(times: impl ExactSizeIterator<Item = Duration>) -> Option<u64> {
    let count = u32::try_from(times.len()).ok().filter(|count| *count > 0)?;
    u64::try_from((times.sum::<Duration>() / count).as_micros()).ok()
}

/// Components as kubectl shows them.
pub(super) fn table(components: &[Component]) -> Value {
    let columns = [
        ("Name", "string"),
        ("Group", "string"),
        ("Paused", "boolean"),
        ("Waiting", "integer"),
        ("Next", "string"),
        ("Reconciles", "integer"),
        ("Failures", "integer"),
    ];
    let row = |component: &Component| {
        let next = component.next().map(|(key, _)| key).unwrap_or_default();
        let cells = json!([
            component.name(),
            group(component).unwrap_or_default(),
            component.is_paused(),
            component.waiting(),
            next,
            component.reconciles(),
            component.failures(),
        ]);
        (cells, json!({ "name": component.name() }))
    };
    own_api::table(&columns, components.iter().map(row))
}
