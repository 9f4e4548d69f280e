//! One side: requests to an API server, and what it answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body as ClientBody;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// A request that does not end by then is not answered. A list of a revision that is not there yet takes a kube-apiserver three
/// seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Stands for the status of a request that is not answered.
const NO_ANSWER: u16 = 599;

/// A request to both sides.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// With its query. `START` stands for the revision from before the first write.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: Body,
    /// What is special about it, for those who read of it.
    pub(crate) note: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    None,
    Json(Value),
    Text(String),
    /// What is at the path, changed by this merge patch.
    Changed(Value),
    /// This object, with the revision of what is at the path.
    Replaced(Value),
}

impl Request {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let content_type = "application/json";
        Self { method, path: path.into(), accept: content_type, content_type, body: Body::None, note: String::new() }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body: Body::Json(body), ..Self::new(Method::POST, path) }
    }

    pub(crate) fn text(method: Method, path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { body: Body::Text(text.into()), ..Self::new(method, path) }
    }

    /// What is at the path, changed and put back.
    pub(crate) fn change(path: impl Into<String>, change: Value) -> Self {
        Self { body: Body::Changed(change), ..Self::new(Method::PUT, path) }
    }

    /// `object` in place of what is at the path.
    pub(crate) fn replace(path: impl Into<String>, object: Value) -> Self {
        Self { body: Body::Replaced(object), ..Self::new(Method::PUT, path) }
    }

    pub(crate) fn patch(path: impl Into<String>, content_type: &'static str, body: Value) -> Self {
        Self { content_type, body: Body::Json(body), ..Self::new(Method::PATCH, path) }
    }

    pub(crate) fn delete(path: impl Into<String>, options: Value) -> Self {
        Self { body: Body::Json(options), ..Self::new(Method::DELETE, path) }
    }

    pub(crate) fn accept(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// The request in one line.
    pub(crate) fn title(&self) -> String {
        let mut title = format!("{} {}", self.method, self.path);
        if self.accept != "application/json" {
            title.push_str(&format!(" as {}", self.accept));
        }
        if self.method == Method::PATCH {
            title.push_str(&format!(" ({})", self.content_type));
        }
        if !self.note.is_empty() {
            title.push_str(&format!(" [{}]", self.note));
        }
        title
    }
}

/// What a side answers.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// One side.
pub(crate) struct Cluster {
    client: Client,
    start: String,
}

impl Cluster {
    /// The current context of a file.
    pub(crate) async fn connect(file: &Path) -> Result<Self> {
        Self::of(Kubeconfig::read_from(file)?)
            .await
            .with_context(|| format!("cannot reach the cluster of {}", file.display()))
    }

    /// The current context of `kubeconfig`.
    pub(crate) async fn of(kubeconfig: Kubeconfig) -> Result<Self> {
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let mut cluster = Self { client: Client::try_from(config)?, start: String::new() };
        let namespaces = cluster.json("/api/v1/namespaces?limit=1").await?;
        cluster.start =
            namespaces["metadata"]["resourceVersion"].as_str().context("a list without revision")?.to_owned();
        Ok(cluster)
    }

    /// Reads an object.
    pub(crate) async fn json(&self, path: &str) -> Result<Value> {
        let reply = self.send(&Request::get(path)).await?;
        serde_json::from_str(&reply.text).with_context(|| format!("GET {path}: {} {}", reply.status, reply.text))
    }

    /// Sends a request. It is no error that the server refuses it.
    pub(crate) async fn send(&self, request: &Request) -> Result<Reply> {
        let sending = async {
            let body = match &request.body {
                Body::None => Vec::new(),
                Body::Json(value) => value.to_string().into_bytes(),
                Body::Text(text) => text.clone().into_bytes(),
                Body::Changed(change) => {
                    let mut object = self.current(request).await?;
                    merge(&mut object, change);
                    object.to_string().into_bytes()
                }
                Body::Replaced(object) => {
                    let revision = &self.current(request).await?["metadata"]["resourceVersion"];
                    let mut object = object.clone();
                    merge(&mut object, &json!({ "metadata": { "resourceVersion": revision } }));
                    object.to_string().into_bytes()
                }
            };
            self.exchange(request, body).await
        };
        match tokio::time::timeout(TIMEOUT, sending).await {
            Ok(reply) => reply,
            Err(_) => Reply::none(&"no end"),
        }
    }

    /// What is at the path of `request`; null when nothing is.
    async fn current(&self, request: &Request) -> Result<Value> {
        let path = request.path.split('?').next().unwrap_or_default();
        let reply = self.exchange(&Request::get(path), Vec::new()).await?;
        Ok(if reply.status.is_success() { serde_json::from_str(&reply.text)? } else { Value::Null })
    }

    async fn exchange(&self, request: &Request, body: Vec<u8>) -> Result<Reply> {
        let mut builder = http::Request::builder()
            .method(&request.method)
            .uri(request.path.replace("START", &self.start))
            .header("accept", request.accept)
            .header("user-agent", "compare/1");
        if !body.is_empty() {
            builder = builder.header("content-type", request.content_type);
        }
        let response = match self.client.send(builder.body(ClientBody::from(body))?).await {
            Ok(response) => response,
            Err(error) => return Reply::none(&error),
        };
        let (head, body) = response.into_parts();
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Reply::none(&error),
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Reply { status: head.status, headers: head.headers, text })
    }
}

impl Reply {
    /// Of a server that breaks the connection, as a handler of upstream's that panics does, or does not end.
    fn none(error: &dyn std::fmt::Display) -> Result<Self> {
        let status = StatusCode::from_u16(NO_ANSWER)?;
        Ok(Self { status, headers: HeaderMap::new(), text: format!("no answer: {error}") })
    }

    /// Its headers, with the values of those given several times joined.
    pub(crate) fn headers(&self) -> BTreeMap<&str, String> {
        let mut headers: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            let all = headers.entry(name.as_str()).or_default();
            if !all.is_empty() {
                all.push_str("; ");
            }
            all.push_str(&value);
        }
        headers
    }
}

/// A JSON merge patch (RFC 7386), except that null stays: what it sends is a value like others.
pub(crate) fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(fields.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
        (target, change) => target.clone_from(change),
    }
}
