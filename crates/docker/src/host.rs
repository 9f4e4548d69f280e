//! What is quicker done on this machine than through the daemon, where the daemon is local and the privilege is there.
//!
//! Process ids that Docker tells mean something here only if the process is found in the container's control group: that is
//! checked first, so that a remote daemon's numbers never touch a process of this machine.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Kills a process of a container.
pub(crate) fn kill_in(container: &str, pid: i64) -> io::Result<()> {
    let pid = checked(container, pid)?;
    Ok(kill_process(pid, Signal::KILL)?)
}

/// Connects to a port as a process in the container's network namespace would: `127.0.0.1`, then `[::1]`.
///
/// The outer error means that this way is not available here, the inner one that nobody listens.
pub(crate) async fn connect_in(container: &str, pid: i64, port: u16) -> io::Result<io::Result<TcpStream>> {
    let pid = checked(container, pid)?;
    on_own_thread("port-forward", move || enter_and_connect(pid, port)).await?
}

/// The stack of a thread that enters a namespace. Only what is touched is memory; of it, the allocator's first steps in a new
/// thread take up to 64 KiB in a dev build, before any code of ours.
const STACK_BYTES: usize = 512 * 1024;

/// Does what enters a namespace in a thread of its own, which ends with it.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (send, receive) = tokio::sync::oneshot::channel();
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        // Nobody waits any more: the caller left.
        let _ = send.send(work());
    })?;
    receive.await.map_err(io::Error::other)
}

/// The network namespace of a process of a container, if it is another than this process is in.
pub(crate) fn other_network(container: &str, pid: i64) -> io::Result<Option<File>> {
    let pid = checked(container, pid)?;
    let theirs = File::open(format!("/proc/{}/ns/net", pid.as_raw_nonzero()))?;
    let (ours, other) = (fs::metadata("/proc/thread-self/ns/net")?, theirs.metadata()?);
    Ok(((ours.dev(), ours.ino()) != (other.dev(), other.ino())).then_some(theirs))
}

/// Whether this process may change the machine's network: routes, rules and links.
#[must_use]
pub fn may_change_network() -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    has_capability(&own_status(), "CapEff:", CAP_NET_ADMIN) == Some(true)
}

/// Why this process cannot connect pods to a bridge by itself, as far as that is known beforehand.
pub(crate) fn why_no_links(bridge: &str) -> Option<&'static str> {
    const CAP_SYS_ADMIN: u32 = 21;
    if !may_change_network() || has_capability(&own_status(), "CapEff:", CAP_SYS_ADMIN) != Some(true) {
        return Some("it needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)");
    }
    let here = Path::new("/sys/class/net").join(bridge).join("bridge").exists();
    (!here).then_some("the Docker daemon is on another machine, or in a network of its own")
}

fn own_status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// Whether the daemon may be able to give a container a negative `oom_score_adj`. What this process could never get, no
/// process of this machine has: then the answer is no. Otherwise it takes a try.
pub(crate) fn may_lower_oom_score() -> bool {
    fs::read_to_string("/proc/self/status").map_or(true, |status| bounds_sys_resource(&status))
}

/// Whether `CAP_SYS_RESOURCE` is in the bounding set of a process, from the text of its `/proc/PID/status`.
fn bounds_sys_resource(status: &str) -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    // What cannot be read rules nothing out.
    has_capability(status, "CapBnd:", CAP_SYS_RESOURCE) != Some(false)
}

/// Whether a capability is in a set of a process, from the text of its `/proc/PID/status`.
fn has_capability(status: &str, set: &str, capability: u32) -> Option<bool> {
    let set = status.lines().find_map(|line| line.strip_prefix(set))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set >> capability & 1 == 1)
}

fn enter_and_connect(pid: Pid, port: u16) -> io::Result<io::Result<TcpStream>> {
    let namespace = File::open(format!("/proc/{}/ns/net", pid.as_raw_nonzero()))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let connect = |address: SocketAddr| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    let stream = connect((Ipv4Addr::LOCALHOST, port).into())
        .or_else(|error| connect((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| error));
    Ok(stream.and_then(|stream| {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }))
}

fn checked(container: &str, pid: i64) -> io::Result<Pid> {
    let number = i32::try_from(pid).map_err(io::Error::other)?;
    // `from_raw` takes no negative number.
    let pid = (number > 0).then(|| Pid::from_raw(number)).flatten().ok_or_else(|| io::Error::other("not running"))?;
    let groups = fs::read_to_string(format!("/proc/{number}/cgroup"))?;
    if container.is_empty() || !groups.contains(container) {
        return Err(io::Error::other("not a process of this machine"));
    }
    Ok(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_tells_what_nobody_can_have() {
        let check = |status: &str, expected: bool| assert_eq!(bounds_sys_resource(status), expected, "{status}");
        check("Name:\tx\nCapBnd:\t000001ffffffffff\n", true);
        check("Name:\tx\nCapBnd:\t000001fffeffffff\n", false);
        check("Name:\tx\n", true);
        check("CapBnd:\tnonsense\n", true);
    }

    #[test]
    fn processes_of_others_are_left_alone() {
        let me = std::process::id().into();
        for container in ["", "0123456789abcdef0123456789abcdef"] {
            assert!(kill_in(container, me).is_err());
        }
        for pid in [0, -1, i64::MAX] {
            assert!(checked("x", pid).is_err());
        }
    }
}
