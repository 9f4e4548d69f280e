//! A small SPDY client for tests: it does what it is told, right or wrong.

use std::collections::BTreeMap;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::frame::{self, Control, HEAD, Head};
use super::headers::{Decoder, Encoder, Headers};

pub(crate) struct Peer<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    encoder: Encoder,
    decoder: Decoder,
    next_id: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Control(Control),
    Data { id: u32, bytes: Vec<u8>, fin: bool },
}

/// What came on one stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fin: bool,
    pub(crate) replied: bool,
    pub(crate) reset: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(io: S) -> Self {
        let (reader, writer) = tokio::io::split(io);
        Self { reader, writer, encoder: Encoder::new(), decoder: Decoder::new(), next_id: 1 }
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        // The other side may have hung up, which is for the test to find out.
        let _ = self.writer.write_all(bytes).await;
    }

    pub(crate) async fn send(&mut self, control: Control) {
        let mut bytes = BytesMut::new();
        control.write(&mut bytes);
        self.raw(&bytes).await;
    }

    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        self.open_as(id, headers).await;
        id
    }

    pub(crate) async fn open_as(&mut self, id: u32, headers: &[(&str, &str)]) {
        let headers = Headers(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        let block = self.encoder.encode(&headers).unwrap();
        self.send(Control::SynStream { id, fin: false, block }).await;
    }

    pub(crate) async fn data(&mut self, id: u32, bytes: &[u8], fin: bool) {
        let mut out = BytesMut::new();
        frame::write_data(id, fin, bytes, &mut out);
        self.raw(&out).await;
    }

    /// The next frame; `None` when the server is gone.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let mut head = [0; HEAD];
        self.reader.read_exact(&mut head).await.ok()?;
        match Head::read(head).unwrap() {
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length];
                self.reader.read_exact(&mut payload).await.ok()?;
                let control = Control::read(kind, flags, &payload).unwrap();
                if let Control::SynReply { block, .. } = &control {
                    self.decoder.decode(block).unwrap();
                }
                Some(Event::Control(control))
            }
            Head::Data { id, fin, length } => {
                let mut bytes = vec![0; length];
                self.reader.read_exact(&mut bytes).await.ok()?;
                Some(Event::Data { id, bytes, fin })
            }
        }
    }

    /// Everything up to the server's goodbye, or up to when it hangs up.
    pub(crate) async fn rest(&mut self) -> BTreeMap<u32, Received> {
        self.until(|_| false).await
    }

    /// Everything up to the moment at which `enough` says so.
    pub(crate) async fn until(&mut self, enough: impl Fn(&BTreeMap<u32, Received>) -> bool) -> BTreeMap<u32, Received> {
        let mut streams: BTreeMap<u32, Received> = BTreeMap::new();
        while !enough(&streams) {
            match self.next().await {
                None | Some(Event::Control(Control::GoAway { .. })) => break,
                Some(Event::Control(Control::SynReply { id, .. })) => streams.entry(id).or_default().replied = true,
                Some(Event::Control(Control::Reset { id, .. })) => streams.entry(id).or_default().reset = true,
                Some(Event::Control(_)) => {}
                Some(Event::Data { id, bytes, fin }) => {
                    let stream = streams.entry(id).or_default();
                    stream.bytes.extend(bytes);
                    stream.fin |= fin;
                }
            }
        }
        streams
    }
}
