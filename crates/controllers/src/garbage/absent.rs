//! Owners that are known not to exist, so that each is looked for once and not once for every dependent.

use std::collections::{HashSet, VecDeque};

use super::graph::Text;

/// So many are remembered; the oldest are forgotten first, and looked for again if need be.
const REMEMBERED: usize = 2_048;

/// What an object says of its owner, and where that is looked for. One that has the wrong name or namespace leads nowhere and
/// says nothing of the owner that others name rightly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) uid: Text,
    pub(crate) name: Text,
    /// Empty for cluster scope.
    pub(crate) namespace: Text,
}

/// Owners that are not there. UIDs never come back.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    all: HashSet<Reference>,
    order: VecDeque<Reference>,
}

impl Absent {
    /// Remembers that there is nothing at `reference`.
    pub(crate) fn remember(&mut self, reference: Reference) {
        if !self.all.insert(reference.clone()) {
            return;
        }
        self.order.push_back(reference);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// Whether it is known that there is nothing at `reference`.
    pub(crate) fn contains(&self, reference: &Reference) -> bool {
        self.all.contains(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(uid: &str, name: &str, namespace: &str) -> Reference {
        Reference { uid: uid.into(), name: name.into(), namespace: namespace.into() }
    }

    #[test]
    fn memory_is_bounded_and_by_name_and_namespace() {
        let mut absent = Absent::default();
        for number in 0..=REMEMBERED {
            absent.remember(reference(&number.to_string(), "a", "ns"));
        }
        assert!(!absent.contains(&reference("0", "a", "ns")));
        assert!(absent.contains(&reference("1", "a", "ns")));
        assert!(!absent.contains(&reference("1", "a", "other")));
        assert!(!absent.contains(&reference("1", "b", "ns")), "another name says nothing of this one");
        assert_eq!(absent.all.len(), REMEMBERED);
    }
}
