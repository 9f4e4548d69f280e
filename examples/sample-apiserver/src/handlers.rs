//! Requests and their answers.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::authentication::FrontProxy;
use crate::authorization::{Attributes, authorize};
use crate::flunders::{self, Flunders, GROUP, PLURAL, VERSION};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How many bytes an object may have.
const OBJECT_BYTES: usize = 1 << 20;

/// What the handlers work with.
pub(crate) struct Server {
    client: Client,
    pub(crate) front_proxy: FrontProxy,
    flunders: Flunders,
}

/// Where a request leads, below `/apis/GROUP/VERSION`.
struct Place<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Server {
    pub(crate) fn new(client: Client, front_proxy: FrontProxy) -> Self {
        Self { client, front_proxy, flunders: Flunders::new() }
    }

    /// Answers. Health and documents are for everybody; objects for who the front proxy says, if they may.
    pub(crate) async fn answer(&self, request: Request<Incoming>, is_front_proxy: bool) -> Response<Body> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        if let Some(document) = document(&path) {
            return json(StatusCode::OK, &document);
        }
        if matches!(path.as_str(), "/healthz" | "/livez" | "/readyz") {
            return Response::new(Full::new(Bytes::from("ok")).boxed_unsync());
        }
        let Some(place) = place(&path) else { return status(StatusCode::NOT_FOUND, "NotFound", "page not found") };
        let user = self.front_proxy.user(request.headers()).filter(|_| is_front_proxy);
        let Some(user) = user else { return status(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized") };
        let watches = request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|part| matches!(part, "watch=1" | "watch=true")));
        let verb = match (request.method(), place.name.is_empty()) {
            (&Method::GET, true) if watches => "watch",
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, true) if !place.namespace.is_empty() => "create",
            (&Method::DELETE, false) => "delete",
            _ => return status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "the server does not do this"),
        };
        let attributes = Attributes { verb, namespace: place.namespace, name: place.name };
        match authorize(&self.client, &user, &attributes).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                let who =
                    format!("{PLURAL}.{GROUP} is forbidden: User {:?} cannot {verb} it here: {reason}", user.name);
                return status(StatusCode::FORBIDDEN, "Forbidden", &who);
            }
            Err(error) => return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string()),
        }
        match verb {
            "watch" => self.watch(place.namespace),
            "list" => self.list(place.namespace),
            "get" => found(self.flunders.get(place.namespace, place.name), place.name),
            "delete" => found(self.flunders.delete(place.namespace, place.name), place.name),
            _ => match object(request.into_body()).await {
                Ok((name, object)) => match self.flunders.create(place.namespace, &name, object) {
                    Some(made) => json(StatusCode::CREATED, &made),
                    None => status(
                        StatusCode::CONFLICT,
                        "AlreadyExists",
                        &format!("{PLURAL}.{GROUP} {name:?} already exists"),
                    ),
                },
                Err(error) => status(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
            },
        }
    }

    fn list(&self, namespace: &str) -> Response<Body> {
        let (items, version) = self.flunders.list(namespace);
        let metadata = json!({ "resourceVersion": version.to_string() });
        let list = json!({
            "kind": "FlunderList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata, "items": items,
        });
        json(StatusCode::OK, &list)
    }

    /// What there is, and then whatever happens, until the client leaves or falls behind.
    fn watch(&self, namespace: &str) -> Response<Body> {
        let (objects, changes) = self.flunders.watch(namespace);
        let namespace = namespace.to_owned();
        let event = |kind: &str, object: &Value| {
            let line = format!("{}\n", json!({ "type": kind, "object": object }));
            Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
        };
        let now = stream::iter(objects.into_iter().map(move |object| event("ADDED", &object)).collect::<Vec<_>>());
        let later = stream::unfold(changes, async |mut changes: broadcast::Receiver<flunders::Change>| {
            Some((changes.recv().await.ok()?, changes))
        });
        let later = later.filter_map(move |change| {
            let is_there = namespace.is_empty() || change.object["metadata"]["namespace"] == *namespace;
            std::future::ready(is_there.then(|| event(change.kind, &change.object)))
        });
        let mut response = Response::new(StreamBody::new(now.chain(later)).boxed_unsync());
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        response
    }
}

/// Discovery and OpenAPI.
fn document(path: &str) -> Option<Value> {
    let version = format!("apis/{GROUP}/{VERSION}");
    let openapi = format!("openapi/v3/{version}");
    let path = path.trim_start_matches('/');
    if path == version {
        return Some(flunders::resource_list());
    }
    if path == openapi {
        return Some(flunders::openapi());
    }
    (path == "openapi/v3").then(|| {
        let mut paths = serde_json::Map::new();
        paths.insert(version, json!({ "serverRelativeURL": format!("/{openapi}?hash=1") }));
        json!({ "paths": paths })
    })
}

/// Reads `/apis/GROUP/VERSION/[namespaces/N/]flunders[/NAME]`.
fn place(path: &str) -> Option<Place<'_>> {
    let rest = path.strip_prefix("/apis/")?.strip_prefix(GROUP)?.strip_prefix('/')?.strip_prefix(VERSION)?;
    match rest.strip_prefix('/')?.split('/').collect::<Vec<_>>()[..] {
        [PLURAL] => Some(Place { namespace: "", name: "" }),
        ["namespaces", namespace, PLURAL] => Some(Place { namespace, name: "" }),
        ["namespaces", namespace, PLURAL, name] => Some(Place { namespace, name }),
        _ => None,
    }
}

/// An object from the body of a request, and its name.
async fn object(body: Incoming) -> Result<(String, Value)> {
    let bytes = Limited::new(body, OBJECT_BYTES).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    let object: Value = serde_json::from_slice(&bytes)?;
    let name = object["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| anyhow::anyhow!("metadata.name is required"))?.to_owned();
    Ok((name, object))
}

fn found(object: Option<Value>, name: &str) -> Response<Body> {
    match object {
        Some(object) => json(StatusCode::OK, &object),
        None => status(StatusCode::NOT_FOUND, "NotFound", &format!("{PLURAL}.{GROUP} {name:?} not found")),
    }
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    json(code, &status)
}

fn json(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_objects() {
        for (path, expect) in [
            ("flunders", Some(("", ""))),
            ("namespaces/n/flunders", Some(("n", ""))),
            ("namespaces/n/flunders/a", Some(("n", "a"))),
            ("namespaces/n/others/a", None),
            ("flunders/a/b", None),
        ] {
            let path = format!("/apis/{GROUP}/{VERSION}/{path}");
            assert_eq!(place(&path).map(|place| (place.namespace, place.name)), expect, "{path}");
        }
        assert!(place("/apis/apps/v1/flunders").is_none());
        assert!(document(&format!("/apis/{GROUP}/{VERSION}")).is_some());
        assert!(document("/apis").is_none());
    }
}
