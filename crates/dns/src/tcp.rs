//! The server by TCP: as many connections as there are slots, and none that is kept open by saying nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use hickory_server::net::BufDnsStreamHandle;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::MessageType;
use hickory_server::server::{Request, RequestHandler, ResponseHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

use crate::serve::Handler;
use crate::slots::Slots;

/// A connection is closed when a whole question does not come within this time, or its answer is not taken.
/// CoreDNS: `core/dnsserver/server.go`, idle timeout.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted: without descriptors there would be another error at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers the questions that come by TCP until `cancel` is triggered. A connection beyond its client's share is closed.
pub(crate) async fn serve(listener: TcpListener, handler: Handler, connections: Slots, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                cancel.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
                continue;
            }
        };
        let Some(slot) = connections.take(client.ip()) else {
            trace!(%client, "too many connections");
            continue;
        };
        let (handler, cancel) = (handler.clone(), cancel.clone());
        tasks.spawn(async move {
            if let Some(Err(error)) = cancel.run_until_cancelled(converse(stream, client, &handler)).await {
                trace!(%error, %client, "a connection ended");
            }
            drop(slot);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Answers one question after the other: who does not take answers gets no more of them.
async fn converse(mut stream: TcpStream, client: SocketAddr, handler: &Handler) -> io::Result<()> {
    while let Some(question) = timeout(IDLE_TIMEOUT, read(&mut stream)).await?? {
        let request = Request::from_bytes(question, client, Protocol::Tcp).map_err(io::Error::other)?;
        // Answering answers could go round for ever.
        if request.metadata.message_type == MessageType::Response {
            return Ok(());
        }
        let (sender, mut answers) = BufDnsStreamHandle::new(client);
        handler.handle_request::<_, TokioTime>(&request, ResponseHandle::new(client, sender, Protocol::Tcp)).await;
        while let Some(answer) = answers.next().await {
            timeout(IDLE_TIMEOUT, write(&mut stream, answer.bytes())).await??;
        }
    }
    Ok(())
}

/// One message, which its length precedes (RFC 1035, 4.2.2); `None` at the end.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
