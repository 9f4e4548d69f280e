//! A UDP node port: every client gets a socket of its own to its endpoint, so that answers find their way back.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::endpoints::{Endpoints, choose};

/// A client that is silent for so long, both ways, is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// More clients than this at a time are not served: each costs a socket.
const CLIENTS: usize = 1024;
const LONGEST: usize = 65_536;

/// Carries datagrams until cancelled.
pub(crate) async fn serve(socket: UdpSocket, endpoints: Endpoints, cancel: CancellationToken) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let received = tokio::select! {
            () = cancel.cancelled() => return,
            Some(client) = answers.join_next() => {
                if let Ok(client) = client {
                    clients.remove(&client);
                }
                continue;
            }
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error here is a client's that did not take an earlier answer.
        let Ok((length, client)) = received else { continue };
        if !clients.contains_key(&client) {
            match connect(&endpoints).await {
                Ok(Some(server)) if clients.len() < CLIENTS => {
                    let server = Arc::new(server);
                    answers.spawn(answer(Arc::clone(&socket), Arc::clone(&server), client));
                    clients.insert(client, server);
                }
                Ok(_) => continue,
                Err(error) => {
                    debug!(%error, "cannot reach an endpoint of a node port");
                    continue;
                }
            }
        }
        if let Some(server) = clients.get(&client) {
            // Lost, as datagrams may be.
            let _ = server.send(&buffer[..length]).await;
        }
    }
}

async fn connect(endpoints: &Endpoints) -> io::Result<Option<UdpSocket>> {
    let Some(endpoint) = choose(endpoints) else { return Ok(None) };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(endpoint).await?;
    Ok(Some(socket))
}

/// Returns answers to a client until there were none for a while, or its endpoint is gone; answers which client it was.
async fn answer(socket: Arc<UdpSocket>, server: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut buffer = vec![0; LONGEST];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, server.recv(&mut buffer)).await {
        if socket.send_to(&buffer[..length], client).await.is_err() {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn answers_find_their_clients() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let SocketAddr::V4(endpoint) = server.local_addr().unwrap() else { unreachable!() };
        tokio::spawn(async move {
            let mut buffer = [0; 100];
            while let Ok((length, from)) = server.recv_from(&mut buffer).await {
                server.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (_sender, receiver) = watch::channel(Arc::from([endpoint] as [SocketAddrV4; 1]));
        let cancel = CancellationToken::new();
        let task = tokio::spawn(serve(socket, receiver, cancel.clone()));
        let mut clients = Vec::new();
        for name in ["a", "b", "c"] {
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            client.connect(address).await.unwrap();
            client.send(name.as_bytes()).await.unwrap();
            clients.push((name, client));
        }
        for (name, client) in clients {
            let mut buffer = [0; 100];
            let length = tokio::time::timeout(IDLE, client.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(&buffer[..length], name.as_bytes());
        }
        cancel.cancel();
        task.await.unwrap();
    }
}
