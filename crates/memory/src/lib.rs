//! Memory that a process which has become quiet gives back to the machine.
//!
//! A server that starts, and one that is busy, touches code and heap that it does not need while nothing happens: how a store is
//! opened, how a schema is built, what a burst of requests left between the pieces that stay. The kernel takes neither away
//! on a machine with memory to spare, so that both count for ever. [`Quiet`] says when nobody waits for what it costs,
//! [`give_back`] gives back:
//!
//! - pages of the program's own file: they stay in the kernel's page cache, and whoever needs one has it again at the price of
//!   a minor fault;
//! - what the C library's heap holds free. (jemalloc does that by itself, on a thread of its own.)
//!
//! This is the only crate with unsafe code, in the module `kernel`: two calls that no library offers as safe ones.

mod kernel;
mod maps;
mod quiet;

use std::{fs, io};

pub use crate::quiet::Quiet;

/// Gives back what this process does not need while it is quiet. It goes on meanwhile; takes a few milliseconds, and blocks.
///
/// # Errors
/// When the kernel does not say what the process has mapped, or does not take something back. Then no harm is done, and less is
/// given back.
pub fn give_back() -> io::Result<()> {
    kernel::trim_heap();
    let program = fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    maps::of_file(&fs::read_to_string("/proc/self/smaps")?, &program).try_for_each(kernel::unmap_pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of the program's file is mapped, in kilobytes.
    fn resident() -> u64 {
        let program = fs::read_link("/proc/self/exe").unwrap();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        maps::of_file(&smaps, &program.to_string_lossy()).map(|mapping| mapping.resident).sum()
    }

    #[test]
    fn pages_of_the_program_go_and_come_back() {
        // Everything that is read here once, the test's own code among it.
        let all = fs::read("/proc/self/exe").unwrap().len();
        let before = resident();
        give_back().unwrap();
        let after = resident();
        assert!(after < before, "{before} kB, then {after} kB");
        // The program still is what it was.
        assert_eq!(fs::read("/proc/self/exe").unwrap().len(), all);
        give_back().unwrap();
    }
}
