//! The store's keys, as an administrator sees them, and as nobody else does.

use serde_json::{Value, json};

use super::certificates::allow;
use super::support::Fixture;
use crate::authn::User;

const STORE: &str = "GET /debug/store";

fn names(page: &Value, list: &str) -> Vec<String> {
    page[list].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

async fn config_map(fixture: &Fixture, name: &str) -> u64 {
    let object = json!({ "metadata": { "name": name } });
    let made = fixture.json("POST /api/v1/namespaces/default/configmaps", 201, &object).await;
    made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn keys_come_in_pages_of_one_revision() {
    let fixture = Fixture::new().await;
    let mut last = 0;
    for name in ["a", "b", "c"] {
        last = config_map(&fixture, name).await;
    }
    let ask = async |query: &str| fixture.json(&format!("{STORE}/{query}"), 200, &Value::Null).await;
    let key = |name: &str| format!("/registry/core/configmaps/default/{name}");
    let first = ask("keys?prefix=configmaps/default/&limit=2").await;
    assert_eq!((first["revision"].as_u64(), names(&first, "keys")), (Some(last), vec![key("a"), key("b")]));
    config_map(&fixture, "bb").await;
    let next = format!("keys?prefix=configmaps/default/&limit=2&revision={last}&continue={}", key("b"));
    let second = ask(&next).await;
    assert_eq!((names(&second, "keys"), &second["continue"]), (vec![key("c")], &Value::Null));
    // All there is: in the order of the resources, with all that a page may hold.
    let all = ask("keys").await;
    assert!(names(&all, "keys").contains(&"/registry/core/namespaces//default".to_owned()));

    let value = ask("value?key=/registry/configmaps/default/c").await;
    assert_eq!((value["key"].as_str(), value["revision"].as_u64()), (Some(&*key("c")), Some(last)));
    assert_eq!(value["value"]["metadata"]["name"], "c");
    assert_eq!(value["size"].as_u64(), second["keys"][0]["size"].as_u64());

    let changes = ask(&format!("changes?prefix=core/configmaps/&from={last}")).await;
    assert_eq!(names(&changes, "changes"), [key("c"), key("bb")]);
    assert_eq!(changes["changes"][0]["type"], "PUT");
    fixture.json("DELETE /api/v1/namespaces/default/configmaps/a", 200, &Value::Null).await;
    let changes = ask(&format!("changes?prefix=core/configmaps/&from={}", changes["next"])).await;
    assert_eq!((names(&changes, "changes"), &changes["changes"][0]["type"]), (vec![key("a")], &json!("DELETE")));
    let changes = ask(&format!("changes?from={}&waitSeconds=0", changes["next"])).await;
    assert!(names(&changes, "changes").is_empty());

    fixture.registry.store().compact(last).await.unwrap();
    for (query, status, why) in [
        ("keys?prefix=core/nothing", 400, "nothing is stored below"),
        ("value?key=core/configmaps/default/none", 404, "there is no key"),
        ("value?key=core/configmaps", 404, "there is no key"),
        ("changes?from=2", 410, &*format!("the oldest that is remembered is that of revision {}", last + 1)),
        ("changes?from=99999", 400, "has not happened"),
        ("changes?from=-1", 400, "is no revision"),
    ] {
        let reply = fixture.ask(&format!("{STORE}/{query}"), &[], "").await;
        assert!(reply.status.as_u16() == status && reply.text.contains(why), "{query}: {}", reply.text);
    }
}

/// Secrets are among what is shown: the right to the path is not enough.
#[tokio::test]
async fn only_who_may_do_everything_sees_the_keys() {
    let fixture = Fixture::new().await;
    let paths = json!({ "nonResourceURLs": ["*"], "verbs": ["*"] });
    allow(&fixture, "paths", json!([paths])).await;
    allow(
        &fixture,
        "reader",
        json!([paths, { "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"] }]),
    )
    .await;
    allow(&fixture, "objects", json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }])).await;
    allow(&fixture, "all", json!([paths, { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }])).await;
    for what in ["keys", "value?key=core/namespaces/default", "changes?waitSeconds=0"] {
        for (user, status) in [("paths", 403), ("reader", 403), ("objects", 403), ("all", 200)] {
            let reply = fixture.ask_as(Some(User::new(user, &[])), &format!("{STORE}/{what}"), &[], "").await;
            assert_eq!(reply.status.as_u16(), status, "{what} as {user}: {}", reply.text);
        }
    }
}
