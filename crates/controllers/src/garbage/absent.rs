//! Owners that are known not to exist, so that each is looked for once and not once for every dependent.

use informer::Recent;

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
#[derive(Debug)]
pub(crate) struct Absent(Recent<Reference, ()>);

impl Default for Absent {
    fn default() -> Self {
        Self(Recent::new(REMEMBERED))
    }
}

impl Absent {
    /// Remembers that there is nothing at `reference`.
    pub(crate) fn remember(&mut self, reference: Reference) {
        self.0.insert(reference, ());
    }

    /// Whether it is known that there is nothing at `reference`.
    pub(crate) fn contains(&self, reference: &Reference) -> bool {
        self.0.get(reference).is_some()
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
        assert_eq!(absent.0.len(), REMEMBERED);
    }
}
