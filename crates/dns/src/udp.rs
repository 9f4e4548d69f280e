//! The server by UDP: what the cluster knows is answered at once, and only what waits for somebody else has a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::poll;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

use crate::serve::{Responder, Transport};

/// The longest question, in bytes. One name is 255 at most; the rest is for the options of EDNS.
const LONGEST_QUESTION: usize = 4096;
/// Pause after the socket could not be read: there would be another error at once.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

/// Answers the questions that come by UDP until `cancel` is triggered. The tasks are bounded by the slots for questions that
/// wait.
pub(crate) async fn serve(socket: UdpSocket, responder: Responder, cancel: CancellationToken) {
    let socket = Arc::new(socket);
    let tasks = TaskTracker::new();
    let mut buffer = vec![0; LONGEST_QUESTION];
    while let Some(received) = cancel.run_until_cancelled(socket.recv_from(&mut buffer)).await {
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "cannot receive a datagram");
                cancel.run_until_cancelled(tokio::time::sleep(RECEIVE_PAUSE)).await;
                continue;
            }
        };
        let (message, from) = (buffer[..length].to_vec(), responder.clone());
        let mut answer = Box::pin(async move { from.answer(message, client, Transport::Udp).await });
        match poll!(&mut answer) {
            Poll::Ready(answer) => send(&socket, client, answer).await,
            Poll::Pending => {
                let (socket, cancel) = (Arc::clone(&socket), cancel.clone());
                tasks.spawn(async move {
                    if let Some(answer) = cancel.run_until_cancelled(answer).await {
                        send(&socket, client, answer).await;
                    }
                });
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn send(socket: &UdpSocket, client: SocketAddr, answer: Option<Vec<u8>>) {
    if let Some(answer) = answer
        && let Err(error) = socket.send_to(&answer, client).await
    {
        trace!(%error, %client, "an answer was not sent");
    }
}
