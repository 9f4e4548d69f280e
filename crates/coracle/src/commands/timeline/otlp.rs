//! A timeline as a trace of OpenTelemetry: `ExportTraceServiceRequest` of `opentelemetry/proto/collector/trace/v1` as JSON, which
//! Jaeger and every collector take at `/v1/traces`. Identifiers follow from what they name, so that the same story told twice is
//! one trace.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use cluster::timeline::{Entry, What};
use serde_json::{Value, json};

use super::{changes, who};

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// The trace of a story. Each entry is a span below that of the change which woke its component.
pub(super) fn traces(entries: &[Entry]) -> Value {
    let names: Vec<String> = entries.iter().map(name).collect();
    let first = names.first().map_or("", String::as_str);
    let trace = format!("{:016x}{:016x}", number(&(first, 0)), number(&(first, 1)));
    let by_revision: HashMap<u64, String> =
        entries.iter().zip(&names).filter_map(|(entry, name)| Some((entry.revision?, id(name)))).collect();
    let mut services: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (entry, name) in entries.iter().zip(&names) {
        let own = id(name);
        let mut causes = entry.because.iter().filter_map(|because| by_revision.get(&because.revision?));
        let parent = causes.rfind(|cause| **cause != own);
        services.entry(who(entry)).or_default().push(span(entry, &trace, &own, parent));
    }
    let services: Vec<Value> = services
        .into_iter()
        .map(|(service, spans)| {
            json!({
                "resource": { "attributes": [attribute("service.name", &service)] },
                "scopeSpans": [{ "scope": { "name": "coracle" }, "spans": spans }],
            })
        })
        .collect();
    json!({ "resourceSpans": services })
}

fn span(entry: &Entry, trace: &str, id: &str, parent: Option<&String>) -> Value {
    let object = entry.object.as_ref();
    let kind = object.map_or("", |object| object.kind.as_str());
    let title = match (entry.what, &entry.text) {
        (_, Some(text)) => text.clone(),
        (What::Created, _) => format!("create {kind}"),
        (What::Deleted, _) => format!("delete {kind}"),
        _ => format!("change {kind}"),
    };
    let took = entry.took_micros.and_then(|took| i64::try_from(took).ok()).unwrap_or(0);
    // Nobody noted when a write began; the reconcile that it was part of lasted at most as long.
    let (start, end) = match entry.what {
        What::Did | What::Failed => (entry.time_micros, entry.time_micros),
        _ => (entry.time_micros.saturating_sub(took), entry.time_micros),
    };
    let mut attributes = Vec::new();
    if let Some(object) = object {
        attributes.extend([attribute("k8s.object.kind", kind), attribute("k8s.object.name", &object.name)]);
        if !object.namespace.is_empty() {
            attributes.push(attribute("k8s.namespace.name", &object.namespace));
        }
    }
    if let Some(revision) = entry.revision {
        attributes.push(attribute("k8s.resource_version", &revision.to_string()));
    }
    if let Some(author) = &entry.author {
        attributes.extend([attribute("enduser.id", &author.user), attribute("k8s.verb", &author.verb)]);
    }
    if !entry.changes.is_empty() {
        attributes.push(attribute("coracle.changes", &changes(&entry.changes)));
    }
    let nanos = |micros: i64| micros.saturating_mul(1_000).to_string();
    let mut span = json!({
        "traceId": trace, "spanId": id, "name": title, "kind": INTERNAL,
        "startTimeUnixNano": nanos(start), "endTimeUnixNano": nanos(end), "attributes": attributes,
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = parent.as_str().into();
    }
    if entry.what == What::Failed {
        span["status"] = json!({ "code": ERROR, "message": entry.text });
    }
    span
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// What tells an entry from all others.
fn name(entry: &Entry) -> String {
    let object = entry.object.as_ref().map(|object| format!("{}/{}/{}", object.kind, object.namespace, object.name));
    format!("{:?} {:?} {object:?} {:?} {:?}", entry.revision, entry.time_micros, entry.component, entry.text)
}

fn id(name: &String) -> String {
    format!("{:016x}", number(name))
}

fn number(name: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    // Zero is no identifier.
    hasher.finish().max(1)
}
