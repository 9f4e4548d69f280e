//! A file that only takes up space, so that there is some to give back when the disk is full.
//!
//! Deleting objects takes space too: a record in the log, and later a compaction. So does opening the database. While the
//! ballast is gone, the store takes nothing but what may use this reserve.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// The name of the file, beside those of RocksDB.
const FILE: &str = "coracle.ballast";
/// A file that is written to find out whether that is possible.
const PROBE: &str = "coracle.probe";
/// How much is written then: more than a file system keeps inside of an inode.
const PROBE_BYTES: usize = 64 << 10;
/// How much must be free beyond the ballast before it is made: twice what the write-ahead logs may hold. What opening the
/// database frees by itself is less, so it does not pass for space that somebody made, and the ballast does not come and go.
const MARGIN: u64 = 64 << 20;
/// The ballast and the margin are at most these parts of a file system: small ones are for tests and for memory.
const PARTS: (u64, u64) = (16, 4);

pub(crate) struct Ballast {
    folder: PathBuf,
    size: u64,
    margin: u64,
}

impl Ballast {
    /// The ballast of a store in a directory that exists: of this size, or less on a small file system.
    pub(crate) fn new(folder: &Path, size: u64) -> Self {
        let total = statvfs(folder).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        Self { folder: folder.to_owned(), size: size.min(total / PARTS.0), margin: MARGIN.min(total / PARTS.1) }
    }

    /// The size of the file when it is there.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Gives the space back. Returns whether there was any.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(self.path()).is_ok()
    }

    /// Gives the space back if there is hardly any left beside it: a process that starts needs some, for more than the store.
    pub(crate) fn release_if_low(&self) {
        if self.free().is_ok_and(|free| free < self.size / 4) {
            self.release();
        }
    }

    /// How much must be free for the file to be made.
    fn needed(&self) -> u64 {
        self.size.saturating_add(self.margin)
    }

    /// How much of the file system is free.
    fn free(&self) -> Result<u64, Errno> {
        statvfs(&self.folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Makes the file unless it is there, once there is space for it and for the margin beyond it.
    ///
    /// # Errors
    /// In words, when there is too little space.
    pub(crate) fn ensure(&self) -> Result<(), String> {
        if self.size == 0 || fs::metadata(self.path()).is_ok_and(|file| file.len() >= self.size) {
            return Ok(());
        }
        let short = |free: u64| {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let needed = mib(self.needed());
            format!("{} MiB are free in {}, {needed} MiB are needed", free >> 20, self.folder.display())
        };
        let free = self.free().map_err(|error| format!("{} cannot be looked at: {error}", self.folder.display()))?;
        if free < self.needed() {
            return Err(short(free));
        }
        self.make().map_err(|error| format!("{}: {error}", short(free)))
    }

    fn make(&self) -> io::Result<()> {
        let new = self.path().with_extension("ballast.new");
        let made = File::create(&new).and_then(|file| fill(&file, self.size));
        // A name that stands for a part of the file must not stay.
        let made = made.and_then(|()| fs::rename(&new, self.path()));
        if made.is_err() {
            let _ = fs::remove_file(&new);
        }
        made
    }

    /// Whether files can be made, written and synced just now.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let path = self.folder.join(PROBE);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&[0x5a; PROBE_BYTES])?;
            file.sync_all()
        });
        let _ = fs::remove_file(&path);
        written
    }
}

/// Takes up space for a file. Where a file system cannot do that by itself, it is written; zeros might not be stored.
fn fill(mut file: &File, size: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => return Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut left = size;
    let mut block = vec![0; 64 << 10];
    while left > 0 {
        for eight in block.chunks_exact_mut(8) {
            // Xorshift: what does not compress.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            eight.copy_from_slice(&state.to_ne_bytes());
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..length])?;
        left -= length as u64;
    }
    file.sync_all()
}

/// Whether the text of an error says that there is no space.
pub(crate) fn says_full(error: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|words| error.contains(words))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_file_takes_up_space_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(dir.path(), 1 << 20);
        assert!(!ballast.release());
        ballast.ensure().unwrap();
        ballast.ensure().unwrap();
        let file = fs::metadata(ballast.path()).unwrap();
        assert!(file.len() == 1 << 20 && file.blocks() * 512 >= 1 << 20, "{file:?}");
        assert!(ballast.release());
        ballast.probe().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fill(&File::create(ballast.path()).unwrap(), 1000).unwrap();
    }

    #[test]
    fn there_is_none_where_it_would_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::new(dir.path(), 0);
        ballast.ensure().unwrap();
        ballast.size = u64::MAX / 2;
        let refused = ballast.ensure().unwrap_err();
        assert!(refused.contains("are free in"), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let large = Ballast::new(dir.path(), u64::MAX).size();
        let total = statvfs(dir.path()).map(|disk| disk.f_blocks * disk.f_frsize).unwrap();
        assert_eq!(large, total / PARTS.0);
    }
}
