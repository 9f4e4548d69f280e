//! How many files the process may have open, and how they are shared out.
//!
//! What clients and pods can make it open is bounded well below the limit, so that the store, which needs one for each
//! new file of the database, always gets its own.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the components need of their own: the database (64 tables and its logs), Docker, netlink, listeners, volumes.
const RESERVED: u64 = 1024;
/// How many connections are served at most, and at least where the limit is very low.
const CONNECTIONS: (u64, u64) = (64, 10_000);
/// The same for the proxy of Ingresses.
const GATEWAY: (u64, u64) = (32, 1024);

/// Raises the limit as far as the system allows without asking anybody.
pub(crate) fn raise_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays what it is");
    }
}

/// How many connections the proxy of Ingresses may have, and requests at backends: each takes one more. An eighth of what is
/// not reserved is for them.
pub(crate) fn gateway_connections(limit: u64) -> usize {
    let connections = (limit.saturating_sub(RESERVED) / 16).clamp(GATEWAY.0, GATEWAY.1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// How many files may be open.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections the API server may have. Half of what is not reserved is for them, and each may take two: an exec
/// or a forwarded port has one to Docker or to the pod as well. The other half is for
/// node ports, Ingresses and DNS.
pub(crate) fn api_connections(limit: u64) -> usize {
    let share = limit.saturating_sub(RESERVED) / 2;
    let connections = (share / 2).clamp(CONNECTIONS.0, CONNECTIONS.1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_the_store_its_own() {
        for (limit, expect) in [(u64::MAX, 10_000), (1 << 20, 10_000), (20_000, 4744), (4096, 768), (1024, 64), (0, 64)]
        {
            assert_eq!(api_connections(limit), expect, "{limit}");
        }
        for (limit, expect) in [(u64::MAX, 1024), (20_000, 1024), (4096, 192), (1024, 32), (0, 32)] {
            assert_eq!(gateway_connections(limit), expect, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), limit());
    }
}
