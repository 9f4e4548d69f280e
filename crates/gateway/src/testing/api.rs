//! An API server of a few objects in memory: lists, watches, patches of status, and events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// The server. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct TestApi {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// By resource, and by namespace and name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// By resource.
    watchers: BTreeMap<String, Vec<mpsc::UnboundedSender<Value>>>,
    /// The statuses that were written, by resource and key, in their order.
    patches: Vec<(String, Value)>,
    events: Vec<Value>,
    /// Resources that nobody serves.
    unserved: Vec<String>,
}

fn key(object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

impl State {
    fn put(&mut self, resource: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        if object["metadata"].get("uid").is_none() {
            object["metadata"]["uid"] = key(&object).into();
        }
        let old = self.objects.entry(resource.to_owned()).or_default().insert(key(&object), object.clone());
        self.tell(resource, if old.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    fn tell(&mut self, resource: &str, type_: &str, object: &Value) {
        let event = json!({ "type": type_, "object": object });
        self.watchers.entry(resource.to_owned()).or_default().retain(|watcher| watcher.send(event.clone()).is_ok());
    }

    fn watch(&mut self, resource: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for object in self.objects.get(resource).into_iter().flat_map(BTreeMap::values) {
            let _ = sender.send(json!({ "type": "ADDED", "object": object }));
        }
        let mark = json!({ "apiVersion": "v1", "kind": "Any", "metadata": {
            "resourceVersion": self.revision.to_string(), "annotations": { "k8s.io/initial-events-end": "true" } } });
        let _ = sender.send(json!({ "type": "BOOKMARK", "object": mark }));
        self.watchers.entry(resource.to_owned()).or_default().push(sender);
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            let event: Value = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))), receiver))
        });
        Response::new(StreamBody::new(stream.boxed()).boxed_unsync())
    }

    fn patch_status(&mut self, resource: &str, key: &str, patch: &Value) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let Some(object) = self.objects.get(resource).and_then(|objects| objects.get(key)) else {
            return status(StatusCode::NOT_FOUND);
        };
        let mut object = object.clone();
        if let Some(version) = patch["metadata"]["resourceVersion"].as_str()
            && object["metadata"]["resourceVersion"] != version
        {
            return status(StatusCode::CONFLICT);
        }
        self.patches.push((format!("{resource}/{key}"), patch["status"].clone()));
        for (name, value) in patch["status"].as_object().into_iter().flatten() {
            object["status"][name] = value.clone();
        }
        self.put(resource, object);
        answer(&self.objects[resource][key])
    }
}

fn answer(object: &Value) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    Response::new(Full::new(Bytes::from(object.to_string())).boxed_unsync())
}

fn status(code: StatusCode) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "message": code.to_string(), "reason": "" });
    let mut response = answer(&status);
    *response.status_mut() = code;
    response
}

impl TestApi {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    async fn serve(&self, request: Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').collect();
        let method = request.method().clone();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        match (method, &segments[..]) {
            (Method::GET, [.., resource]) => {
                let mut state = self.state.lock();
                if state.unserved.iter().any(|unserved| unserved == resource) {
                    return status(StatusCode::NOT_FOUND);
                }
                if is_watch {
                    return state.watch(resource);
                }
                let items: Vec<&Value> = state.objects.get(*resource).into_iter().flat_map(BTreeMap::values).collect();
                answer(&json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items }))
            }
            (Method::PATCH, [.., "namespaces", namespace, resource, name, "status"]) => {
                let patch: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                self.state.lock().patch_status(resource, &format!("{namespace}/{name}"), &patch)
            }
            (Method::PATCH, [.., resource, name, "status"]) => {
                let patch: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                self.state.lock().patch_status(resource, &format!("/{name}"), &patch)
            }
            (Method::POST, [.., "events"]) => {
                let event: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                self.state.lock().events.push(event.clone());
                answer(&event)
            }
            (Method::POST, [.., resource @ "gatewayclasses"]) => {
                let object: Value =
                    serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                let mut state = self.state.lock();
                if state.objects.get(*resource).is_some_and(|objects| objects.contains_key(&key(&object))) {
                    return status(StatusCode::CONFLICT);
                }
                state.put(resource, object.clone());
                answer(&object)
            }
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    /// Adds or replaces an object.
    pub(crate) fn put(&self, resource: &str, object: Value) {
        self.state.lock().put(resource, object);
    }

    /// Removes an object, by namespace and name.
    pub(crate) fn delete(&self, resource: &str, key: &str) {
        let mut state = self.state.lock();
        if let Some(object) = state.objects.get_mut(resource).and_then(|objects| objects.remove(key)) {
            state.tell(resource, "DELETED", &object);
        }
    }

    /// Serves a resource, or does not.
    pub(crate) fn set_served(&self, resource: &str, is_served: bool) {
        let mut state = self.state.lock();
        state.unserved.retain(|unserved| unserved != resource);
        if !is_served {
            state.unserved.push(resource.to_owned());
        }
    }

    /// An object as it is now.
    pub(crate) fn get(&self, resource: &str, key: &str) -> Value {
        self.state.lock().objects.get(resource).and_then(|objects| objects.get(key)).cloned().unwrap_or_default()
    }

    /// How often the status of an object was written.
    pub(crate) fn patches(&self, resource: &str, key: &str) -> usize {
        let key = format!("{resource}/{key}");
        self.state.lock().patches.iter().filter(|(patched, _)| *patched == key).count()
    }

    /// The events that were written: the object's name, the reason and the message.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = |event: &Value| {
            format!(
                "{} {}: {}",
                event["involvedObject"]["name"].as_str().unwrap_or_default(),
                event["reason"].as_str().unwrap_or_default(),
                event["message"].as_str().unwrap_or_default(),
            )
        };
        self.state.lock().events.iter().map(text).collect()
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not so for 30 s");
}
