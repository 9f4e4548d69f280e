//! SPDY/3.1 frames to and from bytes. Pure: no input or output, and header blocks stay as they are.

use bytes::{BufMut, BytesMut};

/// The bytes in front of every frame.
pub(crate) const HEAD: usize = 8;
/// The longest control frame that is taken. Header blocks are small; nothing else is longer than a few bytes.
pub(crate) const MAX_CONTROL: usize = 64 * 1024;
/// The settings entry that holds the initial window of new streams.
const INITIAL_WINDOW_SIZE: u32 = 7;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const ID: u32 = 0x7fff_ffff;

/// Why bytes are no frame. Each of these ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the peer does not speak SPDY/3")]
    Version,
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    #[error("a control frame of type {0} that is too short")]
    TooShort(u16),
    #[error("a stream without a number")]
    NoStream,
}

/// The head of a frame, which says what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A control frame, at most [`MAX_CONTROL`] long.
    Control { kind: u16, flags: u8, length: usize },
    /// Data, of any length: it is passed on as it comes.
    Data { id: u32, fin: bool, length: usize },
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    SynStream {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    SynReply {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    Reset {
        id: u32,
        status: u32,
    },
    /// The initial window is the only setting that matters here.
    Settings {
        initial_window: Option<u32>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    /// A type that SPDY/3 does not have, or that says nothing to us: skipped.
    Other,
}

/// Status codes of a reset.
pub(crate) mod status {
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INVALID_STREAM: u32 = 2;
    pub(crate) const REFUSED_STREAM: u32 = 3;
}

impl Head {
    pub(crate) fn read(bytes: [u8; HEAD]) -> Result<Self, FrameError> {
        let [a, b, c, d, flags, l1, l2, l3] = bytes;
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        if a & 0x80 == 0 {
            let id = u32::from_be_bytes([a, b, c, d]);
            return if id == 0 {
                Err(FrameError::NoStream)
            } else {
                Ok(Self::Data { id, fin: flags & FIN != 0, length })
            };
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
            return Err(FrameError::Version);
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLong(length));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

impl Control {
    /// Reads the payload of a control frame.
    pub(crate) fn read(kind: u16, flags: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let number = |at: usize| match payload.get(at..at + 4) {
            Some(&[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d])),
            _ => Err(FrameError::TooShort(kind)),
        };
        let stream = || match number(0)? & ID {
            0 => Err(FrameError::NoStream),
            id => Ok(id),
        };
        let rest = |at: usize| payload.get(at..).map(<[u8]>::to_vec).ok_or(FrameError::TooShort(kind));
        let fin = flags & FIN != 0;
        Ok(match kind {
            1 => Self::SynStream { id: stream()?, fin, block: rest(10)? },
            2 => Self::SynReply { id: stream()?, fin, block: rest(4)? },
            3 => Self::Reset { id: stream()?, status: number(4)? },
            4 => {
                let count = number(0)? as usize;
                let mut initial_window = None;
                for entry in payload.get(4..).unwrap_or_default().chunks_exact(8).take(count) {
                    let &[_, i1, i2, i3, v0, v1, v2, v3] = entry else { continue };
                    if u32::from_be_bytes([0, i1, i2, i3]) == INITIAL_WINDOW_SIZE {
                        initial_window = Some(u32::from_be_bytes([v0, v1, v2, v3]));
                    }
                }
                Self::Settings { initial_window }
            }
            6 => Self::Ping { id: number(0)? },
            7 => Self::GoAway { last: number(0)? & ID, status: number(4)? },
            8 => Self::Headers { id: stream()?, fin, block: rest(4)? },
            9 => Self::WindowUpdate { id: number(0)? & ID, delta: number(4)? & ID },
            _ => Self::Other,
        })
    }

    /// Appends the frame.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        match self {
            Self::SynStream { id, fin, block } => {
                head(out, 1, *fin, 10 + block.len());
                out.put_u32(*id);
                // No associated stream, highest priority, no credential.
                out.put_bytes(0, 6);
                out.put_slice(block);
            }
            Self::SynReply { id, fin, block } => {
                head(out, 2, *fin, 4 + block.len());
                out.put_u32(*id);
                out.put_slice(block);
            }
            Self::Reset { id, status } => pair(out, 3, *id, *status),
            Self::Settings { initial_window } => {
                head(out, 4, false, 4 + initial_window.map_or(0, |_| 8));
                out.put_u32(u32::from(initial_window.is_some()));
                if let Some(window) = initial_window {
                    out.put_u32(INITIAL_WINDOW_SIZE);
                    out.put_u32(*window);
                }
            }
            Self::Ping { id } => {
                head(out, 6, false, 4);
                out.put_u32(*id);
            }
            Self::GoAway { last, status } => pair(out, 7, *last, *status),
            Self::Headers { id, fin, block } => {
                head(out, 8, *fin, 4 + block.len());
                out.put_u32(*id);
                out.put_slice(block);
            }
            Self::WindowUpdate { id, delta } => pair(out, 9, *id, *delta),
            Self::Other => {}
        }
    }
}

/// Appends a data frame. `bytes` is at most 2^24 - 1 long.
pub(crate) fn write_data(id: u32, fin: bool, bytes: &[u8], out: &mut BytesMut) {
    out.reserve(HEAD + bytes.len());
    out.put_u32(id & ID);
    flags_and_length(out, fin, bytes.len());
    out.put_slice(bytes);
}

fn head(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.reserve(HEAD + length);
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    flags_and_length(out, fin, length);
}

fn flags_and_length(out: &mut BytesMut, fin: bool, length: usize) {
    out.put_u8(if fin { FIN } else { 0 });
    out.put_uint(length as u64, 3);
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    head(out, kind, false, 8);
    out.put_u32(first);
    out.put_u32(second);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Control, FrameError> {
        match Head::read(bytes[..HEAD].try_into().unwrap())? {
            Head::Control { kind, flags, length } => Control::read(kind, flags, &bytes[HEAD..HEAD + length]),
            Head::Data { .. } => panic!("data"),
        }
    }

    #[test]
    fn round_trips() {
        for control in [
            Control::SynStream { id: 1, fin: false, block: vec![1, 2, 3] },
            Control::SynReply { id: 3, fin: true, block: vec![] },
            Control::Reset { id: 5, status: 2 },
            Control::Settings { initial_window: Some(1 << 20) },
            Control::Settings { initial_window: None },
            Control::Ping { id: 7 },
            Control::GoAway { last: 9, status: 0 },
            Control::Headers { id: 11, fin: false, block: vec![0; 300] },
            Control::WindowUpdate { id: 0, delta: 4096 },
        ] {
            let mut bytes = BytesMut::new();
            control.write(&mut bytes);
            assert_eq!(read(&bytes), Ok(control));
        }
        let mut bytes = BytesMut::new();
        write_data(5, true, b"abc", &mut bytes);
        assert_eq!(Head::read(bytes[..HEAD].try_into().unwrap()), Ok(Head::Data { id: 5, fin: true, length: 3 }));
        assert_eq!(&bytes[HEAD..], b"abc");
    }

    #[test]
    fn refused() {
        for (bytes, expect) in [
            ([0, 0, 0, 0, 0, 0, 0, 0], FrameError::NoStream),
            ([0x80, 2, 0, 1, 0, 0, 0, 0], FrameError::Version),
            ([0x80, 3, 0, 1, 0, 1, 0, 1], FrameError::TooLong(65537)),
            (*b"GET / HT", FrameError::TooLong(0)),
        ] {
            match Head::read(bytes) {
                // Text reads as data for a huge stream number; the connection refuses that.
                Ok(Head::Data { .. }) => assert_eq!(&bytes, b"GET / HT"),
                other => assert_eq!(other, Err(expect)),
            }
        }
        for kind in [1_u16, 2, 3, 4, 6, 7, 8, 9] {
            assert!(Control::read(kind, 0, &[0, 0, 0]).is_err(), "{kind}");
        }
        assert_eq!(Control::read(1, 0, &[0; 10]), Err(FrameError::NoStream));
        assert_eq!(Control::read(4, 0, &[0xff; 12]), Ok(Control::Settings { initial_window: None }));
        assert_eq!(Control::read(99, 0, &[]), Ok(Control::Other));
    }
}
