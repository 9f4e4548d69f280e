//! Who may have how many watches.

use std::sync::Arc;

use machinery::status::ApiError;
use parking_lot::Mutex;

use crate::RequestLimits;
use crate::counts::Counts;

/// Whoever has no more watches than that is not refused another one because others have many.
const FEW: usize = 100;
/// After how many seconds it may be tried again.
const RETRY_AFTER: u32 = 5;

/// The watches there are. One that nobody reads keeps tens of kilobytes for as long as it lasts, and an account with a few
/// connections can ask for any number of them; upstream has no limit.
pub(crate) struct Slots {
    /// How many an account may have, and how many all have before those with more than a few get no more.
    limits: (usize, usize),
    // Never held across an await.
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    of_all: usize,
    of_user: Counts<Arc<str>>,
}

/// The place of a watch, which is free again when it is dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    user: Arc<str>,
}

impl Slots {
    pub(crate) fn new(limits: &RequestLimits) -> Arc<Self> {
        Arc::new(Self { limits: (limits.user_watches, limits.watches), watches: Mutex::default() })
    }

    /// Counts one more watch of a user.
    ///
    /// # Errors
    /// 429 when there are too many.
    pub(super) fn take(self: &Arc<Self>, user: &str) -> Result<Slot, ApiError> {
        let (of_user_max, of_all_max) = self.limits;
        let mut watches = self.watches.lock();
        let count = watches.of_user.of(user);
        if count >= of_user_max {
            let why = format!("{user} has {count} watches at once, which is as many as an account may have");
            return Err(ApiError::too_many_requests(why, RETRY_AFTER));
        }
        if watches.of_all >= of_all_max && count >= FEW {
            let why = format!("there are {} watches at once, of which {user} has {count}", watches.of_all);
            return Err(ApiError::too_many_requests(why, RETRY_AFTER));
        }
        watches.of_all += 1;
        let user: Arc<str> = user.into();
        watches.of_user.add(Arc::clone(&user));
        Ok(Slot { slots: Arc::clone(self), user })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut watches = self.slots.watches.lock();
        watches.of_all -= 1;
        watches.of_user.remove(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(of_user: usize, of_all: usize) -> Arc<Slots> {
        Slots::new(&RequestLimits { user_watches: of_user, watches: of_all, ..RequestLimits::default() })
    }

    #[test]
    fn an_account_has_so_many_and_no_more() {
        let slots = slots(2, 1000);
        let (first, _second) = (slots.take("jane").ok(), slots.take("jane").ok());
        let refused = slots.take("jane").err().expect("two are all");
        assert_eq!(
            (refused.code, refused.details.map(|details| details.retry_after_seconds)),
            (429, Some(RETRY_AFTER))
        );
        assert!(slots.take("bob").is_ok(), "others do not suffer");
        drop(first);
        assert!(slots.take("jane").is_ok());
        assert_eq!(slots.watches.lock().of_user.keys(), 1, "nobody is remembered who has none");
    }

    #[test]
    fn where_there_are_many_only_those_with_few_get_more() {
        let slots = slots(1000, 300);
        let jane: Vec<_> = (0..300).map(|_| slots.take("jane").ok()).collect();
        assert!(jane.iter().all(Option::is_some) && slots.take("jane").is_err());
        let bob: Vec<_> = (0..=FEW).map(|_| slots.take("bob").ok()).collect();
        assert!(bob[..FEW].iter().all(Option::is_some) && bob[FEW].is_none());
        drop(jane);
        assert!(slots.take("bob").is_ok());
    }
}
