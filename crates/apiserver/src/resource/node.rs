//! What happens on the pod's node: logs, and the streams of exec, attach and port-forward.

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use machinery::status::ApiError;
use registry::{ConnectOptions, PodLocation, Subresource};
use serde::Deserialize;
use streaming::{CommandOptions, NodeApi, PodRef};

use super::Call;
use crate::body::ResponseBody;
use crate::lifecycle::Lifecycle;
use crate::respond::{self, Answer};
use crate::streams::{self, Container, Process, failed, log_options};

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
    let Container { node, pod, name } = locate(&call, connections, place).await?;
    let chunks = node.logs(&pod, &name, options).await.map_err(failed)?;
    streams::log(&connections.lifecycle, call.parts, chunks)
}

/// `exec` and `attach`, with the options that admission has left.
pub(super) async fn command(
    call: Call<'_>,
    connections: &Connections,
    subresource: Subresource,
    admitted: ConnectOptions,
) -> Result<Answer, ApiError> {
    let ConnectOptions { stdin, stdout, stderr, tty, container, command, .. } = admitted;
    let options = CommandOptions { stdin, stdout, stderr, tty };
    let process = if subresource == Subresource::Attach { Process::Attach } else { Process::Exec(command) };
    // What is wrong with what is asked for is said before the pod is looked for.
    streams::check(&process, options)?;
    let container = locate(&call, connections, place(&call, Some(&container))?).await?;
    streams::command(&connections.lifecycle, call.parts, container, process, options)
}

/// `portforward`.
pub(super) async fn port_forward(call: Call<'_>, connections: &Connections) -> Result<Answer, ApiError> {
    let (node, pod) = locate_pod(&call, connections).await?;
    streams::port_forward(&connections.lifecycle, call.parts, node, pod)
}

/// Where the container meant runs.
fn place(call: &Call<'_>, container: Option<&str>) -> Result<PodLocation, ApiError> {
    call.registry.pod_location(&call.target.namespace, &call.target.name, container)
}

/// The node a pod is on, and the container meant.
async fn locate(call: &Call<'_>, connections: &Connections, place: PodLocation) -> Result<Container, ApiError> {
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    let node = connections.connect(&assigned(name, place.node)?).await?;
    let pod = PodRef { namespace: namespace.clone(), name: name.clone(), uid: place.uid };
    Ok(Container { node, pod, name: place.container })
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
