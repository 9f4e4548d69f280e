//! The wire format: fields by number, each a number or a run of bytes.

use bytes::Bytes;

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the protobuf body: {0}")]
pub struct Malformed(pub(super) &'static str);

const TRUNCATED: Malformed = Malformed("it ends in the middle of a field");

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Eight bytes: a number with a fraction.
    Double(f64),
    /// Four bytes, which no field of our types has.
    Fixed,
}

/// The fields of a message, in the order in which they were written. Ends after an error.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Payload<'a>), Malformed> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed("a field number is too large"))?;
        let payload = match tag & 7 {
            0 => Payload::Varint(varint(&mut self.0)?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| TRUNCATED)?;
                Payload::Double(f64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| TRUNCATED)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Payload::Fixed)?,
            _ => return Err(Malformed("a field has an unknown wire type")),
        };
        Ok((number, payload))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Payload<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The numbers of a packed field. Ends after an error.
pub(super) fn packed(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, Malformed>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let number = varint(&mut bytes);
        if number.is_err() {
            bytes = &[];
        }
        Some(number)
    })
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for index in 0..10 {
        let (&byte, rest) = bytes.split_first().ok_or(TRUNCATED)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (index * 7);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("a number is too long"))
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a string is not UTF-8"))
}

/// The wire types of what is written.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// A message being written.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

/// Where a message within another one begins.
#[must_use]
pub(super) struct Start(usize);

impl Message {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What is written so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// What is written.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }

    /// The whole as a frame whose first four bytes, kept free, are the length of the rest; `None` when that is too much. It is
    /// kept for other watchers, so it has no room to spare.
    pub(super) fn into_frame(mut self) -> Option<Bytes> {
        let (head, rest) = self.0.split_first_chunk_mut::<4>()?;
        *head = u32::try_from(rest.len()).ok()?.to_be_bytes();
        Some(self.0.into_boxed_slice().into())
    }

    /// Bytes that are no field.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A number.
    pub fn varint(&mut self, field: u32, value: u64) {
        self.number(u64::from(field) << 3 | VARINT);
        self.number(value);
    }

    /// A number with a fraction.
    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.number(u64::from(field) << 3 | FIXED64);
        self.raw(&value.to_le_bytes());
    }

    /// A string, bytes, or a message that is written already.
    pub fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.head(field, bytes.len());
        self.raw(bytes);
    }

    /// What stands before so many bytes.
    pub(super) fn head(&mut self, field: u32, length: usize) {
        self.number(u64::from(field) << 3 | BYTES);
        self.number(length as u64);
    }

    /// Begins a message within this one.
    pub(super) fn open(&mut self, field: u32) -> Start {
        self.head(field, 0);
        Start(self.0.len())
    }

    /// Ends a message: its length is written before it.
    pub(super) fn close(&mut self, Start(start): Start) {
        let end = self.0.len();
        let length = end - start;
        if let Ok(short @ 0..0x80) = u8::try_from(length) {
            self.0[start - 1] = short;
            return;
        }
        let more = (length.ilog2() / 7) as usize;
        self.0.resize(end + more, 0);
        self.0.copy_within(start..end, start + more);
        let mut rest = length;
        for place in &mut self.0[start - 1..start + more] {
            *place = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.0[start - 1 + more] &= 0x7f;
    }

    /// A message within this one.
    pub fn nested(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let start = self.open(field);
        write(self);
        self.close(start);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stands_behind_its_length() {
        for length in [0, 1, 0x7f, 0x80, 0x81, 0x3fff, 0x4000, 0x20_0000] {
            let inner = vec![7; length];
            let mut expect = Message::default();
            expect.bytes(3, b"before");
            expect.bytes(2, &inner);
            let mut found = Message::default();
            found.bytes(3, b"before");
            found.nested(2, |message| message.raw(&inner));
            assert!(found.as_slice() == expect.as_slice(), "{length}");
            let fields: Vec<_> = Fields::of(found.as_slice()).collect();
            assert!(fields[1] == Ok((2, Payload::Bytes(&inner))), "{length}");
        }
    }
}
