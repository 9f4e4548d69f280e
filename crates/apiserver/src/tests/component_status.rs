//! ComponentStatuses, which nobody stores.

use registry::User;
use serde_json::{Value, json};

use super::support::Fixture;

const STATUSES: &str = "/api/v1/componentstatuses";
const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");

async fn fixture() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.registry.add_component("scheduler", Box::new(|| Err("it ended".to_owned())));
    fixture.registry.add_component("etcd-0", Box::new(|| Ok(())));
    fixture
}

#[tokio::test]
async fn components_say_how_they_are() {
    let fixture = fixture().await;
    let listed = fixture.ask(&format!("GET {STATUSES}"), &[], "").await;
    assert_eq!(listed.header("warning"), "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    let list = listed.json();
    assert_eq!(list["kind"], "ComponentStatusList");
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["etcd-0", "scheduler"]);
    let one = fixture.json(&format!("GET {STATUSES}/scheduler"), 200, &Value::Null).await;
    assert_eq!(one["conditions"], json!([{ "type": "Healthy", "status": "False", "error": "it ended" }]));

    let table = fixture.ask(&format!("GET {STATUSES}"), &[TABLE], "").await.json();
    assert_eq!(table["rows"][0]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    let protobuf =
        fixture.ask(&format!("GET {STATUSES}"), &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
    assert!(protobuf.bytes.starts_with(b"k8s\0"), "{}", protobuf.text);
    let selected = fixture.ask(&format!("GET {STATUSES}?fieldSelector=metadata.name%3Detcd-0"), &[], "").await.json();
    assert_eq!(selected["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn they_are_read_and_nothing_else() {
    let fixture = fixture().await;
    for (line, status) in [
        (format!("GET {STATUSES}/other"), 404),
        (format!("GET {STATUSES}?watch=1"), 405),
        (format!("POST {STATUSES}"), 405),
        (format!("PUT {STATUSES}/etcd-0"), 405),
        (format!("DELETE {STATUSES}/etcd-0"), 405),
        (format!("DELETE {STATUSES}"), 405),
        (format!("GET {STATUSES}/etcd-0/status"), 404),
        ("GET /api/v1/namespaces/default/componentstatuses".to_owned(), 404),
    ] {
        fixture.json(&line, status, &Value::Null).await;
    }
    let user = Some(User::new("jane", &[]));
    assert_eq!(fixture.ask_as(user, &format!("GET {STATUSES}"), &[], "").await.status, 403);
    let core = fixture.json("GET /api/v1", 200, &Value::Null).await;
    let listed = core["resources"].as_array().unwrap().iter().find(|one| one["name"] == "componentstatuses").unwrap();
    assert_eq!((&listed["verbs"], &listed["shortNames"]), (&json!(["get", "list"]), &json!(["cs"])));
    let openapi = fixture.json("GET /openapi/v3/api/v1", 200, &Value::Null).await;
    let path = openapi["paths"]["/api/v1/componentstatuses/{name}"].as_object().unwrap();
    assert!(path.contains_key("get") && !path.contains_key("put") && !path.contains_key("delete"), "{path:?}");
}
