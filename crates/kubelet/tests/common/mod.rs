//! An API server of a few lines: objects in memory, watches, and the patches that a kubelet sends.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// How long tokens live.
const TOKEN_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_millis(500);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The API server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changes: broadcast::Sender<(&'static str, String, Value)>,
    /// The resource whose objects nobody gets for now, and how many wait for one.
    held: watch::Sender<(Option<String>, usize)>,
}

#[derive(Default)]
struct State {
    /// By `RESOURCE/NAMESPACE/NAME`.
    objects: BTreeMap<String, Value>,
    revision: u64,
    writes: Vec<String>,
    /// Whether it takes no status of pods, as one whose disk is full.
    is_full: bool,
}

/// What a path means.
struct Target {
    resource: String,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    fn parse(path: &str) -> Self {
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        parts.drain(..if parts[0] == "api" { 2 } else { 3 });
        let namespace = match (parts.first(), parts.len() > 2) {
            (Some(&"namespaces"), true) => {
                let namespace = parts[1].to_owned();
                parts.drain(..2);
                namespace
            }
            _ => String::new(),
        };
        let part = |index: usize| parts.get(index).map(|part| (*part).to_owned());
        Self { resource: part(0).unwrap_or_default(), namespace, name: part(1), subresource: part(2) }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.resource, self.namespace)
    }
}

impl Api {
    pub(crate) fn new() -> Self {
        let (changes, held) = (broadcast::Sender::new(4096), watch::Sender::default());
        Self { shared: Arc::new(Shared { state: Mutex::default(), changes, held }) }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates an object, or replaces it.
    pub(crate) fn put(&self, resource: &str, mut object: Value) -> Value {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let key = format!("{resource}/{namespace}/{}", object["metadata"]["name"].as_str().unwrap());
        let mut state = self.shared.state.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", state.revision));
        }
        let old = state.objects.insert(key, object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let _ = self.shared.changes.send((kind, resource.to_owned(), object.clone()));
        object
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = format!("{resource}/{namespace}/{name}");
        self.shared.state.lock().unwrap().objects.get(&key).cloned()
    }

    pub(crate) fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let key = format!("{resource}/{namespace}/{name}");
        let mut state = self.shared.state.lock().unwrap();
        state.revision += 1;
        if let Some(mut object) = state.objects.remove(&key) {
            object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            let _ = self.shared.changes.send(("DELETED", resource.to_owned(), object));
        }
    }

    /// Fills the disk, or frees it: no status of a pod is taken while it is full.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.shared.state.lock().unwrap().is_full = is_full;
    }

    /// Lets everybody wait who asks for an object of this resource.
    pub(crate) fn hold(&self, resource: &str) {
        self.shared.held.send_replace((Some(resource.to_owned()), 0));
    }

    /// Waits until somebody waits for what is held.
    pub(crate) async fn until_awaited(&self) {
        let mut held = self.shared.held.subscribe();
        let awaited = held.wait_for(|(_, waiting)| *waiting > 0);
        tokio::time::timeout(Duration::from_secs(20), awaited).await.expect("nobody asks").unwrap();
    }

    /// Lets those go on who wait.
    pub(crate) fn let_go(&self) {
        self.shared.held.send_replace((None, 0));
    }

    async fn pass(&self, resource: &str) {
        let mut held = self.shared.held.subscribe();
        self.shared.held.send_if_modified(|(held, waiting)| {
            let waits = held.as_deref() == Some(resource);
            *waiting += usize::from(waits);
            waits
        });
        let _ = held.wait_for(|(held, _)| held.as_deref() != Some(resource)).await;
    }

    /// All objects of a resource.
    pub(crate) fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.shared.state.lock().unwrap();
        let prefix = format!("{resource}/");
        let objects = state.objects.iter();
        let objects = objects.filter(|(key, _)| key.starts_with(&prefix));
        objects.map(|(_, object)| object.clone()).collect()
    }

    /// `VERB RESOURCE/NAME` of all writes.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().writes.clone()
    }

    /// Waits until `check` likes the object.
    pub(crate) async fn until(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        check: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            loop {
                let object = self.get(resource, namespace, name);
                if check(object.as_ref()) {
                    return object;
                }
                let _ = changes.recv().await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(object) => object,
            Err(_) => panic!("{resource}/{name} is {:#?}", self.get(resource, namespace, name)),
        }
    }

    async fn serve(&self, request: Request<Body>) -> Answer {
        let target = Target::parse(request.uri().path());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
            value.map(|value| value.replace("%3D", "=").replace("%2F", "/"))
        };
        let (method, selector) = (request.method().clone(), parameter("fieldSelector"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (method, &target.name) {
            (Method::GET, None) if parameter("watch").is_some() => {
                self.watch(&target, selector, parameter("sendInitialEvents").is_some())
            }
            (Method::GET, None) => {
                let items = self.selected(&target, selector.as_deref());
                let revision = self.shared.state.lock().unwrap().revision.to_string();
                answer(
                    StatusCode::OK,
                    &json!({"kind": "List", "apiVersion": "v1",
                    "metadata": {"resourceVersion": revision}, "items": items}),
                )
            }
            (Method::GET, Some(name)) => {
                self.pass(&target.resource).await;
                match self.get(&target.resource, &target.namespace, name) {
                    Some(object) => answer(StatusCode::OK, &object),
                    None => missing(),
                }
            }
            (Method::POST, Some(_)) if target.subresource.as_deref() == Some("token") => {
                self.note("token");
                let number = self.writes().iter().filter(|write| *write == "token").count();
                let expires = jiff::Timestamp::now() + TOKEN_LIFE;
                let status = json!({"token": format!("token {number}"), "expirationTimestamp": expires.to_string()});
                answer(StatusCode::CREATED, &json!({"metadata": {}, "spec": {"audiences": []}, "status": status}))
            }
            (Method::POST, None) => {
                self.note(&format!("create {}", target.resource));
                let mut object = body;
                if !target.namespace.is_empty() {
                    object["metadata"]["namespace"] = json!(target.namespace);
                }
                answer(StatusCode::CREATED, &self.put(&target.resource, object))
            }
            (Method::PATCH, Some(name)) => {
                let subresource = target.subresource.clone().unwrap_or_default();
                self.note(&format!("patch {}/{name} {subresource}", target.resource));
                let is_status = target.resource == "pods" && subresource == "status";
                if is_status && self.shared.state.lock().unwrap().is_full {
                    return answer(StatusCode::INSUFFICIENT_STORAGE, &failure(507, "InsufficientStorage"));
                }
                let Some(mut object) = self.get(&target.resource, &target.namespace, name) else {
                    return missing();
                };
                if body["metadata"]["uid"].is_string() && body["metadata"]["uid"] != object["metadata"]["uid"] {
                    return answer(StatusCode::CONFLICT, &failure(409, "Conflict"));
                }
                merge(&mut object, &body);
                answer(StatusCode::OK, &self.put(&target.resource, object))
            }
            (Method::DELETE, Some(name)) => {
                self.note(&format!("delete {}/{name}", target.resource));
                if !self.shared.state.lock().unwrap().objects.contains_key(&target.key(name)) {
                    return missing();
                }
                self.delete(&target.resource, &target.namespace, name);
                answer(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            _ => answer(StatusCode::METHOD_NOT_ALLOWED, &failure(405, "MethodNotAllowed")),
        }
    }

    fn note(&self, write: &str) {
        let write = write.trim_end().to_owned();
        self.shared.state.lock().unwrap().writes.push(write);
    }

    fn selected(&self, target: &Target, selector: Option<&str>) -> Vec<Value> {
        let objects = self.list(&target.resource).into_iter();
        objects.filter(|object| selects(target, selector, object)).collect()
    }

    fn watch(&self, target: &Target, selector: Option<String>, initial: bool) -> Answer {
        let changes = self.shared.changes.subscribe();
        let mut first = Vec::new();
        if initial {
            let objects = self.selected(target, selector.as_deref());
            first.extend(objects.into_iter().map(|object| line("ADDED", &object)));
            let revision = self.shared.state.lock().unwrap().revision.to_string();
            let kind = match target.resource.as_str() {
                "services" => "Service",
                _ => "Pod",
            };
            let bookmark = json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": revision,
                "annotations": {"k8s.io/initial-events-end": "true"}}, "spec": {"containers": []}});
            first.push(line("BOOKMARK", &bookmark));
        }
        let target = Target {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            name: None,
            subresource: None,
        };
        let later = stream::unfold((changes, target, selector), |(mut changes, target, selector)| async {
            loop {
                let (kind, resource, object) = changes.recv().await.ok()?;
                if resource == target.resource && selects(&target, selector.as_deref(), &object) {
                    return Some((line(kind, &object), (changes, target, selector)));
                }
            }
        });
        let frames = stream::iter(first).chain(later).map(|line| Ok(Frame::data(line)));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn selects(target: &Target, selector: Option<&str>, object: &Value) -> bool {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let here = target.namespace.is_empty() || target.namespace == namespace;
    let Some((field, value)) = selector.and_then(|selector| selector.split_once('=')) else {
        return here;
    };
    let pointer = format!("/{}", field.replace('.', "/"));
    here && object.pointer(&pointer).and_then(Value::as_str) == Some(value)
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

fn answer(status: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn missing() -> Answer {
    answer(StatusCode::NOT_FOUND, &failure(404, "NotFound"))
}

/// A merge patch, but conditions are merged by their type, as the strategic one does.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (field, new) in patch {
        match (field.as_str(), new) {
            (_, Value::Null) => {
                object.as_object_mut().unwrap().remove(field);
            }
            (_, Value::Array(new)) if new.first().is_some_and(|first| first["$patch"] == "replace") => {
                object[field] = new[1..].into();
            }
            ("conditions", Value::Array(new)) => {
                let mut all: Vec<Value> = object[field].as_array().cloned().unwrap_or_default();
                for condition in new {
                    if condition["$patch"] == "delete" {
                        all.retain(|known| known["type"] != condition["type"]);
                        continue;
                    }
                    match all.iter_mut().find(|known| known["type"] == condition["type"]) {
                        Some(known) => merge(known, condition),
                        None => all.push(condition.clone()),
                    }
                }
                object[field] = json!(all);
            }
            _ => merge(&mut object[field], new),
        }
    }
}
