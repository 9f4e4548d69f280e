//! A listener whose connections are bounded, and end with it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// After a failed accept: too many open files do not go away at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until cancelled; connections end with it. More than `limit` at a time wait.
pub(crate) async fn serve<F>(
    listener: TcpListener,
    limit: usize,
    cancel: CancellationToken,
    connection: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(limit));
    let accept = async {
        loop {
            // The semaphore is never closed, so a permit always comes.
            let slot = Arc::clone(&slots).acquire_owned().await;
            match listener.accept().await {
                Ok((client, _)) => {
                    let (connection, cancel) = (connection(client), cancel.clone());
                    connections.spawn(async move {
                        let _slot = slot;
                        cancel.run_until_cancelled(connection).await;
                    });
                }
                Err(error) => {
                    debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    cancel.run_until_cancelled(accept).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}
