//! The streams of a node's containers, on the connection of the request that asks for them: exec, attach, port-forward and logs.
//!
//! Who asks, and for which container, is known by then: the API server finds it by the pod ([`resource`](crate::resource)), a
//! kubelet by the path of the request ([`kubelet_routes`](crate::kubelet_routes)).

use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use http::StatusCode;
use http::request::Parts;
use machinery::GroupKind;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::{ApiError, Reason};
use streaming::{
    CommandOptions, CommandUpgrade, Duplex, ForwardUpgrade, LogChunks, LogOptions, LogStream, LogUpgrade, NodeApi,
    NodeError, PodRef, Refusal,
};

use crate::body::ResponseBody;
use crate::lifecycle::Lifecycle;
use crate::query::Query;
use crate::respond::{self, Answer};

/// A container of a node.
pub(crate) struct Container {
    pub(crate) node: Arc<dyn NodeApi>,
    pub(crate) pod: PodRef,
    pub(crate) name: String,
}

/// What a client is connected to.
pub(crate) enum Process {
    /// A new process with this command line.
    Exec(Vec<String>),
    /// The container's own.
    Attach,
}

/// Whether a client can be connected like this, and the streams that it gets.
///
/// # Errors
/// 400 for a command line of nothing, and where no stream is wanted.
pub(crate) fn check(process: &Process, options: CommandOptions) -> Result<CommandOptions, ApiError> {
    let options = options.checked().map_err(|error| ApiError::bad_request(error.to_string()))?;
    if matches!(process, Process::Exec(command) if command.is_empty()) {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    Ok(options)
}

/// Serves `exec` and `attach`.
///
/// # Errors
/// As [`check`], and 400 for what is no upgrade that is spoken here.
pub(crate) fn command(
    lifecycle: &Lifecycle,
    parts: Parts,
    container: Container,
    process: Process,
    options: CommandOptions,
) -> Result<Answer, ApiError> {
    let options = check(&process, options)?;
    let request = http::Request::from_parts(parts, ());
    let upgrade = match CommandUpgrade::negotiate(&request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refused(&refusal),
    };
    let response = upgrade.response().map(|()| ResponseBody::empty());
    run(lifecycle, request, move |io| {
        upgrade.serve(io, options, move |streams| async move {
            let Container { node, pod, name } = container;
            match process {
                // How the container ended is in the pod's status: upstream calls every end of an attachment a success, and
                // kubectl takes another for a connection that broke.
                Process::Attach => node.attach(&pod, &name, options, streams).await.map(|_| 0),
                Process::Exec(command) => node.exec(&pod, &name, command, options, streams).await,
            }
        })
    });
    Ok(response)
}

/// Serves `port-forward`.
///
/// # Errors
/// 400 for what is no upgrade that is spoken here.
pub(crate) fn port_forward(
    lifecycle: &Lifecycle,
    parts: Parts,
    node: Arc<dyn NodeApi>,
    pod: PodRef,
) -> Result<Answer, ApiError> {
    let request = http::Request::from_parts(parts, ());
    let upgrade = match ForwardUpgrade::negotiate(&request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refused(&refusal),
    };
    let response = upgrade.response().map(|()| ResponseBody::empty());
    run(lifecycle, request, move |io| async move {
        let connect = |port, io| {
            let (node, pod) = (Arc::clone(&node), pod.clone());
            async move { node.port_forward(&pod, port, io).await }
        };
        upgrade.serve(io, &pod, connect).await;
    });
    Ok(response)
}

/// Serves a log as plain text, or, for clients that ask so, over a WebSocket.
///
/// # Errors
/// 400 for an upgrade that is not spoken here.
pub(crate) fn log(lifecycle: &Lifecycle, parts: Parts, chunks: LogChunks) -> Result<Answer, ApiError> {
    let request = http::Request::from_parts(parts, ());
    if streaming::is_upgrade(&request) {
        let upgrade = match LogUpgrade::negotiate(&request) {
            Ok(upgrade) => upgrade,
            Err(refusal) => return refused(&refusal),
        };
        let response = upgrade.response().map(|()| ResponseBody::empty());
        run(lifecycle, request, |io| upgrade.serve(io, chunks));
        return Ok(response);
    }
    // A followed log of a quiet container must not hold up the shutdown.
    let chunks = chunks.take_until(lifecycle.stopping.clone().cancelled_owned());
    Ok(respond::with_type(StatusCode::OK, "text/plain", ResponseBody::stream(chunks)))
}

/// Reads the query of a log request.
///
/// # Errors
/// 400 for what cannot be read, 422 for what makes no sense.
pub(crate) fn log_options(query: &Query<'_>, pod: &str) -> Result<LogOptions, ApiError> {
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

/// What a client is told of a node's failure.
pub(crate) fn failed(error: NodeError) -> ApiError {
    match error {
        NodeError::NotFound(why) => ApiError::new(404, Reason::NotFound, why),
        NodeError::BadRequest(why) => ApiError::bad_request(why),
        NodeError::Internal(why) => ApiError::internal(why),
    }
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
