//! The two calls. Each says why it may be made.

#![expect(unsafe_code, reason = "no library has these calls as safe ones")]

use std::ffi::c_void;
use std::io;

use rustix::mm::{Advice, madvise};

use crate::maps::Mapping;

/// Takes the pages of a mapping of the program's own file out of this process's memory, where all of them are as the file has
/// them. They come back as they are needed.
pub(crate) fn unmap_pages(mapping: Mapping) -> io::Result<()> {
    if !mapping.is_as_in_file() {
        return Ok(());
    }
    let start = std::ptr::with_exposed_provenance_mut::<c_void>(mapping.start);
    // SAFETY: The range is of the program's own file, which stays mapped as long as the program runs, so that nothing else can
    // have come to be there since. Nobody can write there, and no page of it was the process's own: each comes back with the
    // same content. Code that is in it goes on after a page fault.
    unsafe { madvise(start, mapping.end - mapping.start, Advice::LinuxDontNeed) }?;
    Ok(())
}

/// Gives free pages of the C library's heap back to the kernel, also those between pieces in use.
#[cfg(target_env = "gnu")]
pub(crate) fn trim_heap() {
    // SAFETY: `malloc_trim(3)` is safe on any thread at any time: it takes the locks of the heap, and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give back by themselves what they give back.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim_heap() {}
