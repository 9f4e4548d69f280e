//! What may stand in a Job's policies: which failures count, and what is success.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
    SuccessPolicyRule,
};
use machinery::field::{ErrorList, FieldError, Path};

use crate::check::{Report, non_negative, one_of, optional_one_of, qualified_name};
use crate::common::{list, text};

/// The most rules of a policy, and patterns of a rule.
const MOST_RULES: usize = 20;
/// The most exit codes of a rule.
const MOST_CODES: usize = 255;
/// The most bytes in which indexes are listed.
const LONGEST_INDEXES: usize = 64 * 1024;

/// Validates the policies of a Job.
pub(super) fn validate(errors: &mut ErrorList, path: &Path, spec: &JobSpec) {
    let replaces: &[&str] =
        if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    optional_one_of(errors, &path.child("podReplacementPolicy"), &spec.pod_replacement_policy, replaces);
    if let Some(policy) = &spec.pod_failure_policy {
        let pod = spec.template.spec.as_ref();
        let containers = pod.map(|pod| pod.containers.iter().chain(list(&pod.init_containers)));
        let names: BTreeSet<&str> = containers.into_iter().flatten().map(|container| container.name.as_str()).collect();
        let path = path.child("podFailurePolicy").child("rules");
        few(errors, &path, policy.rules.len(), MOST_RULES);
        for (index, rule) in policy.rules.iter().enumerate() {
            failure(errors, &path.index(index), rule, spec.backoff_limit_per_index.is_some(), &names);
        }
    }
    if let Some(policy) = &spec.success_policy {
        let path = path.child("successPolicy");
        if text(&spec.completion_mode) != "Indexed" {
            errors.invalid(&path, policy, "requires indexed completion mode");
            return;
        }
        let path = path.child("rules");
        if policy.rules.is_empty() {
            errors.required(&path, "at least one rules must be specified when the successPolicy is specified");
        }
        few(errors, &path, policy.rules.len(), MOST_RULES);
        for (index, rule) in policy.rules.iter().enumerate() {
            success(errors, &path.index(index), rule, spec.completions.unwrap_or_default());
        }
    }
}

fn few(errors: &mut ErrorList, path: &Path, count: usize, most: usize) {
    if count > most {
        errors.push(FieldError::too_many(path, count, most));
    }
}

fn failure(
    errors: &mut ErrorList,
    path: &Path,
    rule: &PodFailurePolicyRule,
    by_index: bool,
    containers: &BTreeSet<&str>,
) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    match rule.action.as_str() {
        "FailIndex" if !by_index => {
            errors.invalid(&path.child("action"), &rule.action, "requires the backoffLimitPerIndex to be set");
        }
        action => known(errors, &path.child("action"), action, &ACTIONS),
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(errors, &path.child("onExitCodes"), codes, containers);
    }
    let conditions = list(&rule.on_pod_conditions);
    let below = path.child("onPodConditions");
    few(errors, &below, conditions.len(), MOST_RULES);
    for (index, pattern) in conditions.iter().enumerate() {
        condition(errors, &below.index(index), pattern);
    }
    match (rule.on_exit_codes.is_some(), conditions.is_empty()) {
        (true, false) => {
            errors.push(omitted(path, "specifying both OnExitCodes and OnPodConditions is not supported"));
        }
        (false, true) => errors.push(omitted(path, "specifying one of OnExitCodes and OnPodConditions is required")),
        _ => {}
    }
}

/// A value that is wrong, and not shown.
fn omitted(path: &Path, detail: &str) -> FieldError {
    FieldError { value: None, ..FieldError::invalid(path, (), detail) }
}

/// A word that must be there, and be one of these.
fn known(errors: &mut ErrorList, path: &Path, value: &str, valid: &[&str]) {
    if value.is_empty() {
        let quoted: Vec<String> = valid.iter().map(|value| format!("\"{value}\"")).collect();
        errors.required(path, &format!("valid values: [{}]", quoted.join(" ")));
    } else {
        one_of(errors, path, value, valid);
    }
}

fn condition(errors: &mut ErrorList, path: &Path, pattern: &PodFailurePolicyOnPodConditionsPattern) {
    qualified_name(errors, &path.child("type"), &pattern.type_);
    known(errors, &path.child("status"), text(&pattern.status), &["False", "True", "Unknown"]);
}

fn exit_codes(
    errors: &mut ErrorList,
    path: &Path,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &BTreeSet<&str>,
) {
    known(errors, &path.child("operator"), &codes.operator, &["In", "NotIn"]);
    if let Some(name) = codes.container_name.as_deref().filter(|name| !containers.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, detail);
    }
    let path = path.child("values");
    if codes.values.is_empty() {
        errors.invalid(&path, &codes.values, "at least one value is required");
    }
    few(errors, &path, codes.values.len(), MOST_CODES);
    let mut seen = BTreeSet::new();
    for (index, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.invalid(&path.index(index), code, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&path.index(index), code);
        }
    }
    if !codes.values.is_sorted() {
        errors.invalid(&path, &codes.values, "must be ordered");
    }
}

fn success(errors: &mut ErrorList, path: &Path, rule: &SuccessPolicyRule, completions: i32) {
    if rule.succeeded_indexes.is_none() && rule.succeeded_count.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut named = None;
    if let Some(indexes) = &rule.succeeded_indexes {
        let path = path.child("succeededIndexes");
        if indexes.len() > LONGEST_INDEXES {
            errors.push(FieldError::too_long(&path, (), LONGEST_INDEXES));
        }
        match count(indexes, completions) {
            Ok(count) => named = Some(count),
            Err(why) => errors.invalid(&path, indexes, format!("error parsing succeededIndexes: {why}")),
        }
    }
    let Some(wanted) = rule.succeeded_count else { return };
    let path = path.child("succeededCount");
    non_negative(errors, &path, wanted);
    if wanted > completions {
        let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&path, wanted, detail);
    }
    if let Some(named) = named.filter(|named| wanted > *named) {
        let detail = format!(
            "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&path, wanted, detail);
    }
}

/// How many indexes `1,3-5` names; all below `completions`, in rising order.
fn count(indexes: &str, completions: i32) -> Result<i32, String> {
    let (mut total, mut last) = (0, None);
    for interval in indexes.split(',').filter(|_| !indexes.is_empty()) {
        let limits: Vec<&str> = interval.split('-').collect();
        if limits.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts \
                 separated by '-'"
            ));
        }
        let mut first = None;
        for limit in limits {
            let index: i32 =
                limit.parse().map_err(|_| format!("cannot convert string to integer for index: {limit:?}"))?;
            if index >= completions {
                return Err(format!("too large index: {limit:?}"));
            }
            if let Some(last) = last.filter(|last| *last >= index) {
                return Err(format!("non-increasing order, previous: {last}, current: {index}"));
            }
            total += first.map_or(1, |first| index - first);
            (first, last) = (Some(index), Some(index));
        }
    }
    Ok(total)
}
