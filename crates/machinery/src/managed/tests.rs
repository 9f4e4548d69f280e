//! Field sets and server-side apply, by cases.

use serde_json::{Value, json};

use super::*;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const POD: &str = "io.k8s.api.core.v1.Pod";
const SERVICE: &str = "io.k8s.api.core.v1.Service";
const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const NOW: &str = "2026-01-02T03:04:05Z";

fn manager(name: &str, operation: Operation) -> Manager {
    Manager { name: name.into(), operation, api_version: "v1".into(), subresource: String::new() }
}

fn all(set: &FieldSet) -> FieldSet {
    set.clone()
}

fn fields(set: &FieldSet) -> Value {
    serde_json::from_str(&set.render()).unwrap()
}

/// The fields of a new object, found in two ways.
fn created(definition: &str, object: Value, expect: Value) {
    let place = BuiltIn::root(definition);
    let added = added(&object.to_string(), &place, &["status"]).unwrap();
    let added: Value = serde_json::from_str(&added).unwrap();
    assert_eq!(added, expect);
    let changes = compare(&json!({}), &object, &place);
    let slow = owned(&changes.added.union(&changes.modified)).without(&FieldSet::of_path(&["status"]));
    assert_eq!(fields(&slow), expect);
}

#[test]
fn fields_of_a_new_object() {
    // What is there in an empty object too, though not written as empty, is nobody's.
    created(
        "io.k8s.api.apps.v1.Deployment",
        json!({ "spec": { "replicas": 3, "template": { "spec": {} }, "selector": { "matchLabels": { "a": "b" } } } }),
        json!({ "f:spec": { "f:replicas": {}, "f:selector": {} } }),
    );
    created(
        CONFIG_MAP,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": { "a": "1", "b\u{e9}": "{" },
            "metadata": { "name": "x", "namespace": "y", "labels": { "a/b": "c" }, "finalizers": ["x/y"] },
        }),
        json!({
            "f:data": { ".": {}, "f:a": {}, "f:b\u{e9}": {} },
            "f:metadata": { "f:labels": { ".": {}, "f:a/b": {} }, "f:finalizers": { ".": {}, "v:\"x/y\"": {} } },
        }),
    );
    created(
        POD,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x" },
            "spec": {
                "containers": [
                    { "name": "a", "image": "i", "resources": {}, "args": ["x"],
                      "ports": [{ "containerPort": 80, "protocol": "TCP" }, { "containerPort": 80, "protocol": "UDP" }],
                      "env": [{ "name": "E", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }] },
                    { "name": "b", "image": "i", "resources": { "limits": { "cpu": "1" } } },
                ],
                "imagePullSecrets": [{ "name": "p" }],
                "nodeSelector": { "a": "b" },
                "securityContext": {},
                "tolerations": [{ "key": "x" }],
            },
            "status": { "phase": "Running" },
        }),
        json!({
            "f:spec": {
                "f:containers": {
                    "k:{\"name\":\"a\"}": {
                        ".": {}, "f:name": {}, "f:image": {}, "f:resources": {}, "f:args": {},
                        "f:ports": {
                            ".": {},
                            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {}, "f:protocol": {} },
                            "k:{\"containerPort\":80,\"protocol\":\"UDP\"}": { ".": {}, "f:containerPort": {}, "f:protocol": {} },
                        },
                        "f:env": { ".": {}, "k:{\"name\":\"E\"}": {
                            ".": {}, "f:name": {}, "f:valueFrom": { ".": {}, "f:secretKeyRef": {} } } },
                    },
                    "k:{\"name\":\"b\"}": {
                        ".": {}, "f:name": {}, "f:image": {},
                        "f:resources": { ".": {}, "f:limits": { ".": {}, "f:cpu": {} } },
                    },
                },
                "f:imagePullSecrets": { ".": {}, "k:{\"name\":\"p\"}": {} },
                "f:nodeSelector": {},
                "f:securityContext": {},
                "f:tolerations": {},
            },
        }),
    );
    created(
        DEPLOYMENT,
        json!({
            "metadata": { "name": "x" },
            "spec": {
                "replicas": 1, "selector": { "matchLabels": { "a": "b" } },
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%" } },
                "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c" }] } },
            },
        }),
        json!({
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": { "f:type": {}, "f:rollingUpdate": { ".": {}, "f:maxSurge": {} } },
                "f:template": {
                    "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
                    "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": { ".": {}, "f:name": {} } } },
                },
            },
        }),
    );
}

#[test]
fn what_stands_twice_takes_a_closer_look() {
    let pod = json!({ "spec": { "containers": [{ "name": "a", "env": [{ "name": "E" }, { "name": "E" }] }] } });
    assert_eq!(added(&pod.to_string(), &BuiltIn::root(POD), &[]), Err(Unclear));
    let changes = compare(&json!({}), &pod, &BuiltIn::root(POD));
    let env = &fields(&changes.added)["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"]["f:env"];
    assert_eq!(*env, json!({ ".": {}, "k:{\"name\":\"E\"}": {} }));
    for broken in ["", "{", "[]", "{\"a\"", "{\"a\":", "{\"a\":{\"b", "{\"a\":[}", "{\"metadata\":1}"] {
        assert!(added(broken, &Place::Custom(None), &[]).is_err(), "{broken}");
    }
}

#[test]
fn sets() {
    let set = |fields: Value| FieldSet::from_fields(&fields).unwrap();
    let a = set(json!({ "f:a": { ".": {}, "f:b": {}, "f:c": {} }, "f:d": {} }));
    let b = set(json!({ "f:a": { "f:b": {} }, "f:e": { "k:{\"z\":1,\"a\":\"x\"}": {} } }));
    assert_eq!(a.paths(), [".a", ".d", ".a.b", ".a.c"]);
    assert_eq!(b.paths(), [".a.b", ".e[a=\"x\",z=1]"]);
    assert_eq!(a.difference(&b).paths(), [".a", ".d", ".a.c"]);
    assert_eq!(b.difference(&a).paths(), [".e[a=\"x\",z=1]"]);
    assert_eq!(a.intersection(&b).paths(), [".a.b"]);
    assert_eq!(a.union(&b).paths(), [".a", ".d", ".a.b", ".a.c", ".e[a=\"x\",z=1]"]);
    assert_eq!(a.difference(&set(json!({ "f:a": {} }))).paths(), [".d", ".a.b", ".a.c"]);
    assert_eq!(a.without(&set(json!({ "f:a": {} }))).paths(), [".d"]);
    assert_eq!(set(fields(&a)), a);
    assert_eq!(FieldSet::from_fields(&json!({ "a": {} })), None);
    assert_eq!(FieldSet::from_fields(&json!({ "f:a": 1 })), None);
    assert!(a.has(&["a", "b"]) && a.has(&["a"]) && !b.has(&["a"]) && !a.has(&["x"]));
}

/// A story: each step is a manager, its operation and the object or configuration it writes. `!` forces, `-` updates.
struct Story {
    definition: &'static str,
    live: Value,
    entries: Vec<Entry>,
}

impl Story {
    fn new(definition: &'static str) -> Self {
        Self { definition, live: json!({}), entries: Vec::new() }
    }

    fn update(mut self, name: &str, object: Value) -> Self {
        let changes = compare(&self.live, &object, &BuiltIn::root(self.definition));
        let manager = manager(name, Operation::Update);
        let before = render(self.entries.clone());
        let text = update_text(&before, &changes, &manager, NOW);
        update(&mut self.entries, &changes, &manager, all, NOW);
        if let Some(text) = text {
            assert_eq!(text, render(self.entries.clone()), "as text and as entries");
        }
        self.live = object;
        self
    }

    fn try_apply(&self, name: &str, config: &Value, force: &Force) -> Result<Applied, ApplyError> {
        let manager = manager(name, Operation::Apply);
        let application = Application { live: &self.live, config, manager: &manager, force, now: NOW };
        apply(&application, self.entries.clone(), &BuiltIn::root(self.definition), all)
    }

    fn with_force(mut self, name: &str, config: Value, force: &Force) -> Self {
        let applied = self.try_apply(name, &config, force).unwrap();
        (self.live, self.entries) = (applied.object, applied.entries);
        self
    }

    fn apply(self, name: &str, config: Value) -> Self {
        self.with_force(name, config, &Force::No)
    }

    fn refused(self, name: &str, config: Value, why: &str) -> Self {
        assert_eq!(self.try_apply(name, &config, &Force::No).unwrap_err().to_string(), why);
        self
    }

    fn is(self, object: Value, owners: &[(&str, &[&str])]) -> Self {
        assert_eq!(self.live, object);
        let mut found: Vec<(&str, Vec<String>)> =
            self.entries.iter().map(|entry| (entry.manager.name.as_str(), entry.fields.paths())).collect();
        found.sort();
        let expect: Vec<(&str, Vec<String>)> =
            owners.iter().map(|(name, paths)| (*name, paths.iter().map(|path| (*path).to_owned()).collect())).collect();
        assert_eq!(found, expect);
        self
    }
}

#[test]
fn updates_take_what_they_change() {
    Story::new(CONFIG_MAP)
        .update("a", json!({ "metadata": { "name": "n" }, "data": { "x": "1", "y": "1" } }))
        .is(
            json!({ "metadata": { "name": "n" }, "data": { "x": "1", "y": "1" } }),
            &[("a", &[".data", ".data.x", ".data.y"])],
        )
        .update("b", json!({ "metadata": { "name": "n" }, "data": { "x": "2", "z": "1" } }))
        .is(
            json!({ "metadata": { "name": "n" }, "data": { "x": "2", "z": "1" } }),
            &[("a", &[".data"]), ("b", &[".data.x", ".data.z"])],
        )
        .update("b", json!({ "metadata": { "name": "n" } }))
        .is(json!({ "metadata": { "name": "n" } }), &[]);
}

#[test]
fn applies_own_what_they_say() {
    Story::new(CONFIG_MAP)
        .apply("a", json!({ "metadata": { "name": "n", "labels": { "l": "1" } }, "data": { "x": "1", "y": "1" } }))
        .apply("b", json!({ "metadata": { "name": "n" }, "data": { "x": "1", "z": "1" } }))
        .refused(
            "b",
            json!({ "metadata": { "name": "n" }, "data": { "x": "2", "z": "1" } }),
            "Apply failed with 1 conflict: conflict with \"a\": .data.x",
        )
        .refused(
            "c",
            json!({ "data": { "x": "2", "y": "2" } }),
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y\nconflicts with \"b\":\n- .data.x",
        )
        // What one leaves out stays for the other; what nobody wants goes.
        .apply("a", json!({ "metadata": { "name": "n" }, "data": { "x": "1" } }))
        .is(
            json!({ "metadata": { "name": "n" }, "data": { "x": "1", "z": "1" } }),
            &[("a", &[".data.x"]), ("b", &[".data.x", ".data.z"])],
        )
        .with_force("c", json!({ "data": { "x": "3" } }), &Force::Yes)
        .is(
            json!({ "metadata": { "name": "n" }, "data": { "x": "3", "z": "1" } }),
            &[("b", &[".data.z"]), ("c", &[".data.x"])],
        )
        .update("d", json!({ "metadata": { "name": "n" }, "data": { "x": "4", "z": "1" } }))
        .refused(
            "c",
            json!({ "data": { "x": "3" } }),
            "Apply failed with 1 conflict: conflict with \"d\" using v1: .data.x",
        )
        .with_force("b", json!({ "data": {} }), &Force::No)
        .is(json!({ "metadata": { "name": "n" }, "data": { "x": "4" } }), &[("b", &[".data"]), ("d", &[".data.x"])]);
}

#[test]
fn lists_are_merged_as_their_type_says() {
    let containers = |list: Value| json!({ "spec": { "template": { "spec": { "containers": list } } } });
    Story::new(DEPLOYMENT)
        .apply("a", containers(json!([{ "name": "x", "image": "1", "args": ["1"] }, { "name": "y", "image": "1" }])))
        .apply(
            "b",
            containers(json!([{ "name": "z", "image": "2" }, { "name": "x", "env": [{ "name": "E", "value": "1" }] }])),
        )
        .is(
            containers(json!([
                { "name": "z", "image": "2" },
                { "name": "x", "image": "1", "args": ["1"], "env": [{ "name": "E", "value": "1" }] },
                { "name": "y", "image": "1" },
            ])),
            &[
                (
                    "a",
                    &[
                        ".spec.template.spec.containers[name=\"x\"]",
                        ".spec.template.spec.containers[name=\"y\"]",
                        ".spec.template.spec.containers[name=\"x\"].args",
                        ".spec.template.spec.containers[name=\"x\"].image",
                        ".spec.template.spec.containers[name=\"x\"].name",
                        ".spec.template.spec.containers[name=\"y\"].image",
                        ".spec.template.spec.containers[name=\"y\"].name",
                    ],
                ),
                (
                    "b",
                    &[
                        ".spec.template.spec.containers[name=\"x\"]",
                        ".spec.template.spec.containers[name=\"z\"]",
                        ".spec.template.spec.containers[name=\"x\"].name",
                        ".spec.template.spec.containers[name=\"x\"].env[name=\"E\"]",
                        ".spec.template.spec.containers[name=\"x\"].env[name=\"E\"].name",
                        ".spec.template.spec.containers[name=\"x\"].env[name=\"E\"].value",
                        ".spec.template.spec.containers[name=\"z\"].image",
                        ".spec.template.spec.containers[name=\"z\"].name",
                    ],
                ),
            ],
        )
        .refused(
            "b",
            containers(json!([{ "name": "z" }, { "name": "z" }])),
            ".spec.template.spec.containers: duplicate entries for key [name=\"z\"]",
        )
        .apply("a", containers(json!([{ "name": "x", "image": "1" }])))
        .apply("b", containers(json!([{ "name": "x" }])));

    let ports = |list: Value| json!({ "spec": { "ports": list } });
    Story::new(SERVICE)
        .update("u", ports(json!([{ "port": 80, "protocol": "TCP", "nodePort": 30080 }])))
        .apply("a", ports(json!([{ "port": 80, "targetPort": 8080 }, { "port": 80, "protocol": "UDP" }])))
        .refused(
            "a",
            ports(json!([{ "port": 80, "nodePort": 30081 }])),
            "Apply failed with 1 conflict: conflict with \"u\" using v1: .spec.ports[port=80,protocol=\"TCP\"].nodePort",
        )
        .apply("a", ports(json!([])))
        .is(
            ports(json!([{ "port": 80, "protocol": "TCP", "nodePort": 30080 }])),
            &[("u", &[
                ".spec.ports",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].nodePort",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
                ".spec.ports[port=80,protocol=\"TCP\"].protocol",
            ])],
        );

    let finalizers = |list: Value| json!({ "metadata": { "finalizers": list } });
    Story::new(POD)
        .apply("a", finalizers(json!(["x/1", "x/2"])))
        .apply("b", finalizers(json!(["x/3", "x/2"])))
        .is(
            finalizers(json!(["x/1", "x/3", "x/2"])),
            &[
                ("a", &[".metadata.finalizers[=\"x/1\"]", ".metadata.finalizers[=\"x/2\"]"]),
                ("b", &[".metadata.finalizers[=\"x/2\"]", ".metadata.finalizers[=\"x/3\"]"]),
            ],
        )
        .apply("a", finalizers(json!([])))
        .is(
            finalizers(json!(["x/3", "x/2"])),
            &[("b", &[".metadata.finalizers[=\"x/2\"]", ".metadata.finalizers[=\"x/3\"]"])],
        );
}

#[test]
fn the_order_of_a_merged_list() {
    let list = |names: &str| -> Value { names.chars().map(|c| json!({ "name": c.to_string() })).collect() };
    let place = BuiltIn::root(POD).field("spec").field("containers");
    for (live, config, expect) in [
        ("abc", "abc", "abc"),
        ("abc", "cba", "cba"),
        ("abc", "d", "abcd"),
        ("abc", "ad", "abcd"),
        ("ab", "xby", "axby"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
        ("abcd", "dxa", "bcdxa"),
    ] {
        let merged = merge(&list(live), &list(config), &place);
        let names: String = merged.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
        assert_eq!(names, expect, "{live} {config}");
    }
}

#[test]
fn atomic_values_are_replaced_and_nulls_unset() {
    Story::new(DEPLOYMENT)
        .apply("a", json!({ "spec": { "selector": { "matchLabels": { "a": "1" } }, "replicas": 3 } }))
        .refused(
            "b",
            json!({ "spec": { "selector": { "matchLabels": { "b": "1" } } } }),
            "Apply failed with 1 conflict: conflict with \"a\": .spec.selector",
        )
        .apply("a", json!({ "spec": { "selector": { "matchLabels": { "b": "1" } }, "replicas": null } }))
        .is(
            json!({ "spec": { "selector": { "matchLabels": { "b": "1" } }, "replicas": null } }),
            &[("a", &[".spec.replicas", ".spec.selector"])],
        );
}

#[test]
fn old_updates_are_summed_up() {
    let mut story = Story::new(CONFIG_MAP);
    for number in 0..14 {
        let mut data = story.live.get("data").cloned().unwrap_or_else(|| json!({}));
        data[format!("k{number:02}")] = "1".into();
        story = story.update(&format!("m{number:02}"), json!({ "data": data }));
        for entry in &mut story.entries {
            if entry.manager.name == format!("m{number:02}") {
                entry.time = format!("2026-01-02T03:04:{number:02}Z");
            }
        }
    }
    let names: Vec<&str> = story.entries.iter().map(|entry| entry.manager.name.as_str()).collect();
    assert_eq!(names.len(), 10);
    let ancient = story.entries.iter().find(|entry| entry.manager.name == "ancient-changes").unwrap();
    assert_eq!(ancient.fields.paths(), [".data", ".data.k00", ".data.k01", ".data.k02", ".data.k03", ".data.k04"]);
}

#[test]
fn entries_that_a_change_does_not_concern_stay_as_they_are_written() {
    let pod = |status: Value| json!({ "spec": { "nodeName": "n" }, "status": status });
    let story = Story::new(POD).update("creator", pod(json!({}))).update("kubelet", pod(json!({ "phase": "Pending" })));
    // Spaces tell what has been decoded and written anew.
    let text = render(story.entries.clone()).replace(r#""fieldsV1":"#, r#""fieldsV1": "#);
    let text = |object: Value| {
        let changes = compare(&story.live, &object, &BuiltIn::root(POD));
        update_text(&text, &changes, &manager("kubelet", Operation::Update), "2027-01-02T03:04:05Z")
            .unwrap()
            .into_owned()
    };
    let changed = text(pod(json!({ "phase": "Running" })));
    assert!(
        changed.contains(r#""fieldsV1": {"f:spec":"#) && changed.contains(r#""fieldsV1":{"f:status":"#),
        "{changed}"
    );
    assert!(changed.ends_with(r#""time":"2027-01-02T03:04:05Z"}]"#), "{changed}");
    let taken = text(json!({ "spec": { "nodeName": "m" } }));
    assert!(!taken.contains(r#""fieldsV1": "#) && !taken.contains("creator"), "{taken}");
    for foreign in ["", "{}", r#"[{"operation":"Update"}]"#, r#"[{"operation":"Else","apiVersion":"v1"}]"#] {
        assert_eq!(update_text(foreign, &Comparison::default(), &manager("a", Operation::Update), NOW), None);
    }
}

#[test]
fn entries_are_written_and_read() {
    let entries = Story::new(CONFIG_MAP)
        .update("z", json!({ "data": { "x": "1" } }))
        .apply("a", json!({ "data": { "x": "1" } }))
        .entries;
    let text = render(entries.clone());
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value,
        json!([
            { "manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
              "fieldsV1": { "f:data": { "f:x": {} } } },
            { "manager": "z", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
              "fieldsV1": { "f:data": { ".": {}, "f:x": {} } } },
        ])
    );
    assert!(same_but_times(&parse(&value).unwrap(), &entries));
    assert_eq!(render(Vec::new()), "");
    let created = render_created(&manager("z", Operation::Update), NOW, r#"{"f:data":{".":{},"f:x":{}}}"#);
    let created = parse(&serde_json::from_str(&created).unwrap()).unwrap();
    assert_eq!(created, entries[..1]);
    for broken in [json!({}), json!([{}]), json!([{ "operation": "Update", "apiVersion": "v1" }])] {
        assert_eq!(parse(&broken), None);
    }
}
