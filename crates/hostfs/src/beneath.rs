//! Paths that cannot leave a directory, whatever is exchanged while they are followed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// `openat2` answers EAGAIN when something was renamed while it looked (openat2(2)); so often it is asked again.
const TRIES: u32 = 64;

/// Opens what is there already at `relative` below the directory `root`. Symbolic links are followed as long as they
/// stay below it; a path that leads out is [`ErrorKind::CrossesDevices`], as `openat2` has it.
///
/// # Errors
/// [`ErrorKind::CrossesDevices`] for a path that leads out, `EAGAIN` when it was being renamed all the time, and what
/// opening a file fails with.
pub fn open_beneath(root: impl AsFd, relative: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        tries += 1;
        return match rustix::fs::openat2(&root, relative, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < TRIES => continue,
            Err(Errno::XDEV) => Err(io::Error::new(ErrorKind::CrossesDevices, "the path leads out of its directory")),
            result => Ok(result?),
        };
    }
}
