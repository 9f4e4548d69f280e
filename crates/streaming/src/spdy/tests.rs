//! The connection against a peer that behaves, and against several that do not.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::frame::{Control, MAX_CONTROL};
use super::headers::{Encoder, MAX_BLOCK};
use super::peer::{Event, Peer};
use super::stream::MAX_STREAMS;
use super::{Connection, Headers, Stream};

fn pair() -> (Connection, Peer<DuplexStream>) {
    let (server, client) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(server);
    (Connection::serve(reader, writer), Peer::new(client))
}

async fn opened(connection: &mut Connection, peer: &mut Peer<DuplexStream>) -> (u32, Stream) {
    let id = peer.open(&[("streamType", "data")]).await;
    let stream = connection.next().await.unwrap().accept().await;
    assert!(matches!(peer.next().await, Some(Event::Control(Control::SynReply { .. }))));
    (id, stream)
}

/// Lets everything run that can. All of a test is one thread without input or output, so this is exact.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn echo_and_half_close() {
    let (mut connection, mut peer) = pair();
    let id = peer.open(&[("streamType", "data"), ("Port", "80")]).await;
    let offered = connection.next().await.unwrap();
    assert_eq!((offered.headers.get("streamtype"), offered.headers.get("port")), (Some("data"), Some("80")));
    let mut stream = offered.accept().await;
    peer.data(id, b"hel", false).await;
    peer.data(id, b"lo", true).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    // The peer's side is closed, ours is not.
    stream.write_all(b"world").await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let shutdown = tokio::spawn(connection.shutdown());
    let received = peer.rest().await;
    assert_eq!((received[&id].bytes.as_slice(), received[&id].fin, received[&id].replied), (&b"world"[..], true, true));
    drop(peer);
    shutdown.await.unwrap();
}

#[tokio::test]
async fn pings_are_answered() {
    let (_connection, mut peer) = pair();
    peer.send(Control::Ping { id: 2 }).await;
    peer.send(Control::Ping { id: 7 }).await;
    assert_eq!(peer.next().await, Some(Event::Control(Control::Ping { id: 7 })));
}

#[tokio::test]
async fn much_goes_to_a_peer_that_grants_nothing() {
    let (mut connection, mut peer) = pair();
    let (id, mut stream) = opened(&mut connection, &mut peer).await;
    let much: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let writing = tokio::spawn({
        let much = much.clone();
        async move {
            stream.write_all(&much).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let received = peer.until(|streams| streams.get(&id).is_some_and(|stream| stream.fin)).await;
    assert!(received[&id].bytes == much);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_the_writer_back() {
    let (mut connection, mut peer) = pair();
    let (id, mut stream) = opened(&mut connection, &mut peer).await;
    let writing = tokio::spawn(async move {
        stream.write_all(&vec![1; 1_000_000]).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    settle().await;
    assert!(!writing.is_finished());
    let received = peer.until(|streams| streams.get(&id).is_some_and(|stream| stream.fin)).await;
    assert_eq!(received[&id].bytes.len(), 1_000_000);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_the_peer_back() {
    let (mut connection, mut peer) = pair();
    let (id, mut stream) = opened(&mut connection, &mut peer).await;
    let sending = tokio::spawn(async move {
        peer.data(id, &vec![1; 1_000_000], true).await;
        peer
    });
    settle().await;
    assert!(!sending.is_finished());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len(), 1_000_000);
    let mut peer = sending.await.unwrap();
    // What was taken in is granted again.
    assert!(matches!(peer.next().await, Some(Event::Control(Control::WindowUpdate { delta: 1_000_000, .. }))));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_thrown_away() {
    let (mut connection, mut peer) = pair();
    let (id, stream) = opened(&mut connection, &mut peer).await;
    drop(stream);
    let (other, mut alive) = opened_after_fin(&mut connection, &mut peer, id).await;
    peer.data(id, &vec![1; 500_000], false).await;
    peer.data(other, b"x", true).await;
    let mut bytes = Vec::new();
    alive.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"x");
}

async fn opened_after_fin(connection: &mut Connection, peer: &mut Peer<DuplexStream>, id: u32) -> (u32, Stream) {
    assert_eq!(peer.next().await, Some(Event::Data { id, bytes: vec![], fin: true }));
    opened(connection, peer).await
}

#[tokio::test]
async fn windows_hold_for_a_peer_that_has_them() {
    let (mut connection, mut peer) = pair();
    let (id, mut stream) = opened(&mut connection, &mut peer).await;
    peer.send(Control::Settings { initial_window: Some(10) }).await;
    settle().await;
    stream.write_all(b"0123456789abcdef").await.unwrap();
    assert_eq!(peer.next().await, Some(Event::Data { id, bytes: b"0123456789".to_vec(), fin: false }));
    peer.send(Control::Ping { id: 1 }).await;
    assert_eq!(peer.next().await, Some(Event::Control(Control::Ping { id: 1 })), "nothing beyond the window");
    peer.send(Control::WindowUpdate { id, delta: 4 }).await;
    assert_eq!(peer.next().await, Some(Event::Data { id, bytes: b"abcd".to_vec(), fin: false }));
    peer.send(Control::WindowUpdate { id, delta: 100 }).await;
    assert_eq!(peer.next().await, Some(Event::Data { id, bytes: b"ef".to_vec(), fin: false }));
}

#[tokio::test]
async fn a_reset_ends_one_stream_only() {
    let (mut connection, mut peer) = pair();
    let (first, mut one) = opened(&mut connection, &mut peer).await;
    let (second, mut two) = opened(&mut connection, &mut peer).await;
    peer.send(Control::Reset { id: first, status: 5 }).await;
    assert_eq!(one.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(one.write_all(&[0; 8]).await.is_err());
    peer.data(second, b"x", true).await;
    assert_eq!(two.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn wrong_numbers_are_reset() {
    let (mut connection, mut peer) = pair();
    let (_id, _stream) = opened(&mut connection, &mut peer).await;
    for id in [2, 1] {
        peer.open_as(id, &[]).await;
        assert_eq!(peer.next().await, Some(Event::Control(Control::Reset { id, status: 1 })));
    }
    peer.data(99, b"x", false).await;
    assert_eq!(peer.next().await, Some(Event::Control(Control::Reset { id: 99, status: 2 })));
}

#[tokio::test]
async fn too_many_streams() {
    let (mut connection, mut peer) = pair();
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(opened(&mut connection, &mut peer).await);
    }
    let id = peer.open(&[]).await;
    assert_eq!(peer.next().await, Some(Event::Control(Control::Reset { id, status: 3 })));
    // A place is free again once both sides of a stream are closed.
    let (id, stream) = streams.pop().unwrap();
    drop(stream);
    peer.data(id, b"", true).await;
    assert_eq!(peer.next().await, Some(Event::Data { id, bytes: vec![], fin: true }));
    settle().await;
    opened(&mut connection, &mut peer).await;
}

#[tokio::test]
async fn refused_streams() {
    let (mut connection, mut peer) = pair();
    let id = peer.open(&[]).await;
    connection.next().await.unwrap().refuse().await;
    assert_eq!(peer.next().await, Some(Event::Control(Control::Reset { id, status: 3 })));
}

#[tokio::test]
async fn a_peer_that_hangs_up() {
    let (mut connection, mut peer) = pair();
    let (_, mut stream) = opened(&mut connection, &mut peer).await;
    let closed = connection.closed();
    drop(peer);
    closed.await;
    assert!(connection.next().await.is_none());
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    // The pipe may take a little; in the end nobody is there.
    while stream.write_all(&[0; 1024]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    connection.shutdown().await;
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    let long = (MAX_CONTROL as u32 + 1).to_be_bytes();
    let bomb = {
        let headers = Headers(vec![("a".into(), "0".repeat(4 * MAX_BLOCK))]);
        let mut bytes = bytes::BytesMut::new();
        Control::SynStream { id: 1, fin: false, block: Encoder::new().encode(&headers).unwrap() }.write(&mut bytes);
        bytes.to_vec()
    };
    for bytes in [
        vec![0x80, 2, 0, 1, 0, 0, 0, 0],
        [&[0x80, 3, 0, 1, 0][..], &long[1..]].concat(),
        vec![0x80, 3, 0, 1, 0, 0, 0, 3, 0, 0, 1],
        [&[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"junk"].concat(),
        vec![0; 64],
        bomb,
    ] {
        let (mut connection, mut peer) = pair();
        let closed = connection.closed();
        peer.raw(&bytes).await;
        closed.await;
        assert!(connection.next().await.is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_panics(frames in prop::collection::vec(
        (0_u16..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..20,
    )) {
        let mut bytes = Vec::new();
        for (kind, flags, payload, control) in frames {
            let first = if control { [0x80, 3, 0, kind as u8] } else { [0, 0, 0, kind as u8] };
            bytes.extend(first);
            bytes.extend([flags, 0, 0, payload.len() as u8]);
            bytes.extend(payload);
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let (server, mut client) = tokio::io::duplex(64 * 1024);
            let (reader, writer) = tokio::io::split(server);
            let mut connection = Connection::serve(reader, writer);
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let drain = async { tokio::io::copy(&mut client, &mut tokio::io::sink()).await };
            let serve = async {
                while let Some(stream) = connection.next().await {
                    drop(stream.accept().await);
                }
                connection.shutdown().await;
            };
            let _ = tokio::join!(drain, serve);
        });
    }
}
