//! Owners that are known not to exist, so that each is looked for once and not once for every dependent.

use std::collections::{HashSet, VecDeque};

use super::graph::Text;

/// So many are remembered; the oldest are forgotten first, and looked for again if need be.
const REMEMBERED: usize = 2_048;

/// UIDs that are not there. An owner may be absent in one namespace and present in another. UIDs never come back.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    all: HashSet<(Text, Text)>,
    order: VecDeque<(Text, Text)>,
}

impl Absent {
    /// Remembers that `uid` is not in `namespace` (empty for cluster scope).
    pub(crate) fn remember(&mut self, uid: Text, namespace: Text) {
        let entry = (uid, namespace);
        if !self.all.insert(entry.clone()) {
            return;
        }
        self.order.push_back(entry);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// Whether `uid` is known not to be in `namespace`.
    pub(crate) fn contains(&self, uid: &Text, namespace: &Text) -> bool {
        self.all.contains(&(uid.clone(), namespace.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_by_namespace() {
        let mut absent = Absent::default();
        for number in 0..=REMEMBERED {
            absent.remember(number.to_string().into(), "ns".into());
        }
        assert!(!absent.contains(&"0".into(), &"ns".into()));
        assert!(absent.contains(&"1".into(), &"ns".into()));
        assert!(!absent.contains(&"1".into(), &"other".into()));
        assert_eq!(absent.all.len(), REMEMBERED);
    }
}
