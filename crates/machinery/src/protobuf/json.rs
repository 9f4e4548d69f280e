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
    #[inline]
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

    /// The key of a member; the cursor is at its value then.
    pub(super) fn key(&mut self) -> Result<Cow<'j, [u8]>, Broken> {
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(Broken("a key has no value"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string, without its escapes.
    #[inline]
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
        if matches!(rest.first(), None | Some(b'{' | b'[' | b'"' | b'}' | b']' | b',')) {
            return Err(Broken("a value has another type"));
        }
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
    #[inline]
    fn skip_string(&mut self) -> Result<bool, Broken> {
        let mut plain = true;
        self.at += 1;
        loop {
            let rest = self.bytes.get(self.at..).ok_or(ENDS)?;
            let step = special(rest).ok_or(ENDS)?;
            if rest[step] == b'"' {
                self.at += step + 1;
                return Ok(plain);
            }
            plain = false;
            self.at += step + 2;
        }
    }
}

/// Where the next quote or backslash is. Half of an object's bytes are in strings, most of them short: eight are looked at at
/// once, by the trick that finds a zero byte in a word.
#[inline]
fn special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = &bytes[at.min(bytes.len())..];
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|step| at + step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_at_their_quote() {
        for length in 0..40 {
            for at in 0..=length {
                for special in ["", "\"", "\\", "\n", "\\\"", "\u{1f600}"] {
                    let text = format!("{}{special}{}", "a".repeat(at), "b".repeat(length - at));
                    let json = format!("[{}, 1]", serde_json::to_string(&text).unwrap());
                    let mut json = Json::new(json.as_bytes());
                    json.enter(b'[').unwrap();
                    assert!(json.more(b']').unwrap());
                    assert_eq!(json.string().unwrap(), text.as_bytes());
                    assert!(json.more(b']').unwrap());
                    assert_eq!(json.scalar(), Ok("1"));
                    assert!(!json.more(b']').unwrap());
                }
            }
        }
    }

    #[test]
    fn whatever_is_passed_over_is_whole() {
        for value in [r#""a\"}""#, "-1.5e3", "null", r#"{"a":[{"b":"]}"},[]],"c":{}}"#, "[1, [2], {\"a\" : 3}]"] {
            let json = format!(" {value} ,x");
            let mut json = Json::new(json.as_bytes());
            assert_eq!(json.skip(), Ok(value.as_bytes()));
            assert_eq!(json.peek(), Ok(b','));
        }
    }
}
