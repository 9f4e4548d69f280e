//! core/v1 Node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as Object, NodeSpec, NodeStatus, Taint};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::phase::ConditionStatus;
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, Subresource, cell_age, cell_name, status_apart};
use serde_json::Value;

use super::check::{Report, cidr, label_name};
use super::common::{blank, canonical_quantities, entries, list, or_none, text};
use super::pod::resources::validate_quantity;
use super::pod::scheduling::EFFECTS;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

/// Nodes.
pub(crate) struct Node;

impl Kind for Node {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["no"],
        subresources: &[Subresource::Proxy, Subresource::Status],
        selectable: &["spec.unschedulable"],
        ..Descriptor::cluster("", "v1", "Node", "nodes")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        // `podCIDR` is the older name of the first of `podCIDRs`.
        match (list(&spec.pod_cidrs).first().cloned(), &spec.pod_cidr) {
            (Some(first), _) => spec.pod_cidr = Some(first),
            (None, Some(only)) if !only.is_empty() => spec.pod_cidrs = Some(vec![only.clone()]),
            _ => {}
        }
        if let Some(status) = &mut object.status {
            canonical_quantities(&mut status.capacity);
            canonical_quantities(&mut status.allocatable);
            if status.allocatable.is_none() {
                status.allocatable.clone_from(&status.capacity);
            }
        }
    }

    // A new Node keeps the status it comes with: the kubelet registers with its capacity.

    status_apart!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = NodeSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        validate_taints(&mut errors, &Path::new("metadata").child("taints"), list(&spec.taints));
        validate_resources(&mut errors, object);
        validate_pod_cidrs(&mut errors, list(&spec.pod_cidrs));
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        let empty = NodeSpec::default();
        let (new, old) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
        if !list(&old.pod_cidrs).is_empty() && new.pod_cidrs != old.pod_cidrs {
            errors.forbidden(&path.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
        }
        if !blank(&old.provider_id) && new.provider_id != old.provider_id {
            errors.forbidden(
                &path.child("providerID"),
                "node updates may not change providerID except from \"\" to valid",
            );
        }
        if text(&new.external_id) != text(&old.external_id) {
            errors.forbidden(&path.child("externalID"), "may not be updated");
        }
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_resources(&mut errors, new);
        let path = Path::new("status").child("addresses");
        let addresses = new.status.as_ref().map_or(&[][..], |status| list(&status.addresses));
        for (index, address) in addresses.iter().enumerate() {
            if addresses[..index].contains(address) {
                errors.duplicate(&path.index(index), address);
            }
        }
        errors
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", unschedulable(object).to_string())]
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Status", "Whether the node is ready and takes pods."),
            Column::string("Roles", "Roles of the node, from its labels."),
            Column::age(),
            Column::string("Version", "Version of the kubelet."),
            Column::wide("Internal-IP", "Address inside the cluster."),
            Column::wide("External-IP", "Address outside of the cluster."),
            Column::wide("OS-Image", "Operating system."),
            Column::wide("Kernel-Version", "Version of the kernel."),
            Column::wide("Container-Runtime", "Container runtime and its version."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let empty = NodeStatus::default();
        let status = object.status.as_ref().unwrap_or(&empty);
        let info = status.node_info.clone().unwrap_or_default();
        let or_unknown = |value: String| Value::from(if value.is_empty() { "<unknown>".to_owned() } else { value });
        vec![
            cell_name(&object.metadata),
            condition(object, status).into(),
            roles(object).into(),
            cell_age(&object.metadata, now),
            info.kubelet_version.into(),
            or_none(address(status, "InternalIP")),
            or_none(address(status, "ExternalIP")),
            or_unknown(info.os_image),
            or_unknown(info.kernel_version),
            or_unknown(info.container_runtime_version),
        ]
    }
}

fn unschedulable(object: &Object) -> bool {
    object.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}

fn condition(object: &Object, status: &NodeStatus) -> String {
    let ready = list(&status.conditions).iter().find(|condition| condition.type_ == "Ready");
    let mut words =
        vec![ready.map_or("Unknown", |ready| if ready.status == ConditionStatus::True { "Ready" } else { "NotReady" })];
    if unschedulable(object) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(object: &Object) -> String {
    let roles: BTreeSet<&str> = entries(&object.metadata.labels)
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => Some(value.as_str()),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(status: &'a NodeStatus, kind: &str) -> &'a str {
    list(&status.addresses).iter().find(|address| address.type_ == kind).map_or("", |address| &address.address)
}

fn validate_taints(errors: &mut ErrorList, path: &Path, taints: &[Taint]) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        label_name(errors, &path.child("key"), &taint.key);
        let messages = validate::label_value(text(&taint.value));
        if !messages.is_empty() {
            errors.invalid(&path.child("value"), text(&taint.value), messages.join(";"));
        }
        if taint.effect.is_empty() {
            errors.required(&path.child("effect"), "");
        } else if !EFFECTS.contains(&taint.effect.as_str()) {
            errors.not_supported(&path.child("effect"), &taint.effect, &EFFECTS);
        }
        if !seen.insert((&taint.key, &taint.effect)) {
            let mut duplicate = FieldError::duplicate(&path, taint);
            "taints must be unique by key and effect pair".clone_into(&mut duplicate.detail);
            errors.push(duplicate);
        }
    }
}

fn validate_resources(errors: &mut ErrorList, object: &Object) {
    let Some(status) = &object.status else { return };
    for (side, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, amount) in entries(amounts) {
            validate_quantity(errors, &Path::new("status").child(side).child(name.clone()), name, amount);
        }
    }
}

fn validate_pod_cidrs(errors: &mut ErrorList, cidrs: &[String]) {
    let path = Path::new("spec").child("podCIDRs");
    for (index, value) in cidrs.iter().enumerate() {
        cidr(errors, &path.index(index), value);
        if cidrs[..index].contains(value) {
            errors.duplicate(&path.index(index), value);
        }
    }
    let six = cidrs.iter().filter(|value| value.contains(':')).count();
    if cidrs.len() > 1 && (cidrs.len() > 2 || six != 1) {
        errors.invalid(&path, cidrs, "may specify no more than one CIDR for each IP family");
    }
}
