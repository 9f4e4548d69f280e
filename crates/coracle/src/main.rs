//! The `coracle` program: Kubernetes for one machine, started and stopped like any other program.
//!
//! ```text
//! main ── cli (what can be asked) ── commands (one file each) ──┬── daemon      (the process in the background)
//!  └───── complete (the shell asks)                             │
//!                                                               ├── kubeconfig  (the user's contexts)
//!                                                               ├── progress    (what a person sees meanwhile)
//!                                                               └── course      (the pages of `learn`)
//! ```
//!
//! This crate turns command lines into calls of `node` and answers into text. How anything works inside is not its
//! business. Every failure is one line on standard error that says what to do, and exit code 1.

mod cli;
mod commands;
mod complete;
mod course;
mod daemon;
mod kubeconfig;
mod listening;
mod log;
mod output;
mod progress;

use std::process::ExitCode;

/// Its own thread gives back what a burst of work leaves behind, and between what stays it leaves smaller holes than others do:
/// `docs/implementation-notes-components.md` has the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A heap of a few megabytes would take tens of them in huge pages. A kernel that knows none needs no telling.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    complete::answer();
    match cli::parse(std::env::args_os().collect()).and_then(commands::run) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
