//! Filling a new store with objects that another one had.

use std::io;

use crate::disk::{Disk, refuse};
use crate::record::ObjectRecord;
use crate::{Key, OpenError, Options, Revision, witness};

/// How much is written together.
const BATCH_BYTES: usize = 4 << 20;

/// An object as a store had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its name.
    pub key: Key,
    /// Its JSON as it was served, its own revision in it.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub revision: Revision,
    /// The revision that created it.
    pub create_revision: Revision,
}

/// Makes a store that has these objects and no history. `after` is a revision that is passed over, with all before it and some
/// more: what it, or one of the objects, has in another store's history never is handed out again, and whoever watched that
/// one begins anew.
///
/// As with etcd: `etcdutl snapshot restore --bump-revision --mark-compacted`.
///
/// # Errors
/// When the directory cannot be written or has a store already, or a value cannot be encrypted. What is in the directory then is no store.
pub fn import(
    options: &Options,
    after: Revision,
    objects: impl IntoIterator<Item = Imported>,
) -> Result<(), OpenError> {
    let disk = Disk::open(options)?;
    let failed = |error| refuse(&options.path, error);
    if disk.newest().map_err(failed)? > 0 {
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(OpenError::Unwritable { path: options.path.clone(), error });
    }
    let mut newest = after;
    let mut batch = disk.batch().map_err(failed)?;
    for Imported { key, value, revision, create_revision } in objects {
        newest = newest.max(revision);
        batch.add_object(&key, &ObjectRecord { revision, create_revision, value: &value }).map_err(failed)?;
        if batch.size() >= BATCH_BYTES {
            let full = std::mem::replace(&mut batch, disk.batch().map_err(failed)?);
            disk.write(full).map_err(failed)?;
        }
    }
    disk.write(batch).map_err(failed)?;
    // Last: without it the objects are newer than the log, and nobody opens that.
    disk.pass_over(newest).map_err(failed)?;
    Ok(())
}

/// The newest revision that the store of a directory has handed out, as far as it or its witness can be read: it may be damaged,
/// and it is not changed. 0 where there is none.
///
/// # Errors
/// [`OpenError::Locked`] while somebody has it open.
pub fn newest_revision(options: &Options) -> Result<Revision, OpenError> {
    let found = match Disk::open_read_only(options) {
        Ok(disk) => disk.newest().unwrap_or_default(),
        Err(locked @ OpenError::Locked { .. }) => return Err(locked),
        Err(_) => 0,
    };
    Ok(found.max(witness::read(&options.path).ok().flatten().unwrap_or_default()))
}
