//! What happens on the pod's node: logs, and the streams of exec, attach and port-forward.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use http::StatusCode;
use machinery::GroupKind;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::{ApiError, Reason};
use registry::{ConnectOptions, PodLocation, Subresource};
use serde::Deserialize;
use streaming::{
    CommandOptions, CommandUpgrade, Duplex, ForwardUpgrade, LogOptions, LogStream, LogUpgrade, NodeApi, NodeError,
    PodRef, Refusal,
};

use super::Call;
use crate::body::ResponseBody;
use crate::lifecycle::Lifecycle;
use crate::query::Query;
use crate::respond::{self, Answer};

/// Finds the kubelet of a node, for logs, exec, attach and port-forward.
#[async_trait]
pub trait NodeConnector: Send + Sync + 'static {
    /// The node of that name, or `None` when it cannot be reached.
    async fn connect(&self, node: &str) -> Option<Arc<dyn NodeApi>>;
}

/// What connections to nodes and pods work with: the nodes, and the end of the server, with which they end.
pub(crate) struct Connections {
    pub(crate) nodes: Arc<dyn NodeConnector>,
    pub(crate) lifecycle: Lifecycle,
}

impl Connections {
    pub(super) async fn connect(&self, node: &str) -> Result<Arc<dyn NodeApi>, ApiError> {
        let connected = self.nodes.connect(node).await;
        connected.ok_or_else(|| ApiError::service_unavailable(format!("node {node:?} cannot be reached")))
    }
}

/// A log as plain text, or, for clients that ask so, over a WebSocket.
pub(super) async fn log(call: Call<'_>, connections: &Connections) -> Result<Answer, ApiError> {
    let options = log_options(call.query, &call.target.name)?;
    let place = place(&call, call.query.get("container"))?;
    // Upstream: what runs nowhere yet has said nothing.
    if place.node.is_none() {
        return Ok(respond::with_type(StatusCode::NO_CONTENT, "text/plain", ResponseBody::empty()));
    }
    let (node, pod, container) = locate(&call, connections, place).await?;
    let chunks = node.logs(&pod, &container, options).await.map_err(failed)?;
    let request = http::Request::from_parts(call.parts, ());
    if streaming::is_upgrade(&request) {
        let upgrade = match LogUpgrade::negotiate(&request) {
            Ok(upgrade) => upgrade,
            Err(refusal) => return refused(&refusal),
        };
        let response = upgrade.response().map(|()| ResponseBody::empty());
        run(&connections.lifecycle, request, |io| upgrade.serve(io, chunks));
        return Ok(response);
    }
    // A followed log of a quiet container must not hold up the shutdown.
    let chunks = chunks.take_until(connections.lifecycle.stopping.clone().cancelled_owned());
    Ok(respond::with_type(StatusCode::OK, "text/plain", ResponseBody::stream(chunks)))
}

/// `exec` and `attach`, with the options that admission has left.
pub(super) async fn command(
    call: Call<'_>,
    connections: &Connections,
    subresource: Subresource,
    admitted: ConnectOptions,
) -> Result<Answer, ApiError> {
    let ConnectOptions { stdin, stdout, stderr, tty, container, command, .. } = admitted;
    let options = CommandOptions { stdin, stdout, stderr, tty }.checked();
    let options = options.map_err(|error| ApiError::bad_request(error.to_string()))?;
    if subresource == Subresource::Exec && command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    let (node, pod, container) = locate(&call, connections, place(&call, Some(&container))?).await?;
    let request = http::Request::from_parts(call.parts, ());
    let upgrade = match CommandUpgrade::negotiate(&request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refused(&refusal),
    };
    let response = upgrade.response().map(|()| ResponseBody::empty());
    run(&connections.lifecycle, request, move |io| {
        upgrade.serve(io, options, move |streams| async move {
            match subresource {
                // How the container ended is in the pod's status: upstream calls every end of an attachment a success, and
                // kubectl takes another for a connection that broke.
                Subresource::Attach => node.attach(&pod, &container, options, streams).await.map(|_| 0),
                _ => node.exec(&pod, &container, command, options, streams).await,
            }
        })
    });
    Ok(response)
}

/// `portforward`.
pub(super) async fn port_forward(call: Call<'_>, connections: &Connections) -> Result<Answer, ApiError> {
    let (node, pod) = locate_pod(&call, connections).await?;
    let request = http::Request::from_parts(call.parts, ());
    let upgrade = match ForwardUpgrade::negotiate(&request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refused(&refusal),
    };
    let response = upgrade.response().map(|()| ResponseBody::empty());
    run(&connections.lifecycle, request, move |io| async move {
        let connect = |port, io| {
            let (node, pod) = (Arc::clone(&node), pod.clone());
            async move { node.port_forward(&pod, port, io).await }
        };
        upgrade.serve(io, &pod, connect).await;
    });
    Ok(response)
}

/// Runs a protocol on the connection of a request once the response is out, until the server stops.
fn run<F>(lifecycle: &Lifecycle, request: http::Request<()>, serve: impl FnOnce(Connection) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let connection = hyper::upgrade::on(request);
    lifecycle.spawn(async move {
        match streaming::upgraded(connection).await {
            Ok(io) => serve(Box::new(io)).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
}

type Connection = Box<dyn Duplex>;

/// What a client gets whose upgrade is refused. A failed negotiation says in headers what would have been spoken.
fn refused(refusal: &Refusal) -> Result<Answer, ApiError> {
    if refusal.code == StatusCode::BAD_REQUEST {
        return Err(ApiError::bad_request(refusal.message.clone()));
    }
    Ok(refusal.response().map(ResponseBody::once))
}

/// Where the container meant runs.
fn place(call: &Call<'_>, container: Option<&str>) -> Result<PodLocation, ApiError> {
    call.registry.pod_location(&call.target.namespace, &call.target.name, container)
}

/// The node a pod is on, and the container meant.
async fn locate(
    call: &Call<'_>,
    connections: &Connections,
    place: PodLocation,
) -> Result<(Arc<dyn NodeApi>, PodRef, String), ApiError> {
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    let node = connections.connect(&assigned(name, place.node)?).await?;
    let pod = PodRef { namespace: namespace.clone(), name: name.clone(), uid: place.uid };
    Ok((node, pod, place.container))
}

/// The node a pod is on, whatever its containers.
async fn locate_pod(call: &Call<'_>, connections: &Connections) -> Result<(Arc<dyn NodeApi>, PodRef), ApiError> {
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    let entry = call.registry.get(&call.target, "").await?;
    let pod: Pod = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
    let node = pod.spec.node_name.filter(|node| !node.is_empty());
    let node = connections.connect(&assigned(name, node)?).await?;
    Ok((node, PodRef { namespace: namespace.clone(), name: name.clone(), uid: pod.metadata.uid }))
}

fn assigned(pod: &str, node: Option<String>) -> Result<String, ApiError> {
    node.ok_or_else(|| ApiError::bad_request(format!("pod {pod} does not have a host assigned")))
}

/// The two fields of a pod that matter here.
#[derive(Deserialize)]
struct Pod {
    metadata: PodMeta,
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodMeta {
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
}

pub(super) fn failed(error: NodeError) -> ApiError {
    match error {
        NodeError::NotFound(why) => ApiError::new(404, Reason::NotFound, why),
        NodeError::BadRequest(why) => ApiError::bad_request(why),
        NodeError::Internal(why) => ApiError::internal(why),
    }
}

/// Reads the query of a log request.
fn log_options(query: &Query<'_>, pod: &str) -> Result<LogOptions, ApiError> {
    let optional = |name: &str| query.get(name).filter(|value| !value.is_empty());
    let mut errors = ErrorList::default();
    let mut at_least = |name: &'static str, value: Option<i64>, least: i64| {
        if let Some(value) = value.filter(|value| *value < least) {
            let why = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.0.push(FieldError::invalid(&Path::new(name), value, why));
        }
        value
    };
    let tail_lines = at_least("tailLines", query.integer("tailLines")?, 0);
    let limit_bytes = at_least("limitBytes", query.integer("limitBytes")?, 1);
    let since_seconds = at_least("sinceSeconds", query.integer("sinceSeconds")?, 1);
    let since_time = optional("sinceTime").map(str::to_owned);
    if since_time.is_some() && since_seconds.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.0.push(FieldError::forbidden(&Path::new(""), why));
    }
    let stream = match optional("stream").unwrap_or("All") {
        "Stdout" => LogStream::Stdout,
        "Stderr" => LogStream::Stderr,
        "All" => LogStream::All,
        other => {
            errors.0.push(FieldError::not_supported(&Path::new("stream"), other, &["All", "Stderr", "Stdout"]));
            LogStream::All
        }
    };
    if !errors.is_empty() {
        return Err(ApiError::invalid(&GroupKind::from_static("", "PodLogOptions"), pod, &errors));
    }
    if let Some(time) = &since_time
        && let Err(error) = time.parse::<jiff::Timestamp>()
    {
        return Err(ApiError::bad_request(format!("parsing time {time:?}: {error}")));
    }
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since_seconds,
        since_time,
        tail_lines,
        limit_bytes,
        stream,
    })
}
