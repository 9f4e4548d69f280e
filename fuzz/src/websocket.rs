//! WebSocket: a byte for the protocol, one for what is asked for, and what the client sends after the upgrade; where the
//! second one says so, not frames but the input of a command.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use streaming::{CommandOptions, CommandUpgrade, ForwardUpgrade, NodeError, PodRef, Streams};

use crate::connection::converse;
use crate::spdy::{echo, options};

const COMMANDS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
const FORWARDS: [&str; 3] = ["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// The longest message that is made of input.
const PIECE: usize = 200;

/// Serves a client over WebSocket.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let [protocol, asked, bytes @ ..] = data else { return };
    if asked & 0x80 != 0 {
        return input(bytes);
    }
    let protocol = usize::from(*protocol) % (COMMANDS.len() + FORWARDS.len());
    match COMMANDS.get(protocol) {
        Some(name) => {
            let upgrade = CommandUpgrade::negotiate(&request(name)).expect("an upgrade");
            frames(&converse(bytes, |io| upgrade.serve(io, options(*asked), echo)));
        }
        None => {
            let upgrade = ForwardUpgrade::negotiate(&request(FORWARDS[protocol - COMMANDS.len()])).expect("an upgrade");
            let pod = PodRef { namespace: "default".to_owned(), name: "web".to_owned(), uid: "1".to_owned() };
            let received = converse(bytes, async |io| {
                let connect = |_, io: Box<dyn streaming::Duplex>| async move {
                    let (mut reader, mut writer) = tokio::io::split(io);
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    Err(NodeError::Internal("it has ended".to_owned()))
                };
                upgrade.serve(io, &pod, connect).await;
            });
            frames(&received);
        }
    }
}

fn request(protocol: &str) -> Request<()> {
    Request::builder()
        .uri("/?ports=80,443")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(SEC_WEBSOCKET_PROTOCOL, protocol)
        .body(())
        .expect("a request")
}

/// Input arrives as it was sent, however it is cut into messages.
fn input(bytes: &[u8]) {
    let mut sent = Vec::new();
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        let mask = (number as u32).to_be_bytes();
        // A whole binary message, masked, whose length takes one byte or three.
        sent.push(0x82);
        match u8::try_from(1 + piece.len()) {
            Ok(length @ ..=125) => sent.push(0x80 | length),
            _ => {
                sent.push(0x80 | 126);
                sent.extend(((1 + piece.len()) as u16).to_be_bytes());
            }
        }
        sent.extend(mask);
        let message = [&[0], piece].concat();
        sent.extend(message.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    let arrived = Arc::new(AtomicUsize::new(0));
    let command = |mut streams: Streams| {
        let arrived = Arc::clone(&arrived);
        async move {
            let Some(stdin) = &mut streams.stdin else { return Ok(1) };
            while let Some(chunk) = stdin.recv().await {
                let at = arrived.fetch_add(chunk.len(), Ordering::Relaxed);
                assert_eq!(bytes.get(at..at + chunk.len()), Some(&chunk[..]), "other input than was sent");
            }
            Ok(0)
        }
    };
    let upgrade = CommandUpgrade::negotiate(&request(COMMANDS[0])).expect("an upgrade");
    let asked = CommandOptions { stdin: true, stdout: true, ..CommandOptions::default() };
    frames(&converse(&sent, |io| upgrade.serve(io, asked, command)));
}

/// What a server sends are whole frames without a mask, the last of which may be cut off with the connection.
fn frames(mut bytes: &[u8]) {
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(first & 0x70, 0, "a bit that no extension gives a meaning");
        assert!(matches!(first & 0x0f, 1 | 2 | 8 | 9 | 10), "a frame of kind {}", first & 0x0f);
        assert!(second & 0x80 == 0, "a mask from a server");
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (length @ ..126, rest) => (usize::from(length), rest),
            // What is sent here is shorter than 64 KiB; or the head is cut off.
            (length, _) => return assert!(length == 126, "a message of more than 64 KiB"),
        };
        bytes = rest.get(length..).unwrap_or_default();
    }
}
