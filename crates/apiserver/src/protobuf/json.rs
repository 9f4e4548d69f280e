//! A cursor over JSON that is known to be well formed: the store holds nothing else. What is not is an error all the same,
//! and never read beyond.

use std::borrow::Cow;

/// What the cursor expected and did not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

const ENDS: Broken = Broken("the JSON ends too early");

pub(super) struct Json<'j> {
    bytes: &'j [u8],
    at: usize,
}

impl<'j> Json<'j> {
    pub(super) fn new(bytes: &'j [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The first byte of the value at hand.
    pub(super) fn peek(&mut self) -> Result<u8, Broken> {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                other => return Ok(*other),
            }
        }
        Err(ENDS)
    }

    /// Goes into an object (`{`) or list (`[`).
    pub(super) fn enter(&mut self, bracket: u8) -> Result<(), Broken> {
        if self.peek()? != bracket {
            return Err(Broken("a value has another type"));
        }
        self.at += 1;
        Ok(())
    }

    /// Whether another member or element follows; else goes out of the object or list that this bracket closes.
    pub(super) fn more(&mut self, bracket: u8) -> Result<bool, Broken> {
        let next = self.peek()?;
        if next == b',' || next == bracket {
            self.at += 1;
        }
        Ok(next != bracket)
    }

    /// The key of a member, as it is written; the cursor is at its value then.
    pub(super) fn key(&mut self) -> Result<Cow<'j, [u8]>, Broken> {
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(Broken("a key has no value"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string, without its escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'j, [u8]>, Broken> {
        if self.peek()? != b'"' {
            return Err(Broken("a value has another type"));
        }
        let start = self.at;
        let plain = self.skip_string()?;
        let quoted = &self.bytes[start..self.at];
        if plain {
            return Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]));
        }
        let text: String = serde_json::from_slice(quoted).map_err(|_| Broken("a string is none"))?;
        Ok(Cow::Owned(text.into_bytes()))
    }

    /// A number, `true`, `false` or `null`, as it is written.
    pub(super) fn scalar(&mut self) -> Result<&'j str, Broken> {
        self.peek()?;
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
        let scalar = &rest[..end.unwrap_or(rest.len())];
        self.at += scalar.len();
        std::str::from_utf8(scalar).map_err(|_| Broken("a value is no UTF-8"))
    }

    /// Any value, as it is written.
    pub(super) fn skip(&mut self) -> Result<&'j [u8], Broken> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => _ = self.skip_string()?,
            b'{' | b'[' => {
                let mut depth = 0_usize;
                loop {
                    let rest = self.bytes.get(self.at..).ok_or(ENDS)?;
                    let step = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'));
                    let step = step.ok_or(ENDS)?;
                    self.at += step;
                    match rest[step] {
                        b'"' => {
                            self.skip_string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        _ => depth -= 1,
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ => _ = self.scalar()?,
        }
        Ok(&self.bytes[start..self.at])
    }

    /// Goes behind the string at hand; says whether it is without escapes.
    fn skip_string(&mut self) -> Result<bool, Broken> {
        let mut plain = true;
        self.at += 1;
        loop {
            let rest = self.bytes.get(self.at..).ok_or(ENDS)?;
            let step = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(ENDS)?;
            if rest[step] == b'"' {
                self.at += step + 1;
                return Ok(plain);
            }
            plain = false;
            self.at += step + 2;
        }
    }
}
