//! The wire format: fields by number, each a number or a run of bytes.

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the protobuf body: {0}")]
pub(crate) struct Malformed(pub(super) &'static str);

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
