//! What a namespace that is being deleted says of itself, and whether it may go.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};

use crate::meta;
use crate::meta::ConditionStatus;

/// The finalizer that keeps a namespace until its content is gone.
pub(crate) const FINALIZER: &str = "kubernetes";

/// What was found in a namespace after everything in it was asked to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Why it is not known what kinds of things there may be.
    pub(crate) discovery_errors: Vec<String>,
    /// Why things could not be deleted.
    pub(crate) deletion_errors: Vec<String>,
    /// How many things are left of each resource (`pods.`, `deployments.apps`).
    pub(crate) remaining: BTreeMap<String, usize>,
    /// How many of them each finalizer keeps.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

impl Survey {
    /// Whether it is certain that nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.discovery_errors.is_empty() && self.deletion_errors.is_empty() && self.remaining.is_empty()
    }
}

/// What is to be done for a namespace.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The status to write.
    pub(crate) status: Option<NamespaceStatus>,
    /// Whether to give up the finalizer.
    pub(crate) finalize: bool,
    /// When to look again.
    pub(crate) requeue_after: Option<Duration>,
}

/// Whether `namespace` waits for its content to go.
pub(crate) fn is_due(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    meta::is_deleting(namespace) && finalizers.is_some_and(|all| all.iter().any(|name| name == FINALIZER))
}

/// Decides what `namespace`, which is due, needs after `survey`.
pub(crate) fn plan(namespace: &Namespace, survey: &Survey, now: Timestamp) -> Plan {
    let old = namespace.status.clone().unwrap_or_default();
    let mut status = NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: old.conditions.clone() };
    for condition in conditions(survey) {
        set(&mut status, condition, now);
    }
    let finalize = survey.is_empty();
    Plan {
        status: (status != old && !finalize).then_some(status),
        finalize,
        requeue_after: (!finalize).then(|| wait(survey)),
    }
}

/// Pods end when their grace period is over, of which there is an event; all else goes quickly or waits for somebody.
fn wait(survey: &Survey) -> Duration {
    let only_pods = survey.remaining.keys().all(|resource| resource == "pods.");
    Duration::from_millis(if only_pods && survey.deletion_errors.is_empty() { 1_000 } else { 100 })
}

/// A problem that holds: its reason and message.
type Problem = Option<(&'static str, String)>;

/// A condition: its type, the problem, and the reason and message of there being none.
type Finding = (&'static str, Problem, &'static str, &'static str);

fn conditions(survey: &Survey) -> [Finding; 5] {
    let list = |errors: &[String]| errors.join(", ");
    let some = |errors: &[String]| !errors.is_empty();
    let counts = |counts: &BTreeMap<String, usize>, what: &str| {
        let each = counts.iter().map(|(name, count)| format!("{name} {what} {count} resource instances"));
        each.collect::<Vec<_>>().join(", ")
    };
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            some(&survey.discovery_errors).then(|| {
                let errors = &survey.discovery_errors;
                (
                    "DiscoveryFailed",
                    format!("Discovery failed for some groups, {} failing: {}", errors.len(), list(errors)),
                )
            }),
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            some(&survey.deletion_errors).then(|| {
                let errors = &survey.deletion_errors;
                (
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types, {} remaining: {}", errors.len(), list(errors)),
                )
            }),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            (!survey.remaining.is_empty()).then(|| {
                ("SomeResourcesRemain", format!("Some resources are remaining: {}", counts(&survey.remaining, "has")))
            }),
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            (!survey.finalizers.is_empty()).then(|| {
                let finalizers = counts(&survey.finalizers, "in");
                (
                    "SomeFinalizersRemain",
                    format!("Some content in the namespace has finalizers remaining: {finalizers}"),
                )
            }),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
}

fn set(status: &mut NamespaceStatus, (type_, problem, well, all_is_well): Finding, now: Timestamp) {
    let value = ConditionStatus::from(problem.is_some()).as_str();
    let (reason, message) = problem.unwrap_or_else(|| (well, all_is_well.to_owned()));
    let mut condition = NamespaceCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        last_transition_time: Some(meta::seconds(now)),
        reason: Some(reason.to_owned()),
        message: Some(message),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|old| old.type_ == type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn namespace(deleted: bool, finalizers: Value) -> Namespace {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        from_value(json!({
            "metadata": { "name": "ns", "deletionTimestamp": deleted },
            "spec": { "finalizers": finalizers }, "status": { "phase": "Terminating" },
        }))
        .expect("namespace")
    }

    #[test]
    fn only_a_namespace_that_is_being_deleted_and_waits_is_due() {
        for (deleted, finalizers, expect) in [
            (true, json!(["kubernetes"]), true),
            (true, json!(["other"]), false),
            (true, json!([]), false),
            (false, json!(["kubernetes"]), false),
        ] {
            assert_eq!(is_due(&namespace(deleted, finalizers.clone())), expect, "{deleted} {finalizers}");
        }
    }

    #[test]
    fn the_finalizer_goes_when_nothing_is_left_and_all_is_known() {
        let count = |name: &str, count| BTreeMap::from([(name.to_owned(), count)]);
        let table = [
            (Survey::default(), true, ""),
            (
                Survey { remaining: count("pods.", 2), ..Survey::default() },
                false,
                "NamespaceContentRemaining SomeResourcesRemain: Some resources are remaining: pods. has 2 resource instances",
            ),
            (
                Survey { remaining: count("pods.", 1), finalizers: count("x/y", 1), ..Survey::default() },
                false,
                "NamespaceFinalizersRemaining SomeFinalizersRemain: Some content in the namespace has finalizers remaining: x/y in 1 resource instances",
            ),
            (
                Survey { discovery_errors: vec!["down".to_owned()], ..Survey::default() },
                false,
                "NamespaceDeletionDiscoveryFailure DiscoveryFailed: Discovery failed for some groups, 1 failing: down",
            ),
            (
                Survey { deletion_errors: vec!["no".to_owned()], ..Survey::default() },
                false,
                "NamespaceDeletionContentFailure ContentDeletionFailed: Failed to delete all resource types, 1 remaining: no",
            ),
        ];
        let namespace = namespace(true, json!(["kubernetes"]));
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        for (survey, finalize, expect) in table {
            let plan = plan(&namespace, &survey, now);
            assert_eq!((plan.finalize, plan.requeue_after.is_none()), (finalize, finalize), "{survey:?}");
            let conditions = plan.status.and_then(|status| status.conditions).unwrap_or_default();
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let bad = conditions.iter().filter(|condition| condition.status == ConditionStatus::True);
            let bad: Vec<_> =
                bad.map(|it| format!("{} {}: {}", it.type_, text(&it.reason), text(&it.message))).collect();
            assert!(expect.is_empty() || bad.contains(&expect.to_owned()), "{bad:#?}");
        }
    }

    #[test]
    fn a_second_look_writes_nothing_new() {
        let mut namespace = namespace(true, json!(["kubernetes"]));
        let survey = Survey { remaining: BTreeMap::from([("pods.".to_owned(), 2)]), ..Survey::default() };
        let first = "2026-01-01T00:00:00Z".parse().expect("time");
        namespace.status = plan(&namespace, &survey, first).status;
        let later = "2026-01-01T00:00:09Z".parse().expect("time");
        assert_eq!(plan(&namespace, &survey, later).status, None);
    }
}
