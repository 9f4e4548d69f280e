//! Eviction: a delete of a pod that asks its PodDisruptionBudget first.
//!
//! The budget is charged before the pod goes: what was let go is in `status.disruptedPods` until the disruption controller
//! sees it leave, so that no two evictions spend the same allowance.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, DeleteOptions, Preconditions};
use machinery::gvk::GroupResource;
use machinery::selector::LabelSelector;
use machinery::status::{ApiError, Cause, Reason};

use crate::Registry;
use crate::kind::Subresource;
use crate::meta;
use crate::object::{Object, cast, cast_mut};
use crate::pipeline::decode::{self, report_for};
use crate::pipeline::{Action, Stored, managed_fields};
use crate::request::{DeleteRequest, ListRequest, Target, WriteOptions, Written};
use crate::subresource::success;

/// More pods than this are not waited for at once; upstream's figure.
const MOST_DISRUPTED: usize = 2_000;
/// In what time a budget that is behind its specification should have caught up, in seconds.
const CATCHING_UP: u32 = 10;
/// The condition of a budget that says whether it allows anything.
const ALLOWED: &str = "DisruptionAllowed";

impl Registry {
    /// Evicts a pod: the body is an `Eviction`. Answers with a `Status` of success.
    ///
    /// # Errors
    /// 404 when there is no such pod, 429 when a budget does not allow it now, 500 when several budgets claim the pod.
    pub async fn evict(&self, target: &Target, body: &[u8], options: &WriteOptions) -> Result<Written, ApiError> {
        let mut report = report_for(options);
        let eviction: Eviction = decode::other(body, &mut report, options)?;
        let mut warnings = report.into_findings();
        let validate = |eviction: &mut Eviction| {
            if eviction.metadata.name.as_deref().is_some_and(|name| !name.is_empty() && name != target.name) {
                return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
            }
            Ok(())
        };
        let subresource = Subresource::Eviction;
        let eviction = self.admit_subresource(target, subresource, eviction, options, &mut warnings, validate).await?;
        let Stored { entry, object } = self.load(target)?;
        let asked = eviction.delete_options.unwrap_or_default();
        let dry_run = options.dry_run || asked.dry_run.as_ref().is_some_and(|stages| !stages.is_empty());
        let pod: &Pod = cast(object.as_ref())?;
        let mut request = delete_request(&asked)?;
        request.dry_run = dry_run;
        request.user.clone_from(&options.user);
        request.field_manager.clone_from(&options.field_manager);
        if is_of_use(pod)
            && let Some(budget) = self.budget_of(pod, target).await?
            && self.spend_budget(pod, &budget, &request.write_options()).await? == Charge::Unhealthy
            && request.resource_version.is_none()
        {
            // It was let go for what it is now: if it got well meanwhile, the budget must be asked.
            request.resource_version = Some(entry.revision.to_string());
        }
        self.go(target, request).await?;
        Ok(success(warnings))
    }

    /// The budget that selects `pod`.
    async fn budget_of(&self, pod: &Pod, target: &Target) -> Result<Option<PodDisruptionBudget>, ApiError> {
        let resources = self.resources();
        let Some(budgets) = resources.get("policy", "v1", "poddisruptionbudgets") else {
            return Ok(None);
        };
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut found = None;
        let all = Target::collection(budgets, target.namespace.as_str());
        for entry in self.list(&all, &ListRequest::default()).await?.entries {
            let object = budgets.load(&managed_fields::split(&entry.value).0).map_err(ApiError::internal)?;
            let budget: &PodDisruptionBudget = cast(object.as_ref())?;
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            if !LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(&labels)) {
                continue;
            }
            if found.replace(budget.clone()).is_some() {
                let message =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(ApiError::new(500, Reason::InternalError, message));
            }
        }
        Ok(found)
    }

    /// Takes the pod out of what its budget allows.
    async fn spend_budget(
        &self,
        pod: &Pod,
        budget: &PodDisruptionBudget,
        options: &WriteOptions,
    ) -> Result<Charge, ApiError> {
        if !is_ready(pod) && lets_unhealthy_go(budget) {
            return Ok(Charge::Unhealthy);
        }
        let resources = self.resources();
        let budgets = resources.get("policy", "v1", "poddisruptionbudgets").ok_or_else(ApiError::no_such_resource)?;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let target = Target::object(budgets, namespace, budget.metadata.name.clone().unwrap_or_default());
        let name = pod.metadata.name.clone().unwrap_or_default();
        let now = Timestamp::now();
        let spent = |_: &Stored, budget: &mut dyn Object| spend(cast_mut(budget)?, &name, now);
        let charged = self.guaranteed_update(&target, ("evict", options), spent).await;
        match charged {
            // It has just been deleted: nothing protects the pod any more.
            Err(error) if error.code == 404 => Ok(Charge::Spent),
            Err(error) => Err(error),
            Ok(_) => Ok(Charge::Spent),
        }
    }

    /// Notes why the pod goes, and deletes it.
    async fn go(&self, target: &Target, mut request: DeleteRequest) -> Result<(), ApiError> {
        let now = Timestamp::now();
        let asked = request.resource_version.clone();
        let stored = self
            .guaranteed_update(target, ("evict", &request.write_options()), |Stored { entry, .. }, pod| {
                if asked.as_ref().is_some_and(|asked| *asked != entry.revision.to_string()) {
                    let resource = GroupResource::from_static("", "pods");
                    return Err(ApiError::conflict(&resource, &target.name, machinery::status::MODIFIED));
                }
                mark(cast_mut(pod)?, now);
                Ok(())
            })
            .await?;
        if request.resource_version.is_some() && !request.dry_run {
            let object = target.resource.load(&managed_fields::split(&stored).0).map_err(ApiError::internal)?;
            request.resource_version.clone_from(&object.meta().resource_version);
        }
        // Upstream: who may evict has been asked; that is not asked once more as a DELETE of the pod.
        self.delete_as(Action::DeleteEvicted, target, &request).await?;
        Ok(())
    }
}

/// How a budget let a pod go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    /// The pod was taken out of what is allowed.
    Spent,
    /// The pod is of no use to the budget as it is.
    Unhealthy,
}

fn delete_request(asked: &DeleteOptions) -> Result<DeleteRequest, ApiError> {
    let Preconditions { uid, resource_version } = asked.preconditions.clone().unwrap_or_default();
    let request = DeleteRequest {
        grace_period: asked.grace_period_seconds,
        uid,
        resource_version,
        propagation: asked.propagation_policy.as_deref().map(DeleteRequest::parse_propagation).transpose()?,
        orphan_dependents: asked.orphan_dependents,
        ..DeleteRequest::default()
    };
    request.check()?;
    Ok(request)
}

/// Whether a budget could count on the pod: it has started, has not ended, and is not on its way out.
fn is_of_use(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && pod.metadata.deletion_timestamp.is_none()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a pod that is not ready may go without asking: always, or as long as the others are as many as they should be.
fn lets_unhealthy_go(budget: &PodDisruptionBudget) -> bool {
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.clone().unwrap_or_default();
    let desired = status.desired_healthy.unwrap_or_default();
    policy == Some("AlwaysAllow") || (desired > 0 && status.current_healthy.unwrap_or_default() >= desired)
}

/// Takes one disruption from what the budget allows.
fn spend(budget: &mut PodDisruptionBudget, pod: &str, now: Timestamp) -> Result<(), ApiError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or_default();
    let status: &mut PodDisruptionBudgetStatus = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or_default() < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refusal(why, CATCHING_UP));
    }
    let disrupted = status.disrupted_pods.get_or_insert_default();
    let resource = GroupResource::from_static("policy", "poddisruptionbudgets");
    if disrupted.len() > MOST_DISRUPTED {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden(&resource, &name, why));
    }
    let allowed = status.disruptions_allowed.unwrap_or_default();
    if allowed < 0 {
        return Err(ApiError::forbidden(&resource, &name, "pdb disruptions allowed is negative"));
    }
    if allowed == 0 {
        let failed = status.conditions.iter().flatten().find(|one| one.type_ == ALLOWED && one.reason == "SyncFailed");
        let why = match failed {
            Some(failed) => {
                format!(
                    "The disruption budget {name} does not currently allow evictions because it failed sync: {}",
                    failed.message
                )
            }
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                status.desired_healthy.unwrap_or_default(),
                status.current_healthy.unwrap_or_default()
            ),
        };
        return Err(refusal(why, 0));
    }
    disrupted.insert(pod.to_owned(), meta::time(now));
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        let condition = Condition {
            type_: ALLOWED.to_owned(),
            status: "False".to_owned(),
            reason: "InsufficientPods".to_owned(),
            message: String::new(),
            last_transition_time: meta::time(now),
            observed_generation: status.observed_generation,
        };
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|known| known.type_ != ALLOWED);
        conditions.push(condition);
    }
    Ok(())
}

fn refusal(why: String, retry_after_seconds: u32) -> ApiError {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    ApiError::too_many_requests(message, retry_after_seconds).with_cause(Cause {
        reason: "DisruptionBudget".to_owned(),
        message: why,
        field: String::new(),
    })
}

fn mark(pod: &mut Pod, now: Timestamp) {
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let known = conditions.iter().any(|one| one.type_ == "DisruptionTarget" && one.status == "True");
    if known {
        return;
    }
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: Some(meta::time(now)),
        observed_generation: generation,
        ..PodCondition::default()
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn budget(status: Value, policy: Option<&str>) -> PodDisruptionBudget {
        from_value(json!({
            "metadata": { "name": "b", "generation": 2 }, "spec": { "unhealthyPodEvictionPolicy": policy }, "status": status,
        }))
        .expect("budget")
    }

    #[test]
    fn a_budget_is_spent_until_nothing_is_left() {
        let now = Timestamp::UNIX_EPOCH;
        let mut plenty = budget(
            json!({ "observedGeneration": 2, "disruptionsAllowed": 2, "desiredHealthy": 1, "currentHealthy": 3 }),
            None,
        );
        for (pod, left) in [("a", 1), ("b", 0)] {
            spend(&mut plenty, pod, now).expect("room");
            assert_eq!(plenty.status.as_ref().and_then(|status| status.disruptions_allowed), Some(left));
        }
        let refused = spend(&mut plenty, "c", now).expect_err("no room");
        let details = refused.details.clone().expect("details");
        assert_eq!((refused.code, details.retry_after_seconds), (429, 0));
        assert_eq!(refused.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        assert_eq!(details.causes[0].reason, "DisruptionBudget");
        assert_eq!(details.causes[0].message, "The disruption budget b needs 1 healthy pods and has 3 currently");
        let status = plenty.status.expect("status");
        assert_eq!(status.conditions.expect("conditions")[0].reason, "InsufficientPods");
        assert_eq!(status.disrupted_pods.expect("pods").len(), 2);
        let stale = spend(&mut budget(json!({ "observedGeneration": 1 }), None), "a", now).expect_err("stale");
        assert_eq!(stale.details.expect("details").retry_after_seconds, 10);
    }

    #[test]
    fn the_unhealthy_may_go_as_long_as_the_others_are_enough() {
        for (status, policy, expect) in [
            (json!({ "desiredHealthy": 2, "currentHealthy": 2 }), None, true),
            (json!({ "desiredHealthy": 2, "currentHealthy": 1 }), None, false),
            (json!({ "desiredHealthy": 2, "currentHealthy": 1 }), Some("AlwaysAllow"), true),
            (json!({ "desiredHealthy": 0, "currentHealthy": 0 }), Some("IfHealthyBudget"), false),
        ] {
            assert_eq!(lets_unhealthy_go(&budget(status.clone(), policy)), expect, "{status}");
        }
    }
}
