//! The file of a snapshot's objects: for each its key (4 + n), the revision that wrote it (8), the one that created it (8), and
//! its value as it lies in the store (4 + n), encrypted where that is. Numbers are big-endian.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use store::{Entry, Key, Revision, Transformer};

use super::{Error, OBJECTS};

/// An object with its value as it was stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) key: Key,
    pub(super) revision: Revision,
    pub(super) create_revision: Revision,
    pub(super) value: Vec<u8>,
}

/// Writes an object.
pub(super) fn write(into: &mut impl Write, entry: &Entry, transformer: &dyn Transformer) -> Result<(), Error> {
    let path = entry.key.to_string();
    let failed = |reason| Error::Value { key: path.clone(), reason };
    let value = transformer.transform_to_storage(&entry.key.resource, path.as_bytes(), &entry.value).map_err(failed)?;
    let write = |into: &mut dyn Write| {
        let sized = |into: &mut dyn Write, bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            into.write_all(&length.to_be_bytes())?;
            into.write_all(bytes)
        };
        sized(into, path.as_bytes())?;
        into.write_all(&entry.revision.to_be_bytes())?;
        into.write_all(&entry.create_revision.to_be_bytes())?;
        sized(into, &value)
    };
    write(into).map_err(Error::Write)
}

/// All objects of a snapshot, as they were served.
///
/// # Errors
/// When its file holds something else, or a value cannot be decrypted.
pub(super) fn read_all(folder: &Path, name: &str, transformer: &dyn Transformer) -> Result<Vec<Stored>, Error> {
    let damaged = |reason: String| Error::Damaged { name: name.to_owned(), reason: format!("{OBJECTS}: {reason}") };
    let file = File::open(folder.join(OBJECTS)).map_err(|error| damaged(error.to_string()))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut all = Vec::new();
    while let Some(mut stored) = read(&mut file).map_err(damaged)? {
        let path = stored.key.to_string();
        let value = transformer.transform_from_storage(&stored.key.resource, path.as_bytes(), &stored.value);
        stored.value = value.map_err(|reason| Error::Value { key: path, reason })?.into_owned();
        all.push(stored);
    }
    Ok(all)
}

/// Reads the next object; none at the end.
///
/// # Errors
/// In words: what is read has been checked to be what was written, so it is of something else.
fn read(from: &mut impl Read) -> Result<Option<Stored>, String> {
    let mut first = [0; 4];
    // Nothing at all is the end; a part of a number is not.
    match from.read(&mut first[..1]).map_err(|error| error.to_string())? {
        0 => return Ok(None),
        _ => from.read_exact(&mut first[1..]).map_err(|error| error.to_string())?,
    }
    let key = bytes(from, u32::from_be_bytes(first))?;
    let key = std::str::from_utf8(&key).ok().and_then(Key::parse).ok_or("there is no such object")?;
    let mut number = || {
        let mut number = [0; 8];
        from.read_exact(&mut number).map(|()| u64::from_be_bytes(number)).map_err(|error| error.to_string())
    };
    let (revision, create_revision) = (number()?, number()?);
    let mut length = [0; 4];
    from.read_exact(&mut length).map_err(|error| error.to_string())?;
    let value = bytes(from, u32::from_be_bytes(length))?;
    Ok(Some(Stored { key, revision, create_revision, value }))
}

fn bytes(from: &mut impl Read, length: u32) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Not reserved beforehand: the length is only what the file says.
    let read = from.take(length.into()).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if read < length as usize {
        return Err("it ends too early".to_owned());
    }
    Ok(bytes)
}
