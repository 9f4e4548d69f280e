//! What a program needs of the machine that runs it, as its ELF file says: "Symbol Versioning" of the Linux Standard Base
//! (`.gnu.version_r`), 64 bits, least significant byte first.

use anyhow::{Context, Result, bail};

/// The header's magic, class and byte order.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// The type of the section that names the versions (`SHT_GNU_verneed`).
const VERSIONS: u32 = 0x6fff_fffe;
/// The version that stands for packed relative relocations, and the release of glibc that reads them.
const PACKED: (&str, Version) = ("GLIBC_ABI_DT_RELR", Version(2, 36));

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The processors that releases are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arch {
    /// `x86_64`.
    X86,
    /// `aarch64`.
    Arm,
}

impl Arch {
    /// As `uname -m`, Rust and RPM call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// As Debian, Go and OCI call it.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }
}

/// What is read of a program.
#[derive(Debug, Clone)]
pub(crate) struct Needs {
    /// The processor it is compiled for.
    pub(crate) arch: Arch,
    /// The versions it asks for, by the library that has them: ("libc.so.6", "GLIBC_2.34").
    pub(crate) versions: Vec<(String, String)>,
}

impl Needs {
    /// Reads a program.
    pub(crate) fn of(program: &[u8]) -> Result<Self> {
        if !program.starts_with(MAGIC) {
            bail!("it is not a 64 bit ELF file");
        }
        let arch = match number(program, 18, 2)? {
            62 => Arch::X86,
            183 => Arch::Arm,
            other => bail!("it is for the processor {other}, which no release is made for"),
        };
        Ok(Self { arch, versions: versions(program).context("its versions cannot be read")? })
    }

    /// The oldest glibc that runs it; nothing for a program without glibc.
    pub(crate) fn glibc(&self) -> Option<Version> {
        let of = |name: &String| if name == PACKED.0 { Some(PACKED.1) } else { version(name, "GLIBC_") };
        self.versions.iter().filter_map(|(_, name)| of(name)).max()
    }

    /// The oldest GCC whose libstdc++ runs it.
    pub(crate) fn gcc(&self) -> Option<u32> {
        // GCC's manual of libstdc++, "ABI Policy and Guidelines": GLIBCXX_3.4.29 came with 11, and so on.
        let newest = self.versions.iter().filter_map(|(_, name)| minor_of_glibcxx(name)).max()?;
        Some(match newest {
            ..=25 => 8,
            26..=27 => 9,
            28 => 10,
            29 => 11,
            30 => 12,
            31..=32 => 13,
            33 => 14,
            _ => 15,
        })
    }
}

fn version(name: &str, prefix: &str) -> Option<Version> {
    let (major, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let minor = rest.split('.').next()?;
    Some(Version(major.parse().ok()?, minor.parse().ok()?))
}

fn minor_of_glibcxx(name: &str) -> Option<u32> {
    name.strip_prefix("GLIBCXX_3.4.")?.parse().ok()
}

fn versions(program: &[u8]) -> Result<Vec<(String, String)>> {
    let (table, size, count) = (number(program, 40, 8)?, number(program, 58, 2)?, number(program, 60, 2)?);
    let section = |index: usize| table + index * size;
    let mut found = Vec::new();
    for index in 0..count {
        let header = section(index);
        if number(program, header + 4, 4)? != VERSIONS as usize {
            continue;
        }
        // The names are in the section that this one is linked to.
        let names = number(program, section(number(program, header + 40, 4)?) + 24, 8)?;
        let mut library = number(program, header + 24, 8)?;
        for _ in 0..number(program, header + 44, 4)? {
            let file = text(program, names + number(program, library + 4, 4)?)?;
            let mut entry = library + number(program, library + 8, 4)?;
            for _ in 0..number(program, library + 2, 2)? {
                found.push((file.clone(), text(program, names + number(program, entry + 8, 4)?)?));
                entry += number(program, entry + 12, 4)?;
            }
            library += number(program, library + 12, 4)?;
        }
    }
    found.sort();
    Ok(found)
}

fn number(program: &[u8], offset: usize, size: usize) -> Result<usize> {
    let bytes = offset.checked_add(size).and_then(|end| program.get(offset..end)).context("it is cut short")?;
    let value = bytes.iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    // What is larger than any file is cut short, too.
    Ok(usize::try_from(value).unwrap_or(usize::MAX >> 2).min(usize::MAX >> 2))
}

fn text(program: &[u8], offset: usize) -> Result<String> {
    let rest = program.get(offset..).context("it is cut short")?;
    let end = rest.iter().position(|byte| *byte == 0).context("it is cut short")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn needs(versions: &[&str]) -> Needs {
        let versions = versions.iter().map(|name| (String::new(), (*name).to_owned())).collect();
        Needs { arch: Arch::X86, versions }
    }

    #[test]
    fn the_newest_version_counts() {
        let check = |versions: &[&str], glibc: Option<Version>, gcc: Option<u32>| {
            let needs = needs(versions);
            assert_eq!((needs.glibc(), needs.gcc()), (glibc, gcc), "{versions:?}");
        };
        check(&["GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.9"], Some(Version(2, 34)), None);
        check(&["GLIBC_2.34", "GLIBC_ABI_DT_RELR"], Some(Version(2, 36)), None);
        check(&["GLIBC_2.38", "GLIBC_ABI_DT_RELR"], Some(Version(2, 38)), None);
        check(&["GLIBCXX_3.4", "GLIBCXX_3.4.9", "GLIBCXX_3.4.30", "CXXABI_1.3.9"], None, Some(12));
        check(&[], None, None);
    }

    #[test]
    fn a_program_is_read_as_readelf_reads_it() {
        let program = std::env::current_exe().expect("this test");
        let needs = Needs::of(&fs::read(&program).expect("readable")).expect("a program");
        assert_eq!(needs.arch.name(), std::env::consts::ARCH);
        let output = Command::new("readelf").arg("-V").arg(&program).output().expect("binutils");
        let output = String::from_utf8_lossy(&output.stdout);
        let part = output.split("Version needs section").nth(1).expect("it needs some");
        let names = part.lines().filter_map(|line| line.split_once("Name: ")?.1.split_whitespace().next());
        let mut expected: Vec<&str> = names.collect();
        let mut found: Vec<&str> = needs.versions.iter().map(|(_, name)| name.as_str()).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(needs.versions.iter().any(|(library, name)| library == "libc.so.6" && name.starts_with("GLIBC_")));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        assert!(Needs::of(b"#!/bin/sh\n").is_err());
        let program = fs::read(std::env::current_exe().expect("this test")).expect("readable");
        assert!(Needs::of(&program[..program.len() / 2]).is_err(), "the section headers are at the end");
        let mut other = program.clone();
        other[18] = 243;
        assert!(Needs::of(&other).expect_err("RISC-V").to_string().contains("243"));
    }
}
