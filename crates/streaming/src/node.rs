//! What a node answers: logs, exec, attach, port-forward, statistics and what it knows of itself, asked by whoever serves the
//! API, or the node's own port.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::stats::Summary;

/// A pod, by name and by the UID that tells it from its namesakes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

/// A pod of a node, and what can be asked about it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePod {
    /// The pod.
    pub pod: PodRef,
    /// The names of its containers, whatever part they play.
    pub containers: Vec<String>,
}

/// The metrics of a node, each of which is a document of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMetrics {
    /// `/metrics`: the kubelet's own.
    Kubelet,
    /// `/metrics/cadvisor`: what machine, pods and containers use, in cAdvisor's words.
    Cadvisor,
    /// `/metrics/resource`: what `metrics.k8s.io` is made from.
    Resource,
    /// `/metrics/probes`: how probes ended.
    Probes,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The caller's ends of a remote command.
///
/// A closed channel is end of file. The channels are bounded: whoever does not read stops whoever writes, and nobody else.
/// A caller that is gone shows as a closed `stdout`/`stderr`, or as a send that fails.
#[derive(Debug)]
pub struct Streams {
    /// What the caller types; present when asked for.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// Where output goes; present when asked for.
    pub stdout: Option<mpsc::Sender<Bytes>>,
    /// Where errors go; present when asked for and there is no terminal, which has one output only.
    pub stderr: Option<mpsc::Sender<Bytes>>,
    /// The sizes of the caller's terminal. The first is already there when the command starts, if the caller sent one in time;
    /// closed without a terminal.
    pub resize: mpsc::Receiver<TerminalSize>,
}

/// Which streams a remote command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// Whether there is an input.
    pub stdin: bool,
    /// Whether output is wanted.
    pub stdout: bool,
    /// Whether errors are wanted.
    pub stderr: bool,
    /// Whether the command runs on a terminal.
    pub tty: bool,
}

/// Which of a container's outputs a log request wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStream {
    /// Both, as they came.
    #[default]
    All,
    /// Standard output only.
    Stdout,
    /// Standard error only.
    Stderr,
}

/// What part of a container's log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether to go on with what is written later.
    pub follow: bool,
    /// Whether the log of the previous instance is meant.
    pub previous: bool,
    /// Whether every line starts with its time, in RFC 3339 with nanoseconds.
    pub timestamps: bool,
    /// Only what is at most so many seconds old.
    pub since_seconds: Option<i64>,
    /// Only what is not older than this time, in RFC 3339.
    pub since_time: Option<String>,
    /// Only so many lines before the end.
    pub tail_lines: Option<i64>,
    /// No more than so many bytes.
    pub limit_bytes: Option<i64>,
    /// Which output.
    pub stream: LogStream,
}

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

/// A log as it is read: chunks, not lines.
pub type LogChunks = BoxStream<'static, io::Result<Bytes>>;

/// What a node does for the API beyond running pods. The kubelet implements it; the API server asks.
#[async_trait]
pub trait NodeApi: Send + Sync {
    /// The log of a container.
    async fn logs(&self, pod: &PodRef, container: &str, options: LogOptions) -> Result<LogChunks, NodeError>;

    /// Runs a command in a container to its end and returns its exit code.
    async fn exec(
        &self,
        pod: &PodRef,
        container: &str,
        command: Vec<String>,
        options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, NodeError>;

    /// Connects to a container's own process until it ends or the caller leaves; returns the exit code, 0 when the caller left.
    async fn attach(
        &self,
        pod: &PodRef,
        container: &str,
        options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, NodeError>;

    /// Connects to a port of a pod and copies both ways until either side closes.
    async fn port_forward(&self, pod: &PodRef, port: u16, io: Box<dyn Duplex>) -> Result<(), NodeError>;

    /// What the node and its pods use. A fake node has nothing to tell.
    async fn stats(&self) -> Result<Summary, NodeError> {
        Err(NodeError::NotFound("this node has no statistics".to_owned()))
    }

    /// A pod that is bound to the node, by its name; none on a fake node, which cannot be asked about its pods.
    fn pod(&self, _namespace: &str, _name: &str) -> Option<NodePod> {
        None
    }

    /// The pods that are bound to the node, as the API has them; in no particular order.
    ///
    /// # Errors
    /// When the node does not tell, as a fake one.
    fn pods(&self) -> Result<Vec<Value>, NodeError> {
        Err(NodeError::NotFound("this node does not tell its pods".to_owned()))
    }

    /// The pods that the runtime runs, as objects that have names and images and not much else.
    ///
    /// # Errors
    /// As [`NodeApi::pods`].
    fn running_pods(&self) -> Result<Vec<Value>, NodeError> {
        Err(NodeError::NotFound("this node does not tell its pods".to_owned()))
    }

    /// How the kubelet is configured: a `KubeletConfiguration`.
    ///
    /// # Errors
    /// As [`NodeApi::pods`].
    fn configuration(&self) -> Result<Value, NodeError> {
        Err(NodeError::NotFound("this node has no configuration".to_owned()))
    }

    /// Metrics in Prometheus' text format (see [`exposition`](crate::exposition)).
    async fn metrics(&self, which: NodeMetrics) -> Result<String, NodeError> {
        match which {
            NodeMetrics::Resource => Ok(self.stats().await?.metrics()),
            _ => Err(NodeError::NotFound("this node has no such metrics".to_owned())),
        }
    }
}

/// Why a node could not do it. The messages reach the user as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// There is no such pod or container here.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done with this pod or container now.
    #[error("{0}")]
    BadRequest(String),
    /// It failed.
    #[error("{0}")]
    Internal(String),
}
