//! Over TCP and TLS: who is let in, and what bad clients get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::Fixture;
use crate::pki::{Credential, Pki};
use crate::{Config, Handle, Limits, RequestLimits};

pub(super) struct Served {
    pub(super) fixture: Fixture,
    pub(super) handle: Handle,
    pub(super) pki: Arc<Pki>,
}

/// Nothing in here takes longer than this.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

impl Served {
    async fn new(limits: Limits) -> Self {
        Self::with(limits, RequestLimits::default()).await
    }

    pub(super) async fn with(limits: Limits, requests: RequestLimits) -> Self {
        let fixture = Fixture::with_limits(requests, Vec::new()).await;
        let pki = Arc::new(Pki::open(&fixture.home.path().join("pki")).unwrap());
        let config = Config { listen: vec![([127, 0, 0, 1], 0).into()], limits, ..Config::default() };
        let handle = fixture.server.clone().serve(config, Arc::clone(&pki)).await.unwrap();
        Self { fixture, handle, pki }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.handle.addresses()[0]
    }

    pub(super) async fn tls(&self, credential: Option<&Credential>, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.tls_to(self.address(), credential, protocol).await
    }

    pub(super) async fn tls_to(
        &self,
        address: SocketAddr,
        credential: Option<&Credential>,
        protocol: &[u8],
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pki.authority_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credential {
            Some(credential) => {
                let (chain, key) = credential.to_der().unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Sends a request as it is, and reads what comes until the end.
    pub(super) async fn raw(&self, credential: Option<&Credential>, request: &[u8]) -> String {
        let mut stream = self.tls(credential, b"http/1.1").await;
        // The server may refuse and close before it has read everything.
        let _ = stream.write_all(request).await;
        read_all(&mut stream).await
    }

    async fn get(&self, credential: Option<&Credential>, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.raw(credential, request.as_bytes()).await
    }

    /// That somebody else is served well.
    pub(super) async fn serves_others(&self) {
        let reply = self.get(None, "/readyz").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.ends_with("ok"), "{reply}");
    }
}

pub(super) async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let read = async {
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, read).await.expect("the server neither answers nor closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn certificates_say_who_is_asking() {
    let served = Served::new(Limits::default()).await;
    let elsewhere = Pki::open(&served.fixture.home.path().join("elsewhere")).unwrap();
    let (admin, stranger) = (served.pki.admin().unwrap(), elsewhere.admin().unwrap());
    let developer = served.pki.client("developer", "jane", "developers").unwrap();
    for (credential, path, expect) in [
        (None, "/healthz", "200"),
        (None, "/api", "403"),
        (Some(&stranger), "/api", "401"),
        (Some(&stranger), "/healthz", "401"),
        (Some(&developer), "/api", "200"),
        (Some(&developer), "/api/v1/nodes", "403"),
        (Some(&admin), "/api/v1/nodes", "200"),
    ] {
        let reply = served.get(credential, path).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {expect}")), "{path}: {reply}");
    }
    let line = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let reply = served.raw(Some(&developer), format!("{line}Content-Length: 2\r\n\r\n{{}}").as_bytes()).await;
    for expect in [r#""username":"jane""#, r#""developers""#, "X509SHA256="] {
        assert!(reply.contains(expect), "{reply}");
    }
}

#[tokio::test]
async fn garbage_and_silence_cost_nobody_else_anything() {
    let limits =
        Limits { handshake: Duration::from_millis(300), head: Duration::from_millis(300), ..Limits::default() };
    let served = Served::new(limits).await;

    // Not TLS at all.
    let mut garbage = TcpStream::connect(served.address()).await.unwrap();
    garbage.write_all(b"\x00\xff\x13\x37 garbage that goes on for a while").await.unwrap();
    // Half a handshake, and nothing.
    let mut half_open = TcpStream::connect(served.address()).await.unwrap();
    half_open.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    let mut silent = TcpStream::connect(served.address()).await.unwrap();
    // A head that never ends.
    let mut slow = served.tls(None, b"http/1.1").await;
    slow.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();

    served.serves_others().await;
    for stream in [&mut garbage, &mut half_open, &mut silent] {
        read_all(stream).await;
    }
    let reply = read_all(&mut slow).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 408"), "{reply}");

    let mut plain = TcpStream::connect(served.address()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let reply = read_all(&mut plain).await;
    assert!(reply.starts_with("HTTP/1.0 400") && reply.contains("HTTP request to an HTTPS server"), "{reply}");

    let reply = served.raw(None, b"\x16\x03nonsense\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    served.serves_others().await;
}

#[tokio::test]
async fn too_much_is_refused() {
    let served = Served::new(Limits::default()).await;
    let admin = served.pki.admin().unwrap();
    let head = format!("GET /readyz HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(200 * 1024));
    let reply = served.raw(Some(&admin), head.as_bytes()).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");

    let line = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n";
    let declared = format!("{line}Content-Length: 4000000\r\nConnection: close\r\n\r\n{{");
    let reply = served.raw(Some(&admin), declared.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("RequestEntityTooLarge"), "{reply}");

    let mut chunked = format!("{line}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n").into_bytes();
    for _ in 0..40 {
        chunked.extend_from_slice(b"19000\r\n");
        chunked.extend_from_slice(&vec![b' '; 0x19000]);
        chunked.extend_from_slice(b"\r\n");
    }
    let reply = served.raw(Some(&admin), &chunked).await;
    assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("connection: close"), "{reply}");
    served.serves_others().await;
}

#[tokio::test]
async fn http_2_and_a_shutdown_that_ends_watches() {
    use http_body_util::{BodyExt, Empty};
    let served = Served::new(Limits::default()).await;
    let admin = served.pki.admin().unwrap();
    let stream = served.tls(Some(&admin), b"h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        let uri = format!("https://{}{path}", served.address());
        http::Request::get(uri).body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    let list = sender.send_request(request("/api/v1/namespaces")).await.unwrap();
    assert_eq!(list.status(), 200);
    let body = list.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("kube-system"));

    let mut watch = sender.send_request(request("/api/v1/namespaces?watch=true")).await.unwrap().into_body();
    let first = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(br#"{"type":"ADDED""#), "{first:?}");

    let address = served.address();
    let stopped = tokio::time::timeout(TEST_TIMEOUT, served.handle.shutdown());
    let ended = async { while let Some(Ok(_)) = watch.frame().await {} };
    let (stopped, ()) = tokio::join!(stopped, ended);
    stopped.expect("the server did not stop");
    assert!(TcpStream::connect(address).await.is_err());
    drop(sender);
    let _ = connection.await;
}

#[tokio::test]
async fn a_listener_that_comes_later_is_in_the_certificate() {
    let served = Served::new(Limits::default()).await;
    let later = served.handle.listen(([127, 0, 0, 2], 0).into()).await.unwrap();
    assert_eq!(served.handle.addresses(), [served.address(), later]);
    let mut stream = served.tls_to(later, None, b"http/1.1").await;
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut stream).await.contains("v1.36.0"));
    let taken = served.handle.listen(later).await.err().unwrap();
    assert!(taken.to_string().contains("choose another port"), "{taken}");
    served.handle.shutdown().await;
}

#[tokio::test]
async fn a_request_that_hangs_does_not_hold_up_the_shutdown() {
    let served = Served::new(Limits { drain: Duration::from_millis(200), ..Limits::default() }).await;
    let admin = served.pki.admin().unwrap();
    let mut stream = served.tls(Some(&admin), b"http/1.1").await;
    let head = "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    served.serves_others().await;
    tokio::time::timeout(TEST_TIMEOUT, served.handle.shutdown()).await.expect("the server did not stop");
    read_all(&mut stream).await;
}

#[tokio::test]
async fn a_command_runs_over_a_web_socket() {
    let served = Served::new(Limits::default()).await;
    let pods = "/api/v1/namespaces/default/pods";
    served.fixture.json(&format!("POST {pods}"), 201, &super::support::pod("a", "node1")).await;
    let admin = served.pki.admin().unwrap();
    let mut stream = served.tls(Some(&admin), b"http/1.1").await;
    let request = format!(
        "GET {pods}/a/exec?command=echo&command=hello&stdout=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = String::new();
    let mut chunk = [0; 4096];
    let read = async {
        while !got.contains(r#""status":"Success""#) {
            let count = stream.read(&mut chunk).await.unwrap();
            assert_ne!(count, 0, "{got}");
            got.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, read).await.expect("no end of the command");
    assert!(got.starts_with("HTTP/1.1 101") && got.contains("\u{1}echo hello"), "{got}");
}
