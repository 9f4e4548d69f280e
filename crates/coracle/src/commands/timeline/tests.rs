//! How a story is told to people and to tracers.

use super::*;

fn entry(micros: i64, what: What, more: Value) -> Entry {
    let mut entry = json!({ "timeMicros": 1_767_348_240_000_000_i64 + micros, "what": format!("{what:?}") });
    for (name, value) in more.as_object().expect("fields") {
        entry[name] = value.clone();
    }
    serde_json::from_value(entry).expect("an entry")
}

/// A Deployment that a person makes, the ReplicaSet that follows, and a pod that is bound and started.
fn web() -> Vec<Entry> {
    let object = |kind: &str, name: &str| json!({ "kind": kind, "namespace": "default", "name": name });
    let because = |text: &str, revision: u64| json!([{ "text": text, "revision": revision }]);
    vec![
        entry(
            0,
            What::Created,
            json!({ "revision": 7, "object": object("Deployment", "web"),
                "author": { "user": "kubernetes-admin", "program": "kubectl-create", "verb": "create" } }),
        ),
        entry(
            3_000,
            What::Created,
            json!({ "revision": 8, "object": object("ReplicaSet", "web-1"), "component": "deployment",
                "author": { "user": "system:kube-controller-manager", "program": "x", "verb": "create" },
                "because": because("Deployment web", 7), "tookMicros": 1_500 }),
        ),
        entry(
            9_000,
            What::Changed,
            json!({ "revision": 9, "object": object("Pod", "web-1-a"),
                "author": { "user": "system:kube-scheduler", "program": "kube-scheduler", "verb": "bind" },
                "changes": [{ "path": "metadata.generation", "to": 1 }, { "path": "spec.nodeName", "to": "laptop" }] }),
        ),
        entry(
            1_204_567,
            What::Did,
            json!({ "object": object("Pod", "web-1-a"), "component": "kubelet", "text": "start container web",
                "because": [{ "text": "Pod web-1-a", "revision": 9 }, { "text": "a" }, { "text": "b" }] }),
        ),
        entry(
            150_000_000,
            What::Changed,
            json!({ "revision": 12, "object": object("Pod", "web-1-a"),
                "author": { "user": "system:node:laptop", "program": "kubelet", "verb": "patch", "subresource": "status" },
                "changes": [{ "path": "status.phase", "from": "Pending", "to": "Running" }] }),
        ),
        entry(
            150_000_001,
            What::Failed,
            json!({ "object": object("Service", "web"), "component": "kube-proxy", "text": "no luck" }),
        ),
    ]
}

#[test]
fn a_story_is_told_line_by_line() {
    let entries = web();
    let mut printer = Printer::new(&entries);
    let expected = [
        "TIME                 AFTER  WHO                                WHAT",
        "10:04:00.000                kubectl-create (kubernetes-admin)  created Deployment web  @7",
        "10:04:00.003         +3 ms  deployment                         created ReplicaSet web-1  @8  ← Deployment web @7",
        "10:04:00.009         +9 ms  kube-scheduler                     bound Pod web-1-a: spec.nodeName: + laptop; metadata.generation: + 1  @9",
        "10:04:01.204567     +1.2 s  kubelet                            Pod web-1-a: start container web  ← Pod web-1-a @9, a, 1 more",
        "10:06:30.000        +2 min  kubelet                            Pod web-1-a (status): status.phase: Pending → Running  @12",
        "10:06:30.000001     +2 min  kube-proxy                         Service web: failed: no luck",
    ];
    let lines = printer.new_lines(&entries);
    // The names have the width of the longest, up to a bound.
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let of = |lines: &[&str]| lines.iter().map(|line| squeezed(line)).collect::<Vec<_>>();
    assert_eq!(of(&lines.iter().map(String::as_str).collect::<Vec<_>>()), of(&expected));
    let column = lines[0].find("WHAT").expect("a column");
    assert_eq!(lines[2].find("created"), Some(column), "{lines:#?}");

    // What is told again is what is new.
    let mut more = web();
    more.push(entry(151_000_000, What::Deleted, json!({ "revision": 13, "object": { "kind": "Pod", "name": "x" } })));
    let told = printer.new_lines(&more);
    assert_eq!(told.iter().map(|line| squeezed(line)).collect::<Vec<_>>(), ["10:06:31.000 +2 min - deleted Pod x @13"]);
}

#[test]
fn a_story_is_a_trace() {
    let trace = otlp::traces(&web());
    let spans: Vec<&Value> = trace["resourceSpans"]
        .as_array()
        .expect("services")
        .iter()
        .flat_map(|service| service["scopeSpans"][0]["spans"].as_array().expect("spans"))
        .collect();
    let named = |name: &str| *spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let (deployment, replicas) = (named("create Deployment"), named("create ReplicaSet"));
    assert_eq!((spans.len(), &deployment["parentSpanId"]), (6, &Value::Null));
    assert_eq!(replicas["parentSpanId"], deployment["spanId"]);
    assert_eq!(replicas["startTimeUnixNano"], "1767348240001500000");
    assert_eq!(replicas["endTimeUnixNano"], "1767348240003000000");
    assert_eq!(named("start container web")["parentSpanId"], named("change Pod")["spanId"]);
    assert_eq!(named("no luck")["status"], json!({ "code": 2, "message": "no luck" }));
    for (field, length) in [("traceId", 32), ("spanId", 16)] {
        assert!(spans.iter().all(|span| span[field].as_str().is_some_and(|id| id.len() == length)), "{field}");
    }
    assert!(spans.iter().all(|span| span["traceId"] == deployment["traceId"]));
    let services: Vec<&Value> = trace["resourceSpans"].as_array().expect("services").iter().collect();
    assert_eq!(services[0]["resource"]["attributes"][0]["value"]["stringValue"], "deployment");
    assert_eq!(otlp::traces(&[]), json!({ "resourceSpans": [] }));
}
