//! How requests reach the Docker daemon: HTTP/1.1 over its socket, on connections that are kept and used again.
//!
//! bollard builds and decodes the ordinary requests; they pass through here as its custom transport, which adds what it
//! lacks: kept connections and the negotiated version in the path. Requests whose answer is a raw stream (exec,
//! attach, logs) are made here directly. All of them take their turn in [`Limits`].

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::BollardRequest;
use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::Error;
use streaming::Duplex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::limits::{Bounds, Limits, classify};
use crate::{CALL_TIMEOUT, error};

/// bollard's request body, spelled out: its own alias is not public.
type Body = Either<Full<Bytes>, StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>>;

/// The newest version of the API this crate was written for.
const NEWEST: Version = Version(1, 51);
/// The oldest one it works with: that of Docker 20.10.
const OLDEST: Version = Version(1, 41);
/// Where the daemon listens when nobody says otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Idle connections kept; about as many as there are requests at a time.
const IDLE_CONNECTIONS: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Version of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Where the daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Endpoint {
    Unix(PathBuf),
    Tcp(String),
}

impl Endpoint {
    fn parse(host: &str) -> Result<Self, Error> {
        if let Some(path) = host.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) {
            return Ok(Self::Tcp(address.trim_end_matches('/').to_owned()));
        }
        Err(Error::Unavailable(format!(
            "cannot use the Docker daemon at {host}: set DOCKER_HOST to unix://PATH or tcp://HOST:PORT"
        )))
    }
}

/// A connection to the daemon.
pub(crate) struct Socket(Box<dyn Duplex>);

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Opens connections for the pool; the address in the URI plays no part.
#[derive(Debug, Clone)]
struct Connector(Arc<Endpoint>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let endpoint = self.0.clone();
        Box::pin(async move {
            let connect = async {
                Ok::<Box<dyn Duplex>, io::Error>(match &*endpoint {
                    Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
                    Endpoint::Tcp(address) => {
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        Box::new(stream)
                    }
                })
            };
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await??;
            Ok(TokioIo::new(Socket(stream)))
        })
    }
}

/// The pooled client; clones share the pool.
#[derive(Clone)]
pub(crate) struct Transport {
    client: Client<Connector, Body>,
    host: Arc<str>,
    version: Arc<OnceLock<Version>>,
    limits: Limits,
}

/// Where the daemon is when a profile does not say so: `DOCKER_HOST`, else the usual socket.
#[must_use]
pub fn default_host() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| DEFAULT_HOST.to_owned())
}

impl Transport {
    /// A client for `host`, else `DOCKER_HOST`, else the usual socket. Connects with the first request.
    pub(crate) fn new(host: Option<&str>) -> Result<Self, Error> {
        let host = match host {
            Some(host) => host.to_owned(),
            None => default_host(),
        };
        let endpoint = Endpoint::parse(&host)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_timer(TokioTimer::new())
            .build(Connector(Arc::new(endpoint)));
        Ok(Self { client, host: host.into(), version: Arc::default(), limits: Limits::new(Bounds::default()) })
    }

    /// Asks the daemon which versions it speaks and settles on the newest common one.
    pub(crate) async fn negotiate(&self) -> Result<(), Error> {
        let response = tokio::time::timeout(CONNECT_TIMEOUT, self.send(Method::GET, "/_ping", Bytes::new(), false))
            .await
            .map_err(|_| {
                Error::Unavailable(format!(
                    "the Docker daemon at {} does not answer: restart it (`sudo systemctl restart docker`)",
                    self.host
                ))
            })??;
        let offered =
            response.headers().get("api-version").and_then(|version| version.to_str().ok()).and_then(Version::parse);
        match offered {
            Some(version) if version >= OLDEST => {
                // A second negotiation, after the daemon was upgraded, keeps the first result.
                let _ = self.version.set(version.min(NEWEST));
                Ok(())
            }
            Some(Version(major, minor)) => Err(Error::Unavailable(format!(
                "the Docker daemon at {} speaks API {major}.{minor}: upgrade it to Docker 20.10 (API 1.41) or newer",
                self.host
            ))),
            None => Err(Error::Unavailable(format!(
                "what answers at {} is not a Docker daemon: set DOCKER_HOST to one",
                self.host
            ))),
        }
    }

    /// The negotiated version, `1.41`.
    pub(crate) fn version(&self) -> String {
        let Version(major, minor) = self.version.get().copied().unwrap_or(OLDEST);
        format!("{major}.{minor}")
    }

    /// Whether the API in use is this version or a newer one.
    pub(crate) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.version.get().copied().unwrap_or(OLDEST) >= Version(major, minor)
    }

    /// Where the daemon is, as the user would write it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A bollard client over this transport. It gets no timeout of bollard's, for stopping a container may take as
    /// long as its grace period; callers set theirs.
    pub(crate) fn bollard(&self) -> Result<bollard::Docker, Error> {
        let transport = self.clone();
        bollard::Docker::connect_with_custom_transport(
            move |request: BollardRequest| {
                let transport = transport.clone();
                async move {
                    let (mut parts, body) = request.into_parts();
                    parts.uri = transport.uri(parts.uri.path_and_query().map_or("/", |path| path.as_str()))?;
                    let answer = transport.request(Request::from_parts(parts, body)).await;
                    Ok(answer.ok_or(bollard::errors::Error::RequestTimeoutError)??)
                }
            },
            Some("http://docker"),
            u64::from(u32::MAX),
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| error::map(&error, &self.host))
    }

    /// What is under way, and for how long.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sends a request when it is its turn; `None` when it was never answered.
    async fn request(
        &self,
        request: Request<Body>,
    ) -> Option<Result<Response<Incoming>, hyper_util::client::legacy::Error>> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let class = classify(request.method(), path);
        self.limits.run(class, self.client.request(request)).await
    }

    /// Makes a request and checks the answer's status.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: bool,
    ) -> Result<Response<Incoming>, Error> {
        let mut request =
            Request::builder().method(method).uri(self.uri(path).map_err(|error| Error::Invalid(error.to_string()))?);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if upgrade {
            request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
        }
        let request = request.body(Either::Left(Full::new(body))).map_err(|error| Error::Invalid(error.to_string()))?;
        let response = tokio::time::timeout(CALL_TIMEOUT, self.request(request)).await.ok().flatten();
        let response = response.ok_or_else(|| error::timeout(&self.host, CALL_TIMEOUT))?;
        let response = response.map_err(|error| error::unavailable(&error, &self.host))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body =
            response.into_body().collect().await.map_err(|error| error::unavailable(&error, &self.host))?.to_bytes();
        let message = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        Err(error::of_status(status.as_u16(), message))
    }

    /// Makes a request that turns the connection into a raw stream.
    pub(crate) async fn hijack(&self, path: &str, body: Bytes) -> Result<TokioIo<Upgraded>, Error> {
        let response = self.send(Method::POST, path, body, true).await?;
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| error::unavailable(&error, &self.host))?;
        Ok(TokioIo::new(upgraded))
    }

    /// bollard's paths may or may not carry a version of its own choice; ours is the negotiated one.
    fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        let path = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
            Some((_, rest)) => rest,
            None => path.trim_start_matches('/'),
        };
        let version = match self.version.get() {
            Some(Version(major, minor)) => format!("/v{major}.{minor}"),
            None => String::new(),
        };
        Uri::builder().scheme("http").authority("docker").path_and_query(format!("{version}/{path}")).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let cases = [
            ("unix:///run/docker.sock", Some(Endpoint::Unix("/run/docker.sock".into()))),
            ("tcp://host:2375", Some(Endpoint::Tcp("host:2375".to_owned()))),
            ("ssh://host", None),
            ("/run/docker.sock", None),
        ];
        for (host, expect) in cases {
            assert_eq!(Endpoint::parse(host).ok(), expect, "{host}");
        }
    }

    #[tokio::test]
    async fn paths_carry_the_negotiated_version() {
        let transport = Transport::new(Some("unix:///nowhere")).unwrap();
        assert_eq!(transport.uri("/_ping").unwrap().path(), "/_ping");
        transport.version.set(Version(1, 41)).unwrap();
        for path in ["/v1.53/containers/json?all=1", "/containers/json?all=1"] {
            let uri = transport.uri(path).unwrap();
            assert_eq!(uri.path_and_query().unwrap(), "/v1.41/containers/json?all=1");
        }
    }

    #[tokio::test]
    async fn an_unreachable_daemon_is_one_line_that_says_what_to_do() {
        let transport = Transport::new(Some("unix:///nowhere/docker.sock")).unwrap();
        let Err(Error::Unavailable(message)) = transport.negotiate().await else { panic!("connected to nothing") };
        assert!(message.contains("unix:///nowhere/docker.sock"), "{message}");
        assert!(message.contains("systemctl start docker"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}
