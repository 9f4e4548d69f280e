//! Whether a write-ahead log was torn by a crash: where a file system had made the file longer before it wrote the bytes, zeros
//! are in their place. RocksDB takes a record that is zeros from somewhere on for damage, as it cannot know better.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A log is blocks of this size, and no record crosses their borders without being split.
const BLOCK: usize = 32 << 10;
/// The header of a record: checksum (4), length (2), kind (1).
const HEADER: usize = 7;
/// The kinds of records that RocksDB writes where logs are not recycled. Upstream: `db/log_format.h`.
const KINDS: [u8; 6] = [1, 2, 3, 4, 9, 10];

/// Whether the newest write-ahead log in a directory ends in zeros that begin within its last record, or after it.
pub(crate) fn ends_in_zeros(folder: &Path) -> io::Result<bool> {
    Ok(match newest_log(folder)? {
        Some(path) => is_torn(&fs::read(path)?),
        None => false,
    })
}

fn newest_log(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "log")) {
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Whether good records lead up to the zeros at the end. Damage before them is no crash's.
fn is_torn(log: &[u8]) -> bool {
    let zeros = log.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut at = 0;
    // A record that is cut in the midst ends behind the beginning of the zeros.
    while at < zeros {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let Some(&[.., short, long, kind]) = log.get(at..at + HEADER) else { break };
        if at + HEADER <= zeros && !KINDS.contains(&kind) {
            return false;
        }
        let end = at + HEADER + usize::from(u16::from_le_bytes([short, long]));
        if end <= zeros && log.get(at..end).is_none_or(|record| !is_good(record)) {
            return false;
        }
        at = end;
    }
    zeros < log.len()
}

/// Whether the checksum of a record is right: masked, of its kind and what it holds (`util/crc32c.h`).
fn is_good(record: &[u8]) -> bool {
    let Some((checksum, [_, _, checked @ ..])) = record.split_first_chunk() else { return false };
    u32::from_le_bytes(*checksum) == crc32c::crc32c(checked).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zeros_at_the_end_of_what_was_written() {
        let record = |length: u16| {
            let mut record = vec![7; HEADER + usize::from(length)];
            record[4..6].copy_from_slice(&length.to_le_bytes());
            record[6] = 1;
            let checksum = crc32c::crc32c(&record[6..]).rotate_right(15).wrapping_add(0xa282_ead8);
            record[..4].copy_from_slice(&checksum.to_le_bytes());
            record
        };
        let whole = [record(100), record(50)].concat();
        assert!(!is_torn(&whole));
        assert!(!is_torn(&whole[..120]), "it is cut short, which RocksDB knows itself");
        for kept in [whole.len(), 150, 115, 113, 110, 107, 50, 3, 0] {
            let torn = [&whole[..kept], &[0; 500]].concat();
            assert!(is_torn(&torn), "{kept}");
        }
        // What was written goes on after them, or begins with no record.
        assert!(!is_torn(&[&whole[..110], &[0; 50], &whole].concat()));
        let mut damaged = [&whole[..], &[0; 500]].concat();
        damaged[6] = 77;
        assert!(!is_torn(&damaged));
        for place in [0, 3, 7, 106, 107, 160] {
            let mut damaged = [&whole[..], &[0; 500]].concat();
            damaged[place] ^= 1;
            assert!(!is_torn(&damaged), "{place}");
        }
    }
}
