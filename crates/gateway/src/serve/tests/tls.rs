//! Certificates by name, and HTTP/2 by agreement.

use std::sync::Mutex;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::*;
use crate::certificate::{PROVIDER, certified};
use crate::testing::certificate;

/// A connection that trusts these certificates and no others, and asks for a name.
async fn connect(
    running: &Running,
    trusted: &[CertificateDer<'static>],
    name: &str,
    alpn: &[&str],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|certificate| roots.add(certificate.clone()).unwrap());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER)).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, running.connect().await).await
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let made = ["foo.com", "*.foo.com", "default.com"].map(|name| {
        let (chain, key) = certificate(name);
        certified(chain.as_bytes(), key.as_bytes()).unwrap()
    });
    let [foo, wildcard, default] = &made;
    let backend = Backend::telling("one").await;
    let mut entry = everything(to(&[backend.address]));
    let mut certificates = crate::table::Certificates { or_default: true, ..Default::default() };
    for (name, made) in [("foo.com", foo), ("*.foo.com", wildcard)] {
        certificates.by_host.get_or_insert_with(&HostPattern::of_ingress(Some(name)), || Arc::clone(made));
    }
    entry.tls = Some(certificates);
    let running = Running::start(Limits::default(), entry);
    let check = async |name: &str, expected: &Arc<CertifiedKey>| {
        let stream = connect(&running, &expected.cert, name, &[]).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap(), expected.cert, "{name}");
    };
    check("foo.com", foo).await;
    check("Foo.com", foo).await;
    check("a.foo.com", wildcard).await;
    assert!(connect(&running, &default.cert, "default.com", &[]).await.is_err(), "there is no default certificate yet");
    running.proxy.set_default_certificate(Some(Arc::clone(default)));
    check("default.com", default).await;

    let stream = connect(&running, &foo.cert, "foo.com", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://foo.com/x").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let asked: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        (&asked["headers"]["x-forwarded-proto"], &asked["headers"]["host"]),
        (&json!("https"), &json!("foo.com"))
    );

    let stream = connect(&running, &foo.cert, "foo.com", &["http/1.1"]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(sender.send_request(get("foo.com", "/")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_connection_for_one_listener_takes_no_requests_for_another() {
    let (chain, key) = certificate("foo.com");
    let made = certified(chain.as_bytes(), key.as_bytes()).unwrap();
    let backend = Backend::telling("one").await;
    let mut entry = everything(to(&[backend.address]));
    let mut certificates = crate::table::Certificates::default();
    certificates.by_host.get_or_insert_with(&HostPattern::Any, || Arc::clone(&made));
    entry.tls = Some(certificates);
    entry.listeners.get_or_insert_with(&HostPattern::of_gateway(Some("foo.com")), Default::default);
    let running = Running::start(Limits::default(), entry);
    let stream = connect(&running, &made.cert, "foo.com", &["http/1.1"]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (host, expected) in [("foo.com", StatusCode::OK), ("bar.com", StatusCode::MISDIRECTED_REQUEST)] {
        assert_eq!(sender.send_request(get(host, "/")).await.unwrap().status(), expected, "{host}");
        sender.ready().await.unwrap();
    }
}

#[tokio::test]
async fn where_nobody_asks_for_a_default_there_is_none() {
    let (chain, key) = certificate("default.com");
    let default = certified(chain.as_bytes(), key.as_bytes()).unwrap();
    let running = Running::start(Limits::default(), EntryPoint::with_tls());
    running.proxy.set_default_certificate(Some(Arc::clone(&default)));
    let refused = Mutex::new(connect(&running, &default.cert, "default.com", &[]).await.map(drop));
    assert!(refused.into_inner().unwrap().is_err());
}
