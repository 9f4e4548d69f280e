//! What a kubelet serves over HTTP (upstream: `pkg/kubelet/server/server.go`), at its own port and behind `nodes/NAME/proxy`.
//!
//! | path | what |
//! |---|---|
//! | `/healthz`, `/healthz/{ping,log,syncloop}` | `ok` |
//! | `/pods`, `/runningpods` | the pods that are bound to the node, and those that run there |
//! | `/stats/summary` | what node and pods use |
//! | `/metrics`, `/metrics/{cadvisor,probes,resource}` | the same and more in Prometheus' text format |
//! | `/configz` | how the kubelet is configured |
//! | `/containerLogs/NAMESPACE/POD/CONTAINER` | a log |
//! | `/exec/…`, `/attach/NAMESPACE/POD[/UID]/CONTAINER` | a process |
//! | `/portForward/NAMESPACE/POD[/UID]` | ports |
//!
//! Left out are `/run`, `/checkpoint`, `/debug`, `/flagz` and `/statusz`, and `/logs`, which shows the machine's own.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use machinery::status::ApiError;
use serde::Serialize;
use serde_json::{Value, json};
use streaming::{CommandOptions, LogOptions, NodeApi, NodeError, NodeMetrics, NodePod, PodRef, exposition};

use crate::lifecycle::Lifecycle;
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::streams::{self, Container, Process, log_options};

/// Upstream's port.
pub(crate) const KUBELET_PORT: u16 = 10250;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint<'a> {
    Health,
    Pods,
    RunningPods,
    Summary,
    Metrics(NodeMetrics),
    Configuration,
    Logs(Place<'a>),
    Exec(Place<'a>),
    Attach(Place<'a>),
    PortForward(Place<'a>),
}

/// A pod as a path names it, and its container where one is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    namespace: &'a str,
    pod: &'a str,
    uid: Option<&'a str>,
    container: &'a str,
}

impl<'a> Endpoint<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        let place = |namespace, pod, uid, container| Place { namespace, pod, uid, container };
        Some(match *segments {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Self::Health,
            ["pods"] => Self::Pods,
            ["runningpods"] => Self::RunningPods,
            ["stats", "summary"] => Self::Summary,
            ["metrics"] => Self::Metrics(NodeMetrics::Kubelet),
            ["metrics", "cadvisor"] => Self::Metrics(NodeMetrics::Cadvisor),
            ["metrics", "resource"] => Self::Metrics(NodeMetrics::Resource),
            ["metrics", "probes"] => Self::Metrics(NodeMetrics::Probes),
            ["configz"] => Self::Configuration,
            ["containerLogs", namespace, pod, container] => Self::Logs(place(namespace, pod, None, container)),
            ["exec", namespace, pod, container] => Self::Exec(place(namespace, pod, None, container)),
            ["exec", namespace, pod, uid, container] => Self::Exec(place(namespace, pod, Some(uid), container)),
            ["attach", namespace, pod, container] => Self::Attach(place(namespace, pod, None, container)),
            ["attach", namespace, pod, uid, container] => Self::Attach(place(namespace, pod, Some(uid), container)),
            ["portForward", namespace, pod] => Self::PortForward(place(namespace, pod, None, "")),
            ["portForward", namespace, pod, uid] => Self::PortForward(place(namespace, pod, Some(uid), "")),
            _ => return None,
        })
    }

    /// Whether it runs something in a pod, or reaches into it.
    fn connects(self) -> bool {
        matches!(self, Self::Exec(_) | Self::Attach(_) | Self::PortForward(_))
    }

    /// The methods it has.
    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) => matches!(*method, Method::GET | Method::POST),
            // Those that Prometheus' and others' handlers answer do not ask for the method upstream.
            Self::Health | Self::Metrics(_) | Self::Configuration => matches!(*method, Method::GET | Method::HEAD),
            _ => *method == Method::GET,
        }
    }
}

/// Whether what a path leads to runs something in a pod, or reaches into it.
pub(crate) fn connects(path: &str) -> bool {
    Endpoint::parse(path).is_some_and(Endpoint::connects)
}

/// Whether what a path leads to lasts as long as its client likes.
pub(crate) fn lasts(path: &str) -> bool {
    Endpoint::parse(path).is_some_and(|endpoint| endpoint.connects() || matches!(endpoint, Endpoint::Logs(_)))
}

/// Answers a request for `path` of a node's kubelet, which whoever asks is allowed to.
pub(crate) async fn serve(node: Arc<dyn NodeApi>, lifecycle: &Lifecycle, path: &str, parts: Parts) -> Answer {
    let Some(endpoint) = Endpoint::parse(path) else { return respond::page_not_found() };
    if !endpoint.allows(&parts.method) {
        let mut response = respond::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        let allowed = if endpoint.connects() { "GET, POST" } else { "GET" };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    let uri = parts.uri.clone();
    let query = Query::parse(uri.query());
    answer(node, lifecycle, endpoint, &query, parts)
        .await
        .unwrap_or_else(|Refused(status, why)| respond::text(status, why))
}

/// Why a request is refused; upstream says it in plain text.
struct Refused(StatusCode, String);

impl From<NodeError> for Refused {
    fn from(error: NodeError) -> Self {
        let status = match error {
            NodeError::NotFound(_) => StatusCode::NOT_FOUND,
            NodeError::BadRequest(_) => StatusCode::BAD_REQUEST,
            NodeError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(status, error.message)
    }
}

async fn answer(
    node: Arc<dyn NodeApi>,
    lifecycle: &Lifecycle,
    endpoint: Endpoint<'_>,
    query: &Query<'_>,
    parts: Parts,
) -> Result<Answer, Refused> {
    match endpoint {
        Endpoint::Health => Ok(respond::text(StatusCode::OK, "ok")),
        Endpoint::Pods => json_of(&pod_list(node.pods()?)),
        Endpoint::RunningPods => json_of(&pod_list(node.running_pods()?)),
        Endpoint::Summary => {
            let summary = node.stats().await?;
            json_of(&if query.flag("only_cpu_and_memory") { summary.only_cpu_and_memory() } else { summary })
        }
        Endpoint::Metrics(which) => {
            let text = Bytes::from(node.metrics(which).await?);
            Ok(respond::with_type(StatusCode::OK, exposition::CONTENT_TYPE, text))
        }
        Endpoint::Configuration => json_of(&json!({ "kubeletconfig": node.configuration()? })),
        Endpoint::Logs(place) => {
            let options = read_log_options(query)?;
            let found = find(&*node, place, || format!("pod {:?} does not exist", place.pod))?;
            let name = place.container;
            if !found.containers.iter().any(|container| container == name) {
                let why = format!("container {name:?} not found in pod {:?}", place.pod);
                return Err(Refused(StatusCode::NOT_FOUND, why));
            }
            let chunks = node.logs(&found.pod, name, options).await?;
            Ok(streams::log(lifecycle, parts, chunks)?)
        }
        Endpoint::Exec(place) => {
            let command = query.all("command").map(str::to_owned).collect();
            command_of(node, lifecycle, place, Process::Exec(command), query, parts)
        }
        Endpoint::Attach(place) => command_of(node, lifecycle, place, Process::Attach, query, parts),
        Endpoint::PortForward(place) => {
            let pod = connectable(&*node, place)?;
            Ok(streams::port_forward(lifecycle, parts, node, pod)?)
        }
    }
}

fn command_of(
    node: Arc<dyn NodeApi>,
    lifecycle: &Lifecycle,
    place: Place<'_>,
    process: Process,
    query: &Query<'_>,
    parts: Parts,
) -> Result<Answer, Refused> {
    // The kubelet's names for them (`pkg/apis/core/types.go`) are not those of the API's options.
    let is_wanted = |name| query.text(name) == "1";
    let [stdin, stdout, stderr, tty] = ["input", "output", "error", "tty"].map(is_wanted);
    let options = streams::check(&process, CommandOptions { stdin, stdout, stderr, tty })?;
    let pod = connectable(&*node, place)?;
    let container = Container { node, pod, name: place.container.to_owned() };
    Ok(streams::command(lifecycle, parts, container, process, options)?)
}

/// The pod that a client is to be connected to.
fn connectable(node: &dyn NodeApi, place: Place<'_>) -> Result<PodRef, Refused> {
    find(node, place, || "pod does not exist".to_owned()).map(|found| found.pod)
}

fn find(node: &dyn NodeApi, place: Place<'_>, absent: impl FnOnce() -> String) -> Result<NodePod, Refused> {
    let found = node.pod(place.namespace, place.pod).ok_or_else(|| Refused(StatusCode::NOT_FOUND, absent()))?;
    match place.uid.filter(|uid| *uid != found.pod.uid) {
        Some(_) => Err(Refused(StatusCode::NOT_FOUND, "pod not found".to_owned())),
        None => Ok(found),
    }
}

/// The options of a log, whose refusals are in the words of `getContainerLogs`. `tail` is the older `tailLines`.
fn read_log_options(query: &Query<'_>) -> Result<LogOptions, Refused> {
    let invalid = || Refused(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#.to_owned());
    let refused = |error: &ApiError| match StatusCode::from_u16(error.code) {
        Ok(StatusCode::UNPROCESSABLE_ENTITY) => invalid(),
        _ => Refused(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#.to_owned()),
    };
    let mut options = log_options(query, "").map_err(|error| refused(&error))?;
    match query.text("tail") {
        "" => {}
        "all" => options.tail_lines = None,
        _ => {
            let lines = query.integer("tail").map_err(|error| refused(&error))?;
            if lines.is_some_and(|lines| lines < 0) {
                return Err(invalid());
            }
            options.tail_lines = lines;
        }
    }
    Ok(options)
}

fn pod_list(items: Vec<Value>) -> Value {
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
}

fn json_of(value: &impl Serialize) -> Result<Answer, Refused> {
    let json =
        serde_json::to_vec(value).map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(respond::with_type(StatusCode::OK, "application/json", Bytes::from(json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let place = |uid, container| Place { namespace: "ns", pod: "p", uid, container };
        for (path, expect) in [
            ("/healthz", Some(Endpoint::Health)),
            ("/healthz/syncloop", Some(Endpoint::Health)),
            ("/healthz/etcd", None),
            ("/pods", Some(Endpoint::Pods)),
            ("/runningpods/", Some(Endpoint::RunningPods)),
            ("metrics/probes", Some(Endpoint::Metrics(NodeMetrics::Probes))),
            ("/metrics/other", None),
            ("/containerLogs/ns/p/c", Some(Endpoint::Logs(place(None, "c")))),
            ("/containerLogs/ns/p", None),
            ("/exec/ns/p/c", Some(Endpoint::Exec(place(None, "c")))),
            ("/exec/ns/p/u/c", Some(Endpoint::Exec(place(Some("u"), "c")))),
            ("/attach/ns/p/c", Some(Endpoint::Attach(place(None, "c")))),
            ("/portForward/ns/p/u", Some(Endpoint::PortForward(place(Some("u"), "")))),
            ("/stats/../exec/ns/p/c", None),
            ("//exec/ns/p/c", None),
            ("/exec//p/c", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(Endpoint::parse(path), expect, "{path}");
        }
        assert!(connects("exec/ns/p/c") && !connects("containerLogs/ns/p/c") && lasts("containerLogs/ns/p/c"));
        assert!(!lasts("/metrics") && !lasts("/nothing"));
    }

    #[test]
    fn options_of_logs() {
        let read = |query: &str| match read_log_options(&Query::parse(Some(query))) {
            Ok(options) => Ok((options.tail_lines, options.follow)),
            Err(Refused(status, _)) => Err(status.as_u16()),
        };
        for (query, expect) in [
            ("", Ok((None, false))),
            ("follow=true&tailLines=5", Ok((Some(5), true))),
            ("tail=7", Ok((Some(7), false))),
            ("tail=all&tailLines=5", Ok((None, false))),
            ("tail=x", Err(400)),
            ("tail=-1", Err(422)),
            ("tailLines=-1", Err(422)),
            ("tailLines=x", Err(400)),
        ] {
            assert_eq!(read(query), expect, "{query}");
        }
    }
}
