//! SPDY/3.1: a byte for what is asked for, and what the client sends after the upgrade.
//!
//! Header blocks are compressed, but zlib also has blocks that are stored as they are: seeds are made of these, so that a
//! changed byte is a changed header.

use std::collections::HashSet;

use http::Request;
use http::header::{CONNECTION, UPGRADE};
use streaming::{CommandOptions, CommandUpgrade, ForwardUpgrade, NodeError, PodRef, Streams};
use tokio::io::AsyncWriteExt;

use crate::connection::converse;

/// Bytes in front of every frame.
const HEAD: usize = 8;

/// Serves a client over SPDY.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some((&asked, bytes)) = data.split_first() else { return };
    let received = if asked & 0x80 == 0 { command(asked, bytes) } else { forward(bytes) };
    frames(&received);
}

fn request(protocol: &str) -> Request<()> {
    Request::builder()
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header("x-stream-protocol-version", protocol)
        .body(())
        .expect("a request")
}

/// A command that says what it is told.
pub(crate) async fn echo(mut streams: Streams) -> Result<i32, NodeError> {
    if let Some(stdin) = &mut streams.stdin {
        while let Some(bytes) = stdin.recv().await {
            if let Some(stdout) = &streams.stdout
                && stdout.send(bytes).await.is_err()
            {
                break;
            }
        }
    }
    Ok(0)
}

/// Which streams a byte asks for.
pub(crate) fn options(asked: u8) -> CommandOptions {
    CommandOptions { stdin: asked & 1 != 0, stdout: asked & 2 != 0, stderr: asked & 4 != 0, tty: asked & 8 != 0 }
}

fn command(asked: u8, bytes: &[u8]) -> Vec<u8> {
    let protocol = ["v4.channel.k8s.io", "v5.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
    let upgrade = CommandUpgrade::negotiate(&request(protocol[usize::from(asked >> 4 & 3)])).expect("an upgrade");
    converse(bytes, |io| upgrade.serve(io, options(asked), echo))
}

fn forward(bytes: &[u8]) -> Vec<u8> {
    let upgrade = ForwardUpgrade::negotiate(&request("portforward.k8s.io")).expect("an upgrade");
    let pod = PodRef { namespace: "default".to_owned(), name: "web".to_owned(), uid: "1".to_owned() };
    converse(bytes, async |io| {
        let connect = |port: u16, io: Box<dyn streaming::Duplex>| async move {
            let (mut reader, mut writer) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
            if port == 1 { Err(NodeError::Internal("refused".to_owned())) } else { Ok(()) }
        };
        upgrade.serve(io, &pod, connect).await;
    })
}

/// What a server sends are whole frames, the last of which may be cut off with the connection.
pub(crate) fn frames(mut bytes: &[u8]) {
    let mut ended = HashSet::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let [a, b, c, d, flags, l1, l2, l3] = *head;
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        if a & 0x80 != 0 {
            let kind = u16::from_be_bytes([c, d]);
            assert_eq!((a, b), (0x80, 3), "a control frame of another version");
            // A reply, a reset, a ping, a farewell, a window.
            assert!(matches!(kind, 2 | 3 | 6 | 7 | 9), "a control frame of type {kind}");
        } else {
            let id = u32::from_be_bytes([a, b, c, d]);
            assert!(id % 2 == 1, "data on stream {id}, which no client opens");
            assert!(!ended.contains(&id), "data on stream {id}, which has ended");
            if flags & 1 != 0 {
                ended.insert(id);
            }
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
}
