//! An upgraded connection whose client sends what it is given and reads all that comes back.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};

/// How long a connection may take to end once its client has: it is in memory, and waits for nothing.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// What is on the way in each direction, in bytes.
const PIPE: usize = 4096;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// Runs something asynchronous to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Serves a client that sends `bytes` and then nothing more; returns what it was sent.
///
/// # Panics
/// When the connection does not end.
pub(crate) fn converse<R: Future<Output = ()>>(bytes: &[u8], serve: impl FnOnce(DuplexStream) -> R) -> Vec<u8> {
    let (server, client) = tokio::io::duplex(PIPE);
    let (mut reader, mut writer) = tokio::io::split(client);
    let send = async {
        // Fails where the server has had enough.
        let _ = writer.write_all(bytes).await;
        let _ = writer.shutdown().await;
    };
    let mut received = Vec::new();
    let conversation = async {
        let (_, (), ()) = tokio::join!(reader.read_to_end(&mut received), send, serve(server));
    };
    block_on(async { tokio::time::timeout(END_TIMEOUT, conversation).await }).expect("the connection does not end");
    received
}
