//! Requests that are small and would cost much: each is refused, or costs little.

use machinery::depth::MAX_DEPTH;
use machinery::protobuf::{MAGIC, Message};
use serde_json::{Value, json};

use super::support::{Fixture, Reply, pod};
use crate::User;
use crate::protobuf::MEDIA_TYPE;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A definition as protobuf, whose schema excludes a schema that excludes a schema, and so on.
fn nested_definition(levels: usize) -> Vec<u8> {
    let field = |number: u32, bytes: &[u8]| {
        let mut field = Message::default();
        field.bytes(number, bytes);
        field.into_vec()
    };
    let schema = (0..levels).fold(Vec::new(), |schema, _| field(28, &schema));
    let version = [field(1, b"v1"), field(4, &field(1, &schema))].concat();
    let object = [field(1, &field(1, b"bombs.example.com")), field(2, &field(7, &version))].concat();
    let meta = [field(1, b"apiextensions.k8s.io/v1"), field(2, b"CustomResourceDefinition")].concat();
    [MAGIC, &field(1, &meta), &field(2, &object)].concat()
}

/// Something of any shape, which is kept as it is.
fn things(columns: &Value) -> Value {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": open } } },
            }],
        },
    })
}

fn thing(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Thing", "metadata": { "name": name }, "spec": spec })
}

/// `{"a":{"a":...}}`, as text: as a value it could be too much for this test itself.
fn nested(levels: usize) -> String {
    r#"{"a":"#.repeat(levels) + "1" + &"}".repeat(levels)
}

fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "x": "0123456789" } })
}

#[track_caller]
fn refused(reply: &Reply, status: u16, part: &str, case: &str) {
    let shown: String = reply.text.chars().take(500).collect();
    assert_eq!(reply.status.as_u16(), status, "{case}: {shown}");
    assert_eq!(reply.json()["kind"], "Status", "{case}: {shown}");
    assert!(reply.text.contains(part), "{case}: {shown}");
}

#[tokio::test]
async fn another_kind_in_protobuf_is_not_even_looked_at() {
    let fixture = Fixture::new().await;
    let headers = [("content-type", MEDIA_TYPE)];
    let user = || Some(User { name: "jane".into(), groups: vec!["system:authenticated".into()], ..User::default() });
    for path in
        ["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/apis/authentication.k8s.io/v1/selfsubjectreviews"]
    {
        let reply = fixture.ask_as(user(), &format!("POST {path}"), &headers, nested_definition(3_000)).await;
        refused(
            &reply,
            400,
            "CustomResourceDefinition in version \\\"apiextensions.k8s.io/v1\\\" cannot be handled as a Self",
            path,
        );
    }
    let reply = fixture.ask(&format!("POST {CRDS}"), &headers, nested_definition(3_000)).await;
    refused(&reply, 400, "exceeded max depth of 100", CRDS);
    let reply = fixture.ask(&format!("DELETE {MAPS}/a"), &headers, nested_definition(3_000)).await;
    refused(&reply, 400, "cannot be handled as a DeleteOptions", MAPS);
}

#[tokio::test]
async fn what_is_nested_too_deeply_does_not_come_in() {
    let fixture = Fixture::new().await;
    fixture.json(&format!("POST {CRDS}"), 201, &things(&json!([]))).await;
    fixture.json(&format!("POST {THINGS}"), 201, &thing("old", &json!({}))).await;
    let around = |spec: &str| thing("new", &json!("SPEC")).to_string().replace("\"SPEC\"", spec);
    let (post, patch, apply) =
        (format!("POST {THINGS}"), format!("PATCH {THINGS}/old"), format!("PATCH {THINGS}/new?fieldManager=me"));
    let revision = |data: &str| {
        let revision = json!({ "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": { "name": "r" }, "revision": 1, "data": "DATA" });
        revision.to_string().replace("\"DATA\"", data)
    };
    for levels in [MAX_DEPTH, 127, 3_000, 100_000] {
        let deep = nested(levels);
        for (line, kind, body) in [
            (post.clone(), JSON, around(&deep)),
            (post.clone(), YAML, format!("# {levels}\n{}", around(&deep))),
            (format!("POST {REVISIONS}"), JSON, revision(&deep)),
            (patch.clone(), MERGE_PATCH, format!(r#"{{"spec":{deep}}}"#)),
            (patch.clone(), JSON_PATCH, format!(r#"[{{"op":"add","path":"/spec","value":{deep}}}]"#)),
            (apply.clone(), APPLY, around(&deep)),
            (apply.clone(), APPLY, format!("# {levels}\n{}", around(&deep))),
            (format!("PUT {THINGS}/old"), JSON, around(&deep).replace("new", "old")),
        ] {
            let reply = fixture.ask(&line, &[("content-type", kind)], body).await;
            let code = reply.status.as_u16();
            assert!(matches!(code, 400 | 422), "{line} {kind} {levels}: {code} {:.300}", reply.text);
        }
    }
    // The deepest that may be, with owners, and as others see it.
    let deepest = around(&nested(MAX_DEPTH - 1));
    let reply = fixture.ask(&apply, &[("content-type", APPLY)], deepest.clone()).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    fixture.json(&format!("GET {THINGS}/new"), 200, &Value::Null).await;
    fixture.json(&format!("GET {THINGS}"), 200, &Value::Null).await;
    let label = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    for kind in [MERGE_PATCH, APPLY] {
        let body = if kind == APPLY { deepest.clone() } else { label.to_owned() };
        let reply = fixture.ask(&apply, &[("content-type", kind)], body).await;
        assert_eq!(reply.status, 200, "{kind}: {}", reply.text);
    }
    fixture.json(&format!("DELETE {THINGS}/new"), 200, &Value::Null).await;
}

/// Definitions are the one kind whose own type is recursive: all that is done with a schema is done as deep as it is.
#[tokio::test]
async fn the_deepest_schema_is_looked_at_by_all_who_look_at_schemas() {
    let fixture = Fixture::new().await;
    let mut schema = json!({ "type": "string" });
    // Seven levels are around the schema, and each of these has two.
    for _ in 0..(MAX_DEPTH - 8) / 2 {
        schema = json!({ "type": "object", "properties": { "a": schema } });
    }
    let mut crd = things(&json!([]));
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema.clone();
    fixture.json(&format!("POST {CRDS}"), 201, &crd).await;
    fixture.json("GET /openapi/v3/apis/example.com/v1", 200, &Value::Null).await;
    fixture.json("GET /openapi/v2", 200, &Value::Null).await;
    fixture.json(&format!("POST {THINGS}"), 201, &thing("a", &json!({}))).await;

    let mut excluded = json!({});
    for _ in 0..MAX_DEPTH - 8 {
        excluded = json!({ "not": excluded });
    }
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["not"] = excluded.clone();
    let reply = fixture
        .ask(&format!("PATCH {CRDS}/things.example.com"), &[("content-type", MERGE_PATCH)], crd.to_string())
        .await;
    assert!(reply.status == 200 || reply.status == 422, "{}", reply.text);
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["not"] = json!({ "not": { "not": excluded } });
    let reply = fixture
        .ask(&format!("PATCH {CRDS}/things.example.com"), &[("content-type", MERGE_PATCH)], crd.to_string())
        .await;
    refused(&reply, 422, "exceeded max depth of 100", "a schema that is nested too deeply");
}

#[tokio::test]
async fn aliases_count_as_what_they_stand_for() {
    let fixture = Fixture::new().await;
    let laughs: String = (1..30).map(|n| format!("  k{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
    let text = format!("  k: &a \"{}\"\n", "x".repeat(1 << 20));
    let texts: String = (0..90).map(|n| format!("  k{n}: *a\n")).collect();
    for data in [format!("  k0: &a0 [x]\n{laughs}"), text + &texts] {
        let body = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n{data}");
        for (line, kind) in [(format!("POST {MAPS}"), YAML), (format!("PATCH {MAPS}/a?fieldManager=me"), APPLY)] {
            let reply = fixture.ask(&line, &[("content-type", kind)], body.clone()).await;
            refused(&reply, 400, "YAML", &line);
        }
    }
}

#[tokio::test]
async fn patches_do_not_multiply() {
    let fixture = Fixture::new().await;
    fixture.json(&format!("POST {MAPS}"), 201, &map("a")).await;
    let copies: Vec<Value> =
        (0..21).map(|n| json!({ "op": "copy", "from": "/data", "path": format!("/data/a{n}") })).collect();
    let tests = vec![json!({ "op": "test", "path": "/kind", "value": "ConfigMap" }); 10_001];
    for (operations, status, part) in [
        (copies, 422, "the accumulated size increase of copy"),
        (tests, 413, "The allowed maximum operations in a JSON patch is 10000, got 10001"),
    ] {
        let reply = fixture
            .ask(&format!("PATCH {MAPS}/a"), &[("content-type", JSON_PATCH)], Value::from(operations).to_string())
            .await;
        refused(&reply, status, part, part);
    }
}

#[tokio::test]
async fn objects_have_a_largest_size() {
    let fixture = Fixture::new().await;
    fixture.json(&format!("POST {CRDS}"), 201, &things(&json!([]))).await;
    let many = |letter: &str| json!({ letter: "x".repeat(1_000_000) });
    fixture.json(&format!("POST {THINGS}"), 201, &thing("a", &many("a"))).await;
    let headers = [("content-type", MERGE_PATCH)];
    let grow = json!({ "spec": many("b") }).to_string();
    for line in [format!("PATCH {THINGS}/a"), format!("PATCH {THINGS}/a?dryRun=All")] {
        let reply = fixture.ask(&line, &headers, grow.clone()).await;
        refused(&reply, 413, "etcdserver: request is too large", &line);
        assert_eq!(reply.json()["reason"], "RequestEntityTooLarge");
    }
    let mut large = thing("b", &many("b"));
    large["spec"]["a"] = "x".repeat(1_000_000).into();
    let reply = fixture.ask(&format!("POST {THINGS}"), &[], large.to_string()).await;
    refused(&reply, 413, "etcdserver: request is too large", "a create");
    let annotations: serde_json::Map<String, Value> =
        (0..1000).map(|n| (format!("k{n}"), "x".repeat(200).into())).collect();
    let reply = fixture
        .ask(&format!("PATCH {THINGS}/a"), &headers, json!({ "metadata": { "annotations": annotations } }).to_string())
        .await;
    assert_eq!(reply.status, 200, "what is not too large may still grow: {}", reply.text);
    // At the limit, what its deletion adds has room.
    let size = async || fixture.ask(&format!("GET {THINGS}/a"), &[], "").await.text.len();
    let mut filling = 0;
    for reserve in [1_000, 0] {
        filling += 1536 * 1024 - reserve - size().await;
        let fill = json!({ "metadata": { "finalizers": ["example.com/x"] }, "spec": { "c": "x".repeat(filling) } });
        let reply = fixture.ask(&format!("PATCH {THINGS}/a"), &headers, fill.to_string()).await;
        assert_eq!(reply.status, 200, "{:.300}", reply.text);
    }
    fixture.json(&format!("DELETE {THINGS}/a"), 200, &Value::Null).await;
    let reply = fixture.ask(&format!("PATCH {THINGS}/a"), &headers, r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(reply.status, 200, "{:.300}", reply.text);
    fixture.json(&format!("GET {THINGS}/a"), 404, &Value::Null).await;
}

#[tokio::test]
async fn tables_are_not_much_larger_than_what_is_in_them() {
    let fixture = Fixture::new().await;
    let column = |path: &str| json!({ "name": "C", "type": "string", "jsonPath": path });
    let paths = ["....................x".to_owned(), "..*".repeat(20) + "..x", ".".to_owned(), ".spec".to_owned()];
    let columns: Vec<Value> = (0..100).map(|n| column(&paths[n % paths.len()])).collect();
    fixture.json(&format!("POST {CRDS}"), 201, &things(&columns.into())).await;
    let deep: Value = serde_json::from_str(&nested(60)).unwrap();
    for name in ["a", "b"] {
        fixture
            .json(&format!("POST {THINGS}"), 201, &thing(name, &json!({ "deep": deep, "text": "ü".repeat(100_000) })))
            .await;
    }
    let table =
        fixture.ask(&format!("GET {THINGS}"), &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await;
    assert_eq!(table.status, 200, "{:.300}", table.text);
    assert!(table.text.len() < 200_000, "{}", table.text.len());
    let cells = &table.json()["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[1], &cells[2]), (&json!("a"), &Value::Null, &Value::Null));
    assert!(cells[3].as_str().unwrap().ends_with("..."), "{:.100}", cells[3]);

    let columns: Vec<Value> = (0..101).map(|_| column(".spec")).collect();
    let reply = fixture
        .ask(
            &format!("PATCH {CRDS}/things.example.com"),
            &[("content-type", MERGE_PATCH)],
            things(&columns.into()).to_string(),
        )
        .await;
    refused(&reply, 422, "additionalPrinterColumns: Too many: 101", "columns");
}

/// Whatever is said in a query, nothing panics and no answer blames the server.
#[tokio::test]
async fn no_query_value_is_too_much() {
    let fixture = Fixture::new().await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("p", "node1")).await;
    fixture.json(&format!("POST {MAPS}"), 201, &map("m")).await;
    let values = [
        "",
        "0",
        "-1",
        "1",
        "+1",
        "007",
        "9223372036854775807",
        "9223372036854775806",
        "9223372035000000000",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
        "99999999999999999999",
        "1e9",
        "1.5",
        "NaN",
        "null",
        "true",
        "x",
        "%00",
        "%ff",
        "%F0%9F%92%A3",
        "a%3Db",
        "metadata.name%3Dm",
        "metadata.name%3D%00",
        "%5C%2C%3D",
        "!",
        "((((",
        "a+in+(",
        "a%3D%3D%3Db",
        "2000-01-01T00:00:00Z",
        "-9999-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "AAAA",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTIsInN0YXJ0IjoiIn0",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTIyMzM3MjAzNjg1NDc3NTgwNywic3RhcnQiOiJhL2IifQ",
    ];
    let long = ["(", "a,", "!a,", "metadata.name%3Da,", "%5C", "9"].map(|part| part.repeat(50_000 / part.len()));
    let lists = [
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "labelSelector",
        "fieldSelector",
        "timeoutSeconds",
        "includeObject",
        "pretty",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "watch",
        "timeout",
        "nonsense",
    ];
    let logs = [
        "container",
        "follow",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "timestamps",
        "tailLines",
        "limitBytes",
        "stream",
        "pretty",
    ];
    let writes = [
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
        "gracePeriodSeconds",
        "propagationPolicy",
        "orphanDependents",
        "pretty",
    ];
    let watches = [
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "labelSelector",
        "fieldSelector",
        "limit",
        "sendInitialEvents",
        "allowWatchBookmarks",
        "timeout",
    ];
    let commands = ["command", "container", "stdin", "stdout", "stderr", "tty", "timeout"];
    let (list, watch) = (format!("GET {MAPS}?"), format!("GET {MAPS}?watch=1&"));
    let (update, patch, delete) =
        (format!("PUT {MAPS}/m?"), format!("PATCH {MAPS}/m?"), format!("DELETE {MAPS}/m?dryRun=All&"));
    let some = map("m").to_string();
    let cases: [(&str, &[&str], &str, &str); 14] = [
        (&list, &lists, JSON, ""),
        ("GET /api/v1/pods?", &lists, JSON, ""),
        ("GET /api/v1/namespaces/default/pods/p?", &lists, JSON, ""),
        ("GET /openapi/v2?", &["hash", "timeout", "pretty"], JSON, ""),
        ("GET /api/v1/namespaces/default/pods/p/log?", &logs, JSON, ""),
        ("POST /api/v1/namespaces/default/pods/p/exec?command=ls&", &commands, JSON, ""),
        ("GET /api/v1/namespaces/default/pods/p/attach?stdout=1&", &commands, JSON, ""),
        ("GET /api/v1/namespaces/default/pods/p/portforward?", &["ports", "timeout"], JSON, ""),
        (&watch, &watches, JSON, ""),
        (&update, &writes, JSON, &some),
        (&patch, &writes, MERGE_PATCH, "{}"),
        (&patch, &writes, STRATEGIC, "{}"),
        (&delete, &writes, JSON, ""),
        ("DELETE /api/v1/namespaces/default/pods/p?dryRun=All&", &writes, JSON, ""),
    ];
    let fixture = &fixture;
    // All at once: those who ask for a version that is far away wait a while for it.
    let asked = cases.iter().flat_map(|(line, names, kind, body)| {
        let values = || values.iter().copied().chain(long.iter().map(String::as_str));
        let lines = names.iter().flat_map(move |name| values().map(move |value| format!("{line}{name}={value}")));
        lines.map(move |line| async move {
            let (status, text) = fixture.answered(&line, &[("content-type", kind)], body).await;
            // The one 5xx that upstream has here as well.
            let too_new = status == 504 && text.contains("Too large resource version");
            assert!(status < 500 || too_new, "{line:.200}: {status} {text:.300}");
        })
    });
    futures::future::join_all(asked).await;
}
