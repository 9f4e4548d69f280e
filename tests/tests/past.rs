//! The past of a cluster: what was, when, by whom, and what has changed since.

use serde_json::Value;

use coracle_tests::Cluster;

#[test]
fn the_past_is_there_to_be_read() {
    let cluster = Cluster::start();
    let write = |value: &str| {
        cluster.apply(&format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: it}}, data: {{key: {value}}}}}"));
        cluster.field("configmap/it", "{.metadata.resourceVersion}")
    };
    let first = write("one");
    let second = write("two");
    cluster.kubectl(&["create", "configmap", "other"]).ok();
    cluster.kubectl(&["delete", "configmap", "it"]).ok();

    // With a kubectl that does not know: get, list, tables.
    let at = |when: &str, arguments: &[&str]| cluster.coracle(&[&["at", when, "--", "kubectl"], arguments].concat());
    let data = ["get", "configmap", "it", "-o", "jsonpath={.data.key}"];
    assert_eq!(at(&first, &data).ok(), "one");
    assert_eq!(at(&second, &data).ok(), "two");
    let names = at(&second, &["get", "configmaps", "--chunk-size=1", "-o", "name"]).ok();
    assert_eq!(names, "configmap/it\nconfigmap/kube-root-ca.crt\n");
    assert!(at(&second, &["get", "nodes"]).ok().contains(&cluster.profile));
    assert!(at("-0", &data).fails().contains("NotFound"));

    // Nothing can be done about it.
    let why = at(&first, &["delete", "configmap", "it"]).fails();
    assert!(why.contains("the past cannot be changed"), "{why}");
    let why = at(&first, &["get", "configmaps", "--watch-only"]).fails();
    assert!(why.contains("could be watched"), "{why}");
    let why = cluster.coracle(&["at", "99999999"]).fails();
    assert!(why.contains("has not happened; the newest is"), "{why}");
    let why = cluster.coracle(&["at", "-1h"]).ok();
    assert_eq!(why.trim(), "0", "before the first revision there was nothing");
    assert!(cluster.coracle(&["at", "yesterday"]).fails().contains("-5m"));

    // Each version, with its author.
    let history: Value =
        serde_json::from_str(&cluster.coracle(&["history", "cm/it", "-o", "json"]).ok()).expect("JSON");
    let of = |name: &str| history.as_array().expect("versions").iter().map(|v| v[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("what"), ["created", "changed", "deleted"]);
    assert_eq!(of("revision")[..2], [first.as_str(), second.as_str()]);
    assert_eq!(of("manager")[0], "kubectl-client-side-apply");
    let changes = history[1]["changes"].as_array().expect("changes");
    assert!(
        changes
            .iter()
            .any(|c| (&c["path"], &c["from"], &c["to"]) == (&"data.key".into(), &"one".into(), &"two".into()))
    );
    assert!(cluster.coracle(&["history", "cm/it"]).ok().contains("data.key: one → two"));
    assert!(cluster.coracle(&["history", "cm/never"]).fails().contains("no cm/never"));
    assert!(cluster.coracle(&["history", "nothing/it"]).fails().contains("no kind nothing"));

    // What changed, of one and of all.
    assert!(cluster.coracle(&["diff", &first, &second, "configmap/it"]).ok().contains("    data.key: one → two"));
    let all = cluster.coracle(&["diff", &second]).ok();
    assert!(all.contains("+ configmap/other -n default\n") && all.contains("- configmap/it -n default\n"), "{all}");
}

#[test]
fn more_is_remembered_where_that_is_asked_for() {
    let cluster = Cluster::new();
    for bad in ["5s", "1KiB", "much"] {
        assert!(cluster.coracle(&["start", "--history", bad]).fails().contains("--history"), "{bad}");
    }
    cluster.coracle(&["start", "--history", "2h"]).ok();
    assert!(cluster.coracle(&["at", "now"]).ok().contains('('));
}
