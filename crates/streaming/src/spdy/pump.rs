//! What a stream writes, on its way to the connection.

use std::sync::Arc;

use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, DuplexStream, ReadHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::stream::{CHUNK, Out};
use super::window::Window;

/// Runs the pumps of all streams until no more can come and all have ended.
pub(super) async fn run_all(mut new: mpsc::Receiver<Pump>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            pump = new.recv() => match pump {
                Some(pump) => running.push(pump.run()),
                None => break,
            },
            Some(()) = running.next() => {}
        }
    }
    // No stream can open any more: what is open writes its rest.
    while running.next().await.is_some() {}
}

/// Carries what a stream writes to the connection.
pub(super) struct Pump {
    pub(super) id: u32,
    pub(super) pipe: ReadHalf<DuplexStream>,
    pub(super) window: Arc<Window>,
    pub(super) session: Arc<Window>,
    pub(super) reset: CancellationToken,
    pub(super) out: mpsc::Sender<Out>,
}

impl Pump {
    async fn run(mut self) {
        let reset = self.reset.clone();
        tokio::select! {
            _ = self.copy() => {}
            () = reset.cancelled() => {}
        }
        self.reset.cancel();
    }

    async fn copy(&mut self) -> Option<()> {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            if (&mut self.pipe).take(CHUNK as u64).read_buf(&mut buffer).await.ok()? == 0 {
                return self.out.send(Out::Fin(self.id)).await.ok();
            }
            while !buffer.is_empty() {
                let allowed = self.window.take(buffer.len()).await;
                let taken = self.session.take(allowed).await;
                self.window.put_back(allowed - taken);
                self.out.send(Out::Data(self.id, buffer.split_to(taken).freeze())).await.ok()?;
            }
        }
    }
}
