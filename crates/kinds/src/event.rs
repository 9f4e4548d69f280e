//! Events: stored as core/v1, served as core/v1 and as events.k8s.io/v1.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as Object, EventSeries, EventSource};
use k8s_openapi::api::events::v1::{Event as NewObject, EventSeries as NewSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use machinery::age::since;
use machinery::field::{ErrorList, Path};
use registry::kind::{AlternateVersion, Column, Descriptor, Kind, cell_name};
use serde_json::Value;

use super::check::{Report, dns_subdomain, qualified_name};
use super::common::{blank, since_micro, text};

const SELECTABLE: [&str; 11] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const LONGEST_NAME: usize = 128;
const LONGEST_MESSAGE: usize = 1024;

/// Events of the core group.
pub(crate) struct Event;

impl Kind for Event {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["ev"],
        selectable: &SELECTABLE,
        create_on_update: true,
        ..Descriptor::namespaced("", "v1", "Event", "events")
    };

    fn default(object: &mut Object) {
        // Upstream writes these three even when they are empty, and some clients count on it.
        object.source.get_or_insert_default();
        object.reporting_component.get_or_insert_default();
        object.reporting_instance.get_or_insert_default();
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let own = text(&object.metadata.namespace);
        let involved = text(&object.involved_object.namespace);
        let agrees = match (&object.event_time, involved) {
            // Written by an old client.
            (None, "") => ["", "default"].contains(&own),
            (None, involved) => own == involved,
            (Some(_), "") => ["default", "kube-system"].contains(&own),
            (Some(_), _) => true,
        };
        if !agrees {
            errors.invalid(&Path::new("involvedObject").child("namespace"), involved, "does not match event.namespace");
        }
        if object.event_time.is_some() {
            validate_new_fields(&mut errors, object);
        }
        dns_subdomain(&mut errors, &Path::new("namespace"), own);
        errors
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        let involved = &object.involved_object;
        let component = object.source.as_ref().map_or("", |source| text(&source.component));
        let source = if component.is_empty() { text(&object.reporting_component) } else { component };
        let values = [
            text(&involved.kind),
            text(&involved.namespace),
            text(&involved.name),
            text(&involved.uid),
            text(&involved.api_version),
            text(&involved.resource_version),
            text(&involved.field_path),
            text(&object.reason),
            text(&object.reporting_component),
            source,
            text(&object.type_),
        ];
        SELECTABLE.into_iter().zip(values.map(str::to_owned)).collect()
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::string("Last Seen", "Time since it was last seen."),
            Column::string("Type", "Normal or Warning."),
            Column::string("Reason", "Why, in a word for machines."),
            Column::string("Object", "What it is about."),
            Column::wide("Subobject", "Which part of the object it is about."),
            Column::wide("Source", "Who reports it."),
            Column::string("Message", "What happened."),
            Column::wide("First Seen", "Time since it was first seen."),
            Column::wide("Count", "How often it was seen."),
            Column { priority: 1, ..Column::name() },
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let first = if object.first_timestamp.is_some() {
            since(object.first_timestamp.as_ref(), now)
        } else {
            since_micro(object.event_time.as_ref(), now)
        };
        let mut last =
            if object.last_timestamp.is_some() { since(object.last_timestamp.as_ref(), now) } else { first.clone() };
        // An event of the newer sort that was seen once has no count.
        let mut count = object.count.filter(|count| *count != 0).unwrap_or(1);
        if let Some(series) = &object.series {
            last = since_micro(series.last_observed_time.as_ref(), now);
            count = series.count.unwrap_or_default();
        }
        let involved = &object.involved_object;
        let kind = text(&involved.kind).to_lowercase();
        let target = match text(&involved.name) {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        vec![
            last.into(),
            text(&object.type_).into(),
            text(&object.reason).into(),
            target.into(),
            text(&involved.field_path).into(),
            source(object).into(),
            text(&object.message).trim().into(),
            first.into(),
            count.into(),
            cell_name(&object.metadata),
        ]
    }
}

fn source(object: &Object) -> String {
    let empty = EventSource::default();
    let old = object.source.as_ref().unwrap_or(&empty);
    let first = |one: &Option<String>, other: &Option<String>| text(if blank(one) { other } else { one }).to_owned();
    let component = first(&old.component, &object.reporting_component);
    let instance = first(&old.host, &object.reporting_instance);
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

/// Fields that an event must have since `eventTime` exists.
fn validate_new_fields(errors: &mut ErrorList, object: &Object) {
    let controller = text(&object.reporting_component);
    let path = Path::new("reportingController");
    if controller.is_empty() {
        errors.required(&path, "");
    }
    qualified_name(errors, &path, controller);
    for (name, value) in
        [("reportingInstance", &object.reporting_instance), ("action", &object.action), ("reason", &object.reason)]
    {
        let (path, value) = (Path::new(name), text(value));
        if value.is_empty() {
            errors.required(&path, "");
        }
        if value.len() > LONGEST_NAME {
            errors.invalid(&path, "", format!("can have at most {LONGEST_NAME} characters"));
        }
    }
    if text(&object.message).len() > LONGEST_MESSAGE {
        errors.invalid(&Path::new("message"), "", format!("can have at most {LONGEST_MESSAGE} characters"));
    }
}

/// Events of events.k8s.io.
pub(crate) struct EventView;

impl AlternateVersion for EventView {
    type Stored = Event;
    type Object = NewObject;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["ev"],
        selectable: &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        storage: "core/events",
        create_on_update: true,
        ..Descriptor::namespaced("events.k8s.io", "v1", "Event", "events")
    };

    const FIELD_LABELS: &'static [(&'static str, &'static str)] = &[
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
    ];

    fn to_stored(object: NewObject) -> Object {
        Object {
            action: object.action,
            count: object.deprecated_count,
            event_time: object.event_time,
            first_timestamp: object.deprecated_first_timestamp,
            involved_object: object.regarding.unwrap_or_default(),
            last_timestamp: object.deprecated_last_timestamp,
            message: object.note,
            metadata: object.metadata,
            reason: object.reason,
            related: object.related,
            reporting_component: object.reporting_controller,
            reporting_instance: object.reporting_instance,
            series: object.series.map(|series| EventSeries {
                count: Some(series.count),
                last_observed_time: Some(series.last_observed_time),
            }),
            source: object.deprecated_source,
            type_: object.type_,
        }
    }

    fn from_stored(object: Object) -> NewObject {
        NewObject {
            action: object.action,
            deprecated_count: object.count,
            deprecated_first_timestamp: object.first_timestamp,
            deprecated_last_timestamp: object.last_timestamp,
            deprecated_source: object.source,
            event_time: object.event_time,
            metadata: object.metadata,
            note: object.message,
            reason: object.reason,
            regarding: Some(object.involved_object),
            related: object.related,
            reporting_controller: object.reporting_component,
            reporting_instance: object.reporting_instance,
            series: object.series.map(|series| NewSeries {
                count: series.count.unwrap_or_default(),
                last_observed_time: series.last_observed_time.unwrap_or(MicroTime(Timestamp::UNIX_EPOCH)),
            }),
            type_: object.type_,
        }
    }
}
