//! How many seats a request takes: a list more than one, by how many objects it is about (upstream: apiserver
//! `pkg/util/flowcontrol/request/list_work_estimator.go`).

use machinery::Verb;
use store::Store;

use super::ListOptions;
use crate::authz::{Attributes, Target};

/// Upstream's `objectsPerSeat`.
const OBJECTS_PER_SEAT: u64 = 100;

/// The width of a request, of which `max` is the most.
pub(super) fn width(store: &Store, attributes: &Attributes<'_>, options: &ListOptions, max: u32) -> u32 {
    let Target::Resource { group, resource, subresource: "", name, .. } = attributes.target else { return 1 };
    let is_list = attributes.verb == Verb::List || (attributes.verb == Verb::Watch && options.send_initial_events);
    if !is_list || !name.is_empty() || max <= 1 {
        return 1;
    }
    let group = if group.is_empty() { "core" } else { group };
    let stored = store.snapshot(&format!("{group}/{resource}")).len() as u64;
    let objects = if options.limit == 0 { stored } else { stored.min(options.limit) };
    u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(max).clamp(1, max)
}
