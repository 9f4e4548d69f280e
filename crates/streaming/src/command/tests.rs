//! Remote commands over both transports, against small clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::TerminalSize;
use crate::spdy::peer::Peer;

const ALL: CommandOptions = CommandOptions { stdin: true, stdout: true, stderr: true, tty: false };

/// A command that gives its input back in upper case, says something on the side, and ends with a code.
async fn shout(mut streams: Streams, code: i32) -> Result<i32, NodeError> {
    if let (Some(stdin), Some(stdout)) = (&mut streams.stdin, &streams.stdout) {
        while let Some(bytes) = stdin.recv().await {
            let _ = stdout.send(bytes.to_ascii_uppercase().into()).await;
        }
    }
    if let Some(stderr) = &streams.stderr {
        let _ = stderr.send(Bytes::from_static(b"done")).await;
    }
    Ok(code)
}

/// A command that says how large its terminal is when it starts, and at every change.
async fn sizes(mut streams: Streams) -> Result<i32, NodeError> {
    let first = streams.resize.try_recv();
    let stdout = streams.stdout.take().unwrap();
    let say = async |size: TerminalSize| stdout.send(format!("{}x{} ", size.width, size.height).into()).await;
    if let Ok(size) = first {
        let _ = say(size).await;
        if let Some(size) = streams.resize.recv().await {
            let _ = say(size).await;
        }
    }
    Ok(0)
}

/// A command with a great deal of output.
async fn flood(streams: Streams, bytes: usize) -> Result<i32, NodeError> {
    let stdout = streams.stdout.unwrap();
    for _ in 0..bytes / 10_000 {
        if stdout.send(vec![b'x'; 10_000].into()).await.is_err() {
            break;
        }
    }
    Ok(0)
}

fn upgrade(protocol: Protocol) -> CommandUpgrade {
    CommandUpgrade { transport: Transport::Spdy(Vec::new()), name: "", protocol }
}

fn serve<F, R>(protocol: Protocol, options: CommandOptions, command: F) -> (DuplexStream, JoinHandle<()>)
where
    F: FnOnce(Streams) -> R + Send + 'static,
    R: Future<Output = Result<i32, NodeError>> + Send + 'static,
{
    let (server, client) = tokio::io::duplex(8192);
    (client, tokio::spawn(upgrade(protocol).serve(server, options, command)))
}

/// Opens the streams of a command as kubectl does; the numbers of them by kind.
async fn open(peer: &mut Peer<DuplexStream>, kinds: &[&'static str]) -> BTreeMap<&'static str, u32> {
    let mut ids = BTreeMap::new();
    for kind in kinds {
        ids.insert(*kind, peer.open(&[("streamType", kind)]).await);
    }
    ids
}

fn status(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

#[tokio::test]
async fn spdy_echo_and_exit_codes() {
    for code in [0, 3] {
        let (client, server) = serve(Protocol::Spdy(4), ALL, move |streams| shout(streams, code));
        let mut peer = Peer::new(client);
        let ids = open(&mut peer, &["error", "stdin", "stdout", "stderr"]).await;
        peer.data(ids["stdin"], b"hello ", false).await;
        peer.data(ids["stdin"], b"world", true).await;
        let received = peer.rest().await;
        assert!(ids.values().all(|id| received[id].replied));
        assert_eq!(received[&ids["stdout"]].bytes, b"HELLO WORLD");
        assert_eq!(received[&ids["stderr"]].bytes, b"done");
        let status = status(&received[&ids["error"]].bytes);
        if code == 0 {
            assert_eq!(status, json!({"metadata": {}, "status": "Success"}));
        } else {
            assert_eq!(status["reason"], "NonZeroExitCode");
            assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
        }
        drop(peer);
        server.await.unwrap();
    }
}

#[tokio::test]
async fn spdy_old_versions_tell_in_text() {
    for (result, expect) in [
        (Ok(0), ""),
        (Ok(2), "command terminated with non-zero exit code: exit status 2"),
        (Err(NodeError::NotFound("no such container".into())), "no such container"),
    ] {
        let options = CommandOptions { stdout: true, tty: true, ..Default::default() };
        // No sizes before version 3, even with a terminal.
        let (client, _server) = serve(Protocol::Spdy(2), options, move |_| std::future::ready(result));
        let mut peer = Peer::new(client);
        let ids = open(&mut peer, &["error", "stdout"]).await;
        let received = peer.rest().await;
        assert_eq!(String::from_utf8_lossy(&received[&ids["error"]].bytes), expect);
    }
}

#[tokio::test]
async fn spdy_terminal_sizes() {
    let options = CommandOptions { stdout: true, stderr: true, tty: true, ..Default::default() };
    let (client, _server) = serve(Protocol::Spdy(4), options, sizes);
    let mut peer = Peer::new(client);
    // Streams that do not belong here are refused, and do not disturb.
    let stray = peer.open(&[("streamType", "stderr")]).await;
    let ids = open(&mut peer, &["error", "stdout", "resize"]).await;
    peer.data(ids["resize"], b"{\"Width\":80,\"Height\":24}\n", false).await;
    let received =
        peer.until(|streams| streams.get(&ids["stdout"]).is_some_and(|stream| !stream.bytes.is_empty())).await;
    assert!(received[&stray].reset);
    assert_eq!(received[&ids["stdout"]].bytes, b"80x24 ");
    peer.data(ids["resize"], b"{\"Width\":120,\"Height\":40}\n", false).await;
    let received = peer.rest().await;
    assert_eq!(received[&ids["stdout"]].bytes, b"120x40 ");
    assert_eq!(status(&received[&ids["error"]].bytes)["status"], "Success");
}

#[tokio::test]
async fn spdy_much_output() {
    let options = CommandOptions { stdout: true, ..Default::default() };
    let (client, _server) = serve(Protocol::Spdy(5), options, |streams| flood(streams, 3_000_000));
    let mut peer = Peer::new(client);
    let ids = open(&mut peer, &["error", "stdout"]).await;
    let received = peer.rest().await;
    assert_eq!(received[&ids["stdout"]].bytes.len(), 3_000_000);
    assert_eq!(status(&received[&ids["error"]].bytes)["status"], "Success");
}

/// Tells when the future it lives in is dropped.
struct Dropped(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().map(|sender| sender.send(()));
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_command() {
    for protocol in [Protocol::Spdy(4), Protocol::WebSocket(5, Encoding::Binary)] {
        let (sender, gone) = tokio::sync::oneshot::channel();
        let (started_tx, started) = tokio::sync::oneshot::channel();
        let guard = Dropped(Some(sender));
        let (client, server) =
            serve(protocol, CommandOptions { stdout: true, ..Default::default() }, |streams| async move {
                let (_guard, _streams) = (guard, streams);
                let _ = started_tx.send(());
                std::future::pending().await
            });
        let mut peer = Peer::new(client);
        if matches!(protocol, Protocol::Spdy(_)) {
            open(&mut peer, &["error", "stdout"]).await;
        }
        started.await.unwrap();
        drop(peer);
        gone.await.unwrap();
        server.await.unwrap();
    }
}

#[tokio::test]
async fn spdy_garbage_instead_of_streams() {
    let (client, server) = serve(Protocol::Spdy(4), ALL, |streams| shout(streams, 0));
    let mut peer = Peer::new(client);
    peer.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    drop(peer);
    server.await.unwrap();
}

type Client = WebSocketStream<DuplexStream>;

async fn websocket(io: DuplexStream) -> Client {
    WebSocketStream::from_raw_socket(io, Role::Client, None).await
}

/// What comes until the server says goodbye, by channel.
async fn rest(client: &mut Client, encoding: Encoding) -> BTreeMap<u8, Vec<u8>> {
    let mut channels: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let mut code = None;
    while let Some(Ok(message)) = client.next().await {
        if let Message::Close(frame) = message {
            code = frame.map(|frame| u16::from(frame.code));
        } else if let Some((channel, bytes)) = encoding.decode(message) {
            channels.entry(channel).or_default().extend(bytes);
        }
    }
    // kubectl takes anything else for a failure.
    assert_eq!(code, Some(1000));
    channels
}

#[tokio::test]
async fn websocket_echo_close_and_exit_codes() {
    let (client, server) = serve(Protocol::WebSocket(5, Encoding::Binary), ALL, |streams| shout(streams, 7));
    let mut client = websocket(client).await;
    let first = client.next().await.unwrap().unwrap();
    assert_eq!(Encoding::Binary.decode(first), Some((1, Bytes::new())), "an empty message when connected");
    client.send(Encoding::Binary.encode(0, b"hello ")).await.unwrap();
    client.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
    client.send(Encoding::Binary.encode(0, b"world")).await.unwrap();
    client.send(Encoding::Binary.encode(9, b"nobody")).await.unwrap();
    // Input is closed by a signal of its own.
    client.send(Encoding::Binary.encode(255, &[0])).await.unwrap();
    let channels = rest(&mut client, Encoding::Binary).await;
    assert_eq!(channels[&1], b"HELLO WORLD");
    assert_eq!(channels[&2], b"done");
    assert_eq!(status(&channels[&3])["details"]["causes"][0]["message"], "7");
    drop(client);
    server.await.unwrap();
}

#[tokio::test]
async fn websocket_output_in_base64() {
    let options = CommandOptions { stdout: true, ..Default::default() };
    let (client, _server) = serve(Protocol::WebSocket(4, Encoding::Base64), options, |streams| flood(streams, 100_000));
    let channels = rest(&mut websocket(client).await, Encoding::Base64).await;
    assert_eq!(channels[&1].len(), 100_000);
    assert_eq!(status(&channels[&3])["status"], "Success");
}

#[tokio::test]
async fn websocket_terminal_sizes() {
    let options = CommandOptions { stdout: true, tty: true, ..Default::default() };
    let (client, _server) = serve(Protocol::WebSocket(5, Encoding::Binary), options, sizes);
    let mut client = websocket(client).await;
    client.send(Encoding::Binary.encode(4, b"{\"Width\":80,\"Height\":24}")).await.unwrap();
    let mut seen = Vec::new();
    while seen.is_empty() {
        let message = client.next().await.unwrap().unwrap();
        seen.extend(Encoding::Binary.decode(message).unwrap().1);
    }
    assert_eq!(seen, b"80x24 ");
    client.send(Encoding::Binary.encode(4, b"{\"Width\":9,\"Height\":5}")).await.unwrap();
    assert_eq!(rest(&mut client, Encoding::Binary).await[&1], b"9x5 ");
}

#[tokio::test]
async fn websocket_slow_client_and_much_output() {
    let options = CommandOptions { stdout: true, ..Default::default() };
    let (client, server) =
        serve(Protocol::WebSocket(5, Encoding::Binary), options, |streams| flood(streams, 3_000_000));
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!server.is_finished(), "nobody reads yet");
    let channels = rest(&mut websocket(client).await, Encoding::Binary).await;
    assert_eq!(channels[&1].len(), 3_000_000);
    assert_eq!(status(&channels[&3])["status"], "Success");
}

#[tokio::test]
async fn websocket_garbage() {
    use tokio::io::AsyncWriteExt;
    let (mut client, server) = serve(Protocol::WebSocket(5, Encoding::Binary), ALL, |streams| shout(streams, 0));
    client.write_all(&[0xff; 300]).await.unwrap();
    server.await.unwrap();
}

#[test]
fn failures() {
    for (error, code, reason) in [
        (NodeError::NotFound("a".into()), 404, "NotFound"),
        (NodeError::BadRequest("a".into()), 400, "BadRequest"),
        (NodeError::Internal("a".into()), 500, "InternalError"),
    ] {
        let status = status(&outcome(4, &Err(error)));
        assert_eq!((status["code"].as_u64(), status["reason"].as_str()), (Some(code), Some(reason)));
    }
}

#[test]
fn options_need_a_stream() {
    let options = CommandOptions { stdin: true, stdout: true, stderr: true, tty: true };
    assert_eq!(options.checked(), Ok(CommandOptions { stderr: false, ..options }));
    let plain = CommandOptions { tty: false, ..options };
    assert_eq!(plain.checked(), Ok(plain));
    assert_eq!(CommandOptions { tty: true, ..CommandOptions::default() }.checked(), Err(OptionsError));
}
