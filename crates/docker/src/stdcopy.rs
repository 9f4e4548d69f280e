//! Docker's framing of several streams in one (moby: `api/pkg/stdcopy`): `[stream, 0, 0, 0, length (4 bytes, big endian)]`, then the bytes. Used
//! wherever there is no terminal.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// Which stream a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// The decoder of frames.
#[derive(Debug, Default)]
pub(crate) struct StdcopyDecoder;

const HEADER: usize = 8;
/// Far above what Docker sends in one frame; beyond it the stream is not what it should be.
const LONGEST: usize = 64 * 1024 * 1024;

impl Decoder for StdcopyDecoder {
    type Item = (Source, Bytes);
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let Some(header) = buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, 0, 0, 0, length @ ..] = *header else {
            return Err(invalid("a stream of Docker's is not framed"));
        };
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST {
            return Err(invalid("a frame of Docker's is too long"));
        }
        if buffer.len() < HEADER + length {
            buffer.reserve(HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER);
        let data = buffer.split_to(length).freeze();
        match kind {
            // Docker never sends what was typed (0), but the protocol allows it.
            0 | 1 => Ok(Some((Source::Stdout, data))),
            2 => Ok(Some((Source::Stderr, data))),
            3 => Err(io::Error::other(String::from_utf8_lossy(&data).into_owned())),
            _ => Err(invalid("a stream of Docker's is not framed")),
        }
    }
}

/// The frame of `data`.
pub(crate) fn frame(source: Source, data: &[u8]) -> Vec<u8> {
    let kind = match source {
        Source::Stdout => 1,
        Source::Stderr => 2,
    };
    // What was a frame before fits in one.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind, 0, 0, 0], &length[..], data].concat()
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0], &length[..], data].concat()
    }

    #[test]
    fn frames_in_any_pieces() {
        let input = [frame(1, b"out"), frame(2, b""), frame(2, b"err")].concat();
        let expect = [(Source::Stdout, "out".into()), (Source::Stderr, Bytes::new()), (Source::Stderr, "err".into())];
        for size in 1..=input.len() {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in input.chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = StdcopyDecoder.decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, expect, "in pieces of {size}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn what_is_not_framed_is_an_error() {
        for input in [b"hello world".as_slice(), &[1, 0, 0, 0, 255, 255, 255, 255]] {
            assert!(StdcopyDecoder.decode(&mut BytesMut::from(input)).is_err(), "{input:?}");
        }
        let failed = StdcopyDecoder.decode(&mut BytesMut::from(&frame(3, b"boom")[..]));
        assert_eq!(failed.unwrap_err().to_string(), "boom");
    }
}
