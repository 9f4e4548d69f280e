//! The server by TCP: as many connections as there are slots, and none that is kept open by saying nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

use crate::serve::{Responder, Transport};
use crate::slots::Slots;

/// A connection is closed when a whole question does not come within this time, or its answer is not taken.
/// CoreDNS: `core/dnsserver/server.go`, idle timeout.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted: without descriptors there would be another error at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers the questions that come by TCP until `cancel` is triggered. A connection beyond its client's share is closed.
pub(crate) async fn serve(listener: TcpListener, responder: Responder, connections: Slots, cancel: CancellationToken) {
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
        let (responder, cancel) = (responder.clone(), cancel.clone());
        tasks.spawn(async move {
            if let Some(Err(error)) = cancel.run_until_cancelled(responder.converse(stream, client)).await {
                trace!(%error, %client, "a connection ended");
            }
            drop(slot);
        });
    }
    tasks.close();
    tasks.wait().await;
}

impl Responder {
    /// Answers one question after the other on a connection: who does not take answers gets no more of them. Ends with the
    /// connection, and with a message that has no answer.
    ///
    /// # Errors
    /// When the connection breaks, or nothing is said on it for too long.
    pub async fn converse(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        client: SocketAddr,
    ) -> io::Result<()> {
        while let Some(question) = timeout(IDLE_TIMEOUT, read(&mut stream)).await?? {
            let Some(answer) = self.answer(question, client, Transport::Tcp).await else { break };
            timeout(IDLE_TIMEOUT, write(&mut stream, &answer)).await??;
        }
        Ok(())
    }
}

/// One message, which its length precedes (RFC 1035, 4.2.2); `None` at the end.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
