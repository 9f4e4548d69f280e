//! An API server that another one aggregates: it serves `flunders` of the group `wardle.example.coracle.dev`.
//!
//! It is what upstream's sample-apiserver is, in small: its objects are in its memory and gone when it ends. Who asks it believes
//! the front proxy's headers for (`authentication`), and whether they may it asks the cluster (`authorization`); requests come
//! through the cluster's API server alone, since nobody else has the front proxy's certificate.

mod authentication;
mod authorization;
mod flunders;
mod handlers;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use authentication::FrontProxy;
use handlers::Server;

/// Where it listens.
const ADDRESS: ([u8; 4], u16) = ([0, 0, 0, 0], 8443);

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::try_default().await.context("cannot find the cluster's API server")?;
    let front_proxy = FrontProxy::load(&client).await?;
    let acceptor = TlsAcceptor::from(Arc::new(tls(&front_proxy)?));
    let server = Arc::new(Server::new(client, front_proxy));
    let listener = TcpListener::bind(SocketAddr::from(ADDRESS)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&server)));
    }
}

/// TLS with a certificate of its own making, good for who skips verification: an APIService with `insecureSkipTLSVerify`. Clients
/// may show a certificate; what it is worth is found out with each request.
fn tls(front_proxy: &FrontProxy) -> Result<ServerConfig> {
    let own = rcgen::generate_simple_self_signed(vec!["sample-apiserver.default.svc".to_owned()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(front_proxy.verifier(provider)?)
        .with_single_cert(vec![own.cert.der().clone()], key)?)
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, server: Arc<Server>) {
    // Who breaks off, or shows a certificate of somebody else's, is not answered.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    let is_front_proxy = certificate.is_some_and(|leaf| server.front_proxy.is_allowed(&leaf));
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, std::convert::Infallible>(server.answer(request, is_front_proxy).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
