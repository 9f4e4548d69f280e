//! The data plane over real sockets of loopback: clients, the proxy, and backends that tell what they were asked.

mod bounds;
mod protocols;
mod rules;
mod tls;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::backend::{Backends, PortRef, Protocol};
use crate::hosts::HostPattern;
use crate::route::{Action, Match, Origin, PathMatch, Precedence, Rule, Target, WeightedBackend};
use crate::table::EntryPoint;
use crate::testing::{TestObjects, parse};

/// Where tests listen: port 80 of objects, which is any free port here.
const HTTP: Place = Place { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 80 };
const HTTPS: Place = Place { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 443 };

/// A proxy with the rules of one table.
struct Running {
    proxy: Arc<Proxy>,
    _listeners: Listeners,
}

impl Running {
    fn start(limits: Limits, entry: EntryPoint) -> Self {
        let proxy = Proxy::new(limits);
        let mut listeners = Listeners::new(Arc::clone(&proxy), Ports { http: vec![0], https: vec![0] });
        let place = if entry.tls.is_some() { HTTPS } else { HTTP };
        proxy.set_table(Table { entry_points: [(place, Arc::new(entry))].into() });
        assert_eq!(listeners.set(&BTreeSet::from([place])), [].into());
        Self { proxy, _listeners: listeners }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(HTTP.address, self.proxy.port(HTTP).or(self.proxy.port(HTTPS)).unwrap())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// The answer to a request of HTTP/1.1 on a connection of its own.
    async fn ask(&self, request: Request<Empty<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
    }

    /// What a backend was asked when a client got a path of a host.
    async fn get(&self, host: &str, path: &str) -> Value {
        let (status, _, body) = self.ask(get(host, path)).await;
        assert_eq!(status, StatusCode::OK, "{host}{path}: {body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    async fn status(&self, host: &str, path: &str) -> u16 {
        self.ask(get(host, path)).await.0.as_u16()
    }
}

fn get(host: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).header("host", host).body(Empty::new()).unwrap()
}

/// A backend, and how many connections it has taken.
struct Backend {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Backend {
    /// One that answers with what it was asked, as JSON, under its name.
    async fn telling(name: &'static str) -> Self {
        Self::answering(move |request: Request<Incoming>| async move {
            let headers: serde_json::Map<String, Value> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
                .collect();
            let asked = json!({
                "backend": name, "method": request.method().as_str(), "uri": request.uri().to_string(),
                "version": format!("{:?}", request.version()), "headers": headers,
            });
            Response::new(Full::new(Bytes::from(asked.to_string())).boxed())
        })
        .await
    }

    /// One that speaks HTTP/1.1 and HTTP/2 and answers so.
    async fn answering<F, A, B>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let builder = Box::leak(Box::new(builder));
                tokio::spawn(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A port that refuses connections.
async fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

/// A target with these endpoints, whatever their ports are.
fn target(protocol: Protocol, endpoints: &[SocketAddr]) -> Target {
    let app_protocol = (protocol == Protocol::H2c).then_some("kubernetes.io/h2c");
    let slices = endpoints.iter().map(|endpoint| {
        crate::testing::slice("a", "web", ("", endpoint.port()), &[endpoint.ip().to_string().as_str()])
    });
    let objects = TestObjects::new().service(json!({
        "metadata": { "namespace": "a", "name": "web" },
        "spec": { "ports": [{ "port": 80, "appProtocol": app_protocol }] },
    }));
    let objects = objects.slices(slices);
    let key = informer::ObjectKey::new("a", "web");
    Target::Endpoints(Backends::new(&objects).get(&key, &PortRef::Number(80)).unwrap())
}

/// A target of HTTP/1.1.
fn to(endpoints: &[SocketAddr]) -> Action {
    Action::to(target(Protocol::Http, endpoints))
}

/// Adds a rule for a host and a prefix.
fn add(entry: &mut EntryPoint, host: &str, prefix: &str, action: Action) {
    let matches = Match::path(PathMatch::prefix(prefix));
    let origin = Origin::of(&parse::<k8s_openapi::api::core::v1::ConfigMap>(json!({})));
    let precedence = Precedence::new(&matches, &origin, 0);
    entry.ingress(&HostPattern::of_ingress(Some(host))).add(Rule { precedence, matches, action: Arc::new(action) });
}

/// An entry point whose only rule is for everything.
fn everything(action: Action) -> EntryPoint {
    let mut entry = EntryPoint::default();
    add(&mut entry, "*", "/", action);
    entry
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not so for 20 s");
}
