//! A DaemonSet: on which nodes it runs, and why not on the others.

use std::collections::BTreeMap;

use controllers::preview::{self, Place, Preview, add_tolerations, place, target};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::placement::{taints, tolerates, wants_node};

use crate::explanation::{Explanation, Step};
use crate::meta::{has_ended, is_deleting, name, pods_of};
use crate::related::Related;
use crate::replica_set::{refusal, unavailable};
use crate::words::{count, list, number, written};

const CONTROLLER: &str = "The DaemonSet controller";

pub(crate) fn explain(out: &mut Explanation, set: &DaemonSet, related: &Related, now: Timestamp) {
    let Some(spec) = &set.spec else { return };
    out.wants("a pod on each node that its selector, affinity and tolerations allow");
    let status = set.status.clone().unwrap_or_default();
    out.has(format!(
        "{} where it belongs, {} of the latest template, {} ready, {} available; it belongs on {}",
        count(status.current_number_scheduled, "pod"),
        status.updated_number_scheduled.unwrap_or(0),
        status.number_ready,
        status.number_available.unwrap_or(0),
        count(status.desired_number_scheduled, "node")
    ));
    let needed = ["nodes", "pods", "controllerrevisions.apps"];
    if is_deleting(&set.metadata) || !needed.iter().all(|needed| related.knows(needed)) {
        return;
    }
    let mut body = spec.template.spec.clone().unwrap_or_default();
    add_tolerations(&mut body);
    let pods = pods_of(&related.all::<Pod>("pods"), &set.metadata);
    let nodes = related.all::<Node>("nodes");
    excluded(out, &body, &nodes);
    let revisions = related.all("controllerrevisions.apps");
    let (plan, hash) = preview::daemon_set(set, pods.clone(), nodes.clone(), revisions, now);
    acts(out, set, &plan, &pods, related, now);
    let (going, alive): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| is_deleting(&pod.metadata));
    for pod in going {
        let step = Step::new(CONTROLLER, format!("goes on at {}", target(pod).unwrap_or("its node")));
        out.next(step.waits_for(format!("the pod {} to be gone", name(&pod.metadata))));
    }
    let running: Vec<&Pod> = alive.into_iter().filter(|pod| !has_ended(pod)).collect();
    unavailable(out, &running, spec.min_ready_seconds.unwrap_or(0), now);
    updates(out, set, &plan, &running, &hash);
    if out.next.is_empty() {
        out.next(Step::new("Nobody", "needs to act: it has what it wants"));
    }
}

/// The nodes on which it has no business, by reason.
fn excluded(out: &mut Explanation, body: &PodSpec, nodes: &[Node]) {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let tolerations = body.tolerations.as_deref().unwrap_or_default();
    for node in nodes {
        let reason = match place(body, node) {
            Place::Run => continue,
            _ if body
                .node_name
                .as_deref()
                .is_some_and(|wanted| !wanted.is_empty() && wanted != name(&node.metadata)) =>
            {
                "the template names another node".to_owned()
            }
            _ if !wants_node(body, node) => "its selector or affinity asks for another node".to_owned(),
            place => {
                let repels = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
                let taints: Vec<String> = taints(node)
                    .iter()
                    .filter(|taint| repels(&taint.effect) && !tolerates(tolerations, taint))
                    .map(|taint| match taint.value.as_deref() {
                        None | Some("") => format!("{}:{}", taint.key, taint.effect),
                        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
                    })
                    .collect();
                let stays = if place == Place::Stay { "; a pod that is there stays" } else { "" };
                format!("it does not tolerate {}{stays}", list(&taints))
            }
        };
        reasons.entry(reason).or_default().push(name(&node.metadata));
    }
    for (reason, nodes) in reasons {
        out.why(format!("not on {}: {reason}", list(&nodes)));
    }
}

/// What its controller does now.
fn acts(out: &mut Explanation, set: &DaemonSet, plan: &Preview, pods: &[Pod], related: &Related, now: Timestamp) {
    if !plan.create.is_empty() {
        let step = Step::new(
            CONTROLLER,
            format!("creates {} for {}", count(number(plan.create.len()), "pod"), list(&plan.create)),
        );
        refusal(out, step, None, ("DaemonSet", name(&set.metadata)), related, now);
    }
    let deleted = pods.iter().filter(|pod| plan.delete.iter().any(|deleted| deleted == name(&pod.metadata)));
    let (ended, others): (Vec<&Pod>, Vec<&Pod>) = deleted.partition(|pod| has_ended(pod));
    for pod in ended {
        let does = format!("replaces the pod {}, which has ended", name(&pod.metadata));
        out.next(
            Step::new(CONTROLLER, does).waits_for("the back-off of its node, if its pods fail there again and again"),
        );
    }
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|pod| name(&pod.metadata)).collect();
        out.next(Step::new(
            CONTROLLER,
            format!("deletes {}: of an older template, or not where they belong", list(&names)),
        ));
    }
}

/// Pods of an older template that stay for now.
fn updates(out: &mut Explanation, set: &DaemonSet, plan: &Preview, pods: &[&Pod], hash: &str) {
    let is_old = |pod: &&&Pod| {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(preview::POD_REVISION));
        label.map(String::as_str) != Some(hash) && !plan.delete.iter().any(|deleted| deleted == name(&pod.metadata))
    };
    let old: Vec<&str> = pods.iter().filter(is_old).map(|pod| name(&pod.metadata)).collect();
    if old.is_empty() {
        return;
    }
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        let step = Step::new("You", "delete the pods of older templates when it suits you (OnDelete)");
        out.next(step.waits_for(list(&old)));
        return;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let margin = |value: Option<&IntOrString>| value.map_or_else(|| "not set".to_owned(), written);
    let step = Step::new(CONTROLLER, format!("replaces {}", list(&old)));
    out.next(step.waits_for(format!(
        "its other pods to be available (maxUnavailable {}, maxSurge {})",
        margin(rolling.and_then(|rolling| rolling.max_unavailable.as_ref())),
        margin(rolling.and_then(|rolling| rolling.max_surge.as_ref()))
    )));
}
