//! Every operation of the OpenAPI document, again and again with something odd in one place: a parameter, a field of the
//! body, the patch, the bytes. The answer may be anything but an error of the server, and an error is a `Status` that says
//! why.
//!
//! The operations come from the document, so that a new kind or subresource is walked without a line here; `objects.yaml` has an
//! object of each kind to begin with, since what is refused for a missing field is not looked at any further. The seed is
//! fixed: a failure comes again.

mod odd;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use coracle_tests::api_client::{Answer, ApiClient, Request};
use coracle_tests::{BUSYBOX, Cluster};
use serde_json::{Value, json};

use crate::odd::{Random, Schemas};

const OBJECTS: &str = include_str!("objects.yaml");
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const SEED: u64 = 20;
/// So often each operation is asked for.
const ROUNDS: usize = 40;
/// So many failures are enough to read.
const MOST_FAILURES: usize = 20;

/// An operation of the document.
struct Operation<'a> {
    method: String,
    path: &'a str,
    /// As in `x-kubernetes-action`.
    action: &'a str,
    query: Vec<&'a Value>,
    /// The schema of the body, if there is one.
    body: Option<&'a Value>,
    group_version_kind: &'a Value,
}

#[test]
fn no_input_is_an_error_of_the_server() {
    let cluster = Cluster::start();
    let pid = cluster.pid();
    cluster.kubectl_with_input(&["create", "-f", "-"], OBJECTS).ok();
    cluster.wait_for("crd/things.example.com", "{.status.conditions[?(@.type=='Established')].status}", "True");
    cluster.apply("apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: walk, labels: {walked: ''}}\nspec: {}\n");
    let document: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/openapi/v2"]).ok()).expect("the document is JSON");
    let operations = operations(&document);
    assert!(operations.len() > 400, "{} operations are not all of them", operations.len());

    let mut client = ApiClient::new(&cluster);
    let bases = bases(&operations, &mut client);
    assert!(bases.len() > 45, "{:?} are not all objects", bases.keys());
    let schemas = Schemas(document["definitions"].as_object().expect("definitions"));
    let mut walk = Walk { schemas, bases, random: Random::new(SEED) };
    let mut failures = String::new();
    let mut count = 0;
    let mut statuses = BTreeMap::new();
    for _ in 0..ROUNDS {
        for operation in &operations {
            let request = walk.request(operation);
            let streams = operation.action == "connect"
                || ["watch=", "follow="].iter().any(|parameter| request.target.contains(parameter));
            let answer = if streams { client.ask_for_stream(&request) } else { client.ask(&request) };
            let wrong = match answer {
                Ok(answer) => {
                    *statuses.entry(answer.status).or_insert(0) += 1;
                    wrong(operation, &answer)
                }
                Err(error) => Some(format!("no answer: {error}")),
            };
            let Some(wrong) = wrong else { continue };
            count += 1;
            if count <= MOST_FAILURES {
                let shown: String = request.to_string().chars().take(2_000).collect();
                let _ = writeln!(failures, "{} {}: {wrong}\n  {shown}", operation.method, operation.path);
            }
        }
    }
    assert_eq!(count, 0, "{failures}");
    assert!(statuses[&200] > 1_000 && statuses[&201] > 100, "too little was taken: {statuses:?}");

    assert_eq!(cluster.pid(), pid, "the daemon is another one");
    let log = fs::read_to_string(cluster.home().join("home").join(&cluster.profile).join("daemon.log"));
    let log = log.expect("the log can be read");
    assert!(!log.contains("panicked"), "the daemon panicked: see its log");
    let run =
        ["run", "after", "--image", BUSYBOX, "--image-pull-policy=Never", "-n", "kube-public", "--", "sleep", "1000"];
    cluster.kubectl(&run).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/after", "-n", "kube-public", "--timeout=60s"]).ok();
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in
            item.as_object().expect("a path").iter().filter(|(method, _)| *method != "parameters")
        {
            let parameters = [&item["parameters"], &operation["parameters"]].into_iter().filter_map(Value::as_array);
            let (mut query, mut body) = (Vec::new(), None);
            for parameter in parameters.flatten() {
                match parameter["in"].as_str() {
                    Some("query") => query.push(parameter),
                    Some("body") => body = Some(&parameter["schema"]),
                    _ => {}
                }
            }
            operations.push(Operation {
                method: method.to_uppercase(),
                path,
                action: operation["x-kubernetes-action"].as_str().unwrap_or_default(),
                query,
                body,
                group_version_kind: &operation["x-kubernetes-group-version-kind"],
            });
        }
    }
    operations
}

/// `apps/v1`; `v1` of the core group.
fn api_version(group_version_kind: &Value) -> String {
    let parts = [&group_version_kind["group"], &group_version_kind["version"]];
    parts.map(|part| part.as_str().unwrap_or_default()).join("/").trim_start_matches('/').to_owned()
}

/// The collection of a path, below which are its objects and their subresources.
fn collection(path: &str) -> &str {
    path.split_once("/{name}").map_or(path, |(collection, _)| collection)
}

/// What `objects.yaml` made, by collection.
fn bases<'a>(operations: &[Operation<'a>], client: &mut ApiClient) -> BTreeMap<&'a str, Value> {
    let mut bases = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.action == "list") {
        let target = format!("{}?labelSelector=walked", operation.path.replace("{namespace}", "default"));
        let request = Request { method: "GET".to_owned(), target, accept: JSON, content_type: "", body: Vec::new() };
        let list = client.ask(&request).ok().and_then(|answer| answer.json()).expect("a list");
        let Some(item) = list["items"].as_array().and_then(|items| items.first()) else { continue };
        let mut base = item.clone();
        let gvk = operation.group_version_kind;
        base["apiVersion"] = api_version(gvk).into();
        base["kind"] = gvk["kind"].clone();
        let metadata = base["metadata"].as_object_mut().expect("metadata");
        metadata.retain(|name, _| ["name", "labels"].contains(&name.as_str()));
        bases.insert(operation.path, base);
    }
    bases
}

/// What is wrong with an answer.
fn wrong(operation: &Operation<'_>, answer: &Answer) -> Option<String> {
    let shown = || String::from_utf8_lossy(&answer.body).chars().take(600).collect::<String>();
    // What is no path of the API is answered as upstream's mux does.
    if answer.status < 400 || (answer.status == 404 && answer.body == b"404 page not found\n") {
        return None;
    }
    let status = answer.json().unwrap_or_default();
    let is_status = status["kind"] == "Status" && status["code"] == answer.status;
    if !is_status || status["message"].as_str().unwrap_or_default().is_empty() {
        return Some(format!("{} without a Status: {}", answer.status, shown()));
    }
    // There may be nothing to connect to.
    let unavailable = operation.action == "connect" && [502, 503, 504].contains(&answer.status);
    // Upstream's own answer to an apply that does not fit its schema (`managedfields/internal/structuredmerge.go`).
    let untyped = answer.status == 500
        && status["message"].as_str().is_some_and(|message| message.starts_with("failed to create typed patch object"));
    // Upstream's answer to a revision that is yet to come (`pkg/storage/errors.go`).
    let to_come = answer.status == 504 && status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge";
    (answer.status >= 500 && !unavailable && !untyped && !to_come).then(|| format!("{}: {}", answer.status, shown()))
}

/// What is asked next.
struct Walk<'a> {
    schemas: Schemas<'a>,
    bases: BTreeMap<&'a str, Value>,
    random: Random,
}

impl<'a> Walk<'a> {
    fn request(&mut self, operation: &Operation<'a>) -> Request {
        let base = self.base(operation);
        let dry_run = self.dry_run(operation);
        let (content_type, body) = self.body(operation, &base, dry_run);
        let target = self.path(operation, &base) + &self.query(operation, content_type, dry_run);
        let accept = *self.random.pick(&[JSON, JSON, JSON, TABLE, METADATA]);
        Request { method: operation.method.clone(), target, accept, content_type, body }
    }

    /// The object that is asked about, or what else is sent to it: a Scale, say.
    fn base(&self, operation: &Operation<'_>) -> Value {
        let gvk = operation.group_version_kind;
        let base = self.bases.get(collection(operation.path));
        if let Some(base) = base.filter(|base| base["kind"] == gvk["kind"]) {
            return base.clone();
        }
        let name = base.map_or_else(|| "walk".into(), |base| base["metadata"]["name"].clone());
        json!({ "apiVersion": api_version(gvk), "kind": gvk["kind"], "metadata": { "name": name }, "spec": {} })
    }

    /// Collections stay, and most objects do, so that there is something to ask for; half of the rest need not be kept.
    fn dry_run(&mut self, operation: &Operation<'_>) -> bool {
        let trials = match operation.action {
            "deletecollection" => 100,
            "delete" => 85,
            _ if operation.query.iter().any(|parameter| parameter["name"] == "dryRun") => 40,
            _ => 0,
        };
        self.random.percent(trials)
    }

    fn path(&mut self, operation: &Operation<'_>, base: &Value) -> String {
        let name = base.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("walk");
        let mut fill = |usual: &str| {
            if self.random.percent(93) { usual.to_owned() } else { encoded(&odd::text(&mut self.random)) }
        };
        let (namespace, name) = (fill("default"), fill(name));
        operation.path.replace("{namespace}", &namespace).replace("{name}", &name)
    }

    fn query(&mut self, operation: &Operation<'_>, content_type: &str, dry_run: bool) -> String {
        let mut pairs = Vec::new();
        if dry_run {
            pairs.push("dryRun=All".to_owned());
        }
        if content_type.contains("apply") && self.random.percent(95) {
            pairs.push("fieldManager=walk&force=true".to_owned());
        }
        if !operation.query.is_empty() && self.random.percent(35) {
            let parameter = *self.random.pick(&operation.query);
            let name = parameter["name"].as_str().unwrap_or_default();
            let value = odd::parameter(parameter["type"].as_str().unwrap_or_default(), &mut self.random);
            let raw = self.random.percent(5);
            pairs.push(format!("{name}={}", if raw { "%ff%00%zz".to_owned() } else { encoded(&value) }));
        }
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }

    fn body(&mut self, operation: &Operation<'a>, base: &Value, dry_run: bool) -> (&'static str, Vec<u8>) {
        let Some(schema) = operation.body else { return ("", Vec::new()) };
        let (content_type, value) = match operation.action {
            "patch" => self.patch(operation, base),
            "delete" | "deletecollection" => {
                let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
                self.schemas.change(&mut options, schema, &mut self.random);
                // Where there is a body, the query does not count (`endpoints/handlers/delete.go`).
                if dry_run {
                    options = if options.is_object() { options } else { json!({}) };
                    options["dryRun"] = json!(["All"]);
                }
                (JSON, options)
            }
            _ => {
                let mut object = base.clone();
                // As it is, now and then: what was deleted is there again.
                for _ in 0..self.random.below(4) {
                    self.schemas.change(&mut object, schema, &mut self.random);
                }
                (*self.random.pick(&[JSON, JSON, "application/yaml"]), object)
            }
        };
        let mut body = value.to_string().into_bytes();
        if self.random.percent(3) {
            odd::spoil(&mut body, &mut self.random);
        }
        (content_type, body)
    }

    fn patch(&mut self, operation: &Operation<'a>, base: &Value) -> (&'static str, Value) {
        let kinds = [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ];
        let kind = *self.random.pick(&kinds);
        let mut patch = match kind {
            "application/json-patch+json" => return (kind, odd::json_patch(base, &mut self.random)),
            "application/apply-patch+yaml" => base.clone(),
            _ => json!({}),
        };
        // The body of a patch has no schema in the document: the object's is its definition's.
        let schema = self.object_schema(operation);
        for _ in 0..=self.random.below(2) {
            self.schemas.change(&mut patch, schema, &mut self.random);
        }
        if kind.contains("strategic") && self.random.percent(25) {
            odd::direct(&mut patch, &mut self.random);
        }
        (kind, patch)
    }

    /// The definition of the kind that an operation is about.
    fn object_schema(&self, operation: &Operation<'_>) -> &'a Value {
        let of_kind = |definition: &&Value| {
            let kinds = definition["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| kinds.contains(operation.group_version_kind))
        };
        self.schemas.0.values().find(of_kind).expect("each kind has a definition")
    }
}

/// Text as it may stand in a path or a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
