//! The whole proxy against a scripted API server. Needs root and nftables; endpoints are sockets of the test.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use informer::Informers;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{ClusterIps, Config, LocalTools, NetworkTools, ToolOutput, nft, start};

/// An API server with one service and one slice; when told, it sends the slice's second state.
struct Api {
    service: Value,
    slices: [Value; 2],
    change: Notify,
    events: mpsc::UnboundedSender<Value>,
    asked: std::sync::atomic::AtomicUsize,
}

impl Api {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let kind = path.rsplit('/').next().unwrap_or_default();
        let frames = |first: &Value, end: bool| {
            let mut frames = format!("{}\n", json!({ "type": "ADDED", "object": first }));
            if end {
                let mark = json!({ "apiVersion": first["apiVersion"], "kind": first["kind"], "metadata": {
                    "resourceVersion": "5", "annotations": { "k8s.io/initial-events-end": "true" } } });
                frames += &format!("{}\n", json!({ "type": "BOOKMARK", "object": mark }));
            }
            Response::new(Body::from(frames.into_bytes()))
        };
        if request.method() == Method::POST {
            let event = request.into_body().collect_bytes().await.unwrap();
            let event: Value = serde_json::from_slice(&event).unwrap();
            // The test may have heard enough.
            let _ = self.events.send(event.clone());
            return Response::new(Body::from(event.to_string().into_bytes()));
        }
        match kind {
            "services" if self.first(1) => frames(&self.service, true),
            "endpointslices" if self.first(2) => frames(&self.slices[0], true),
            "endpointslices" if self.first(4) => {
                self.change.notified().await;
                frames(&self.slices[1], false)
            }
            _ => std::future::pending().await,
        }
    }

    /// Whether this is asked for the first time.
    fn first(&self, flag: usize) -> bool {
        self.asked.fetch_or(flag, std::sync::atomic::Ordering::SeqCst) & flag == 0
    }
}

fn slice(version: u32, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "web-x", "namespace": "default", "uid": "u2", "resourceVersion": version.to_string(),
            "labels": { "kubernetes.io/service-name": "web" } },
        "ports": [{ "name": "", "port": port, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
    })
}

/// An endpoint that says its name.
async fn endpoint(name: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(name.as_bytes()).await;
        }
    });
    port
}

async fn ask(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !ask().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn services_and_slices_are_followed() {
    let (events, mut heard) = mpsc::unbounded_channel();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    // Free a moment ago is as good as it gets: a Service has a number.
    let node_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "1" },
        "spec": { "type": "NodePort", "clusterIP": "10.63.255.7", "ports": [
            { "port": 80, "nodePort": node_port }, { "port": 81, "nodePort": taken_port },
        ] },
    });
    let slices = [slice(2, endpoint("a").await), slice(6, endpoint("b").await)];
    let api = Arc::new(Api { service, slices, change: Notify::new(), events, asked: Default::default() });
    let for_client = Arc::clone(&api);
    let client = Client::new(
        tower::service_fn(move |request| {
            let api = Arc::clone(&for_client);
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        }),
        "default",
    );
    let informers = Informers::new(client.clone(), CancellationToken::new());
    let profile = format!("start{:x}", std::process::id());
    // There is no such bridge: what depends on it is said in the log, the rest works.
    let config = Config::new(&profile, "cor-none", "10.63.254.0/24", "10.63.255.0/24");
    let proxy = start(config, &informers, client, Arc::new(LocalTools)).await.unwrap();

    until("the first endpoint answers", async || ask(node_port).await.as_deref() == Some("a")).await;
    let chain = "svc/default/web/tcp/80";
    let table = format!("coracle-{profile}");
    until("the kernel has the rules", async || nft::has(&LocalTools, &table, chain).await).await;
    let event = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
    let text = event.to_string();
    assert!(text.contains("NodePortNotAvailable") && text.contains(&format!("node port {taken_port}/tcp")), "{text}");

    api.change.notify_one();
    until("the second endpoint answers", async || ask(node_port).await.as_deref() == Some("b")).await;
    // Each sync says what woke it and what it did.
    let told =
        |text: &str| informers.reconciles().latest("kube-proxy").iter().any(|sync| sync.to_string().contains(text));
    until("the first sync is reported", async || told("Service default/web @1")).await;
    until("the second sync is reported", async || told("woken by EndpointSlice default/web-x @6; did change ")).await;
    assert!(
        told(&format!("serve node port {node_port}/tcp")) && told(&format!("(node port {taken_port}/tcp is taken)"))
    );

    proxy.shutdown().await;
    assert!(!nft::has(&LocalTools, &table, chain).await);
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), node_port);
    assert!(TcpStream::connect(address).await.is_err());
}

/// Tools of which some work.
#[derive(Debug)]
struct Partly {
    ip: bool,
    nft: std::io::ErrorKind,
}

#[async_trait::async_trait]
impl NetworkTools for Partly {
    async fn run(&self, program: &str, _: &[&str], _: &str) -> std::io::Result<ToolOutput> {
        match program {
            "ip" if self.ip => Ok(ToolOutput { success: true, stderr: String::new() }),
            _ => Err(std::io::Error::new(self.nft, "not for you")),
        }
    }
}

#[tokio::test]
async fn it_says_when_cluster_ips_do_not_work() {
    let check = async |tools: Partly, expected: &str| {
        // Nobody answers: it is known before the first list.
        let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let client = Client::new(silent, "default");
        let informers = Informers::new(client.clone(), CancellationToken::new());
        let config = Config::new("partly", "cor-none", "10.63.252.0/24", "10.63.253.0/24");
        let proxy = start(config, &informers, client, Arc::new(tools)).await.unwrap();
        let mut state = proxy.cluster_ips();
        let known = state.wait_for(|state| *state != ClusterIps::Unknown);
        let known = tokio::time::timeout(Duration::from_secs(20), known).await.unwrap().unwrap().clone();
        assert_eq!(known, ClusterIps::Failing(expected.to_owned()));
        let first = informers.reconciles().latest("kube-proxy")[0].to_string();
        let why = expected.rsplit_once(": ").unwrap_or_default().1;
        assert!(first.starts_with("woken by the start of the proxy; did make the table; failed: "), "{first}");
        assert!(first.contains(why), "{first}");
        proxy.shutdown().await;
    };
    let denied = std::io::ErrorKind::PermissionDenied;
    let leaves = "cluster IPs do not work on this machine, and packets to 10.63.253.0/24 leave it: not for you";
    check(Partly { ip: false, nft: denied }, leaves).await;
    let stays = "cluster IPs do not work on this machine: ";
    check(Partly { ip: true, nft: denied }, &format!("{stays}not for you")).await;
    let missing = format!("{stays}the program nft is missing: install the package nftables");
    check(Partly { ip: true, nft: std::io::ErrorKind::NotFound }, &missing).await;
    // Refused, for now: it is tried again.
    check(Partly { ip: true, nft: std::io::ErrorKind::Other }, &format!("{stays}not for you")).await;
}
