//! Requests about objects, and what comes back.

use serde_json::{Value, json};

use super::support::{Fixture, PANICS, pod};
use crate::body::LIMIT;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

#[tokio::test]
async fn the_life_of_an_object() {
    let fixture = Fixture::new().await;
    let none = Value::Null;
    let created = fixture.json(&format!("POST {MAPS}"), 201, &map("a", &json!({ "k": "1" }))).await;
    assert_eq!(created["metadata"]["namespace"], "default");
    let again = fixture.json(&format!("POST {MAPS}"), 409, &map("a", &json!({}))).await;
    assert_eq!(again["message"], r#"configmaps "a" already exists"#);

    let got = fixture.json(&format!("GET {MAPS}/a"), 200, &none).await;
    assert_eq!(got, created);
    let mut changed = got.clone();
    changed["data"]["k"] = "2".into();
    let updated = fixture.json(&format!("PUT {MAPS}/a"), 200, &changed).await;
    assert_ne!(updated["metadata"]["resourceVersion"], got["metadata"]["resourceVersion"]);
    let mut stale = got.clone();
    stale["data"]["k"] = "3".into();
    let refused = fixture.json(&format!("PUT {MAPS}/a"), 409, &stale).await;
    assert!(refused["message"].as_str().unwrap().contains("the object has been modified"));

    for (kind, patch, status) in [
        ("application/merge-patch+json", r#"{"data":{"m":"x"}}"#, 200),
        ("application/json-patch+json", r#"[{"op":"add","path":"/data/j","value":"y"}]"#, 200),
        ("application/strategic-merge-patch+json", r#"{"data":{"s":"z"}}"#, 200),
        ("application/apply-patch+yaml", "{}", 422),
        ("text/plain", "{}", 415),
    ] {
        let reply = fixture.ask(&format!("PATCH {MAPS}/a"), &[("content-type", kind)], patch).await;
        assert_eq!(reply.status.as_u16(), status, "{kind}: {}", reply.text);
    }
    let got = fixture.json(&format!("GET {MAPS}/a"), 200, &none).await;
    assert_eq!(got["data"], json!({ "k": "2", "m": "x", "j": "y", "s": "z" }));

    let dry = fixture.json(&format!("POST {MAPS}?dryRun=All"), 201, &map("dry", &none)).await;
    assert_eq!(dry["metadata"]["name"], "dry");
    fixture.json(&format!("GET {MAPS}/dry"), 404, &none).await;

    let deleted = fixture.json(&format!("DELETE {MAPS}/a"), 200, &none).await;
    assert_eq!(deleted["status"], "Success");
    let missing = fixture.json(&format!("GET {MAPS}/a"), 404, &none).await;
    assert_eq!(missing["message"], r#"configmaps "a" not found"#);

    for name in ["x", "y"] {
        fixture.json(&format!("POST {MAPS}"), 201, &map(name, &none)).await;
    }
    fixture.json(&format!("DELETE {MAPS}"), 200, &none).await;
    assert_eq!(fixture.json(&format!("GET {MAPS}"), 200, &none).await["items"], json!([]));
}

#[tokio::test]
async fn resource_versions_that_are_no_numbers() {
    let fixture = Fixture::new().await;
    let line = format!("POST {MAPS}");
    let mut object = fixture.json(&line, 201, &map("a", &json!({}))).await;
    let why = |text: &str, why: &str| {
        format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": {why}")
    };
    let bad = format!("invalid resource version: {}", why("x", "invalid syntax"));
    for path in ["?resourceVersion=x", "/a?resourceVersion=x", "?watch=true&resourceVersion=x"] {
        let found = fixture.json(&format!("GET {MAPS}{path}"), 400, &Value::Null).await;
        assert_eq!((&found["message"], &found["reason"]), (&json!(bad), &json!("BadRequest")), "{path}");
    }
    for (version, words) in
        [("x", "invalid syntax"), ("+1", "invalid syntax"), ("18446744073709551616", "value out of range")]
    {
        object["metadata"]["resourceVersion"] = version.into();
        let refused = fixture.json(&format!("PUT {MAPS}/a"), 422, &object).await;
        let message = format!("ConfigMap \"a\" is invalid: metadata.{}", why(version, words));
        assert_eq!(refused["message"], message, "{version}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_makes_no_sense() {
    let fixture = Fixture::new().await;
    let not_found = "the server could not find the requested resource";
    let not_allowed = "the server does not allow this method on the requested resource";
    for (line, status, message) in [
        ("GET /api/v1/nonsense", 404, not_found),
        ("GET /api/v1/namespaces/default/nonsense/x", 404, not_found),
        ("GET /api/v1/namespaces/default/pods/x/nonsense", 404, not_found),
        ("GET /api/v1/namespaces/default/configmaps/x/status", 404, not_found),
        // A namespace before what has none, and none before what has one.
        ("GET /api/v1/namespaces/default/nodes", 404, not_found),
        ("GET /api/v1/configmaps/x", 404, not_found),
        ("POST /api/v1/configmaps", 405, not_allowed),
        ("DELETE /api/v1/configmaps", 405, not_allowed),
        ("PUT /api/v1/namespaces/default/configmaps", 405, not_allowed),
        ("POST /api/v1/namespaces/default/configmaps/x", 405, not_allowed),
        ("OPTIONS /api/v1/nodes", 405, not_allowed),
        ("POST /api/v1", 405, not_allowed),
        ("GET /api/v1/nodes?limit=many", 400, r#"strconv.ParseInt: parsing "many": invalid syntax"#),
        ("GET /api/v1/nodes?timeoutSeconds=x", 400, r#"strconv.ParseInt: parsing "x": invalid syntax"#),
        ("GET /api/v1/nodes?fieldSelector=spec.nonsense%3Dx", 400, "field label not supported: spec.nonsense"),
        (
            "GET /api/v1/configmaps?fieldSelector=data%3Dx",
            400,
            r#""data" is not a known field selector: only "metadata.name", "metadata.namespace""#,
        ),
        (
            "GET /api/v1/nodes?labelSelector=a%3D%3D%3Db",
            400,
            "unable to parse requirement: found '=', expected: identifier",
        ),
        (
            "POST /api/v1/nodes?fieldManager=Bad%0AManager",
            422,
            r#"CreateOptions.meta.k8s.io "" is invalid: fieldManager: Invalid value: "Bad\nManager": invalid character U+000A (at position 3)"#,
        ),
        (
            "POST /api/v1/nodes?dryRun=Perhaps",
            422,
            r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Perhaps"]: supported values: "All""#,
        ),
    ] {
        let reply = fixture.ask(line, &[], "").await;
        let status_object = reply.json();
        assert_eq!((reply.status.as_u16(), &status_object["message"]), (status, &message.into()), "{line}");
        assert_eq!(status_object["kind"], "Status", "{line}");
    }
    for line in ["GET /nonsense", "GET /apis/nonsense/v1/things", "GET /apis/nonsense"] {
        let reply = fixture.ask(line, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (404, "404 page not found\n"), "{line}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{line}");
    }
    // Below a built-in group, an unknown version is an unknown resource.
    let unknown = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}"#;
    for line in
        ["GET /api/v9", "GET /api/v9/pods", "GET /apis/apps/v9", "GET /apis/apps/v9/things", "GET /apis/apps/v1/things"]
    {
        let reply = fixture.ask(line, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (404, format!("{unknown}\n").as_str()), "{line}");
    }
    // The fields of the details have upstream's order, too.
    let reply = fixture.ask("GET /apis/apps/v1/namespaces/default/deployments/web", &[], "").await;
    assert!(reply.text.contains(r#""details":{"name":"web","group":"apps","kind":"deployments"},"#), "{}", reply.text);
}

#[tokio::test]
async fn a_deletion_with_another_kinds_body_deletes_nothing() {
    let fixture = Fixture::new().await;
    let map = json!({ "metadata": { "name": "kept" } });
    fixture.json(&format!("POST {MAPS}"), 201, &map).await;
    for line in [format!("DELETE {MAPS}/kept"), format!("DELETE {MAPS}")] {
        let status = fixture.json(&line, 400, &json!({ "apiVersion": "v1", "kind": "ConfigMap" })).await;
        assert_eq!(
            status["message"], r#"cannot read DeleteOptions: no kind "ConfigMap" is registered for version "v1""#,
            "{line}"
        );
    }
    fixture.json(&format!("GET {MAPS}/kept"), 200, &Value::Null).await;
}

#[tokio::test]
async fn bodies() {
    let fixture = Fixture::new().await;
    let line = format!("POST {MAPS}");
    let large = map("large", &json!({ "k": "x".repeat(LIMIT) })).to_string();
    for (kind, body, status) in [
        ("application/json", "{".to_owned(), 400),
        ("application/json", "[]".to_owned(), 400),
        ("application/json", String::new(), 400),
        ("application/yaml", "a: b: c".to_owned(), 400),
        (
            "application/yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  k: v\n".to_owned(),
            201,
        ),
        ("application/vnd.kubernetes.protobuf", "k8s".to_owned(), 400),
        ("application/vnd.kubernetes.protobuf", "k8s\0".to_owned(), 415),
        ("text/html", "<p>".to_owned(), 415),
        ("application/json", large, 413),
        ("application/json", "[".repeat(100_000), 400),
        ("application/yaml", "[".repeat(100_000), 400),
    ] {
        let shown: String = body.chars().take(60).collect();
        let reply = fixture.ask(&line, &[("content-type", kind)], body).await;
        assert_eq!(reply.status.as_u16(), status, "{kind} {shown}: {}", reply.text);
        if status == 413 {
            assert_eq!(reply.json()["reason"], "RequestEntityTooLarge");
        }
    }
    let reply = fixture.ask(&format!("GET {MAPS}/yaml"), &[("accept", "application/yaml")], "").await;
    assert_eq!(reply.header("content-type"), "application/yaml");
    assert!(reply.text.contains("data:\n  k: v\n"), "{}", reply.text);
    let reply = fixture.ask(&format!("GET {MAPS}/yaml?pretty=true"), &[], "").await;
    assert!(reply.text.starts_with("{\n  \""), "{}", reply.text);
}

#[tokio::test]
async fn unknown_fields_are_told_as_asked() {
    let fixture = Fixture::new().await;
    let mut body = pod("a", "");
    body["spec"]["contaners"] = json!([]);
    let expect = r#"unknown field "spec.contaners""#;
    for (validation, status) in [("Strict", 400), ("Warn", 201), ("Ignore", 201), ("Nonsense", 422)] {
        body["metadata"]["name"] = validation.to_lowercase().into();
        let line = format!("POST /api/v1/namespaces/default/pods?fieldValidation={validation}");
        let reply = fixture.ask(&line, &[], body.to_string()).await;
        assert_eq!(reply.status.as_u16(), status, "{validation}: {}", reply.text);
        let warned = reply.header("warning");
        assert_eq!(warned == r#"299 - "unknown field \"spec.contaners\"""#, validation == "Warn", "{warned}");
        assert_eq!(reply.json()["message"].as_str().unwrap_or("").contains(expect), validation == "Strict");
    }
    // One that is refused for something else is told nevertheless.
    body["metadata"]["name"] = "warn".into();
    let reply = fixture.ask("POST /api/v1/namespaces/default/pods", &[], body.to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.header("warning")), (409, r#"299 - "unknown field \"spec.contaners\"""#));
}

#[tokio::test]
async fn subresources_as_tables() {
    let fixture = Fixture::new().await;
    let container = json!({ "name": "main", "image": "img" });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "a" },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "a" } },
            "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [container] } } },
    });
    fixture.json("POST /apis/apps/v1/namespaces/default/replicasets", 201, &set).await;
    let scale = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "a" },
        "spec": { "replicas": 3 } });
    let of_status = ["Name", "Desired", "Current"];
    let of_scale = ["Name", "Desired", "Available"];
    let (json, merge) = ("application/json", "application/merge-patch+json");
    let patch = json!({ "spec": { "replicas": 3 } });
    for (method, subresource, content_type, body, names) in [
        ("GET", "status", json, Value::Null, of_status),
        ("PUT", "status", json, set.clone(), of_status),
        ("PATCH", "status", merge, patch.clone(), of_status),
        ("GET", "scale", json, Value::Null, of_scale),
        ("PUT", "scale", json, scale, of_scale),
        ("PATCH", "scale", merge, patch, of_scale),
    ] {
        let line = format!("{method} /apis/apps/v1/namespaces/default/replicasets/a/{subresource}");
        let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", content_type)];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let table = fixture.ask(&line, &headers, body).await.json();
        let columns = table["columnDefinitions"].as_array().unwrap_or_else(|| panic!("{line}: {table}"));
        let told: Vec<&str> = columns.iter().take(3).map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(told, names, "{line}");
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(cells[..3], [json!("a"), json!(3), json!(0)], "{line}");
        assert_eq!(cells.len(), columns.len(), "{line}");
    }
}

#[tokio::test]
async fn forms_of_objects() {
    let fixture = Fixture::new().await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("a", "node1")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let list = "GET /api/v1/namespaces/default/pods";
    let one = "GET /api/v1/namespaces/default/pods/a";
    for line in [list, one] {
        let table = fixture.ask(line, &[("accept", table)], "").await.json();
        assert_eq!((table["kind"].as_str(), table["apiVersion"].as_str()), (Some("Table"), Some("meta.k8s.io/v1")));
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        assert_eq!(table["rows"].as_array().unwrap().len(), 1);
        let row = &table["rows"][0];
        assert_eq!(row["cells"][0], "a");
        assert_eq!(row["cells"].as_array().unwrap().len(), table["columnDefinitions"].as_array().unwrap().len());
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(row["object"]["metadata"]["labels"]["app"], "a");
        assert!(table["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().is_ok());
    }
    for (include, expect) in [("None", Value::Null), ("Object", "Pod".into())] {
        let line = format!("{list}?includeObject={include}");
        assert_eq!(fixture.ask(&line, &[("accept", table)], "").await.json()["rows"][0]["object"]["kind"], expect);
    }
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = fixture.ask(list, &[("accept", accept)], "").await.json();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["kind"], "PartialObjectMetadata");
    assert!(partial["items"][0].get("spec").is_none());
    let plain = fixture.json(list, 200, &Value::Null).await;
    assert_eq!((plain["kind"].as_str(), plain["items"][0]["metadata"]["name"].as_str()), (Some("PodList"), Some("a")));
    // They are what the list is of.
    assert_eq!((plain["items"][0].get("kind"), plain["items"][0].get("apiVersion")), (None, None));
    for (line, kind, expect) in [
        (list, "PartialObjectMetadata", "PartialObjectMetadata, but the requested object is a list (*core.PodList)"),
        (
            one,
            "PartialObjectMetadataList",
            "PartialObjectMetadataList, but the requested object is not a list (*core.Pod)",
        ),
    ] {
        let accept = format!("application/json;as={kind};v=v1;g=meta.k8s.io,application/json");
        let answer = fixture.ask(line, &[("accept", &accept)], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["message"].as_str()),
            (406, Some(&*format!("you requested {expect}")))
        );
    }

    for (accept, status) in [
        ("application/vnd.kubernetes.protobuf", 200),
        ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", 406),
        ("application/vnd.kubernetes.protobuf, application/json", 200),
        ("text/html", 406),
    ] {
        assert_eq!(fixture.ask(list, &[("accept", accept)], "").await.status.as_u16(), status, "{accept}");
    }
}

#[tokio::test]
async fn pages_and_selectors() {
    let fixture = Fixture::new().await;
    for index in 0..5 {
        let mut object = map(&format!("m{index}"), &json!({}));
        object["metadata"]["labels"] = json!({ "even": if index % 2 == 0 { "yes" } else { "no" } });
        fixture.json(&format!("POST {MAPS}"), 201, &object).await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = fixture.json(&format!("GET {MAPS}?limit=2&continue={token}"), 200, &Value::Null).await;
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()));
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    for (query, count) in [
        ("labelSelector=even%3Dyes", 3),
        ("labelSelector=even+in+(no)", 2),
        ("fieldSelector=metadata.name%3Dm1", 1),
        ("labelSelector=even%3Dyes&fieldSelector=metadata.name%3Dm1", 0),
    ] {
        let list = fixture.json(&format!("GET {MAPS}?{query}"), 200, &Value::Null).await;
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test]
async fn subresources() {
    let fixture = Fixture::new().await;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "nginx" }] },
            },
        },
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    fixture.json(&format!("POST {deployments}"), 201, &deployment).await;
    let scale = fixture.json(&format!("GET {deployments}/web/scale"), 200, &Value::Null).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&"Scale".into(), &2.into()));
    let patch = [("content-type", "application/merge-patch+json")];
    let body = r#"{"spec":{"replicas":5}}"#;
    let scaled = fixture.ask(&format!("PATCH {deployments}/web/scale"), &patch, body).await;
    assert_eq!((scaled.status.as_u16(), &scaled.json()["spec"]["replicas"]), (200, &5.into()));
    let body = r#"{"status":{"replicas":3},"spec":{"replicas":9}}"#;
    let status = fixture.ask(&format!("PATCH {deployments}/web/status"), &patch, body).await.json();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&5.into(), &3.into()));

    let pods = "/api/v1/namespaces/default/pods";
    fixture.json(&format!("POST {pods}"), 201, &pod("a", "")).await;
    let log = fixture.ask(&format!("GET {pods}/a/log"), &[], "").await;
    assert_eq!((log.status.as_u16(), log.text.as_str()), (204, ""));
    let exec = fixture.json(&format!("POST {pods}/a/exec?command=ls&stdout=true"), 400, &Value::Null).await;
    assert_eq!(exec["message"], "pod a does not have a host assigned");
    let binding = json!({ "target": { "kind": "Node", "name": "node1" }, "metadata": { "name": "a" } });
    fixture.json(&format!("POST {pods}/a/binding"), 201, &binding).await;
    for (path, status, expect) in [
        ("a/log", 200, "a/main tail=None\n"),
        ("a/log?container=main&tailLines=3", 200, "a/main tail=Some(3)\n"),
        ("a/log?previous=true", 400, r#"previous terminated container \"main\" not found"#),
        ("a/log?container=other", 400, "container other is not valid for pod a"),
        (
            "a/log?tailLines=-1",
            422,
            r#"PodLogOptions \"a\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#,
        ),
        (
            "a/log?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ("a/log?sinceTime=yesterday", 400, "parsing time"),
        ("none/log", 404, r#"pods \"none\" not found"#),
    ] {
        let reply = fixture.ask(&format!("GET {pods}/{path}"), &[], "").await;
        assert_eq!(reply.status.as_u16(), status, "{path}: {}", reply.text);
        assert!(reply.text.contains(expect), "{path}: {}", reply.text);
    }
    fixture.json(&format!("POST {pods}"), 201, &pod("b", "elsewhere")).await;
    fixture.json(&format!("GET {pods}/b/log"), 503, &Value::Null).await;
}

#[tokio::test]
async fn a_binding_of_the_collection_is_for_the_pod_it_names() {
    let fixture = Fixture::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    fixture.json(&format!("POST {pods}"), 201, &pod("a", "")).await;
    let bindings = "POST /api/v1/namespaces/default/bindings";
    let binding = |name: &str| json!({ "target": { "kind": "Node", "name": "node1" }, "metadata": { "name": name } });
    let unnamed = fixture.json(bindings, 400, &binding("")).await;
    assert_eq!(unnamed["message"], "Name parameter required.");
    fixture.json(bindings, 404, &binding("none")).await;
    let dry = fixture.json(&format!("{bindings}?dryRun=All"), 201, &binding("a")).await;
    assert_eq!((&dry["kind"], &dry["status"]), (&"Status".into(), &"Success".into()));
    fixture.json(bindings, 201, &binding("a")).await;
    let bound = fixture.json(&format!("GET {pods}/a"), 200, &Value::Null).await;
    assert_eq!(bound["spec"]["nodeName"], "node1");
    let again = fixture.json(bindings, 409, &binding("a")).await;
    assert!(again["message"].as_str().unwrap().contains("already assigned to node"), "{again}");
    for line in ["GET /api/v1/namespaces/default/bindings", "POST /api/v1/bindings"] {
        fixture.json(line, 405, &binding("a")).await;
    }
}

#[tokio::test]
async fn headers_of_every_answer() {
    let fixture = Fixture::new().await;
    for (line, status) in [("GET /api/v1/nodes", 200), ("GET /api/v1/nodes/x", 404), ("GET /nonsense", 404)] {
        let reply = fixture.ask(line, &[("audit-id", "mine")], "").await;
        assert_eq!(reply.status.as_u16(), status, "{line}");
        assert_eq!((reply.header("audit-id"), reply.header("cache-control")), ("mine", "no-cache, private"), "{line}");
    }
    let metrics = fixture.ask("GET /metrics", &[], "").await.text;
    for expect in [
        r#"apiserver_request_total{verb="list",group="",resource="nodes",subresource="",code="200"} 1"#,
        r#"apiserver_request_total{verb="get",group="",resource="nodes",subresource="",code="404"} 1"#,
        "apiserver_current_inflight_requests 1",
        "store_commits_total",
    ] {
        assert!(metrics.contains(expect), "{expect} is missing:\n{metrics}");
    }
}

#[tokio::test]
async fn the_servers_own_endpoints() {
    let fixture = Fixture::new().await;
    for port in [6443, 7443] {
        fixture.server.publish_endpoints(([172, 30, 0, 1], port).into()).await.unwrap();
    }
    let endpoints = fixture.json("GET /api/v1/namespaces/default/endpoints/kubernetes", 200, &Value::Null).await;
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "172.30.0.1");
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 7443);
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = fixture.json(&format!("GET {path}"), 200, &Value::Null).await;
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "kubernetes");
    fixture.registry.close().await;
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let fixture = Fixture::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    fixture.json(&format!("POST {pods}"), 201, &pod("a", "node1")).await;
    let answer = fixture.json(&format!("GET {pods}/a/log?tailLines={PANICS}"), 500, &Value::Null).await;
    assert_eq!(answer["reason"], "InternalError");
    fixture.json(&format!("GET {pods}/a"), 200, &Value::Null).await;
    let metrics = fixture.ask("GET /metrics", &[], "").await.text;
    assert!(metrics.contains("apiserver_request_panics_total 1"), "{metrics}");
}

#[tokio::test]
async fn streams_need_an_upgrade() {
    let fixture = Fixture::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    fixture.json(&format!("POST {pods}"), 201, &pod("a", "node1")).await;
    for (line, message) in [
        (format!("GET {pods}/a/exec?command=ls&stdout=true"), "Upgrade request required"),
        (format!("POST {pods}/a/attach?stdout=true"), "Upgrade request required"),
        (format!("POST {pods}/a/portforward"), "Upgrade request required"),
        (format!("GET {pods}/a/exec?stdout=true"), "you must specify at least one command for the container"),
        (format!("GET {pods}/a/exec?command=ls"), "you must specify at least 1 of stdin, stdout, stderr"),
        (format!("GET {pods}/a/exec?command=ls&stdout=true&container=x"), "container x is not valid for pod a"),
    ] {
        let answer = fixture.json(&line, 400, &Value::Null).await;
        assert_eq!(answer["message"], message, "{line}");
    }
}
