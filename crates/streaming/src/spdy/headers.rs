//! Header blocks: names and values, compressed with zlib under SPDY/3's dictionary, one compressor per direction for the
//! whole life of a connection.

use std::sync::LazyLock;

use bytes::BufMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The most that a header block may unpack to: a small block can hold a great deal of nothing.
pub(crate) const MAX_BLOCK: usize = 64 * 1024;
/// The most headers in one block.
pub(crate) const MAX_HEADERS: usize = 64;

/// Why a header block cannot be read. The two compressors are then out of step, so the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("a header block that zlib cannot read")]
    Zlib,
    #[error("a header block of more than {MAX_BLOCK} bytes or {MAX_HEADERS} headers")]
    TooLarge,
    #[error("a header block that ends early")]
    Malformed,
}

/// The headers of a stream, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// The first value of a header.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        // Several values of one name are separated by zeros.
        value.split('\0').next()
    }

    fn read(mut bytes: &[u8]) -> Result<Self, BlockError> {
        let count = take_number(&mut bytes)?;
        if count > MAX_HEADERS {
            return Err(BlockError::TooLarge);
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            headers.push((take_text(&mut bytes)?.to_ascii_lowercase(), take_text(&mut bytes)?));
        }
        Ok(Self(headers))
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for text in [&name.to_ascii_lowercase(), value] {
                bytes.put_u32(text.len() as u32);
                bytes.put_slice(text.as_bytes());
            }
        }
        bytes
    }
}

fn take_number(bytes: &mut &[u8]) -> Result<usize, BlockError> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(BlockError::Malformed)?;
    *bytes = rest;
    Ok(u32::from_be_bytes(*number) as usize)
}

fn take_text(bytes: &mut &[u8]) -> Result<String, BlockError> {
    let length = take_number(bytes)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(BlockError::Malformed)?;
    *bytes = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Unpacks the header blocks of one direction, in order.
pub(crate) struct Decoder(Decompress);

impl Decoder {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Headers, BlockError> {
        let mut plain = Vec::new();
        let mut chunk = [0; 4096];
        let mut rest = block;
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            match self.0.decompress(rest, &mut chunk, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(BlockError::Zlib),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| BlockError::Zlib)?;
                }
                Err(_) => return Err(BlockError::Zlib),
            }
            let (read, written) = ((self.0.total_in() - read) as usize, (self.0.total_out() - written) as usize);
            rest = rest.get(read..).unwrap_or_default();
            plain.extend_from_slice(&chunk[..written.min(chunk.len())]);
            if plain.len() > MAX_BLOCK {
                return Err(BlockError::TooLarge);
            }
            // A full chunk may have left more behind; otherwise everything is out.
            if rest.is_empty() && written < chunk.len() {
                return Headers::read(&plain);
            }
            if read == 0 && written == 0 {
                return Err(BlockError::Zlib);
            }
        }
    }
}

/// Packs the header blocks of one direction, in order.
pub(crate) struct Encoder(Compress);

impl Encoder {
    pub(crate) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Fails only on a compressor that has already been used.
        let _ = compress.set_dictionary(&DICTIONARY);
        Self(compress)
    }

    pub(crate) fn encode(&mut self, headers: &Headers) -> Result<Vec<u8>, BlockError> {
        let plain = headers.write();
        let mut rest = plain.as_slice();
        let mut packed = Vec::new();
        let mut chunk = [0; 1024];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            self.0.compress(rest, &mut chunk, FlushCompress::Sync).map_err(|_| BlockError::Zlib)?;
            let (read, written) = ((self.0.total_in() - read) as usize, (self.0.total_out() - written) as usize);
            rest = rest.get(read..).unwrap_or_default();
            packed.extend_from_slice(&chunk[..written.min(chunk.len())]);
            if rest.is_empty() && written < chunk.len() {
                return Ok(packed);
            }
        }
    }
}

/// The words that SPDY/3 seeds its compressors with, each with its length in front, and the text after them.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for word in WORDS.split('|') {
        bytes.put_u32(word.len() as u32);
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(TEXT.as_bytes());
    bytes
});

const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|\
accept-ranges|age|allow|authorization|cache-control|connection|content-base|content-encoding|content-language|\
content-length|content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|\
if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|\
proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|user-agent|\
vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|keep-alive|origin";

const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
utf-,*,enq=0.";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The checksum that every SPDY/3 connection starts with, at the head of its first block.
    #[test]
    fn the_dictionary_is_the_real_one() {
        assert_eq!(DICTIONARY.len(), 1423);
        let block = Encoder::new().encode(&headers(&[])).unwrap();
        assert_eq!(&block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_in_a_row() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let long = "x".repeat(10_000);
        for pairs in [
            vec![],
            vec![("streamType", "stdin")],
            vec![("streamType", "error"), ("port", "8080"), ("requestID", "0")],
            vec![("a", long.as_str())],
            vec![("streamType", "data"), ("port", "8080"), ("requestID", "0")],
        ] {
            let block = encoder.encode(&headers(&pairs)).unwrap();
            let decoded = decoder.decode(&block).unwrap();
            assert_eq!(decoded.0.len(), pairs.len());
            for (name, value) in pairs {
                assert_eq!(decoded.get(name), Some(value));
            }
        }
        assert_eq!(headers(&[("a", "b\0c")]).get("A"), Some("b"));
    }

    #[test]
    fn bombs_and_garbage() {
        let zeros = "0".repeat(10 * MAX_BLOCK);
        let block = Encoder::new().encode(&headers(&[("a", &zeros)])).unwrap();
        assert!(block.len() < MAX_BLOCK / 10);
        assert_eq!(Decoder::new().decode(&block), Err(BlockError::TooLarge));

        let many: Vec<(String, String)> = (0..=MAX_HEADERS).map(|n| (n.to_string(), String::new())).collect();
        let block = Encoder::new().encode(&Headers(many)).unwrap();
        assert_eq!(Decoder::new().decode(&block), Err(BlockError::TooLarge));

        assert_eq!(Decoder::new().decode(b"garbage, not zlib"), Err(BlockError::Zlib));
        assert!(Decoder::new().decode(&[]).is_err());
        assert_eq!(Headers::read(&[0, 0, 0, 1, 0, 0, 0, 9, b'a']), Err(BlockError::Malformed));
        assert_eq!(Headers::read(&[0xff; 8]), Err(BlockError::TooLarge));
    }
}
