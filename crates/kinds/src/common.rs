//! Small readers that every kind shares: optional fields of `k8s-openapi` types, read as upstream reads Go's zero values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime, ObjectMeta, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::age;
use machinery::quantity::Quantity;
use machinery::selector::LabelSelector as Selector;
use registry::kind::Column;
use serde_json::Value;

pub(crate) use registry::optional::{blank, default_text, entry, list, text};

/// The entries of an optional map.
pub(crate) fn entries<T>(map: &Option<BTreeMap<String, T>>) -> impl Iterator<Item = (&String, &T)> {
    map.iter().flatten()
}

/// How many entries an optional map has.
pub(crate) fn count<T>(map: &Option<BTreeMap<String, T>>) -> usize {
    map.as_ref().map_or(0, BTreeMap::len)
}

/// The exact value of a quantity; `None` if it is malformed, which decoding refuses.
pub(crate) fn quantity(wire: &WireQuantity) -> Option<Quantity> {
    wire.0.parse().ok()
}

/// Rewrites every quantity of a list in its canonical form, rounded up to thousandths, as upstream stores it.
pub(crate) fn canonical_quantities(list: &mut Option<BTreeMap<String, WireQuantity>>) {
    for wire in list.iter_mut().flat_map(BTreeMap::values_mut) {
        canonical_quantity(wire);
    }
}

/// Rewrites one quantity in its canonical form, rounded up to thousandths.
pub(crate) fn canonical_quantity(wire: &mut WireQuantity) {
    if let Some(exact) = quantity(wire) {
        let rounded = Quantity::from_milli(exact.milli_value());
        wire.0 = if rounded > exact { rounded } else { exact }.to_string();
    }
}

/// The owner that manages the object, if any.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    list(&meta.owner_references).iter().find(|owner| owner.controller == Some(true))
}

/// As [`machinery::age::since`], of a time with microseconds.
pub(crate) fn since_micro(time: Option<&MicroTime>, now: Timestamp) -> String {
    age::since(time.map(|time| Time(time.0)).as_ref(), now)
}

/// A string cell, `<none>` when empty.
pub(crate) fn or_none(value: &str) -> Value {
    if value.is_empty() { "<none>" } else { value }.into()
}

/// Labels as `a=b,c=d`, `<none>` when there are none.
pub(crate) fn format_labels(labels: &Option<BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> = entries(labels).map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A selector as `a=b,c in (d,e),!f`, ordered by key; empty for an empty selector.
pub(crate) fn format_selector(selector: &LabelSelector) -> String {
    Selector::from_object(Some(selector)).map(|selector| selector.to_string()).unwrap_or_default()
}

/// The columns whose cells are [`container_cells`].
pub(crate) fn container_columns() -> [Column; 2] {
    [
        Column::wide("Containers", "Names of the containers in the template."),
        Column::wide("Images", "Images of the containers in the template."),
    ]
}

/// The `Containers` and `Images` cells of a list of containers.
pub(crate) fn container_cells(containers: &[Container]) -> [Value; 2] {
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> = containers.iter().map(|container| text(&container.image)).collect();
    [names.join(",").into(), images.join(",").into()]
}

/// The containers of a pod template.
pub(crate) fn template_containers(template: &PodTemplateSpec) -> &[Container] {
    template.spec.as_ref().map_or(&[], |spec| spec.containers.as_slice())
}

/// Whether a port reads as Go's zero value: 0 or the empty name.
pub(crate) fn port_unset(port: Option<&IntOrString>) -> bool {
    match port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::Int(_)) => false,
        Some(IntOrString::String(name)) => name.is_empty(),
    }
}

/// The labels of a template, empty when it has none.
pub(crate) fn template_labels(template: &PodTemplateSpec) -> BTreeMap<String, String> {
    template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default()
}
