//! What keeps an object that is being deleted, and who lets go of it.

use serde_json::Value;

use crate::explanation::Step;

/// The finalizers whose owner is known: the finalizer, who removes it, and when.
const KNOWN: [(&str, &str, &str); 10] = [
    ("foregroundDeletion", "The garbage collector", "the objects that it owns with blockOwnerDeletion to be gone"),
    ("orphan", "The garbage collector", "the objects that it owns to lose their reference to it"),
    ("kubernetes.io/pvc-protection", "The PVC protection controller", "no pod to use the claim"),
    ("kubernetes.io/pv-protection", "The PV protection controller", "no claim to be bound to the volume"),
    ("kubernetes.io/pv-controller", "The volume binder", "what the volume holds to be deleted"),
    ("kubernetes.io/vac-protection", "The VAC protection controller", "no claim or volume to use the class"),
    ("batch.kubernetes.io/job-tracking", "The Job controller", "the pod to have ended and to be counted by its Job"),
    ("service.kubernetes.io/load-balancer-cleanup", "The load balancer's controller", "the load balancer to be gone"),
    (
        "customresourcecleanup.apiextensions.k8s.io",
        "The controller of custom resources",
        "all objects of the kind to be gone",
    ),
    ("kubernetes", "The namespace controller", "everything in the namespace to be gone"),
];

/// What happens next to an object that is being deleted and has this finalizer; and who set it, where that is not clear.
pub(crate) fn step(finalizer: &str, object: &Value, called: &str) -> (Step, Option<String>) {
    if let Some((_, who, what)) = KNOWN.iter().find(|(known, ..)| *known == finalizer) {
        return (Step::new(*who, format!("removes the finalizer {finalizer}")).waits_for(*what), None);
    }
    let by = manager(object, finalizer);
    let who = match &by {
        Some(manager) => format!("Whoever owns the finalizer {finalizer}, which {manager} set,"),
        None => format!("Whoever owns the finalizer {finalizer}"),
    };
    let (what, namespace) = called.split_once(' ').unwrap_or((called, ""));
    let why = format!(
        "{finalizer} is none of Kubernetes' own finalizers: its controller removes it. If that controller is gone for good: \
         kubectl patch {what}{}{namespace} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'",
        if namespace.is_empty() { "" } else { " " }
    );
    (Step::new(who, "removes it, and then the object is gone"), Some(why))
}

/// The field manager that owns a finalizer.
fn manager(object: &Value, finalizer: &str) -> Option<String> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    let key = format!("v:{}", Value::from(finalizer));
    let owns = |entry: &&Value| entry["fieldsV1"]["f:metadata"]["f:finalizers"].get(&key).is_some();
    entries.iter().find(owns)?["manager"].as_str().map(str::to_owned)
}
