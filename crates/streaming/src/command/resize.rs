//! The sizes of the client's terminal.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::TerminalSize;

/// How long a command with a terminal waits for the terminal's first size. Clients send it at once; one that does not must
/// still get its command.
const FIRST: Duration = Duration::from_millis(100);

/// The most that an unfinished size may be long.
const MAX_TEXT: usize = 4096;

/// Where the reading side puts sizes. Only the newest one counts, so it never waits.
pub(super) struct Sizes {
    latest: watch::Sender<Option<TerminalSize>>,
    text: Vec<u8>,
}

/// Hands sizes on to the command.
pub(super) struct Feed {
    latest: watch::Receiver<Option<TerminalSize>>,
    sizes: mpsc::Sender<TerminalSize>,
    first: oneshot::Sender<()>,
}

/// The ends of a channel for sizes: who reads them from the client, who carries them, the command's end, and a sign that
/// the first one is there.
pub(super) fn channel() -> (Sizes, Feed, mpsc::Receiver<TerminalSize>, oneshot::Receiver<()>) {
    let (latest_tx, latest) = watch::channel(None);
    let (sizes, receiver) = mpsc::channel(1);
    let (first, seen) = oneshot::channel();
    (Sizes { latest: latest_tx, text: Vec::new() }, Feed { latest, sizes, first }, receiver, seen)
}

/// Waits for the first size, but not for long.
pub(super) async fn wait(seen: oneshot::Receiver<()>) {
    let _ = tokio::time::timeout(FIRST, seen).await;
}

impl Sizes {
    /// Takes in a piece of the JSON that the client sends, `{"Width":80,"Height":24}` one after the other. Returns `false`
    /// once it is garbage, after which there is no way to find the next size.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.text.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.text).into_iter::<TerminalSize>();
        let mut garbage = false;
        loop {
            match sizes.next() {
                Some(Ok(size)) => {
                    self.latest.send_replace(Some(size));
                }
                Some(Err(error)) => {
                    garbage = !error.is_eof();
                    break;
                }
                None => break,
            }
        }
        let read = sizes.byte_offset();
        self.text.drain(..read.min(self.text.len()));
        !garbage && self.text.len() <= MAX_TEXT
    }
}

impl Feed {
    /// Runs until either side is gone.
    pub(super) async fn run(mut self) {
        let mut first = Some(self.first);
        while self.latest.changed().await.is_ok() {
            let size = *self.latest.borrow_and_update();
            if let Some(size) = size
                && self.sizes.send(size).await.is_err()
            {
                return;
            }
            if let Some(first) = first.take() {
                let _ = first.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_counts() {
        let (mut sizes, feed, mut receiver, seen) = channel();
        assert!(sizes.feed(b"{\"Width\":80,\"Hei"));
        assert!(sizes.feed(b"ght\":24}\n{\"Width\":81,\"Height\":25}"));
        let run = tokio::spawn(feed.run());
        wait(seen).await;
        assert_eq!(receiver.recv().await, Some(TerminalSize { width: 81, height: 25 }));
        assert!(sizes.feed(b"{\"Width\":100,\"Height\":50}"));
        assert_eq!(receiver.recv().await, Some(TerminalSize { width: 100, height: 50 }));
        drop(sizes);
        assert_eq!(receiver.recv().await, None);
        run.await.unwrap();
    }

    #[test]
    fn garbage() {
        for text in
            [&b"nonsense"[..], b"[1]", b"{\"Width\":-1,\"Height\":1}", b"{\"Width\":70000,\"Height\":1}", &[b'['; 5000]]
        {
            let (mut sizes, ..) = channel();
            assert!(!sizes.feed(text), "{}", String::from_utf8_lossy(text));
        }
        let (mut sizes, ..) = channel();
        assert!(!sizes.feed(&[b' '; 5000]) || sizes.text.len() <= MAX_TEXT);
    }
}
