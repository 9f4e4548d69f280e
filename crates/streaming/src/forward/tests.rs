//! Port-forwards over every transport, against small clients.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::*;
use crate::spdy::peer::Peer;

/// What listens in the pod: port 7 echoes until the client is done, port 13 tells its number at once, all others refuse.
async fn connect(port: u16, mut io: Box<dyn Duplex>) -> Result<(), NodeError> {
    match port {
        7 => {
            let (mut reader, mut writer) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
            Ok(())
        }
        13 => {
            let _ = io.write_all(b"thirteen").await;
            Ok(())
        }
        _ => Err(NodeError::Internal("connection refused".into())),
    }
}

fn serve(protocol: Protocol) -> (DuplexStream, JoinHandle<()>) {
    let (server, client) = tokio::io::duplex(8192);
    let upgrade = ForwardUpgrade { transport: Transport::Spdy(Vec::new()), name: "", protocol };
    let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: "u1".into() };
    (client, tokio::spawn(async move { upgrade.serve(server, &pod, connect).await }))
}

async fn forward_over_spdy<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>) {
    let mut pairs = Vec::new();
    for (id, port) in ["7", "13", "80"].into_iter().enumerate() {
        let id = id.to_string();
        let error = peer.open(&[("streamType", "error"), ("port", port), ("requestID", &id)]).await;
        peer.data(error, b"", true).await;
        let data = peer.open(&[("streamType", "data"), ("port", port), ("requestID", &id)]).await;
        pairs.push((data, error));
    }
    let much = vec![b'm'; 300_000];
    let (echo, _) = pairs[0];
    peer.data(echo, b"hello", false).await;
    let received = peer.until(|streams| streams.get(&echo).is_some_and(|stream| stream.bytes.len() == 5)).await;
    assert_eq!(received[&echo].bytes, b"hello");
    let mut all = received;
    for part in much.chunks(1000) {
        peer.data(echo, part, false).await;
        let more = peer.until(|streams| streams.get(&echo).is_some_and(|stream| stream.bytes.len() >= 1000)).await;
        for (id, stream) in more {
            let known = all.entry(id).or_default();
            known.bytes.extend(stream.bytes);
            known.fin |= stream.fin;
        }
    }
    peer.data(echo, b"", true).await;
    let last = peer
        .until(|streams| {
            pairs[..1]
                .iter()
                .all(|(data, error)| [data, error].iter().all(|id| streams.get(id).is_some_and(|stream| stream.fin)))
        })
        .await;
    for (id, stream) in last {
        let known = all.entry(id).or_default();
        known.bytes.extend(stream.bytes);
        known.fin |= stream.fin;
    }
    assert_eq!(all[&echo].bytes.len(), 300_005);
    assert_eq!(all[&pairs[0].1].bytes, b"");
    let (data, error) = pairs[1];
    assert_eq!((all[&data].bytes.as_slice(), all[&data].fin), (&b"thirteen"[..], true));
    assert_eq!((all[&error].bytes.as_slice(), all[&error].fin), (&b""[..], true));
    let (data, error) = pairs[2];
    assert_eq!((all[&data].bytes.as_slice(), all[&data].fin), (&b""[..], true));
    assert_eq!(
        String::from_utf8_lossy(&all[&error].bytes),
        "error forwarding port 80 to pod web, uid u1: connection refused"
    );
}

#[tokio::test]
async fn over_spdy() {
    let (client, server) = serve(Protocol::Spdy);
    let mut peer = Peer::new(client);
    forward_over_spdy(&mut peer).await;
    drop(peer);
    server.await.unwrap();
}

#[tokio::test]
async fn over_spdy_in_a_websocket() {
    let (client, server) = serve(Protocol::Tunnel);
    let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let (sender, source) = socket.split();
    let chunks = source.filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(std::io::Error::other(error))),
        })
    });
    let messages = sender
        .with(|bytes: Bytes| std::future::ready(Ok::<_, tokio_tungstenite::tungstenite::Error>(Message::Binary(bytes))))
        .sink_map_err(std::io::Error::other);
    let io = tokio::io::join(StreamReader::new(chunks), Flushed(SinkWriter::new(CopyToBytes::new(messages))));
    let mut peer = Peer::new(io);
    forward_over_spdy(&mut peer).await;
    drop(peer);
    server.await.unwrap();
}

/// Flushes with every write, as a client does that waits for the answer.
struct Flushed<W>(W);

impl<W: AsyncWrite + Unpin> AsyncWrite for Flushed<W> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let written = std::task::ready!(std::pin::Pin::new(&mut self.0).poll_write(cx, buf))?;
        // Not ready is fine: the next write or flush goes on with it.
        let _ = std::pin::Pin::new(&mut self.0).poll_flush(cx)?;
        std::task::Poll::Ready(Ok(written))
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn old_clients_give_no_request_id() {
    let (client, _server) = serve(Protocol::Spdy);
    let mut peer = Peer::new(client);
    let _error = peer.open(&[("streamType", "error"), ("port", "13")]).await;
    let data = peer.open(&[("streamType", "data"), ("port", "13")]).await;
    let received = peer.until(|streams| streams.get(&data).is_some_and(|stream| stream.fin)).await;
    assert_eq!(received[&data].bytes, b"thirteen");
}

#[tokio::test]
async fn streams_for_nothing_are_refused() {
    let (client, _server) = serve(Protocol::Spdy);
    let mut peer = Peer::new(client);
    for headers in [
        &[][..],
        &[("streamType", "data")],
        &[("streamType", "data"), ("port", "0")],
        &[("streamType", "data"), ("port", "70000")],
        &[("streamType", "other"), ("port", "7")],
    ] {
        let id = peer.open(headers).await;
        assert!(peer.until(|streams| streams.contains_key(&id)).await[&id].reset, "{headers:?}");
    }
    // The second data stream of a pair, or one for another port.
    peer.open(&[("streamType", "data"), ("port", "7"), ("requestID", "a")]).await;
    for (kind, port) in [("data", "7"), ("error", "13")] {
        let id = peer.open(&[("streamType", kind), ("port", port), ("requestID", "a")]).await;
        assert!(peer.until(|streams| streams.contains_key(&id)).await[&id].reset, "{kind} {port}");
    }
}

#[tokio::test]
async fn over_channels() {
    for encoding in [Encoding::Binary, Encoding::Base64] {
        let (client, server) = serve(Protocol::Channels(encoding, vec![7, 80]));
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(encoding.encode(0, b"hello")).await.unwrap();
        let mut channels = [const { Vec::new() }; 4];
        let expect = "error forwarding port 80 to pod web, uid u1: connection refused";
        while channels[0].len() < 7 || channels[3].len() < 2 + expect.len() {
            let (channel, bytes) = encoding.decode(client.next().await.unwrap().unwrap()).unwrap();
            channels[usize::from(channel)].extend(bytes);
        }
        assert_eq!(channels[0], b"\x07\x00hello");
        assert_eq!(channels[1], b"\x07\x00");
        assert_eq!(channels[2], b"\x50\x00");
        assert_eq!(&channels[3][..2], b"\x50\x00");
        assert_eq!(String::from_utf8_lossy(&channels[3][2..]), expect);
        drop(client);
        server.await.unwrap();
    }
}

#[test]
fn ports_of_a_query() {
    let read = |query: &str| channels::ports(query).map_err(|refusal| refusal.message);
    assert_eq!(read("ports=80&x=y&ports=443"), Ok(vec![80, 443]));
    assert_eq!(read("ports=80,443"), Ok(vec![80, 443]));
    assert_eq!(read("ports=80%2C443"), Ok(vec![80, 443]));
    assert!(read("").is_err());
    assert!(read("ports=0").is_err());
    assert!(read("ports=x").is_err());
    assert!(read(&"ports=1&".repeat(65)).is_err());
}

/// A connection's bytes are passed on while both sides are open.
#[tokio::test]
async fn nothing_waits_for_the_end() {
    let (client, _server) = serve(Protocol::Channels(Encoding::Binary, vec![7]));
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    for round in 0_u8..20 {
        client.send(Encoding::Binary.encode(0, &[round])).await.unwrap();
        loop {
            let (channel, bytes) = Encoding::Binary.decode(client.next().await.unwrap().unwrap()).unwrap();
            if channel == 0 && *bytes == [round] {
                break;
            }
        }
    }
    let mut io = client.into_inner();
    io.shutdown().await.unwrap();
    let _ = io.read(&mut [0; 16]).await;
}
