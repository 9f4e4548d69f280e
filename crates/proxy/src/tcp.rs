//! A TCP node port: connections are carried to endpoints.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::accept;
use crate::endpoints::{Endpoints, choose};

/// An endpoint that is gone may not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often another endpoint is tried.
const ATTEMPTS: usize = 3;
/// More connections than this at a time wait: each costs two descriptors, of which the store needs some.
const CONNECTIONS: usize = 1024;

/// Accepts until cancelled; connections end with it.
pub(crate) async fn serve(listener: TcpListener, endpoints: Endpoints, cancel: CancellationToken) {
    let carry = |client| {
        let endpoints = endpoints.clone();
        async move { carry(client, &endpoints).await }
    };
    accept::serve(listener, CONNECTIONS, cancel, carry).await;
}

async fn carry(mut client: TcpStream, endpoints: &Endpoints) {
    let Some(mut server) = connect(endpoints).await else {
        // The nearest to a refused connection: a reset instead of an orderly end.
        let _ = client.set_zero_linger();
        return;
    };
    // Errors are the two sides' own; each sees the other's end.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

async fn connect(endpoints: &Endpoints) -> Option<TcpStream> {
    for _ in 0..ATTEMPTS {
        let endpoint = choose(endpoints)?;
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => debug!(%error, %endpoint, "an endpoint does not take the connection"),
            Err(_) => debug!(%endpoint, "an endpoint does not answer"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::watch;

    use super::*;

    /// An endpoint that answers each connection with its name and what it got.
    async fn endpoint(name: &'static str) -> SocketAddrV4 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).await.unwrap();
                stream.write_all(&[name.as_bytes(), &got].concat()).await.unwrap();
            }
        });
        address
    }

    async fn ask(address: SocketAddr) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b" hello").await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn connections_follow_the_endpoints() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = watch::channel(Arc::from([endpoint("a").await]));
        let cancel = CancellationToken::new();
        let task = tokio::spawn(serve(listener, receiver, cancel.clone()));
        assert_eq!(ask(address).await.unwrap(), "a hello");
        sender.send_replace(Arc::from([endpoint("b").await]));
        assert_eq!(ask(address).await.unwrap(), "b hello");
        // None: a reset, which may show while writing or reading.
        sender.send_replace(Arc::from([]));
        assert!(ask(address).await.is_err());
        // An open connection ends with the listener.
        sender.send_replace(Arc::from([endpoint("c").await]));
        let mut open = TcpStream::connect(address).await.unwrap();
        cancel.cancel();
        task.await.unwrap();
        assert!(matches!(open.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(TcpStream::connect(address).await.is_err());
    }
}
