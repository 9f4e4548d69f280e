//! Who listens on a port of loopback, as the kernel tells in `/proc`.

use std::fs;
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Whether a process listens on a TCP port of 127.0.0.1, or on that of all addresses; `None` where that cannot be told.
pub(crate) fn is_listening(process: i32, port: u16) -> Option<bool> {
    let folder = Path::new("/proc").join(process.to_string());
    let sockets = fs::read_to_string(folder.join("net/tcp")).ok()?;
    let sockets6 = fs::read_to_string(folder.join("net/tcp6")).unwrap_or_default();
    let all = inodes(&sockets, port).chain(inodes(&sockets6, port));
    let wanted: Vec<String> = all.map(|inode| format!("socket:[{inode}]")).collect();
    let mut open = fs::read_dir(folder.join("fd")).ok()?.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    Some(open.any(|target| wanted.iter().any(|wanted| target.as_os_str() == wanted.as_str())))
}

/// The inodes of sockets that take connections to `port` of 127.0.0.1.
fn inodes(table: &str, port: u16) -> impl Iterator<Item = &str> {
    table.lines().filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let (address, number) = fields.nth(1)?.split_once(':')?;
        let here = address.trim_start_matches('0').is_empty() || address == "0100007F";
        let is_it = here && u16::from_str_radix(number, 16) == Ok(port) && fields.nth(1) == Some(LISTEN);
        fields.nth(5).filter(|_| is_it)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn of_this_process() {
        let here = i32::try_from(std::process::id()).expect("small");
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let listener = TcpListener::bind((address, 0)).expect("a port");
            let port = listener.local_addr().expect("bound").port();
            assert_eq!(is_listening(here, port), Some(true), "{address}");
            drop(listener);
            assert_eq!(is_listening(here, port), Some(false), "{address}");
        }
        assert_eq!(is_listening(-1, 80), None);
    }
}
