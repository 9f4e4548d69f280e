//! Reads that nobody can make long: of regular files, of so many bytes and no more, without waiting for a writer.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use crate::open_beneath;

/// Opening a FIFO without `NONBLOCK` waits for its writer, and a terminal must not become this process's own.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Reads a file of at most `limit` bytes; a longer one is [`ErrorKind::FileTooLarge`], and what is no regular file is
/// [`ErrorKind::InvalidInput`]. Follows symbolic links: for paths that the machine's administrator cares for.
///
/// # Errors
/// As the text says, and what opening or reading a file fails with.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    whole(open(path, OFlags::empty())?, limit)
}

/// Reads at most the first `limit` bytes of a regular file that is not a symbolic link.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for what is no regular file, and what opening or reading one fails with.
pub fn read_head(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path, OFlags::NOFOLLOW)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// Reads at most the last `limit` bytes of a regular file that is not a symbolic link.
///
/// # Errors
/// As [`read_head`].
pub fn read_tail(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = open(path, OFlags::NOFOLLOW)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether the file at `path` is a regular one, no symbolic link, with exactly this content. Reads no more than that.
pub fn has_content(path: &Path, content: &[u8]) -> bool {
    let length = content.len() as u64;
    let same = || -> io::Result<bool> {
        let mut file = open(path, OFlags::NOFOLLOW)?;
        if file.metadata()?.len() != length {
            return Ok(false);
        }
        let mut found = Vec::with_capacity(content.len());
        file.by_ref().take(length).read_to_end(&mut found)?;
        Ok(found == content)
    };
    same().unwrap_or(false)
}

/// Reads a file of at most `limit` bytes at `relative` below the directory `root`, which symbolic links cannot leave.
/// Errors as of [`read`] and [`open_beneath`].
///
/// # Errors
/// As [`read`] and [`open_beneath`].
pub fn read_beneath(root: &Path, relative: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    whole(regular(open_beneath(root, relative, FLAGS)?)?, limit)
}

fn open(path: &Path, more: OFlags) -> io::Result<File> {
    regular(rustix::fs::openat(CWD, path, FLAGS | more, Mode::empty())?)
}

fn regular(file: OwnedFd) -> io::Result<File> {
    let file = File::from(file);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file")),
    }
}

fn whole(mut file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // One byte more tells a file of the limit from a longer one; the length that the file system tells may be old.
    if file.metadata()?.len() <= limit {
        file.by_ref().take(limit.saturating_add(1)).read_to_end(&mut content)?;
    }
    match content.len() as u64 <= limit && file.metadata()?.len() <= limit {
        true => Ok(content),
        false => Err(io::Error::new(ErrorKind::FileTooLarge, format!("longer than {limit} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A file that claims to be long and holds nothing.
    fn sparse(path: &Path, length: u64) {
        File::create(path).and_then(|file| file.set_len(length)).unwrap();
    }

    fn fifo(path: &Path) {
        rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    #[test]
    fn only_so_much_of_a_regular_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "0123456789").unwrap();
        symlink("file", at("link")).unwrap();
        sparse(&at("sparse"), 4 << 30);
        fifo(&at("fifo"));
        let kind = |result: io::Result<Vec<u8>>| result.map_err(|error| error.kind());

        assert_eq!(kind(read(&at("file"), 10)), Ok(b"0123456789".to_vec()));
        assert_eq!(kind(read(&at("link"), 10)), Ok(b"0123456789".to_vec()));
        assert_eq!(kind(read(&at("file"), 9)), Err(ErrorKind::FileTooLarge));
        assert_eq!(kind(read(&at("sparse"), 10)), Err(ErrorKind::FileTooLarge));
        assert_eq!(kind(read(&at("none"), 10)), Err(ErrorKind::NotFound));
        for odd in [at("fifo"), "/dev/zero".into(), folder.path().to_owned()] {
            assert_eq!(kind(read(&odd, 10)), Err(ErrorKind::InvalidInput), "{}", odd.display());
            assert!(read_tail(&odd, 10).is_err() && read_head(&odd, 10).is_err() && !has_content(&odd, b""));
        }

        assert_eq!(kind(read_tail(&at("file"), 4)), Ok(b"6789".to_vec()));
        assert_eq!(kind(read_tail(&at("file"), 40)), Ok(b"0123456789".to_vec()));
        assert_eq!(kind(read_tail(&at("sparse"), 4)), Ok(vec![0; 4]));
        assert!(read_tail(&at("link"), 4).is_err());

        assert_eq!(kind(read_head(&at("file"), 4)), Ok(b"0123".to_vec()));
        assert_eq!(kind(read_head(&at("sparse"), 4)), Ok(vec![0; 4]));
        assert!(read_head(&at("link"), 4).is_err());

        assert!(has_content(&at("file"), b"0123456789"));
        assert!(!has_content(&at("file"), b"012345678"));
        assert!(!has_content(&at("sparse"), b"0123456789"));
    }

    #[test]
    fn nothing_leads_out_of_a_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(folder.path().join("outside"), "secret").unwrap();
        fs::write(root.join("sub/file"), "text").unwrap();
        symlink("sub/file", root.join("inside")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("/dev/zero", root.join("zero")).unwrap();
        fifo(&root.join("fifo"));
        for (path, expect) in [
            ("sub/file", Ok("text")),
            ("inside", Ok("text")),
            ("none", Err(ErrorKind::NotFound)),
            ("out", Err(ErrorKind::CrossesDevices)),
            ("zero", Err(ErrorKind::CrossesDevices)),
            ("../outside", Err(ErrorKind::CrossesDevices)),
            ("/dev/zero", Err(ErrorKind::CrossesDevices)),
            ("fifo", Err(ErrorKind::InvalidInput)),
            ("sub", Err(ErrorKind::InvalidInput)),
        ] {
            let found = read_beneath(&root, Path::new(path), 4);
            let found = found.map_err(|error| error.kind());
            assert_eq!(found, expect.map(|text: &str| text.as_bytes().to_vec()), "{path}");
        }
        let long = read_beneath(&root, Path::new("sub/file"), 3).unwrap_err();
        assert_eq!(long.kind(), ErrorKind::FileTooLarge);
    }
}
