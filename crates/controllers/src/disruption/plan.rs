//! What a PodDisruptionBudget allows now: its status, from the Pods it selects and the sizes of their owners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use informer::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::int_or_string;

use crate::meta::ConditionStatus;
use crate::{meta, pods};

/// A Pod that was evicted should be on its way out after so many seconds.
const LEAVES_WITHIN: i64 = 120;
/// The condition that says whether anything may be evicted.
const ALLOWED: &str = "DisruptionAllowed";

/// What a plan is made from.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The Pods that the budget selects.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The sizes of what controls these Pods, by UID; or why one could not be learned.
    pub(crate) scales: Result<BTreeMap<String, i32>, String>,
    /// Names of Pods that nobody controls.
    pub(crate) unmanaged: Vec<String>,
}

/// What is to be done for a budget.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The status.
    pub(crate) status: PodDisruptionBudgetStatus,
    /// What there is to tell.
    pub(crate) events: Vec<(EventType, &'static str, String)>,
    /// When time alone changes something.
    pub(crate) requeue_after: Option<Duration>,
}

/// Whether the budget asks for the sizes of the owners at all.
pub(crate) fn needs_scales(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    let min = spec.and_then(|spec| spec.min_available.as_ref());
    spec.is_some_and(|spec| spec.max_unavailable.is_some()) || matches!(min, Some(IntOrString::String(_)))
}

/// Decides what `budget` allows.
pub(crate) fn plan(snapshot: &Snapshot, budget: &PodDisruptionBudget, now: Timestamp) -> Plan {
    let mut plan = Plan { status: budget.status.clone().unwrap_or_default(), ..Plan::default() };
    if snapshot.pods.is_empty() {
        plan.events.push((EventType::Normal, "NoPods", "No matching pods found".to_owned()));
    }
    let (expected, desired) = match sizes(snapshot, budget) {
        Ok(sizes) => sizes,
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            plan.events.push((EventType::Warning, "CalculateExpectedPodCountFailed", message));
            // Nothing may go as long as nobody knows how many there should be.
            plan.status.disruptions_allowed = Some(0);
            plan.allow(false, "SyncFailed", &why, budget, now);
            return plan;
        }
    };
    if needs_scales(budget) && !snapshot.unmanaged.is_empty() {
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of \
             the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
             please set \".spec.minAvailable\" field of the PDB to an integer value.",
            selector(budget)
        );
        plan.events.push((EventType::Warning, "UnmanagedPods", message));
    }
    let disrupted = plan.disrupted(snapshot, budget, now);
    let healthy = snapshot.pods.iter().filter(|pod| {
        !meta::is_deleting(&***pod) && !disrupted.contains_key(meta::name(&***pod)) && pods::is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    // A budget that selects nothing must be safe when its first Pods come.
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    plan.status.current_healthy = Some(healthy);
    plan.status.desired_healthy = Some(desired);
    plan.status.expected_pods = Some(expected);
    plan.status.disruptions_allowed = Some(allowed);
    plan.status.disrupted_pods = (!disrupted.is_empty()).then_some(disrupted);
    plan.status.observed_generation = budget.metadata.generation;
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    plan.allow(allowed > 0, reason, "", budget, now);
    plan
}

/// How many Pods there should be, and how many of them must be healthy.
fn sizes(snapshot: &Snapshot, budget: &PodDisruptionBudget) -> Result<(i32, i32), String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let scale = || -> Result<i32, String> { Ok(snapshot.scales.as_ref().map_err(Clone::clone)?.values().sum()) };
    let scaled =
        |value: &IntOrString, of: i32| int_or_string::scaled(value, of, true).map_err(|error| error.to_string());
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => {
            let expected = scale()?;
            Ok((expected, (expected - scaled(unavailable, expected)?).max(0)))
        }
        (None, Some(IntOrString::Int(available))) => {
            Ok((i32::try_from(snapshot.pods.len()).unwrap_or(i32::MAX), *available))
        }
        (None, Some(percentage)) => {
            let expected = scale()?;
            Ok((expected, scaled(percentage, expected)?))
        }
        (None, None) => Ok((i32::try_from(snapshot.pods.len()).unwrap_or(i32::MAX), 0)),
    }
}

fn selector(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = selector.and_then(|selector| selector.match_labels.as_ref());
    labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

impl Plan {
    /// Pods that were evicted and do not leave yet. One that still does not after two minutes is taken as staying.
    fn disrupted(
        &mut self,
        snapshot: &Snapshot,
        budget: &PodDisruptionBudget,
        now: Timestamp,
    ) -> BTreeMap<String, Time> {
        let known = self.status.disrupted_pods.take().unwrap_or_default();
        let mut disrupted = BTreeMap::new();
        for pod in &snapshot.pods {
            let name = meta::name(&**pod);
            let Some(since) = known.get(name).filter(|_| !meta::is_deleting(&**pod)) else { continue };
            let until = meta::plus_seconds(since.0, LEAVES_WITHIN);
            if until <= now {
                let message = format!(
                    "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                    meta::namespace(budget),
                    meta::name(budget)
                );
                self.events.push((EventType::Warning, "NotDeleted", message));
                continue;
            }
            let wait = meta::until(until, now);
            self.requeue_after = Some(self.requeue_after.map_or(wait, |least| least.min(wait)));
            disrupted.insert(name.to_owned(), since.clone());
        }
        disrupted
    }

    fn allow(&mut self, allowed: bool, reason: &str, message: &str, budget: &PodDisruptionBudget, now: Timestamp) {
        let status = ConditionStatus::from(allowed).as_str();
        let conditions = self.status.conditions.get_or_insert_default();
        let since = conditions.iter().find(|known| known.type_ == ALLOWED && known.status == status);
        let since = since.map_or_else(|| meta::seconds(now), |known| known.last_transition_time.clone());
        conditions.retain(|known| known.type_ != ALLOWED);
        conditions.push(Condition {
            type_: ALLOWED.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since,
            observed_generation: budget.metadata.generation,
        });
    }
}
