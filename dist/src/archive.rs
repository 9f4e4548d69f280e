//! Files, and archives of them that are the same byte for byte whenever and wherever they are made: sorted, of root, with
//! the time of the source.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Its path, without a slash in front.
    pub(crate) path: String,
    /// Whether it can be run.
    pub(crate) is_program: bool,
    /// What is in it.
    pub(crate) content: Vec<u8>,
}

impl File {
    /// A file that is read.
    pub(crate) fn new(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), is_program: false, content: content.into() }
    }

    /// A file that is run.
    pub(crate) fn program(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self { is_program: true, ..Self::new(path, content) }
    }

    /// Its permissions.
    pub(crate) fn mode(&self) -> u32 {
        if self.is_program { 0o755 } else { 0o644 }
    }
}

/// A tar archive of these files, below `prefix`, with all folders above them. `time` is in seconds since 1970.
pub(crate) fn tar(prefix: &str, files: &[File], time: u64) -> Result<Vec<u8>> {
    let mut sorted: Vec<(String, &File)> = files.iter().map(|file| (format!("{prefix}{}", file.path), file)).collect();
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    let parents = |path: &str| -> Vec<String> {
        let parents = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
        parents.filter(|path| !path.is_empty() && *path != ".").map(str::to_owned).collect()
    };
    let folders: BTreeSet<String> = sorted.iter().flat_map(|(path, _)| parents(path)).collect();
    let mut archive = Builder::new(Vec::new());
    for folder in folders {
        let mut header = header(EntryType::Directory, 0o755, time);
        append(&mut archive, &mut header, &format!("{folder}/"), &[])?;
    }
    for (path, file) in sorted {
        let mut header = header(EntryType::Regular, file.mode(), time);
        header.set_size(file.content.len() as u64);
        append(&mut archive, &mut header, &path, &file.content)?;
    }
    Ok(archive.into_inner()?)
}

/// Appends a file under the path as it is written: the library would leave out the dot in front that Debian's archives have.
fn append(archive: &mut Builder<Vec<u8>>, header: &mut Header, path: &str, content: &[u8]) -> Result<()> {
    header.set_username("root")?;
    header.set_groupname("root")?;
    let name = &mut header.as_old_mut().name;
    if !path.starts_with("./") || path.len() >= name.len() {
        return Ok(archive.append_data(header, path, content)?);
    }
    name.fill(0);
    name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    Ok(archive.append(header, content)?)
}

fn header(kind: EntryType, mode: u32, time: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mtime(time);
    header
}

/// Compresses at a level from 1 to 9.
pub(crate) fn gzip(content: &[u8], level: u32) -> Result<Vec<u8>> {
    // No name, no time, and "unknown" as the system that made it.
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::new(level));
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_files_is_no_part_of_an_archive() {
        let one = File::new("share/b", "b");
        let two = File::program("bin/a", "a");
        let archive = tar("x/", &[one.clone(), two.clone()], 1_700_000_000).expect("an archive");
        assert_eq!(archive, tar("x/", &[two, one], 1_700_000_000).expect("an archive"));
        assert_eq!(gzip(&archive, 9).expect("compressed"), gzip(&archive, 9).expect("compressed"));

        let mut read = tar::Archive::new(&archive[..]);
        let entries: Vec<_> = read
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                let path = entry.path().expect("a path").display().to_string();
                let numbers = [header.uid(), header.gid(), header.mtime()].map(|number| number.expect("a number"));
                (path, header.mode().expect("a mode"), numbers)
            })
            .collect();
        let numbers = [0, 0, 1_700_000_000];
        let expected =
            [("x/", 0o755), ("x/bin/", 0o755), ("x/share/", 0o755), ("x/bin/a", 0o755), ("x/share/b", 0o644)];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode, numbers)));
    }

    #[test]
    fn long_paths_are_kept_whole() {
        let path = format!("{}/file", "folder/".repeat(30).trim_end_matches('/'));
        let archive = tar("./", &[File::new(&path, "x")], 0).expect("an archive");
        let mut read = tar::Archive::new(&archive[..]);
        let last = read.entries().expect("entries").last().expect("one").expect("an entry");
        assert_eq!(last.path().expect("a path").display().to_string().trim_start_matches("./"), path);
    }
}
