//! Tables for definitions: their rules, names and conditions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionNames;
use registry::custom::is_true;
use serde_json::{Value, json};

use super::super::testing::{defaulted, errors, row, update_errors, with};
use super::CustomResourceDefinition as Kind;
use super::status::{Taken, decide};

fn crd() -> Value {
    json!({
        "metadata": { "name": "shirts.stable.example.com" },
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": { "plural": "shirts", "kind": "Shirt" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": { "type": "object", "properties": { "color": { "type": "string" } } } },
            } } }],
        },
    })
}

#[test]
fn the_walkthroughs_definition_is_refused_and_why() {
    assert_eq!(
        errors::<Kind>(json!({
            "metadata": { "name": "podgroups.scheduling.sigs.k8s.io" },
            "spec": {
                "group": "scheduling.sigs.k8s.io", "scope": "Namespaced",
                "names": { "kind": "PodGroup", "plural": "podgroups" },
                "versions": [{ "name": "v1alpha1", "served": true, "storage": true }],
            },
        })),
        [
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ]
    );
}

#[test]
fn definitions_that_are_refused() {
    let check = |pointer: &str, value: Value, expect: &[&str]| {
        assert_eq!(errors::<Kind>(with(crd(), pointer, value)), expect, "{pointer}");
    };
    assert_eq!(errors::<Kind>(crd()), [""; 0]);
    check(
        "/metadata/name",
        json!("shirts"),
        &["metadata.name: Invalid value: \"shirts\": must be spec.names.plural+\".\"+spec.group"],
    );
    check(
        "/spec/scope",
        json!("Namespace"),
        &["spec.scope: Unsupported value: \"Namespace\": supported values: \"Cluster\", \"Namespaced\""],
    );
    check(
        "/spec/versions/0/storage",
        json!(false),
        &["spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version"],
    );
    check(
        "/spec/names/listKind",
        json!("Shirt"),
        &["spec.names.listKind: Invalid value: \"Shirt\": kind and listKind may not be the same"],
    );
    check(
        "/spec/preserveUnknownFields",
        json!(true),
        &[
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ],
    );
    check(
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color",
        json!({}),
        &[
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[color].type: Required value: must not be empty for specified object fields",
        ],
    );
    check(
        "/spec/versions/0/selectableFields",
        json!([{ "jsonPath": ".spec.color" }, { "jsonPath": ".spec.size" }, { "jsonPath": ".spec" }]),
        &[
            "spec.versions[0].selectableFields[1].jsonPath: Invalid value: \".spec.size\": is an invalid path: does not refer to a valid field",
            "spec.versions[0].selectableFields[2].jsonPath: Invalid value: \".spec\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ],
    );
    check(
        "/spec/versions/0/additionalPrinterColumns",
        json!([{ "name": "A", "type": "text", "jsonPath": "spec" }]),
        &[
            "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
            "spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: \"spec\": must be a simple json path starting with .",
        ],
    );
    check(
        "/spec/versions/0/subresources",
        json!({ "scale": { "specReplicasPath": ".replicas", "statusReplicasPath": "" } }),
        &[
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".replicas\": should be a json path under .spec",
            "spec.versions[0].subresources.scale.statusReplicasPath: Required value",
        ],
    );
    check(
        "/spec/conversion",
        json!({ "strategy": "Webhook" }),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    let annotated = |value: &str| {
        with(
            with(with(crd(), "/metadata/name", json!("shirts.x.k8s.io")), "/spec/group", json!("x.k8s.io")),
            "/metadata/annotations",
            json!({ "api-approved.kubernetes.io": value }),
        )
    };
    assert_eq!(errors::<Kind>(annotated("unapproved, an example")), [""; 0]);
    assert_eq!(errors::<Kind>(annotated("https://github.com/kubernetes/kubernetes/pull/1")), [""; 0]);
    assert_eq!(
        errors::<Kind>(annotated("yes")),
        [
            "metadata.annotations[api-approved.kubernetes.io]: Invalid value: \"yes\": protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
        ]
    );
}

#[test]
fn steps_that_are_refused() {
    let established = |value: Value| {
        with(
            value,
            "/status",
            json!({
                "storedVersions": ["v1"], "acceptedNames": { "plural": "shirts", "kind": "Shirt" },
                "conditions": [{ "type": "Established", "status": "True" }],
            }),
        )
    };
    let old = established(crd());
    assert_eq!(update_errors::<Kind>(old.clone(), old.clone()), [""; 0]);
    let renamed = with(with(old.clone(), "/spec/scope", json!("Cluster")), "/spec/names/kind", json!("Blouse"));
    assert_eq!(
        update_errors::<Kind>(old.clone(), renamed),
        [
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
            "spec.names.kind: Invalid value: \"Blouse\": field is immutable",
        ]
    );
    let moved = with(old.clone(), "/spec/versions/0/name", json!("v2"));
    assert_eq!(
        update_errors::<Kind>(old, moved),
        [
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions",
        ]
    );
}

#[test]
fn names_are_given_once() {
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let mut first = defaulted::<Kind>(with(crd(), "/spec/names/shortNames", json!(["sh"])));
    decide(&mut first, &Taken::default(), now);
    assert!(is_true(&first, "NamesAccepted") && is_true(&first, "Established"));
    let names = first.status.as_ref().and_then(|status| status.accepted_names.clone()).expect("names");
    assert_eq!(
        names,
        CustomResourceDefinitionNames {
            plural: "shirts".into(),
            singular: Some("shirt".into()),
            kind: "Shirt".into(),
            list_kind: Some("ShirtList".into()),
            short_names: Some(vec!["sh".into()]),
            categories: None,
        }
    );
    let mut taken = Taken::default();
    taken.add(names);
    for (pointer, value, reason, message) in [
        ("/spec/names/kind", "Shirt", "ListKindConflict", "\"ShirtList\" is already in use"),
        ("/spec/names/singular", "sh", "SingularConflict", "\"sh\" is already in use"),
    ] {
        let other = with(with(crd(), "/spec/names/plural", json!("others")), "/spec/names/kind", json!("Other"));
        let mut other = defaulted::<Kind>(with(other, pointer, json!(value)));
        decide(&mut other, &taken, now);
        let conditions = other.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let condition = conditions.iter().find(|condition| condition.type_ == "NamesAccepted").expect("a condition");
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_deref(), condition.message.as_deref()),
            ("False", Some(reason), Some(message))
        );
        assert!(!is_true(&other, "Established"));
    }
}

#[test]
fn what_get_shows() {
    let created = with(crd(), "/metadata/creationTimestamp", json!("2026-01-01T00:00:00Z"));
    assert_eq!(row::<Kind>(created), ["shirts.stable.example.com", "2026-01-01T00:00:00Z"]);
}

/// A rule about each text of a list without bounds costs too much; where it was accepted before, it may stay.
#[test]
fn rules_that_cost_too_much_may_stay_where_they_were() {
    let rule = json!([{ "rule": "self.matches('^[a-z]+$')" }]);
    let schema = |kind: &str| {
        json!({ "type": "object", "properties": {
            "texts": { "type": "array", "items": { "type": "string", "x-kubernetes-validations": rule } },
            "more": { "type": kind },
        } })
    };
    let place = "/spec/versions/0/schema/openAPIV3Schema";
    let expensive = with(crd(), place, schema("string"));
    let refused = |object: Value, old: Value| {
        let [object, old] = [object, old].map(defaulted::<Kind>);
        let wrong = <Kind as registry::kind::Kind>::validate_kept(&object, &old);
        wrong.iter().any(|error| error.to_string().contains("estimated rule cost exceeds budget"))
    };
    assert!(errors::<Kind>(expensive.clone()).iter().any(|error| error.contains("estimated rule cost exceeds budget")));
    assert!(refused(expensive.clone(), crd()));
    assert!(!refused(with(expensive.clone(), "/spec/names/categories", json!(["all"])), expensive.clone()));
    assert!(refused(with(crd(), place, schema("integer")), expensive));
}
