//! A server to ask, and what it answered.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use registry::{EscalationCheck, Registry, WebhookClient};
use serde_json::Value;
use streaming::stats::Summary;
use streaming::{
    CommandOptions, Duplex, LogChunks, LogOptions, NodeApi, NodeError, NodeMetrics, NodePod, PodRef, Streams,
};

use crate::audit::Audit;
use crate::authz::{self, Rbac};
use crate::body::RequestBody;
use crate::server::Caller;
use crate::tokens::TokenKey;
use crate::webhooks;
use crate::{AggregatedApi, ApiServer, Dependencies, NodeConnector, RequestLimits, User};

/// A server with what it needs.
pub(crate) struct Fixture {
    pub(crate) home: tempfile::TempDir,
    pub(crate) server: ApiServer,
    pub(crate) registry: Registry,
    pub(crate) token_key: Arc<TokenKey>,
}

/// A response, read to its end.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(Vec::new()).await
    }

    pub(crate) async fn with(extensions: Vec<AggregatedApi>) -> Self {
        Self::open(extensions, RequestLimits::default(), Arc::new(webhooks::Caller), |rbac| rbac, None).await
    }

    /// One whose requests may take so much.
    pub(crate) async fn with_limits(limits: RequestLimits, extensions: Vec<AggregatedApi>) -> Self {
        Self::open(extensions, limits, Arc::new(webhooks::Caller), |rbac| rbac, None).await
    }

    /// One whose writes are checked by what `wrap` makes of the roles' check, and whose webhooks are all `client`.
    pub(crate) async fn with_checks(
        client: Arc<dyn WebhookClient>,
        wrap: impl FnOnce(Arc<dyn EscalationCheck>) -> Arc<dyn EscalationCheck>,
    ) -> Self {
        Self::open(Vec::new(), RequestLimits::default(), client, wrap, None).await
    }

    /// One that notes what it is asked.
    pub(crate) async fn with_audit(audit: Audit) -> Self {
        let client = Arc::new(webhooks::Caller);
        Self::open(Vec::new(), RequestLimits::default(), client, |rbac| rbac, Some(audit)).await
    }

    async fn open(
        extensions: Vec<AggregatedApi>,
        limits: RequestLimits,
        webhooks: Arc<dyn WebhookClient>,
        wrap: impl FnOnce(Arc<dyn EscalationCheck>) -> Arc<dyn EscalationCheck>,
        audit: Option<Audit>,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = store::Options { fsync: false, ..store::Options::new(home.path().join("store")) };
        let storage =
            registry::Storage::open(registry::Options { store, allocators: Default::default() }, kinds::all()).unwrap();
        let rbac = Rbac::new(storage.store());
        let escalation = wrap(Arc::clone(&rbac) as _);
        let plugins = kinds::plugins(&[addon_lws::ADMISSION], kinds::AdmissionConfig::default());
        let registry = Registry::new(storage, registry::Dependencies { escalation, webhooks, plugins });
        kinds::bootstrap(&registry, 6443).await.unwrap();
        authz::bootstrap(&registry, &[]).await.unwrap();
        let server = ApiServer::new(Dependencies {
            registry: registry.clone(),
            nodes: Arc::new(Nodes),
            extensions,
            authorizer: rbac,
            limits,
            audit,
        });
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let token_key = Arc::new(TokenKey::from_pkcs8(&key).unwrap());
        server.0.tokens.set_key(Arc::clone(&token_key));
        Self { home, server, registry, token_key }
    }

    /// Asks as an administrator.
    pub(crate) async fn ask(&self, line: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.ask_as(Some(User::master("kubernetes-admin")), line, headers, body).await
    }

    /// Asks as somebody, or without saying who; `line` is method and path.
    pub(crate) async fn ask_as(
        &self,
        user: Option<User>,
        line: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let user = user.unwrap_or_else(User::anonymous).into();
        let response = self.server.handle(request(line, headers, body), Some(user), Caller::Client).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        }
    }

    /// Asks as an administrator, and reads no more of an answer than its code, and the text of an error: a stream may go on.
    pub(crate) async fn answered(&self, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let user = Some(User::master("kubernetes-admin").into());
        let response = self.server.handle(request(line, headers, body.to_owned()), user, Caller::Client).await;
        let (parts, body) = response.into_parts();
        if parts.status.as_u16() < 400 {
            return (parts.status.as_u16(), String::new());
        }
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Asks for JSON with a JSON body, and checks the status.
    pub(crate) async fn json(&self, line: &str, status: u16, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.ask(line, &[("content-type", "application/json")], body).await;
        assert_eq!(reply.status.as_u16(), status, "{line}: {}", reply.text);
        reply.json()
    }
}

pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<RequestBody> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(RequestBody::Local(kube::client::Body::from(body.into()))).unwrap()
}

/// A pod which the fake node knows.
pub(crate) fn pod(name: &str, node: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "nginx" }] },
    })
}

/// Every node whose name begins with `node` is there.
struct Nodes;

#[async_trait]
impl NodeConnector for Nodes {
    async fn connect(&self, node: &str) -> Option<Arc<dyn NodeApi>> {
        node.starts_with("node").then(|| Arc::new(Node) as Arc<dyn NodeApi>)
    }
}

/// The kubelet of each of them. It has one pod, `web` in `default`, whose container is called `main`.
pub(crate) struct Node;

/// So many lines of a log are too many for [`Node`].
pub(crate) const PANICS: i64 = 1_313;

#[async_trait]
impl NodeApi for Node {
    async fn logs(&self, pod: &PodRef, container: &str, options: LogOptions) -> Result<LogChunks, NodeError> {
        if options.previous {
            return Err(NodeError::BadRequest(format!("previous terminated container \"{container}\" not found")));
        }
        assert_ne!(options.tail_lines, Some(PANICS), "a handler that panics");
        let text = format!("{}/{container} tail={:?}\n", pod.name, options.tail_lines);
        let chunks = futures::stream::iter([io::Result::Ok(Bytes::from(text))]);
        if options.follow { Ok(chunks.chain(futures::stream::pending()).boxed()) } else { Ok(chunks.boxed()) }
    }

    async fn exec(
        &self,
        _pod: &PodRef,
        _container: &str,
        command: Vec<String>,
        _options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, NodeError> {
        let Some(stdout) = streams.stdout else { return Ok(0) };
        let _ = stdout.send(Bytes::from(command.join(" "))).await;
        Ok(i32::from(command.first().is_some_and(|word| word == "false")))
    }

    async fn attach(
        &self,
        _pod: &PodRef,
        _container: &str,
        _options: CommandOptions,
        _streams: Streams,
    ) -> Result<i32, NodeError> {
        Ok(0)
    }

    async fn port_forward(&self, _pod: &PodRef, _port: u16, _io: Box<dyn Duplex>) -> Result<(), NodeError> {
        Ok(())
    }

    async fn stats(&self) -> Result<Summary, NodeError> {
        Ok(Summary::default())
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<NodePod> {
        let pod = PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid: "u1".to_owned() };
        ((namespace, name) == ("default", "web")).then(|| NodePod { pod, containers: vec!["main".to_owned()] })
    }

    fn pods(&self) -> Result<Vec<Value>, NodeError> {
        Ok(vec![serde_json::json!({ "metadata": { "name": "web" } })])
    }

    fn running_pods(&self) -> Result<Vec<Value>, NodeError> {
        Ok(Vec::new())
    }

    fn configuration(&self) -> Result<Value, NodeError> {
        Ok(serde_json::json!({ "port": 10250 }))
    }

    async fn metrics(&self, which: NodeMetrics) -> Result<String, NodeError> {
        match which {
            NodeMetrics::Resource => Ok(self.stats().await?.metrics()),
            // As a fault of the program would.
            NodeMetrics::Probes => panic!("metrics that panic"),
            other => Ok(format!("is_{other:?} 1\n")),
        }
    }
}
