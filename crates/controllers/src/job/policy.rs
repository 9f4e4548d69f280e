//! A Job's own rules: which failures of Pods count for what, and when enough has succeeded.

use k8s_openapi::api::batch::v1::{Job, JobSpec, PodFailurePolicyOnExitCodesRequirement};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;
use crate::meta;

/// What a failure of a Pod means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It is as if it had not happened.
    Ignore,
    /// The Pod's index has failed.
    FailIndex,
    /// The Job has failed; why.
    FailJob(String),
}

/// What the failure of `pod` means to `job`: the first rule that matches decides.
pub(crate) fn verdict(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    for (place, rule) in policy.iter().flat_map(|policy| &policy.rules).enumerate() {
        let by_code = rule.on_exit_codes.as_ref().and_then(|codes| exit_code(codes, pod)).map(|(container, code)| {
            format!(
                "Container {container} for pod {}/{} failed with exit code {code} matching {} rule at index {place}",
                meta::namespace(pod),
                meta::name(pod),
                rule.action
            )
        });
        let by_condition = || {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let patterns = rule.on_pod_conditions.iter().flatten();
            let matched = patterns.into_iter().find(|pattern| {
                let status = pattern.status.as_deref().unwrap_or("True");
                conditions.iter().any(|condition| condition.type_ == pattern.type_ && condition.status == status)
            })?;
            Some(format!(
                "Pod {}/{} has condition {} matching {} rule at index {place}",
                meta::namespace(pod),
                meta::name(pod),
                matched.type_,
                rule.action
            ))
        };
        let Some(message) = by_code.or_else(by_condition) else {
            continue;
        };
        return match rule.action.as_str() {
            "FailJob" => Verdict::FailJob(message),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// The container that ended with a code which the requirement matches, and that code.
fn exit_code<'a>(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let ended = |container: &'a ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        Some((container.name.as_str(), code))
    };
    all.filter_map(ended).find(|(name, code)| {
        let named = codes.container_name.as_deref().is_none_or(|wanted| wanted == *name);
        let listed = codes.values.contains(code);
        // Upstream: success is no failure, whatever the rule says.
        *code != 0 && named && if codes.operator == "NotIn" { !listed } else { listed }
    })
}

/// Which rule of the success policy is met, as the condition says it.
pub(crate) fn success(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let completions = spec.completions.unwrap_or_default();
    let rules = &spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(indexes), count) => {
            let wanted = Indexes::parse(indexes, completions);
            wanted.common(succeeded) >= count.unwrap_or_else(|| wanted.total())
        }
        (None, Some(count)) => succeeded.total() >= count,
        (None, None) => false,
    })?;
    Some(format!("Matched rules at index {met}"))
}
