//! How objects and log entries are written on disk. Numbers are big-endian, so that keys sort as the numbers do.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `objects` | `/registry/GROUP/RESOURCE/NAMESPACE/NAME` | revision, created, JSON |
//! | `log` | revision (8), number within the transaction (4) | see [`LogRecord`] |
//! | `meta` | `format`, `horizon` | number |

use crate::{EventKind, Revision};

/// The format written by this version. A change that older versions cannot read counts it up: in 2, values may be those of a
/// transformer; in 3, records of the log may have an author. What 1 and 2 are read as is the same.
pub(crate) const FORMAT: u32 = 3;

/// The bit of a record's kind which says that an author follows the key.
const HAS_AUTHOR: u8 = 0x80;

/// An entry as it lies in `objects`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ObjectRecord<'a> {
    pub(crate) revision: Revision,
    pub(crate) create_revision: Revision,
    pub(crate) value: &'a [u8],
}

impl<'a> ObjectRecord<'a> {
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.revision.to_be_bytes());
        into.extend_from_slice(&self.create_revision.to_be_bytes());
        into.extend_from_slice(self.value);
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self { revision: reader.u64()?, create_revision: reader.u64()?, value: reader.0 })
    }
}

/// An event as it lies in `log`: kind (1), time (8), end (8), created (8), key (4 + n), the author if the kind says so (4 + n),
/// value (4 + n), revision of the previous value or 0 (8), previous value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogRecord<'a> {
    pub(crate) kind: EventKind,
    /// Milliseconds since 1970 by the clock of the machine, which may jump.
    pub(crate) time: u64,
    /// The bytes of all records since the log began, this one's included: what lies between two records is their difference.
    pub(crate) end: u64,
    /// The revision that created the object.
    pub(crate) create_revision: Revision,
    pub(crate) key: &'a [u8],
    /// What [`Transaction::author`](crate::Transaction::author) was; empty if nobody said.
    pub(crate) author: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) previous: Option<(Revision, &'a [u8])>,
}

impl<'a> LogRecord<'a> {
    /// The bytes of a record beside its key and its values.
    const FIXED: usize = 1 + 8 + 8 + 8 + 4 + 4 + 8;

    /// How long the record is on disk.
    pub(crate) fn size(&self) -> u64 {
        let previous = self.previous.map_or(0, |(_, value)| value.len());
        let author = if self.author.is_empty() { 0 } else { 4 + self.author.len() };
        (Self::FIXED + self.key.len() + author + self.value.len() + previous) as u64
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let kind = match self.kind {
            EventKind::Created => 1,
            EventKind::Updated => 2,
            EventKind::Deleted => 3,
        };
        let author = (!self.author.is_empty()).then_some(self.author);
        into.push(if author.is_some() { kind | HAS_AUTHOR } else { kind });
        for number in [self.time, self.end, self.create_revision] {
            into.extend_from_slice(&number.to_be_bytes());
        }
        for bytes in [Some(self.key), author, Some(self.value)].into_iter().flatten() {
            // Staging refuses what is larger than this.
            into.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            into.extend_from_slice(bytes);
        }
        let (revision, previous) = self.previous.unwrap_or_default();
        into.extend_from_slice(&revision.to_be_bytes());
        into.extend_from_slice(previous);
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let &[first] = reader.take(1)? else { return None };
        let kind = match first & !HAS_AUTHOR {
            1 => EventKind::Created,
            2 => EventKind::Updated,
            3 => EventKind::Deleted,
            _ => return None,
        };
        let (time, end, create_revision) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let key = reader.sized()?;
        let author = if first & HAS_AUTHOR == 0 { &[] } else { reader.sized()? };
        let value = reader.sized()?;
        let previous = match reader.u64()? {
            0 => None,
            revision => Some((revision, reader.0)),
        };
        // Only a creation has nothing before it.
        if previous.is_none() != (kind == EventKind::Created) {
            return None;
        }
        Some(Self { kind, time, end, create_revision, key, author, value, previous })
    }
}

/// The key of a log record.
pub(crate) fn log_key(revision: Revision, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&revision.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The revision and the number in the key of a log record.
pub(crate) fn parse_log_key(key: &[u8]) -> Option<(Revision, u32)> {
    let mut reader = Reader(key);
    let parsed = (reader.u64()?, reader.u32()?);
    reader.0.is_empty().then_some(parsed)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()?;
        self.take(usize::try_from(n).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_disk() {
        let object = ObjectRecord { revision: 7, create_revision: 3, value: b"{}" };
        let mut bytes = Vec::new();
        object.encode(&mut bytes);
        assert_eq!(ObjectRecord::decode(&bytes), Some(object));

        for (kind, author, previous) in [
            (EventKind::Created, &b""[..], None),
            (EventKind::Created, b"somebody", None),
            (EventKind::Updated, b"", Some((5, &b"old"[..]))),
            (EventKind::Deleted, b"a", Some((5, &b""[..]))),
        ] {
            let record = LogRecord {
                kind,
                time: 11,
                end: 13,
                create_revision: 5,
                key: b"/registry/core/pods/a/b",
                author,
                value: b"new",
                previous,
            };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(record.size(), bytes.len() as u64);
            // A record that was cut short is never taken for another, short of losing a part of its last field.
            for cut in 0..bytes.len() - record.previous.map_or(0, |(_, value)| value.len()) {
                assert_eq!(LogRecord::decode(&bytes[..cut]), None);
            }
            assert_eq!(LogRecord::decode(&bytes), Some(record));
        }
    }

    #[test]
    fn log_keys_sort_as_revisions_do() {
        let mut keys = [log_key(256, 0), log_key(2, 1), log_key(2, 0), log_key(1, 9)];
        keys.sort_unstable();
        let parsed: Vec<_> = keys.iter().map(|k| parse_log_key(k)).collect();
        assert_eq!(parsed, [Some((1, 9)), Some((2, 0)), Some((2, 1)), Some((256, 0))]);
        assert_eq!(parse_log_key(&[0; 11]), None);
        assert_eq!(parse_log_key(&[0; 13]), None);
    }
}
