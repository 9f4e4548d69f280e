//! What is said of every object: deletion, owners, conditions, events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::Value;

use crate::explanation::{Explanation, Step};
use crate::finalizers;
use crate::related::Related;
use crate::words::{after, given, list, reason_and_message, since};

/// So many events are shown.
const EVENTS: usize = 6;

/// What remains to be said of an object; `known` is whether its kind has had its say.
pub(crate) fn explain(out: &mut Explanation, object: &Value, related: &Related, now: Timestamp, known: bool) {
    owners(out, object, related);
    if !known {
        conditions(out, object, now);
        generation(out, object);
    }
    let finalizers = strings(&object["metadata"]["finalizers"]);
    match object["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok()) {
        Some(time) => deletion(out, object, &finalizers, time, now),
        None if !finalizers.is_empty() => {
            out.has(format!("finalizers that keep it when it is deleted: {}", list(&finalizers)));
        }
        None => {}
    }
    events(out, object, related, now);
    out.unknown.extend(related.unknown.iter().cloned());
    if !known && out.next.is_empty() {
        let does = "decides by itself: what comes next does not show in the object";
        out.next(Step::new("A controller, if one watches it,", does));
    }
}

/// The texts of a list.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn owners(out: &mut Explanation, object: &Value, related: &Related) {
    if related.owners.is_empty() {
        if object["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty()) {
            out.has("owners, which could not be read");
        }
        return;
    }
    let chain: Vec<String> = related
        .owners
        .iter()
        .map(|owner| {
            let gone = if owner.exists == Some(false) { " (gone)" } else { "" };
            let role = if owner.controller { "controlled by" } else { "owned by" };
            format!("{role} {}{gone}", owner.called)
        })
        .collect();
    out.has(chain.join(", which is "));
    if related.owners.first().is_some_and(|owner| owner.exists == Some(false)) && related.owners.len() == 1 {
        out.next(Step::new("The garbage collector", "deletes it, because its owner is gone"));
    }
}

/// The conditions that are not as one would have them, and the others in one line.
fn conditions(out: &mut Explanation, object: &Value, now: Timestamp) {
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        let text = |name: &str| condition[name].as_str().map(str::to_owned);
        let changed = Option::<Time>::deserialize(&condition["lastTransitionTime"]).ok().flatten();
        let line = format!(
            "the condition {} is {}{}",
            text("type").unwrap_or_default(),
            text("status").unwrap_or_default(),
            changed.map(|time| format!(" since {}", since(time.0, now))).unwrap_or_default()
        );
        let details = reason_and_message(text("reason").as_ref(), text("message").as_ref());
        out.has(if details.is_empty() { line } else { format!("{line}, {details}") });
    }
    if let Some(phase) = object["status"]["phase"].as_str() {
        out.has(format!("the phase {phase}"));
    }
}

/// Whether the controller has seen the latest specification, where it tells.
fn generation(out: &mut Explanation, object: &Value) {
    let (Some(wanted), Some(seen)) =
        (object["metadata"]["generation"].as_i64(), object["status"]["observedGeneration"].as_i64())
    else {
        return;
    };
    if seen < wanted {
        out.next(Step::new("Its controller", format!("takes up generation {wanted}; the status is about {seen}")));
    } else {
        out.has(format!("a status that is about the latest specification (generation {wanted})"));
    }
}

fn deletion(out: &mut Explanation, object: &Value, finalizers: &[String], time: Timestamp, now: Timestamp) {
    // The time of a pod is when its grace period ends.
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let asked = after(time, -grace).unwrap_or(time);
    out.has(format!("been asked to go {} ago", since(asked, now)));
    out.wants("to be deleted");
    for finalizer in finalizers {
        let (step, why) = finalizers::step(finalizer, object, &out.object);
        out.next(step);
        out.why(why.unwrap_or_default());
    }
}

/// Whether an event is about the object.
fn is_about(event: &Event, object: &Value) -> bool {
    let (about, meta) = (&event.involved_object, &object["metadata"]);
    let same = |left: Option<&String>, right: &Value| left.map(String::as_str) == right.as_str();
    let name = meta["name"].as_str();
    same(about.name.as_ref(), &meta["name"])
        && same(about.kind.as_ref(), &object["kind"])
        // The kubelet's events about its node have the name where the unique id is.
        && (about.uid.is_none() || same(about.uid.as_ref(), &meta["uid"]) || about.uid.as_deref() == name)
}

/// When an event was last seen.
pub(crate) fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(first).or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn events(out: &mut Explanation, object: &Value, related: &Related, now: Timestamp) {
    let mut about: Vec<Event> =
        related.all::<Event>("events").into_iter().filter(|event| is_about(event, object)).collect();
    about.sort_by_key(|event| std::cmp::Reverse(last_seen(event)));
    for event in about.iter().take(EVENTS) {
        let times = event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1);
        let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
        let seen = last_seen(event).map(|at| format!("{} ago ", since(at, now))).unwrap_or_default();
        let by = given(event.reporting_component.as_ref())
            .or_else(|| event.source.as_ref().and_then(|source| given(source.component.as_ref())))
            .map(|by| format!(" by {by}"))
            .unwrap_or_default();
        out.events.push(format!(
            "{seen}{}{by}{times}: {}",
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default()
        ));
    }
}

/// The newest event with one of these reasons about an object of this kind and name.
pub(crate) fn latest_event(related: &Related, kind: &str, name: &str, reasons: &[&str]) -> Option<Event> {
    let wanted = |event: &Event| {
        event.involved_object.kind.as_deref() == Some(kind)
            && event.involved_object.name.as_deref() == Some(name)
            && event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
    };
    related.all::<Event>("events").into_iter().filter(wanted).max_by_key(last_seen)
}
