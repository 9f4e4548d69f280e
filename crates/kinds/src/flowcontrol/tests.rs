//! Tables of what is defaulted, refused and shown.

use serde_json::{Value, json};

use super::flow_schema::FlowSchema;
use super::priority_level_configuration::PriorityLevelConfiguration;
use crate::testing::{CREATED, check_defaults, errors, row, with};

fn named(name: &str, spec: &Value) -> Value {
    json!({ "metadata": { "name": name, "creationTimestamp": CREATED }, "spec": spec })
}

fn schema() -> Value {
    named(
        "mine",
        &json!({
            "priorityLevelConfiguration": { "name": "workload-low" },
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{
                "subjects": [{ "kind": "Group", "group": { "name": "devs" } }],
                "resourceRules": [{
                    "verbs": ["list"], "apiGroups": ["*"], "resources": ["pods"], "namespaces": ["default"],
                }],
                "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": ["/metrics", "/openapi/*"] }],
            }],
        }),
    )
}

fn level() -> Value {
    let queuing = json!({ "queues": 16, "handSize": 4, "queueLengthLimit": 10 });
    let limited = json!({
        "nominalConcurrencyShares": 5, "limitResponse": { "type": "Queue", "queuing": queuing },
    });
    named("mine", &json!({ "type": "Limited", "limited": limited }))
}

#[test]
fn defaults() {
    let metadata = json!({ "name": "x", "creationTimestamp": CREATED });
    check_defaults::<FlowSchema>(
        named("x", &json!({ "priorityLevelConfiguration": { "name": "a" } })),
        &json!({ "metadata": metadata, "spec": {
            "priorityLevelConfiguration": { "name": "a" }, "matchingPrecedence": 1000,
        } }),
    );
    let response = json!({ "type": "Queue", "queuing": {} });
    check_defaults::<PriorityLevelConfiguration>(
        named("x", &json!({ "type": "Limited", "limited": { "limitResponse": response } })),
        &json!({ "metadata": metadata, "spec": { "type": "Limited", "limited": {
            "nominalConcurrencyShares": 30, "lendablePercent": 0,
            "limitResponse": { "type": "Queue", "queuing": { "handSize": 8, "queues": 64, "queueLengthLimit": 50 } },
        } } }),
    );
}

#[test]
fn schemas_that_are_wrong() {
    assert_eq!(errors::<FlowSchema>(schema()), [""; 0]);
    let rule = "/spec/rules/0";
    for (at, value, expect) in [
        ("/spec/matchingPrecedence", json!(-1), "spec.matchingPrecedence: Invalid value: -1: must be a positive value"),
        (
            "/spec/matchingPrecedence",
            json!(10_001),
            "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
        ),
        (
            "/spec/matchingPrecedence",
            json!(1),
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
        ),
        (
            "/spec/distinguisherMethod/type",
            json!("ByWeather"),
            "spec.distinguisherMethod.type: Unsupported value: \"ByWeather\": supported values: \"ByNamespace\", \"ByUser\"",
        ),
        (
            "/spec/priorityLevelConfiguration/name",
            json!(""),
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        ),
        (
            "/spec/rules/0/subjects",
            json!([]),
            "spec.rules[0].subjects: Required value: subjects must contain at least one value",
        ),
        (
            "/spec/rules/0/subjects/0/kind",
            json!("User"),
            "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
        ),
        (
            "/spec/rules/0/subjects/0/kind",
            json!("Team"),
            "spec.rules[0].subjects[0].kind: Unsupported value: \"Team\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
        ),
        (
            "/spec/rules/0/resourceRules/0/verbs",
            json!(["list", "*"]),
            "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"list\",\"*\"]: if '*' is present, must not specify other verbs",
        ),
        (
            "/spec/rules/0/resourceRules/0/namespaces",
            json!([]),
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
        ),
        (
            "/spec/rules/0/nonResourceRules/0/nonResourceURLs",
            json!(["/a*"]),
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do suffix matching",
        ),
    ] {
        let found = errors::<FlowSchema>(with(schema(), at, value));
        assert!(found.iter().any(|error| error == expect), "{at}: {found:?}");
    }
    let bare = with(
        with(schema(), &format!("{rule}/resourceRules"), Value::Null),
        &format!("{rule}/nonResourceRules"),
        Value::Null,
    );
    assert_eq!(
        errors::<FlowSchema>(bare),
        ["spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"]
    );
    let changed = with(schema(), "/metadata/name", json!("catch-all"));
    assert!(errors::<FlowSchema>(changed)[0].ends_with("spec of 'catch-all' must equal the fixed value"));
}

#[test]
fn levels_that_are_wrong() {
    assert_eq!(errors::<PriorityLevelConfiguration>(level()), [""; 0]);
    let queuing = "/spec/limited/limitResponse/queuing";
    for (at, value, expect) in [
        (
            "/spec/type".to_owned(),
            json!("Exempt"),
            "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
        ),
        (
            "/spec/limited".to_owned(),
            Value::Null,
            "spec.limited: Required value: must not be empty when type is Limited",
        ),
        (
            "/spec/limited/lendablePercent".to_owned(),
            json!(101),
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
        ),
        (
            "/spec/limited/nominalConcurrencyShares".to_owned(),
            json!(-1),
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
        ),
        (
            format!("{queuing}/handSize"),
            json!(17),
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 17: should not be greater than queues (16)",
        ),
        (
            format!("{queuing}/handSize"),
            json!(16),
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 16: required entropy bits of deckSize 16 and handSize 16 should not be greater than 60",
        ),
        (
            queuing.to_owned(),
            Value::Null,
            "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
        ),
    ] {
        let found = errors::<PriorityLevelConfiguration>(with(level(), &at, value));
        assert!(found.iter().any(|error| error == expect), "{at}: {found:?}");
    }
    let exempt = |lends: i32| {
        named(
            "exempt",
            &json!({ "type": "Exempt", "exempt": { "nominalConcurrencyShares": 3, "lendablePercent": lends } }),
        )
    };
    assert_eq!(errors::<PriorityLevelConfiguration>(exempt(7)), [""; 0], "what it lends may be changed");
    let limited = with(level(), "/metadata/name", json!("catch-all"));
    assert!(
        errors::<PriorityLevelConfiguration>(limited)[0].ends_with("spec of 'catch-all' must equal the fixed value")
    );
}

#[test]
fn cells() {
    let mut dangling = schema();
    dangling["status"] = json!({ "conditions": [{ "type": "Dangling", "status": "True" }] });
    assert_eq!(
        row::<FlowSchema>(with(dangling, "/spec/matchingPrecedence", json!(7))),
        [json!("mine"), json!("workload-low"), json!(7), json!("ByUser"), json!("10m"), json!("True")]
    );
    assert_eq!(
        row::<PriorityLevelConfiguration>(level()),
        [json!("mine"), json!("Limited"), json!(5), json!(16), json!(4), json!(10), json!("10m")]
    );
    let none = json!("<none>");
    assert_eq!(
        row::<PriorityLevelConfiguration>(named("exempt", &json!({ "type": "Exempt" }))),
        [json!("exempt"), json!("Exempt"), none.clone(), none.clone(), none.clone(), none, json!("10m")]
    );
}
