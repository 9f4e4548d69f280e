//! A StatefulSet: which ordinal is next, and what it waits for. What is created and deleted now is what its controller's plan
//! says; the order is pods upwards, those beyond the size downwards, then the update downwards to the partition.

use std::collections::BTreeMap;

use controllers::preview::{self, Preview};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::explanation::{Explanation, Step};
use crate::meta::{available_at, has_ended, is_deleting, name, pods_of};
use crate::pod;
use crate::related::Related;
use crate::replica_set::{because, refusal};
use crate::words::{count, given, list};

const CONTROLLER: &str = "The StatefulSet controller";

/// The set with its pods by ordinal.
struct Set<'a> {
    meta: &'a ObjectMeta,
    spec: &'a StatefulSetSpec,
    start: i64,
    replicas: i64,
    partition: i64,
    ordered: bool,
    pods: BTreeMap<i64, Pod>,
    /// The name of the revision that it goes to.
    revision: String,
    /// What its controller would do now.
    plan: Preview,
    now: Timestamp,
}

impl Set<'_> {
    fn pod_name(&self, ordinal: i64) -> String {
        format!("{}-{ordinal}", name(self.meta))
    }

    fn ordinals(&self) -> std::ops::Range<i64> {
        self.start..self.start + self.replicas
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let since = available_at(pod, self.spec.min_ready_seconds.unwrap_or(0));
        !is_deleting(&pod.metadata) && !has_ended(pod) && since.is_some_and(|at| at <= self.now)
    }

    fn is_old(&self, pod: &Pod) -> bool {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get(preview::POD_REVISION)) != Some(&self.revision)
    }

    fn is_being_deleted(&self, pod: &str) -> bool {
        self.plan.delete.iter().any(|deleted| deleted == pod)
    }
}

pub(crate) fn explain(out: &mut Explanation, set: &StatefulSet, related: &Related, now: Timestamp) {
    let Some(spec) = &set.spec else { return };
    let strategy = spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
    let ordinal = |pod: &Pod| controllers::pods::ordinal(name(&set.metadata), name(&pod.metadata)).map(i64::from);
    let own = pods_of(&related.all::<Pod>("pods"), &set.metadata);
    let (claims, revisions) = (related.all("persistentvolumeclaims"), related.all("controllerrevisions.apps"));
    let (plan, revision) = preview::stateful_set(set, own.clone(), claims, revisions, now);
    let it = Set {
        meta: &set.metadata,
        spec,
        start: i64::from(spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)),
        replicas: i64::from(spec.replicas.unwrap_or(1)),
        partition: i64::from(rolling.and_then(|rolling| rolling.partition).unwrap_or(0)),
        ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
        pods: own.into_iter().filter_map(|pod| Some((ordinal(&pod)?, pod))).collect(),
        revision,
        plan,
        now,
    };
    wants(out, &it, on_delete);
    has(out, set);
    if is_deleting(&set.metadata) {
        return;
    }
    headless(out, spec, related);
    if !related.knows("pods") || !related.knows("controllerrevisions.apps") {
        return;
    }
    acts(out, &it, related);
    unavailable(out, &it, related);
    shrinks(out, &it);
    updates(out, &it, on_delete);
    if out.next.is_empty() {
        out.next(Step::new("Nobody", "needs to act: it has what it wants"));
    }
}

fn wants(out: &mut Explanation, it: &Set<'_>, on_delete: bool) {
    let (first, last) = (it.start, it.start + it.replicas - 1);
    let names = match it.replicas {
        0 => String::new(),
        1 => format!(": {}", it.pod_name(first)),
        _ => format!(": {} to {}", it.pod_name(first), it.pod_name(last)),
    };
    out.wants(format!("{}{names}", count(it.replicas, "pod")));
    out.wants(match it.ordered {
        true => "one after the other: each starts when those before it are available (OrderedReady)",
        false => "all at once (Parallel)",
    });
    if on_delete {
        out.wants("updates of pods when somebody deletes them (OnDelete)");
    } else if it.partition > 0 {
        let partition = it.partition;
        out.wants(format!("the latest template for ordinals from {} on (partition {partition})", it.start + partition));
    }
    let claims: Vec<&str> =
        it.spec.volume_claim_templates.iter().flatten().map(|claim| name(&claim.metadata)).collect();
    if !claims.is_empty() {
        out.wants(format!("for each pod the claims {}", list(&claims)));
    }
}

fn has(out: &mut Explanation, set: &StatefulSet) {
    let status = set.status.clone().unwrap_or_default();
    out.has(crate::words::pods(status.replicas, status.ready_replicas, status.available_replicas));
    if let (Some(current), Some(update)) =
        (given(status.current_revision.as_ref()), given(status.update_revision.as_ref()))
        && current != update
    {
        let updated = status.updated_replicas.unwrap_or(0);
        out.has(format!("an update under way from {current} to {update}; {} updated", count(updated, "pod")));
    }
}

fn headless(out: &mut Explanation, spec: &StatefulSetSpec, related: &Related) {
    let Some(service) = given(spec.service_name.as_ref()) else { return };
    let there = related.all::<Service>("services").iter().any(|one| one.metadata.name.as_deref() == Some(service));
    if related.knows("services") && !there {
        out.why(format!("its pods have no names in DNS: there is no service {service}, which it names"));
    }
}

/// What its controller does now.
fn acts(out: &mut Explanation, it: &Set<'_>, related: &Related) {
    for pod in &it.plan.create {
        let step = Step::new(CONTROLLER, format!("creates the pod {pod}"));
        refusal(out, step, None, ("StatefulSet", name(it.meta)), related, it.now);
    }
    for (ordinal, pod) in it.pods.iter().rev().filter(|(_, pod)| it.is_being_deleted(name(&pod.metadata))) {
        let why = if !it.ordinals().contains(ordinal) {
            "which is beyond its size".to_owned()
        } else if has_ended(pod) {
            "which has ended, and then creates it again".to_owned()
        } else {
            format!("to create it again from {}", it.revision)
        };
        out.next(Step::new(CONTROLLER, format!("deletes the pod {}, {why}", name(&pod.metadata))));
    }
}

/// The pods that keep it from what comes after them, in the order of their ordinals: with OrderedReady the first.
fn unavailable(out: &mut Explanation, it: &Set<'_>, related: &Related) {
    for ordinal in it.ordinals() {
        let called = it.pod_name(ordinal);
        let Some(pod) = it.pods.get(&ordinal) else {
            behind(out, it, ordinal);
            if it.ordered {
                return;
            }
            continue;
        };
        claims(out, it, &called, related);
        if it.is_available(pod) || it.is_being_deleted(&called) {
            continue;
        }
        if is_deleting(&pod.metadata) {
            let step = Step::new(CONTROLLER, format!("creates the pod {called} again"));
            out.next(step.waits_for("the old one to be gone"));
        } else {
            let seconds = it.spec.min_ready_seconds.unwrap_or(0);
            let until = available_at(pod, seconds).filter(|at| *at > it.now);
            let why = match until {
                Some(_) => format!("having been ready for {seconds}s"),
                None => pod::not_ready(pod).unwrap_or_else(|| "its kubelet".to_owned()),
            };
            let step = Step::new(format!("The pod {called}"), "becomes available");
            out.next(step.waits_for(because(pod, &why)).until(until));
            // Upstream calls it a forced rollback: nothing replaces a pod that never becomes available.
            if it.ordered && it.is_old(pod) && until.is_none() {
                out.next(Step::new(
                    "You",
                    format!("delete the pod {called}, if its template is what is wrong: the update waits for it"),
                ));
            }
        }
        if it.ordered {
            behind(out, it, ordinal);
            return;
        }
    }
}

/// That those behind a pod wait for it.
fn behind(out: &mut Explanation, it: &Set<'_>, ordinal: i64) {
    let last = it.ordinals().end - 1;
    if it.ordered
        && ordinal < last
        && it.ordinals().skip_while(|one| *one <= ordinal).any(|one| !it.pods.contains_key(&one))
    {
        out.why(format!("pods after {} wait until it is available (OrderedReady)", it.pod_name(ordinal)));
    }
}

/// The claims of a pod that are not bound.
fn claims(out: &mut Explanation, it: &Set<'_>, pod: &str, related: &Related) {
    if !related.knows("persistentvolumeclaims") {
        return;
    }
    let there = related.all::<PersistentVolumeClaim>("persistentvolumeclaims");
    for template in it.spec.volume_claim_templates.iter().flatten() {
        let called = format!("{}-{pod}", name(&template.metadata));
        let claim = there.iter().find(|claim| claim.metadata.name.as_ref() == Some(&called));
        let phase = claim.and_then(|claim| claim.status.as_ref()).and_then(|status| status.phase.clone());
        match (claim, phase.as_deref()) {
            (Some(_), Some("Bound")) => {}
            (Some(_), _) => out.why(format!("the claim {called} is not bound; see: coracle explain pvc/{called}")),
            (None, _) => out.why(format!("there is no claim {called}")),
        }
    }
}

/// Pods beyond the size that are still there, from the highest ordinal down.
fn shrinks(out: &mut Explanation, it: &Set<'_>) {
    let extra = it.pods.iter().filter(|(ordinal, _)| !it.ordinals().contains(*ordinal));
    let (going, waiting): (Vec<_>, Vec<_>) = extra.rev().partition(|(_, pod)| is_deleting(&pod.metadata));
    let called = |(_, pod): &(&i64, &Pod)| name(&pod.metadata).to_owned();
    let waiting: Vec<String> = waiting.iter().map(called).filter(|pod| !it.is_being_deleted(pod)).collect();
    let going: Vec<String> = going.iter().map(called).collect();
    if !waiting.is_empty() {
        let step = Step::new(CONTROLLER, format!("deletes {}, beyond its size, one after the other", list(&waiting)));
        out.next(match going.as_slice() {
            [] => step,
            going => step.waits_for(format!("{} to be gone", list(going))),
        });
    } else if !going.is_empty() {
        out.next(Step::new("The kubelet", format!("stops {}, beyond its size", list(&going))));
    }
}

/// Pods of an older revision that stay for now: below the partition, until somebody deletes them, or until others are
/// available.
fn updates(out: &mut Explanation, it: &Set<'_>, on_delete: bool) {
    let old = it.ordinals().filter(|ordinal| {
        let pod = it.pods.get(ordinal);
        pod.is_some_and(|pod| {
            it.is_old(pod) && !is_deleting(&pod.metadata) && !it.is_being_deleted(name(&pod.metadata))
        })
    });
    let names = |ordinals: &[i64]| ordinals.iter().map(|ordinal| it.pod_name(*ordinal)).collect::<Vec<_>>();
    if on_delete {
        let old: Vec<i64> = old.collect();
        if !old.is_empty() {
            let step = Step::new("You", "delete the pods of older templates when it suits you (OnDelete)");
            out.next(step.waits_for(list(&names(&old))));
        }
        return;
    }
    let (kept, due): (Vec<i64>, Vec<i64>) = old.partition(|ordinal| *ordinal < it.start + it.partition);
    if !kept.is_empty() {
        out.why(format!("{} stay as they are: they are below the partition {}", list(&names(&kept)), it.partition));
    }
    let Some(next) = due.last() else { return };
    let unavailable: Vec<i64> =
        it.ordinals().filter(|ordinal| it.pods.get(ordinal).is_none_or(|pod| !it.is_available(pod))).collect();
    let step = Step::new(
        CONTROLLER,
        format!("deletes the pod {} to create it again from {}", it.pod_name(*next), it.revision),
    );
    // One that is not available itself is not waited for here: what helps is said where it is named.
    if it.ordered && unavailable.contains(next) {
        return;
    }
    // What is deleted now comes first, and what is beyond the size does not come back.
    out.next(match (unavailable.as_slice(), it.plan.delete.as_slice()) {
        ([], []) => step,
        ([], going) => step.waits_for(format!("{} to be gone, and what replaces it to be available", list(going))),
        (unavailable, _) => step.waits_for(format!("{} to be available", list(&names(unavailable)))),
    });
}
