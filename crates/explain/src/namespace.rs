//! A namespace: its quotas, and while it is being deleted what is left in it and what keeps that.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};

use crate::common::strings;
use crate::explanation::{Explanation, Step};
use crate::finalizers;
use crate::meta::{is_deleting, name};
use crate::related::Related;
use crate::replica_set::used;
use crate::words::{count, list, number, reason_and_message};

/// So many objects that are left are named.
const CONTENT: usize = 10;

pub(crate) fn explain(out: &mut Explanation, namespace: &Namespace, related: &Related, _now: Timestamp) {
    let status = namespace.status.clone().unwrap_or_default();
    out.has(format!("the phase {}", status.phase.as_deref().unwrap_or("Active")));
    for quota in related.all::<ResourceQuota>("resourcequotas") {
        out.has(format!("the ResourceQuota {}: {}", name(&quota.metadata), used(&quota)));
    }
    if !is_deleting(&namespace.metadata) {
        out.next(Step::new("Nobody", "needs to act"));
        return;
    }
    for condition in status.conditions.iter().flatten().filter(|condition| condition.status == "True") {
        out.why(reason_and_message(condition.reason.as_ref(), condition.message.as_ref()));
    }
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    for finalizer in &finalizers {
        let step = match finalizer.as_str() {
            "kubernetes" => {
                let what = match related.content.len() {
                    0 => "everything in it to be gone".to_owned(),
                    left => format!("{} in it to be gone", count(number(left), "object")),
                };
                Step::new("The namespace controller", "lets it go").waits_for(what)
            }
            other => Step::new(format!("Whoever owns the finalizer {other}"), "removes it from spec.finalizers"),
        };
        out.next(step);
    }
    for (called, object) in related.content.iter().take(CONTENT) {
        let keepers = strings(&object["metadata"]["finalizers"]);
        if keepers.is_empty() {
            out.why(format!("{called} is left"));
            continue;
        }
        out.why(format!("{called} is left, kept by the finalizers {}", list(&keepers)));
        for finalizer in &keepers {
            let (step, why) = finalizers::step(finalizer, object, called);
            out.next(step);
            out.why(why.unwrap_or_default());
        }
    }
    if related.content.len() > CONTENT {
        out.why(format!("{} more are left", related.content.len() - CONTENT));
    }
}
