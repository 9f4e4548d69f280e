//! Tables of rules: what definitions may have, and what objects may be under them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Value, json};

use crate::field::Path;
use crate::schema::{Schema, rules};

/// A schema whose `spec` has a number, a list by keys, a list, a map and rules.
fn props(spec_rules: &Value) -> Value {
    json!({
        "type": "object",
        "properties": { "spec": {
            "type": "object",
            "x-kubernetes-validations": spec_rules,
            "properties": {
                "count": { "type": "integer" },
                "text": { "type": "string" },
                "parts": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
                    "items": { "type": "object", "required": ["key"], "properties": {
                        "key": { "type": "string" },
                        "value": { "type": "integer", "x-kubernetes-validations": [{ "rule": "self >= oldSelf", "message": "must not shrink" }] },
                    } },
                },
                "list": { "type": "array", "items": { "type": "string", "x-kubernetes-validations": [{ "rule": "self != 'bad'" }] } },
                "map": { "type": "object", "additionalProperties": {
                    "type": "integer", "x-kubernetes-validations": [{ "rule": "self == oldSelf", "reason": "FieldValueForbidden", "message": "immutable" }] } },
            },
        } },
    })
}

fn parse(props: Value) -> JSONSchemaProps {
    serde_json::from_value(props).unwrap()
}

fn evaluate(rules: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let props = parse(props(rules));
    // What is evaluated here may cost too much.
    let wrong = rules::check(&props, &Path::new("schema"), rules::Costs::Accepted);
    assert!(wrong.is_empty(), "{wrong}");
    let around = [("kind", json!("Thing")), ("metadata", json!({ "name": "x" }))];
    let new = json!({ "spec": new });
    let old = old.map(|old| json!({ "spec": old }));
    let old = old.as_ref().map(|old| (old, around.as_slice()));
    Schema::parse(&props).evaluate((&new, &around), old).iter().map(ToString::to_string).collect()
}

#[test]
fn messages_and_places() {
    for (rule, new, expect) in [
        (json!({ "rule": "self.count < 5" }), json!({ "count": 4 }), None),
        (
            json!({ "rule": "self.count < 5" }),
            json!({ "count": 5 }),
            Some("spec: Invalid value: failed rule: self.count < 5"),
        ),
        (
            json!({ "rule": "self.count < 5", "message": " too many " }),
            json!({ "count": 5 }),
            Some("spec: Invalid value: too many"),
        ),
        (
            json!({ "rule": "self.count < 5", "messageExpression": "'%d is too many'.format([self.count])" }),
            json!({ "count": 5 }),
            Some("spec: Invalid value: 5 is too many"),
        ),
        (
            json!({ "rule": "self.count < 5", "message": "too many", "messageExpression": "self.text" }),
            json!({ "count": 5 }),
            Some("spec: Invalid value: too many"),
        ),
        (
            json!({ "rule": "self.count < 5", "message": "no", "fieldPath": ".count", "reason": "FieldValueForbidden" }),
            json!({ "count": 5 }),
            Some("spec.count: Forbidden: no"),
        ),
        (
            json!({ "rule": "self.count < 5", "message": "no", "fieldPath": ".map['a.b']", "reason": "FieldValueRequired" }),
            json!({ "count": 5 }),
            Some("spec.map[a.b]: Required value: no"),
        ),
        (
            json!({ "rule": "self.count < 5" }),
            json!({}),
            Some("spec: Invalid value: \"object\": no such key: count evaluating rule: self.count < 5"),
        ),
        (
            json!({ "rule": "[self.list, self.list].all(a, self.list.all(b, self.list.all(c, self.list.all(d, a != [b]))))", "message": "slow" }),
            json!({ "list": vec!["x"; 200] }),
            Some(
                "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: slow",
            ),
        ),
        (
            json!({ "rule": "true" }),
            json!({ "list": ["bad"] }),
            Some("spec.list[0]: Invalid value: \"bad\": failed rule: self != 'bad'"),
        ),
    ] {
        assert_eq!(evaluate(&json!([rule]), &new, None), Vec::from_iter(expect), "{rule}");
    }
}

#[test]
fn changes() {
    let grows = json!([{ "rule": "self.count >= oldSelf.count", "message": "must not shrink" }]);
    let optional =
        json!([{ "rule": "oldSelf.hasValue() || self.count == 1", "optionalOldSelf": true, "message": "starts at 1" }]);
    let fixed = json!([{ "rule": "self.count < 5" }]);
    let none = json!([]);
    for (rules, new, old, expect) in [
        (&grows, json!({ "count": 1 }), None, vec![]),
        (&grows, json!({ "count": 1 }), Some(json!({ "count": 1 })), vec![]),
        (&grows, json!({ "count": 1 }), Some(json!({ "count": 2 })), vec!["spec: Invalid value: must not shrink"]),
        (&optional, json!({ "count": 2 }), None, vec!["spec: Invalid value: starts at 1"]),
        (&optional, json!({ "count": 2 }), Some(json!({ "count": 1 })), vec![]),
        (
            &json!([{ "rule": "oldSelf == null || oldSelf.text == '' || self == oldSelf", "message": "immutable" }]),
            json!({ "text": "b" }),
            Some(json!({ "text": "a" })),
            vec!["spec: Invalid value: immutable"],
        ),
        // What was wrong before and has not changed is not refused.
        (&fixed, json!({ "count": 7 }), Some(json!({ "count": 7 })), vec![]),
        (
            &fixed,
            json!({ "count": 7 }),
            Some(json!({ "count": 8 })),
            vec!["spec: Invalid value: failed rule: self.count < 5"],
        ),
        (&none, json!({ "list": ["bad"] }), Some(json!({ "list": ["bad"], "count": 1 })), vec![]),
        // Items are told by their keys, wherever they are.
        (
            &none,
            json!({ "parts": [{ "key": "b", "value": 1 }, { "key": "a", "value": 5 }] }),
            Some(json!({ "parts": [{ "key": "a", "value": 4 }, { "key": "b", "value": 2 }] })),
            vec!["spec.parts[0].value: Invalid value: 1: must not shrink"],
        ),
        (
            &none,
            json!({ "map": { "a": 1, "b": 2, "c": 3 } }),
            Some(json!({ "map": { "a": 1, "b": 3 } })),
            vec!["spec.map[b]: Forbidden: immutable"],
        ),
    ] {
        assert_eq!(evaluate(rules, &new, old.as_ref()), expect, "{rules} {new}");
    }
}

#[test]
fn the_whole_object() {
    let mut whole = props(&json!([]));
    whole["x-kubernetes-validations"] = json!([
        { "rule": "self.metadata.name == self.spec.text", "message": "the text must be the name" },
        { "rule": "self.kind == 'Thing' && !has(self.metadata.generateName)" },
    ]);
    let props = parse(whole);
    assert!(rules::check(&props, &Path::new("schema"), rules::Costs::Limited(&mut rules::Work::default())).is_empty());
    let around = [("kind", json!("Thing")), ("metadata", json!({ "name": "x" }))];
    let check = |text: &str| -> Vec<String> {
        let object = json!({ "spec": { "text": text } });
        Schema::parse(&props).evaluate((&object, &around), None).iter().map(ToString::to_string).collect()
    };
    assert_eq!(check("x"), Vec::<String>::new());
    assert_eq!(check("y"), ["<nil>: Invalid value: the text must be the name"]);
}

#[test]
fn definitions() {
    let rule = |rule: &str| json!([{ "rule": rule }]);
    let place = "schema.properties[spec].x-kubernetes-validations[0]";
    for (rules, field, why) in [
        (
            rule("self.nothing == 1"),
            "rule",
            "Invalid value: \"self.nothing == 1\": compilation failed: ERROR: <input>:1:5: undefined field 'nothing'\n | self.nothing == 1\n | ....^",
        ),
        (rule("self.count"), "rule", "Invalid value: \"self.count\": cel expression must evaluate to a bool"),
        (rule("self.count =="), "rule", "Invalid value: \"self.count ==\": compilation failed: ERROR: <input>:1:"),
        (
            json!([{ "rule": "true", "messageExpression": "self.count" }]),
            "messageExpression",
            "Invalid value: \"self.count\": messageExpression must evaluate to a string",
        ),
        (
            json!([{ "rule": "true", "messageExpression": "self.x" }]),
            "messageExpression",
            "Invalid value: \"self.x\": messageExpression compilation failed: ERROR: <input>:1:5: undefined field 'x'",
        ),
        (
            json!([{ "rule": "true", "optionalOldSelf": true }]),
            "optionalOldSelf",
            "Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
        (
            json!([{ "rule": "true", "fieldPath": ".nothing" }]),
            "fieldPath",
            "Invalid value: \".nothing\": fieldPath must be a valid path: does not refer to a valid field",
        ),
    ] {
        let wrong = rules::check(
            &parse(props(&rules)),
            &Path::new("schema"),
            rules::Costs::Limited(&mut rules::Work::default()),
        )
        .to_string();
        assert!(wrong.starts_with(&format!("{place}.{field}: {why}")), "{rules}: {wrong}");
    }
    let mut apart = props(&json!([]));
    apart["properties"]["spec"]["properties"]["list"]["items"]["x-kubernetes-validations"] = rule("self == oldSelf");
    let wrong = rules::check(&parse(apart), &Path::new("schema"), rules::Costs::Accepted).to_string();
    assert_eq!(
        wrong,
        "schema.properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec].properties[list]"
    );
    let open = json!({ "type": "object", "properties": { "spec": {
        "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{ "rule": "true" }] } } });
    let wrong = rules::check(&parse(open), &Path::new("schema"), rules::Costs::Limited(&mut rules::Work::default()))
        .to_string();
    assert!(
        wrong.contains("Internal error: rule declared on schema that does not support validation rules"),
        "{wrong}"
    );
}

#[test]
fn rules_that_cost_too_much_are_refused() {
    const HINT: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let check = |spec: Value, expect: &[&str]| {
        let props = parse(json!({ "type": "object", "properties": { "spec": spec } }));
        let found: Vec<String> =
            rules::check(&props, &Path::new("s"), rules::Costs::Limited(&mut rules::Work::default()))
                .iter()
                .map(ToString::to_string)
                .collect();
        let expect: Vec<String> = expect.iter().map(|line| line.replace("HINT", HINT)).collect();
        assert_eq!(found, expect);
    };
    let rule = |rule: &str| json!([{ "rule": rule }]);
    let text = json!({ "type": "string", "x-kubernetes-validations": rule("self.matches('^[a-z]+$')") });
    let bounded = |mut schema: Value, name: &str, max: u64| {
        schema[name] = max.into();
        schema
    };
    let list = |items: &Value| json!({ "type": "array", "items": items });
    // Alone, a text without bounds is read in time.
    check(text.clone(), &[]);
    // In a list without bounds there may be a million of them.
    check(
        list(&text),
        &[
            "s.properties[spec].items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x HINT",
            "s.properties[spec].items.x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x HINT",
        ],
    );
    check(bounded(list(&bounded(text.clone(), "maxLength", 63)), "maxItems", 1000), &[]);
    // It may stay where it was accepted before.
    let kept = parse(json!({ "type": "object", "properties": { "spec": list(&text) } }));
    assert!(rules::check(&kept, &Path::new("s"), rules::Costs::Accepted).is_empty());
    // 20 times 629,147 units; the whole schema has ten times the budget of a rule.
    check(
        bounded(list(&text), "maxItems", 20),
        &[
            "s.properties[spec].items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of 1.258294x HINT",
        ],
    );
    // Each of these is within its budget, and all of them are not.
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let expensive = bounded(list(&text), "maxItems", 15);
    let all: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), expensive.clone())).collect();
    let contributed = |name: &str| {
        format!(
            "s.properties[spec].properties[{name}].items.x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        )
    };
    check(
        json!({ "type": "object", "properties": all }),
        &[
            &contributed("a"),
            &contributed("b"),
            &contributed("c"),
            &contributed("d"),
            "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of 1.132465x HINT",
        ],
    );
    // What makes a message is estimated for one value.
    let message = json!([{ "rule": "true", "messageExpression": "self.exists(a, self.exists(b, a < b)) ? 'x' : 'y'" }]);
    let numbers = json!({ "type": "array", "items": { "type": "integer" }, "x-kubernetes-validations": message });
    check(bounded(numbers.clone(), "maxItems", 10), &[]);
    check(
        numbers,
        &[
            "s.properties[spec].x-kubernetes-validations[0].messageExpression: Forbidden: estimated messageExpression cost exceeds budget by factor of more than 100x HINT",
            "s.properties[spec].x-kubernetes-validations[0].messageExpression: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x HINT",
        ],
    );
}
