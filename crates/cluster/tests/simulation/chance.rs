//! Chance that can be repeated.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// xorshift: small, and the same everywhere. Shared by all that draw from it.
pub(crate) struct Chance(Mutex<u64>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        usize::try_from(*state % bound as u64).expect("below")
    }

    pub(crate) fn one_in(&self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn up_to(&self, time: Duration) -> Duration {
        let millis = usize::try_from(time.as_millis()).expect("short");
        Duration::from_millis(self.below(millis.max(1)) as u64)
    }
}
