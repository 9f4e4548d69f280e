//! Documents, patches and what must come out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::depth;

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[track_caller]
fn check(definition: &str, document: &str, patch: &str, expect: &str) {
    let result = strategic_merge_patch(&yaml(document), &yaml(patch), definition).unwrap();
    assert_eq!(result, yaml(expect), "\n{document}\n+ {patch}\n= {result}");
}

#[track_caller]
fn refuse(definition: &str, document: &str, patch: &str, expect: &str) {
    let error = strategic_merge_patch(&yaml(document), &yaml(patch), definition).unwrap_err();
    assert!(error.to_string().contains(expect), "{error}");
}

#[test]
fn maps_and_scalars() {
    check(POD_SPEC, "{a: 1, b: 2}", "{b: 3, c: 4}", "{a: 1, b: 3, c: 4}");
    check(POD_SPEC, "{a: 1, b: 2}", "{b: null, x: null}", "{a: 1}");
    check(POD_SPEC, "{nodeSelector: {a: b}}", "{nodeSelector: {c: d}}", "{nodeSelector: {a: b, c: d}}");
    check(POD_SPEC, "{nodeSelector: {a: b}}", "{nodeSelector: {$patch: replace, c: d}}", "{nodeSelector: {c: d}}");
    check(POD_SPEC, "{nodeSelector: {a: b}}", "{nodeSelector: {$patch: delete}}", "{nodeSelector: {}}");
    check(POD_SPEC, "{}", "{nodeSelector: {$patch: delete}}", "{}");
    check(POD_SPEC, "{}", "{affinity: {a: null, b: {c: null, d: 1}}}", "{affinity: {b: {d: 1}}}");
    check(POD_SPEC, "{affinity: x}", "{affinity: {b: 1}}", "{affinity: {b: 1}}");
    refuse(POD_SPEC, "{}", "{$patch: explode, a: b}", "unknown patch type: explode in map: map[$patch:explode a:b]");
}

/// Upstream judges a few of the errors of a strategic merge patch; the others are its own fault.
#[test]
fn codes_of_strategic_merge_patches() {
    for (patch, code) in [
        ("{$patch: explode}", 400),
        ("{containers: [{name: a, $patch: explode}]}", 400),
        ("{containers: [{$patch: merge}]}", 400),
        ("{containers: [{image: x}]}", 400),
        ("{$retainKeys: x}", 400),
        ("{$retainKeys: [a], b: 1}", 422),
        ("{$deleteFromPrimitiveList/x: 1}", 400),
        ("[]", 400),
    ] {
        let document = yaml("{containers: [{name: a}]}");
        let error = strategic_merge_patch(&document, &yaml(patch), POD_SPEC).unwrap_err();
        assert_eq!(ApiError::from(error).code, code, "{patch}");
    }
}

#[test]
fn lists_by_key() {
    let two = "{containers: [{name: a, image: x}, {name: b, image: y}]}";
    check(
        POD_SPEC,
        two,
        "{containers: [{name: b, image: z}]}",
        "{containers: [{name: a, image: x}, {name: b, image: z}]}",
    );
    // A new item goes before those that the patch does not name.
    check(
        POD_SPEC,
        two,
        "{containers: [{name: c}]}",
        "{containers: [{name: c}, {name: a, image: x}, {name: b, image: y}]}",
    );
    check(POD_SPEC, two, "{containers: [{name: a, $patch: delete}]}", "{containers: [{name: b, image: y}]}");
    check(POD_SPEC, two, "{containers: [{name: a, image: null}]}", "{containers: [{name: a}, {name: b, image: y}]}");
    check(POD_SPEC, two, "{containers: [{name: c}, {$patch: replace}]}", "{containers: [{name: c}]}");
    check(POD_SPEC, "{}", "{containers: [{name: c, x: null}, {name: d, $patch: delete}]}", "{containers: [{name: c}]}");
    refuse(POD_SPEC, two, "{containers: [{image: x}]}", "map: map[image:x] does not contain declared merge key: name");
    refuse(POD_SPEC, two, "{containers: [x]}", "same type");
    refuse(POD_SPEC, two, "{containers: [[x]]}", "lists of lists");
    refuse(POD_SPEC, two, "{containers: [{name: a, $patch: merge}]}", "cannot yet be specified");
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    check(POD_SPEC, "{tolerations: [{key: a}]}", "{tolerations: [{key: b}]}", "{tolerations: [{key: b}]}");
    check(
        POD_SPEC,
        "{containers: [{name: a, args: [x, y]}]}",
        "{containers: [{name: a, args: [z]}]}",
        "{containers: [{name: a, args: [z]}]}",
    );
    check("io.k8s.api.core.v1.Unknown", "{l: [1]}", "{l: [2]}", "{l: [2]}");
}

#[test]
fn nested_lists() {
    check(
        DEPLOYMENT,
        "{spec: {template: {spec: {containers: [{name: a, env: [{name: X, value: '1'}, {name: Y, value: '2'}], ports: [{containerPort: 80}]}]}}}}",
        "{spec: {template: {spec: {containers: [{name: a, env: [{name: Y, value: '3'}], ports: [{containerPort: 81}]}]}}}}",
        "{spec: {template: {spec: {containers: [{name: a, env: [{name: X, value: '1'}, {name: Y, value: '3'}], ports: [{containerPort: 81}, {containerPort: 80}]}]}}}}",
    );
}

#[test]
fn scalars_as_a_set() {
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    check(meta, "{finalizers: [a, b]}", "{finalizers: [b, c]}", "{finalizers: [a, b, c]}");
    check(meta, "{finalizers: [a, b]}", "{$deleteFromPrimitiveList/finalizers: [a]}", "{finalizers: [b]}");
    check(meta, "{}", "{$deleteFromPrimitiveList/finalizers: [a]}", "{}");
    check(
        meta,
        "{finalizers: [a, b, d]}",
        "{$deleteFromPrimitiveList/finalizers: [a], $setElementOrder/finalizers: [c, b], finalizers: [c]}",
        "{finalizers: [c, b, d]}",
    );
    refuse(
        meta,
        "{finalizers: [a]}",
        "{$deleteFromPrimitiveList/finalizers: a}",
        "invalid patch format of primitive list",
    );
    check(
        meta,
        "{ownerReferences: [{uid: u1, name: x}]}",
        "{ownerReferences: [{uid: u1, $patch: delete}, {uid: u2, name: y}]}",
        "{ownerReferences: [{uid: u2, name: y}]}",
    );
}

#[test]
fn element_order() {
    let three = "{containers: [{name: a}, {name: b}, {name: s}]}";
    check(
        POD_SPEC,
        three,
        "{$setElementOrder/containers: [{name: b}, {name: a}]}",
        "{containers: [{name: b}, {name: a}, {name: s}]}",
    );
    check(
        POD_SPEC,
        three,
        "{$setElementOrder/containers: [{name: b}, {name: c}, {name: a}], containers: [{name: c, image: x}]}",
        "{containers: [{name: b}, {name: c, image: x}, {name: a}, {name: s}]}",
    );
    check(
        POD_SPEC,
        three,
        "{$setElementOrder/containers: [{name: b}], containers: [{name: a, $patch: delete}, {name: b, image: x}]}",
        "{containers: [{name: b, image: x}, {name: s}]}",
    );
    check(POD_SPEC, "{}", "{$setElementOrder/containers: [{name: b}]}", "{}");
    check(
        POD_SPEC,
        "{}",
        "{$setElementOrder/containers: [{name: b}], containers: [{name: b}]}",
        "{containers: [{name: b}]}",
    );
    check(POD_SPEC, three, "{$setElementOrder/containers: [{name: b}], containers: null}", "{}");
    refuse(
        POD_SPEC,
        three,
        "{$setElementOrder/containers: [{name: a}, {name: b}], containers: [{name: b}, {name: a}]}",
        "doesn't match $setElementOrder list",
    );
    refuse(POD_SPEC, three, "{$setElementOrder/containers: x}", "invalid patch format of setElementOrder list");
}

#[test]
fn retained_keys() {
    check(
        DEPLOYMENT,
        "{spec: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}}}",
        "{spec: {strategy: {$retainKeys: [type], type: Recreate}}}",
        "{spec: {strategy: {type: Recreate}}}",
    );
    check(
        POD_SPEC,
        "{volumes: [{name: v, emptyDir: {}}]}",
        "{volumes: [{name: v, $retainKeys: [name, hostPath], hostPath: {path: /x}}]}",
        "{volumes: [{name: v, hostPath: {path: /x}}]}",
    );
    check(POD_SPEC, "{}", "{volumes: [{name: v, $retainKeys: [name], emptyDir: null}]}", "{volumes: [{name: v}]}");
    refuse(
        DEPLOYMENT,
        "{spec: {strategy: {}}}",
        "{spec: {strategy: {$retainKeys: [type], a: 1}}}",
        "patch content doesn't match retainKeys list",
    );
    refuse(
        DEPLOYMENT,
        "{spec: {strategy: {}}}",
        "{spec: {strategy: {$retainKeys: type}}}",
        "invalid patch format of retainKeys",
    );
}

/// What `kubectl apply` of the changed nginx example sends: the image changes, a sidecar of somebody else stays.
#[test]
fn kubectl_apply() {
    check(
        DEPLOYMENT,
        "{metadata: {name: nginx, annotations: {a: b, kubectl.kubernetes.io/last-applied-configuration: old}}, spec: {replicas: 5, template: {spec: {containers: [{name: nginx, image: 'nginx:latest', imagePullPolicy: Always, ports: [{containerPort: 80, protocol: TCP}]}, {name: sidecar, image: s}]}}}}",
        "{metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: new}}, spec: {template: {spec: {$setElementOrder/containers: [{name: nginx}], containers: [{image: 'nginx:1.21.0', name: nginx}]}}}}",
        "{metadata: {name: nginx, annotations: {a: b, kubectl.kubernetes.io/last-applied-configuration: new}}, spec: {replicas: 5, template: {spec: {containers: [{name: nginx, image: 'nginx:1.21.0', imagePullPolicy: Always, ports: [{containerPort: 80, protocol: TCP}]}, {name: sidecar, image: s}]}}}}",
    );
}

#[test]
fn node_status_conditions() {
    check(
        "io.k8s.api.core.v1.Node",
        "{status: {conditions: [{type: MemoryPressure, status: 'False'}, {type: Ready, status: 'False'}]}}",
        "{status: {$setElementOrder/conditions: [{type: MemoryPressure}, {type: Ready}], conditions: [{type: Ready, status: 'True'}]}}",
        "{status: {conditions: [{type: MemoryPressure, status: 'False'}, {type: Ready, status: 'True'}]}}",
    );
}

#[test]
fn replaced_as_the_type_says() {
    check(
        "io.k8s.api.policy.v1.PodDisruptionBudget",
        "{spec: {selector: {matchLabels: {a: b}}}}",
        "{spec: {selector: {matchLabels: {c: d}}}}",
        "{spec: {selector: {matchLabels: {c: d}}}}",
    );
}

#[test]
fn json_patches() {
    let document = json!({"a": {"b": [1, 2]}, "m~n/o": 1});
    let ok = |operations: Value| json_patch(&document, &operations).unwrap();
    assert_eq!(ok(json!([{"op": "add", "path": "/a/b/-", "value": 3}])), json!({"a": {"b": [1, 2, 3]}, "m~n/o": 1}));
    assert_eq!(ok(json!([{"op": "remove", "path": "/m~0n~1o"}])), json!({"a": {"b": [1, 2]}}));
    assert_eq!(
        ok(json!([{"op": "test", "path": "/a/b/0", "value": 1}, {"op": "replace", "path": "/a", "value": 0}]))["a"],
        0
    );
    // A value that is missing is null, as upstream's library has it.
    assert_eq!(ok(json!([{"op": "add", "path": "/a"}]))["a"], Value::Null);
    for (operations, code, message) in [
        (json!({"op": "add"}), 400, "error decoding patch: "),
        (json!([1]), 400, "error decoding patch: "),
        (json!([{"op": 1, "path": "/a"}]), 400, "error decoding patch: "),
        (json!([{"op": "remove", "path": 1}]), 400, "error decoding patch: "),
        (json!([{"path": "/a"}]), 422, "Unexpected kind: unknown"),
        (json!([{"op": null, "path": "/a"}]), 422, "Unexpected kind: unknown"),
        (json!([{"op": "explode", "path": "/a"}]), 422, "Unexpected kind: explode"),
        (json!([{"op": "remove"}]), 422, "remove operation failed to decode path: missing value"),
        (json!([{"op": "move", "path": "/x"}]), 422, "move operation failed to decode from: missing value"),
        (json!([{"op": "remove", "path": "a"}]), 422, "remove operation does not apply: "),
        (json!([{"op": "remove", "path": "/x"}]), 422, ""),
        (json!([{"op": "test", "path": "/a/b/0", "value": 9}]), 422, ""),
        (json!([{"op": "replace", "path": "/x/y", "value": 9}]), 422, ""),
        // The first operation that fails is the one that is told of.
        (json!([{"op": "test", "path": "/a", "value": 9}, {"op": "explode"}]), 422, "operation '/0' failed"),
    ] {
        let error = json_patch(&document, &operations).unwrap_err();
        assert!(error.to_string().starts_with(message), "{operations}: {error}");
        assert_eq!(ApiError::from(error).code, code, "{operations}");
    }
    let many = Value::Array(vec![json!({"op": "remove", "path": "/a"}); MAX_OPERATIONS + 1]);
    assert_eq!(ApiError::from(json_patch(&document, &many).unwrap_err()).code, 413);
}

#[test]
fn merge_patches() {
    let document = json!({"a": {"b": 1, "c": 2}, "l": [1]});
    assert_eq!(
        merge_patch(&document, &json!({"a": {"b": null, "d": {"e": null}}, "l": [2]})).unwrap(),
        json!({"a": {"c": 2, "d": {}}, "l": [2]})
    );
    assert!(merge_patch(&document, &json!([1])).is_err());
}

/// A long patch is a cheap one: this would take minutes if items were searched for.
#[test]
fn long_lists() {
    let list = |from: u32| (from..from + 8_000).map(|n| json!({"name": n.to_string()})).collect::<Vec<_>>();
    let order: Vec<Value> = list(4_000).into_iter().rev().collect();
    let patch = json!({"containers": order, "$setElementOrder/containers": order});
    let merged = strategic_merge_patch(&json!({"containers": list(0)}), &patch, POD_SPEC).unwrap();
    assert_eq!(merged["containers"].as_array().map(Vec::len), Some(12_000));
    let names: Vec<Value> = (0..15_000).map(Value::from).collect();
    let patch = json!({"finalizers": names, "$deleteFromPrimitiveList/finalizers": names});
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let merged = strategic_merge_patch(&json!({"finalizers": names}), &patch, meta).unwrap();
    assert_eq!(merged["finalizers"].as_array().map(Vec::len), Some(15_000));
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "containers",
        "name",
        "env",
        "volumes",
        "finalizers",
        "args",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "$setElementOrder/finalizers",
        "spec",
        "template",
        "metadata",
        "ownerReferences",
        "uid",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec!["a", "b", "delete", "replace", "merge", "name"]).prop_map(Value::from),
        (0..3).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// Pod specs as they are in practice.
fn pod_spec() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[0-9]", 0..3)
        .prop_map(|map| map.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Value>());
    let container =
        ("[a-d]", "[x-z]", env).prop_map(|(name, image, env)| json!({"name": name, "image": image, "env": env}));
    prop::collection::vec(container, 0..4).prop_map(|mut containers: Vec<Value>| {
        let mut seen = Vec::new();
        containers.retain(|container| {
            let new = !seen.contains(&container["name"]);
            seen.push(container["name"].clone());
            new
        });
        json!({"containers": containers})
    })
}

proptest! {
    #[test]
    fn nothing_panics(document in any_json(), patch in any_json()) {
        for definition in [POD_SPEC, DEPLOYMENT, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"] {
            let _ = strategic_merge_patch(&document, &patch, definition);
        }
        let _ = merge_patch(&document, &patch);
        let _ = json_patch(&document, &patch);
    }

    #[test]
    fn a_second_time_changes_nothing(document in pod_spec(), patch in pod_spec()) {
        let once = strategic_merge_patch(&document, &patch, POD_SPEC).unwrap();
        let twice = strategic_merge_patch(&once, &patch, POD_SPEC).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn nothing_of_the_document_is_lost(document in pod_spec(), patch in pod_spec()) {
        let merged = strategic_merge_patch(&document, &patch, POD_SPEC).unwrap();
        let names = |value: &Value| value["containers"].as_array().unwrap().iter().map(|item| item["name"].to_string()).collect::<Vec<_>>();
        for name in names(&document).into_iter().chain(names(&patch)) {
            prop_assert!(names(&merged).contains(&name));
        }
    }
}

/// What a patch refuses to do to `document`.
#[track_caller]
fn refuses(document: &Value, operations: Value, expect: &str) {
    let error = json_patch(document, &operations).expect_err("a bound");
    assert!(error.to_string().contains(expect), "{error}");
    assert!(matches!(ApiError::from(error).code, 413 | 422));
}

#[test]
fn copies_that_double_a_value_end_at_a_limit() {
    let doubling: Vec<Value> =
        (0..21).map(|n| json!({ "op": "copy", "from": "/data", "path": format!("/data/a{n}") })).collect();
    refuses(&json!({ "data": { "x": "0123456789" } }), doubling.into(), "exceeding the limit 3145728");
    let large = json!({ "data": "x".repeat(MAX_COPIED / 2 - 16) });
    let copies = |count: usize| -> Value {
        (0..count).map(|n| json!({ "op": "copy", "from": "/data", "path": format!("/a{n}") })).collect()
    };
    assert!(json_patch(&large, &copies(2)).is_ok());
    refuses(&large, copies(3), "Unable to complete the copy, the accumulated size increase of copy is");
}

#[test]
fn operations_that_nest_end_at_a_limit() {
    let nested = |levels: usize| (0..levels).fold(json!({}), |value, _| json!({ "a": value }));
    let document = json!({ "spec": {}, "deep": nested(60) });
    let below = "/deep".to_owned() + &"/a".repeat(60);
    for (operation, fits) in [
        (json!({ "op": "add", "path": "/spec/x", "value": nested(depth::MAX_DEPTH - 3) }), true),
        (json!({ "op": "add", "path": "/spec/x", "value": nested(depth::MAX_DEPTH - 2) }), false),
        (json!({ "op": "replace", "path": "/spec", "value": nested(depth::MAX_DEPTH - 1) }), false),
        (json!({ "op": "copy", "from": "/deep", "path": format!("{below}/b") }), false),
        (json!({ "op": "copy", "from": "/spec", "path": format!("{below}/b") }), true),
        (json!({ "op": "move", "from": "/deep/a/a", "path": "/spec/y" }), true),
        (json!({ "op": "move", "from": "/spec", "path": format!("{below}/b") }), true),
    ] {
        let operations = json!([operation]);
        if fits {
            assert!(depth::of(&json_patch(&document, &operations).unwrap()) <= depth::MAX_DEPTH, "{operation}");
        } else {
            refuses(&document, operations, "exceeded max depth of 100");
        }
    }
    // Each moves the whole one level deeper.
    let deeper: Vec<Value> = (0..200)
        .flat_map(|_| {
            [
                json!({ "op": "add", "path": "/b", "value": {} }),
                json!({ "op": "move", "from": "/a", "path": "/b/a" }),
                json!({ "op": "move", "from": "/b", "path": "/a" }),
            ]
        })
        .collect();
    refuses(&json!({ "a": {} }), deeper.into(), "exceeded max depth of 100");
    refuses(&json!({}), vec![json!({ "op": "test", "path": "", "value": {} }); MAX_OPERATIONS + 1].into(), "got 10001");
}
