//! What requests may take together.

use std::time::Duration;

/// What requests may take of the server, all together and each.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    /// How many requests that are not exempt run at once: upstream's `--max-requests-inflight` and
    /// `--max-mutating-requests-inflight`, 400 and 200, together.
    pub seats: u32,
    /// How long a request may take that is not a watch, a log or a connection; upstream's `--request-timeout`.
    pub timeout: Duration,
    /// How many bytes the bodies of all requests may have that are being worked on and not exempt from flow control.
    pub body_bytes: usize,
    /// How many watches an account may have at once.
    pub user_watches: usize,
    /// How many watches there may be before accounts that have more than a hundred get no more.
    pub watches: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            seats: 600,
            timeout: Duration::from_secs(60),
            body_bytes: 128 * 1024 * 1024,
            user_watches: 4000,
            watches: 16_000,
        }
    }
}
