//! Who may say whose an object is: OwnerReferencesPermissionEnforcement with the authorizer that a cluster has.

use machinery::Verb;
use registry::{Access, EscalationCheck, User};
use serde_json::{Value, json};

use super::support::Fixture;
use crate::authz::Rbac;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Gives `ann` a role in the namespace `default`.
async fn allow(fixture: &Fixture, rules: Value) {
    let role = json!({ "metadata": { "name": "ann" }, "rules": rules });
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(fixture.ask(&format!("POST {roles}/roles"), &[], role.to_string()).await.status, 201);
    let binding = json!({
        "metadata": { "name": "ann" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ann" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann" }],
    });
    assert_eq!(fixture.ask(&format!("POST {roles}/rolebindings"), &[], binding.to_string()).await.status, 201);
}

/// Asks as `ann`; the status, and the message of a refusal.
async fn ask(fixture: &Fixture, line: &str, body: &Value) -> (u16, String) {
    let headers =
        [("content-type", if line.starts_with("PATCH") { "application/merge-patch+json" } else { "application/json" })];
    let reply = fixture.ask_as(Some(User::new("ann", &[])), line, &headers, body.to_string()).await;
    let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
    (reply.status.as_u16(), message)
}

fn owned(name: &str, kind: &str, block: bool) -> Value {
    let owner = json!({ "apiVersion": "v1", "kind": kind, "name": "o", "uid": kind, "blockOwnerDeletion": block });
    json!({ "metadata": { "name": name, "ownerReferences": [owner] } })
}

#[tokio::test]
async fn owners_are_changed_by_who_may_delete_the_object() {
    let fixture = Fixture::new().await;
    let write = ["create", "update", "patch", "get"];
    allow(&fixture, json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": write }])).await;
    // Who creates an object may say whose it is, but not hold up the deletion of others.
    assert_eq!(ask(&fixture, &format!("POST {MAPS}"), &owned("a", "ConfigMap", false)).await.0, 201);
    let cannot_block = "configmaps \"b\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you \
                        can't set finalizers on: , <nil>";
    assert_eq!(ask(&fixture, &format!("POST {MAPS}"), &owned("b", "Pod", true)).await, (403, cannot_block.to_owned()));
    let unknown = "configmaps \"b\" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for \
                   APIVersion v1 Kind Thing: no matches for kind \"Thing\" in version \"v1\"";
    assert_eq!(ask(&fixture, &format!("POST {MAPS}"), &owned("b", "Thing", true)).await, (403, unknown.to_owned()));

    let labelled = json!({ "metadata": { "labels": { "a": "b" } } });
    assert_eq!(ask(&fixture, &format!("PATCH {MAPS}/a"), &labelled).await.0, 200);
    let freed = json!({ "metadata": { "ownerReferences": null } });
    let cannot_delete = "configmaps \"a\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!(ask(&fixture, &format!("PATCH {MAPS}/a"), &freed).await, (403, cannot_delete.to_owned()));
}

#[tokio::test]
async fn who_may_delete_and_set_finalizers_may_change_owners() {
    let fixture = Fixture::new().await;
    allow(
        &fixture,
        json!([
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch", "delete"] },
            { "apiGroups": [""], "resources": ["pods/finalizers"], "verbs": ["update"] },
        ]),
    )
    .await;
    assert_eq!(ask(&fixture, &format!("POST {MAPS}"), &owned("a", "Pod", true)).await.0, 201);
    let freed = json!({ "metadata": { "ownerReferences": null } });
    assert_eq!(ask(&fixture, &format!("PATCH {MAPS}/a"), &freed).await.0, 200);
    assert_eq!(ask(&fixture, &format!("PATCH {MAPS}/a"), &owned("a", "Pod", true)).await.0, 200);
    // To hold up a node is a right in the cluster, not in the namespace.
    assert_eq!(ask(&fixture, &format!("PATCH {MAPS}/a"), &owned("a", "Node", true)).await.0, 403);
}

/// The kinds by which the built-in controllers hold up the deletion of an owner.
#[tokio::test]
async fn controllers_may_hold_up_their_owners() {
    let fixture = Fixture::new().await;
    let rbac = Rbac::new(fixture.registry.store());
    let controllers = User::component("system:kube-controller-manager");
    for (group, resource) in [
        ("", "endpoints"),
        ("", "pods"),
        ("", "replicationcontrollers"),
        ("", "services"),
        ("apps", "daemonsets"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
        ("batch", "cronjobs"),
        ("batch", "jobs"),
    ] {
        let access = Access {
            verb: Verb::Update,
            group,
            version: "v1",
            resource,
            subresource: "finalizers",
            namespace: "default",
            name: "x",
        };
        assert_eq!(rbac.may(&controllers, &access), Ok(()), "{resource}");
    }
}
