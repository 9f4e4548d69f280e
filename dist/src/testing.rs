//! A small release for tests: any program will do.

use std::process::Command;

use crate::Release;
use crate::archive::File;
use crate::elf::Needs;

/// A release of the shell.
pub(crate) fn release() -> Release {
    let program = std::fs::read("/bin/sh").expect("every machine has one");
    let needs = Needs::of(&program).expect("it is a program");
    let files = [
        "completions/_coracle",
        "completions/coracle.bash",
        "completions/coracle.fish",
        "man/coracle.1",
        "man/coracle-start.1",
        "systemd/coracle@.service",
        "LICENSE",
        "README.md",
        "THIRD-PARTY.txt",
    ];
    let files = files.map(|path| File::new(path, format!("the text of {path}\n"))).to_vec();
    Release { version: "1.2.3".to_owned(), time: 1_700_000_000, compression: 6, program, needs, files }
}

/// What a command prints.
pub(crate) fn said(command: &mut Command) -> String {
    crate::said(command.env("TZ", "UTC")).expect("it succeeds")
}
