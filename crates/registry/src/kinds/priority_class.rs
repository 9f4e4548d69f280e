//! scheduling.k8s.io/v1 PriorityClass.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass as Object;
use machinery::field::{ErrorList, Path};
use machinery::gvk::GroupResource;
use machinery::status::ApiError;
use serde::Deserialize;
use serde_json::Value;
use store::Key;

use super::check::{Report, immutable, one_of};
use super::common::text;
use crate::kind::{Column, Context, Descriptor, Kind, Reservation, cell_age, cell_name};

/// The highest priority a user may give; what is above is for the system.
const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The classes of the system, and their values.
pub(crate) const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const STORAGE: &str = "scheduling.k8s.io/priorityclasses";

/// PriorityClasses.
pub(crate) struct PriorityClass;

/// The stored class of that name.
pub(crate) fn stored(context: &Context<'_>, name: &str) -> Option<Object> {
    let entry = context.store.get(&Key::new(STORAGE, "", name))?;
    serde_json::from_slice(&entry.value).ok()
}

/// The classes that are the default of Pods without one: more than one only if they were stored side by side.
pub(crate) fn defaults(context: &Context<'_>) -> impl Iterator<Item = Object> {
    let classes: Vec<Object> = context
        .store
        .snapshot(STORAGE)
        .iter()
        .filter(|entry| is_default(&entry.value))
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect();
    classes.into_iter()
}

/// Whether an encoded class is the default. Asked for each Pod of each class: the rest of it is skipped.
fn is_default(class: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Mark {
        global_default: bool,
    }
    serde_json::from_slice::<Mark>(class).is_ok_and(|mark| mark.global_default)
}

impl Kind for PriorityClass {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["pc"],
        ..Descriptor::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
    };

    fn default(object: &mut Object) {
        object.value.get_or_insert(0);
        object.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.metadata.generation = Some(1);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let name = text(&object.metadata.name);
        let value = object.value.unwrap_or_default();
        if name.starts_with(SYSTEM_PREFIX) {
            if !SYSTEM_CLASSES.contains(&(name, value)) {
                errors.forbidden(
                    &Path::new("metadata").child("name"),
                    format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only"),
                );
            }
        } else if value > HIGHEST_USER_PRIORITY {
            errors.forbidden(
                &Path::new("value"),
                format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
            );
        }
        if let Some(policy) = &object.preemption_policy {
            one_of(&mut errors, &Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if new.value != old.value {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        immutable(&mut errors, &Path::new("preemptionPolicy"), &new.preemption_policy, &old.preemption_policy);
        errors
    }

    /// Pods without a class have that of the one default. Upstream's admission refuses a second.
    fn allocate(new: &mut Object, _old: Option<&Object>, context: &Context<'_>) -> Result<Reservation, ApiError> {
        if new.global_default == Some(true) {
            let name = text(&new.metadata.name);
            let mut others = defaults(context).filter(|class| text(&class.metadata.name) != name);
            if let Some(other) = others.next() {
                let other = text(&other.metadata.name);
                let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
                return Err(ApiError::forbidden(
                    &GroupResource::new(Self::DESCRIPTOR.group, "priorityclasses"),
                    name,
                    why,
                ));
            }
        }
        Ok(Reservation::none())
    }

    fn undeletable(object: &Object) -> Option<&'static str> {
        let is_system = SYSTEM_CLASSES.iter().any(|(name, _)| *name == text(&object.metadata.name));
        is_system.then_some("this is a system priority class and cannot be deleted")
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::integer("Value", "Priority of the pods of this class."),
            Column {
                kind: "boolean".to_owned(),
                ..Column::string("Global-Default", "Whether pods without a class have this one.")
            },
            Column::age(),
            Column::string("PreemptionPolicy", "Whether pods of this class may displace others."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            cell_name(&object.metadata),
            object.value.unwrap_or_default().into(),
            object.global_default.unwrap_or_default().into(),
            cell_age(&object.metadata, now),
            text(&object.preemption_policy).into(),
        ]
    }
}
