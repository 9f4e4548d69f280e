//! What admission asks for and cannot decode refuses whatever depends on it: nothing is allowed because a bound could not be read.

use serde_json::{Value, json};
use store::{Attributes, Encoded, Key, Op, Precondition};

use super::support::{Fixture, pod};

/// An object that is JSON, and no object of its kind.
fn undecodable(name: &str, rest: &Value) -> Encoded {
    let mut object = rest.clone();
    object["metadata"] = json!({ "name": name, "resourceVersion": "" });
    let text = object.to_string();
    let at = text.find(r#""resourceVersion":""#).unwrap() + r#""resourceVersion":""#.len();
    Encoded::new(text, at)
}

#[tokio::test]
async fn what_admission_cannot_decode_fails_closed() {
    let fixture = Fixture::new().await;
    let mut with_account = pod("a", "");
    with_account["spec"]["serviceAccountName"] = "broken".into();
    let mut with_class = pod("a", "");
    with_class["spec"]["runtimeClassName"] = "broken".into();
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "a" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    let backend = json!({ "service": { "name": "a", "port": { "number": 80 } } });
    let ingress = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "a" },
        "spec": { "defaultBackend": backend } });
    let selector = json!({ "matchExpressions": [{ "key": "a", "operator": "Near" }] });
    let hook = json!({ "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": { "url": "https://127.0.0.1:1" }, "objectSelector": selector });
    let pods = "/api/v1/namespaces/default/pods?dryRun=All";
    let (claims, ingresses) = (
        "/api/v1/namespaces/default/persistentvolumeclaims?dryRun=All",
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses?dryRun=All",
    );
    for (storage, namespace, rest, path, body) in [
        (
            "admissionregistration.k8s.io/mutatingwebhookconfigurations",
            "",
            json!({ "webhooks": 7 }),
            pods,
            pod("a", ""),
        ),
        (
            "admissionregistration.k8s.io/validatingwebhookconfigurations",
            "",
            json!({ "webhooks": 7 }),
            pods,
            pod("a", ""),
        ),
        (
            "admissionregistration.k8s.io/validatingwebhookconfigurations",
            "",
            json!({ "webhooks": [hook] }),
            pods,
            pod("a", ""),
        ),
        ("core/limitranges", "default", json!({ "spec": 7 }), pods, pod("a", "")),
        ("core/resourcequotas", "default", json!({ "spec": 7 }), pods, pod("a", "")),
        ("core/serviceaccounts", "default", json!({ "secrets": 7 }), pods, with_account),
        ("node.k8s.io/runtimeclasses", "", json!({ "handler": 7 }), pods, with_class),
        ("scheduling.k8s.io/priorityclasses", "", json!({ "globalDefault": 7 }), pods, pod("a", "")),
        ("scheduling.k8s.io/priorityclasses", "", json!({ "globalDefault": true, "value": "x" }), pods, pod("a", "")),
        ("storage.k8s.io/storageclasses", "", json!({ "provisioner": 7 }), claims, claim),
        ("networking.k8s.io/ingressclasses", "", json!({ "spec": 7 }), ingresses, ingress),
    ] {
        let key = Key::new(storage, namespace, "broken");
        let (value, attributes) = (undecodable("broken", &rest), Attributes::default());
        let put = Op::Put { key: key.clone(), value: value.clone(), attributes, precondition: Precondition::Absent };
        fixture.registry.store().commit(put).await.unwrap();
        let refused = fixture.json(&format!("POST {path}"), 500, &body).await;
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with("Internal error occurred: cannot "), "{storage} {rest}: {message}");
        assert!(message.contains(&key.to_string()), "{storage} {rest}: {message}");
        let delete = Op::Delete { key, last: value, precondition: Precondition::Any };
        fixture.registry.store().commit(delete).await.unwrap();
    }
    fixture.json(&format!("POST {pods}"), 201, &pod("a", "")).await;
}

/// Webhooks have no say in their own configurations.
#[tokio::test]
async fn configurations_are_written_beside_one_that_cannot_be_decoded() {
    let fixture = Fixture::new().await;
    let storage = "admissionregistration.k8s.io/validatingwebhookconfigurations";
    let put = Op::Put {
        key: Key::new(storage, "", "broken"),
        value: undecodable("broken", &json!({ "webhooks": 7 })),
        attributes: Attributes::default(),
        precondition: Precondition::Absent,
    };
    fixture.registry.store().commit(put).await.unwrap();
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let other = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "other" } });
    fixture.json(&format!("POST {path}"), 201, &other).await;
}
