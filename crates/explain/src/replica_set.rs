//! A ReplicaSet: pods to create and delete, and what holds it.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use machinery::phase::ConditionStatus;

use crate::common::{last_seen, latest_event};
use crate::explanation::{Explanation, Step};
use crate::meta::{available_at, has_ended, is_deleting, is_ready, name, pods_of};
use crate::pod;
use crate::related::Related;
use crate::words::{count, list, number, reason_and_message, since};

/// So many pods that are not as they should be are named.
const PODS: usize = 4;

pub(crate) fn explain(out: &mut Explanation, set: &ReplicaSet, related: &Related, now: Timestamp) {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    out.wants(count(wanted, "pod"));
    let status = set.status.clone().unwrap_or_default();
    out.has(crate::words::pods(status.replicas, status.ready_replicas, status.available_replicas));
    if is_deleting(&set.metadata) {
        return;
    }
    let before = out.next.len();
    step(out, set, &pods_of(&related.all::<Pod>("pods"), &set.metadata), related, now);
    if out.next.len() == before && related.knows("pods") {
        out.next(Step::new("Nobody", "needs to act: it has what it wants"));
    }
}

/// What its controller and its pods do next; nothing if it has what it wants.
pub(crate) fn step(out: &mut Explanation, set: &ReplicaSet, pods: &[Pod], related: &Related, now: Timestamp) {
    let spec = set.spec.clone().unwrap_or_default();
    let wanted = i64::from(spec.replicas.unwrap_or(1));
    let alive: Vec<&Pod> = pods.iter().filter(|pod| !has_ended(pod) && !is_deleting(&pod.metadata)).collect();
    let there = number(alive.len());
    let called = name(&set.metadata);
    if related.knows("pods") && there < wanted {
        let mut conditions = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let failure = conditions.find(|it| it.type_ == "ReplicaFailure" && it.status == ConditionStatus::True);
        let does = format!("creates {} of {called}", count(wanted - there, "more pod"));
        let step = Step::new("The ReplicaSet controller", does);
        let refused = failure.map(|it| reason_and_message(it.reason.as_ref(), it.message.as_ref()));
        refusal(out, step, refused, ("ReplicaSet", called), related, now);
    } else if there > wanted {
        out.next(Step::new(
            "The ReplicaSet controller",
            format!("deletes {} of {called}", count(there - wanted, "pod")),
        ));
    }
    unavailable(out, &alive, spec.min_ready_seconds.unwrap_or(0), now);
}

/// A step that creates pods, and what refuses them where it was refused.
pub(crate) fn refusal(
    out: &mut Explanation,
    step: Step,
    condition: Option<String>,
    (kind, called): (&str, &str),
    related: &Related,
    now: Timestamp,
) {
    let event = latest_event(related, kind, called, &["FailedCreate"]);
    let told = event.as_ref().and_then(|event| event.message.clone());
    let Some(why) = condition.or_else(|| told.clone()) else {
        out.next(step);
        return;
    };
    let quotas: Vec<ResourceQuota> = related.all("resourcequotas");
    let full = quotas.iter().find(|quota| why.contains(&format!("exceeded quota: {},", name(&quota.metadata))));
    out.next(step.waits_for(match full {
        Some(quota) => format!(
            "room in the ResourceQuota {} ({}); it tries again after growing delays",
            name(&quota.metadata),
            used(quota)
        ),
        None => "its pods not to be refused any more; it tries again after growing delays".to_owned(),
    }));
    let seen = event.as_ref().filter(|_| Some(&why) == told.as_ref()).and_then(last_seen);
    out.why(format!("{why}{}", seen.map(|at| format!(" ({} ago)", since(at, now))).unwrap_or_default()));
}

/// `pods 2 of 2, requests.cpu 1 of 4`.
pub(crate) fn used(quota: &ResourceQuota) -> String {
    let status = quota.status.clone().unwrap_or_default();
    let (hard, used) = (status.hard.unwrap_or_default(), status.used.unwrap_or_default());
    let parts: Vec<String> = hard
        .iter()
        .map(|(what, most)| format!("{what} {} of {}", used.get(what).map_or("0", |used| used.0.as_str()), most.0))
        .collect();
    list(&parts)
}

/// The pods that are not available, and why.
pub(crate) fn unavailable(out: &mut Explanation, pods: &[&Pod], min_ready_seconds: i32, now: Timestamp) {
    let mut more = 0;
    let mut shown = 0;
    for pod in pods {
        let called = name(&pod.metadata);
        let step = match (is_ready(pod), available_at(pod, min_ready_seconds)) {
            (true, Some(at)) if at > now => Step::new(format!("The pod {called}"), "counts as available")
                .waits_for(format!("having been ready for {min_ready_seconds}s"))
                .until(Some(at)),
            (true, _) => continue,
            (false, _) => Step::new(format!("The pod {called}"), "becomes ready"),
        };
        if shown == PODS {
            more += 1;
            continue;
        }
        shown += 1;
        match pod::not_ready(pod) {
            Some(why) => out.next(step.waits_for(because(pod, &why))),
            None => out.next(step),
        }
    }
    if more > 0 {
        out.why(format!("{} are not available either", count(more, "other pod")));
    }
}

/// That a pod is waited for, why, and where to read more.
pub(crate) fn because(pod: &Pod, why: &str) -> String {
    format!("this: {why} (coracle explain pod/{}{})", name(&pod.metadata), namespace_option(pod))
}

/// The option that names a pod's namespace, where it is needed.
pub(crate) fn namespace_option(pod: &Pod) -> String {
    match pod.metadata.namespace.as_deref() {
        None | Some("default") => String::new(),
        Some(namespace) => format!(" -n {namespace}"),
    }
}
