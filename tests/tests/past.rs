//! The past of a cluster: what was, when, by whom, and what has changed since.

use serde_json::Value;

use coracle_tests::{Background, Cluster};

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

#[test]
fn the_store_shows_its_keys() {
    let cluster = Cluster::start();
    let write = |value: &str| {
        cluster.apply(&format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: it}}, data: {{key: {value}}}}}"));
        cluster.field("configmap/it", "{.metadata.resourceVersion}")
    };
    let key = "/registry/core/configmaps/default/it";
    let (first, second) = (write("one"), write("two"));
    let store = |arguments: &[&str]| cluster.coracle(&[&["store"], arguments].concat());

    // By its own name and by that of etcd.
    for typed in [key, "/registry/configmaps/default/it", "configmaps/default/it"] {
        let found: Value = serde_json::from_str(&store(&["get", typed, "-o", "json"]).ok()).expect("JSON");
        let numbers = [&found["createRevision"], &found["revision"]].map(ToString::to_string);
        assert_eq!((numbers, &found["value"]["data"]["key"]), ([first.clone(), second.clone()], &"two".into()));
    }
    let text = store(&["get", key]).ok();
    assert!(
        text.starts_with(&format!("Key:      {key}\nRevision: {second}\n")) && text.contains("\"key\": \"two\""),
        "{text}"
    );
    let text = store(&["ls", "configmaps/default/i"]).ok();
    assert!(text.lines().count() == 2 && text.ends_with(&format!("  {key}\n")), "{text}");
    let all = store(&["ls", "--keys-only"]).ok();
    let nodes = format!("/registry/core/nodes//{}", cluster.profile);
    assert!(all.lines().any(|line| line == nodes) && all.lines().any(|line| line == key), "{all}");

    // What was, and what comes.
    cluster.kubectl(&["delete", "configmap", "it"]).ok();
    let watch = ["store", "watch", "core/configmaps/default/", "--from", &second];
    let watch = Background::start(cluster.coracle_command(&watch));
    watch.line(|line| line.trim_start().starts_with(&format!("{second}  PUT ")) && line.ends_with(key));
    watch.line(|line| line.contains("  DELETE  ") && line.ends_with(key));
    let third = write("three");
    watch.line(|line| line.trim_start().starts_with(&format!("{third}  PUT ")) && line.ends_with(key));

    for (arguments, why) in [
        (
            &["get", "core/configmaps/default/none"][..],
            "there is no key \"core/configmaps/default/none\"; see: coracle store ls",
        ),
        (&["ls", "/registry/minions"], "nothing is stored below \"/registry/minions\"; see all keys: coracle store ls"),
        (&["watch", "core/thing/"], "nothing is stored below"),
        (&["watch", "--from", "99999999"], "has not happened; the newest is"),
    ] {
        let said = store(arguments).fails();
        assert!(said.contains(why) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    // Whoever may read everything may not look into the store.
    cluster.kubectl(&["create", "clusterrole", "paths", "--verb=get", "--non-resource-url=*"]).ok();
    cluster.kubectl(&["create", "clusterrolebinding", "paths", "--clusterrole=paths", "--user=jane"]).ok();
    let raw = ["get", "--raw", "/debug/store/keys", "--as", "jane"];
    assert!(cluster.kubectl(&raw).fails().contains("Forbidden"));
}
