//! A proxy before Docker's socket: what goes through it can be cut, held back or garbled.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What becomes of Docker's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// They go through.
    Open,
    /// They end at once, those that were there too.
    Cut,
    /// They are accepted, and nothing more ever comes; those that were there fall silent, too.
    Hanging,
    /// They are answered with nonsense.
    Garbled,
}

/// The proxy. Closed when dropped.
pub(crate) struct SocketProxy {
    folder: tempfile::TempDir,
    passage: watch::Sender<Passage>,
}

impl SocketProxy {
    /// One that lets everything through.
    pub(crate) async fn open() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join("docker.sock"))?;
        let docker = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let docker = docker.strip_prefix("unix://").context("DOCKER_HOST is no Unix socket")?;
        let docker = PathBuf::from(docker);
        let passage = watch::Sender::new(Passage::Open);
        let seen = passage.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, docker.clone(), seen.clone()));
            }
        });
        Ok(Self { folder, passage })
    }

    /// What `DOCKER_HOST` is to be.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    /// Lets nothing good through for a while.
    pub(crate) async fn disturb(&self, passage: Passage, how_long: Duration) {
        self.passage.send_replace(passage);
        tokio::time::sleep(how_long).await;
        self.passage.send_replace(Passage::Open);
    }
}

async fn pass(mut client: UnixStream, docker: PathBuf, mut passage: watch::Receiver<Passage>) {
    let now = *passage.borrow_and_update();
    match now {
        Passage::Open => {
            let Ok(mut server) = UnixStream::connect(docker).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => return,
                _ = passage.wait_for(|now| *now != Passage::Open) => {}
            }
            hang(&mut passage).await;
        }
        Passage::Cut => {}
        Passage::Hanging => hang(&mut passage).await,
        Passage::Garbled => {
            // The other side may be gone before it has read all of it.
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n{\"Id\": [[[\xff\x00").await;
        }
    }
}

/// Waits as long as everything is to hang.
async fn hang(passage: &mut watch::Receiver<Passage>) {
    // An error means that the proxy is gone.
    let _ = passage.wait_for(|now| *now != Passage::Hanging).await;
}
