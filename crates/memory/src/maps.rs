//! What a process has mapped, as `proc_pid_smaps(5)` says it. Pure.

/// A range of addresses with the pages of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Its first address, and the first one behind it.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether the process may write there.
    writable: bool,
    /// How much of it is in memory, in kilobytes.
    pub(crate) resident: u64,
    /// How much of that is the process's own and not the file's, in kilobytes; `None` where the kernel does not say.
    anonymous: Option<u64>,
}

impl Mapping {
    /// Whether all its pages are as the file has them, and will be: they can be had from there again. Data that the loader relocated
    /// and then made read-only is not.
    pub(crate) fn is_as_in_file(&self) -> bool {
        !self.writable && self.anonymous == Some(0)
    }
}

/// The mappings of a file, by its path.
pub(crate) fn of_file(smaps: &str, path: &str) -> impl Iterator<Item = Mapping> {
    let mut lines = smaps.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let mut mapping = head(lines.next()?, path);
            while let Some((name, kilobytes)) = lines.peek().and_then(|line| value(line)) {
                match (&mut mapping, name) {
                    (Some(mapping), "Rss") => mapping.resident = kilobytes,
                    (Some(mapping), "Anonymous") => mapping.anonymous = Some(kilobytes),
                    _ => {}
                }
                lines.next();
            }
            if mapping.is_some() {
                return mapping;
            }
        }
    })
}

/// A mapping's first line: `START-END PERMISSIONS OFFSET DEVICE INODE PATH`. `None` where it is another file's.
fn head(line: &str, path: &str) -> Option<Mapping> {
    let line = line.strip_suffix(path)?;
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let writable = words.next()?.contains('w');
    // Offset, device and inode: what is left over would be the beginning of a longer path.
    (words.count() == 3).then_some(Mapping {
        start: address(start)?,
        end: address(end)?,
        writable,
        ..Mapping::default()
    })
}

/// A further line with a size: `NAME: NUMBER kB`; of flags and keys the number is none.
fn value(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    if name.contains([' ', '-']) {
        return None;
    }
    let number = rest.trim().split_once(' ').map_or(rest.trim(), |(number, _)| number);
    Some((name, number.parse().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c1000000 r--p 00000000 fe:00 1313                       /usr/bin/program
Size:              16384 kB
Rss:                4096 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
55d0c1000000-55d0c3000000 r-xp 01000000 fe:00 1313                       /usr/bin/program
Rss:                8192 kB
Anonymous:             0 kB
ProtectionKey:         0
55d0c3000000-55d0c3200000 r--p 03000000 fe:00 1313                       /usr/bin/program
Rss:                2048 kB
Anonymous:          2048 kB
55d0c3200000-55d0c3201000 rw-p 03200000 fe:00 1313                       /usr/bin/program
Rss:                   4 kB
Anonymous:             0 kB
55d0c4000000-55d0c4021000 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
Anonymous:           100 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 1414                       /opt/usr/bin/program
Rss:                   4 kB
Anonymous:             0 kB
7f0000001000-7f0000002000 r-xp 00000000 fe:00 1415                       /usr/bin/program
Rss:                   4 kB
";

    #[test]
    fn what_is_as_in_the_file() {
        let all: Vec<Mapping> = of_file(SMAPS, "/usr/bin/program").collect();
        assert_eq!(all.len(), 5);
        let resident: Vec<u64> =
            all.iter().filter(|mapping| mapping.is_as_in_file()).map(|mapping| mapping.resident).collect();
        // Neither what was relocated, nor what can be written, nor that of which it is not known.
        assert_eq!(resident, [4096, 8192]);
        assert_eq!((all[1].start, all[1].end), (0x55d0_c100_0000, 0x55d0_c300_0000));
    }

    #[test]
    fn what_is_no_mapping() {
        assert_eq!(of_file("", "/a").count(), 0);
        assert_eq!(
            of_file("nonsense /a\nzz-10 r-xp 0 fe:00 1 /a\n10-zz r-xp 0 fe:00 1 /a\n10-20 /a\nRss: 4 kB", "/a").count(),
            0
        );
        // Deleted since, or another one with a space in its name.
        assert_eq!(of_file("10-20 r-xp 0 fe:00 1 /a (deleted)\n10-20 r-xp 0 fe:00 1 /b /a", "/a").count(), 0);
        assert_eq!(of_file("10-20 r-xp 0 fe:00 1 /a (deleted)", "/a (deleted)").count(), 1);
    }
}
