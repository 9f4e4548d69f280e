//! The objects of one resource as of one revision.

use std::sync::Arc;

use crate::index::Index;
use crate::{Entry, Revision};

/// The objects of one resource as of one revision, ordered by namespace, then name.
///
/// It costs nothing to take or to copy, and nothing that happens later changes it. Whoever holds one keeps the objects of
/// that revision in memory, so do not hold it for long.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: Revision,
    index: Index,
}

impl Snapshot {
    pub(crate) fn new(revision: Revision, index: Index) -> Self {
        Self { revision, index }
    }

    /// The revision it shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing was written to the resource between the two: at once, however many objects there are. For who keeps what
    /// was made of one. After the database was opened again it may be false of equal ones.
    pub fn is_same(&self, other: &Self) -> bool {
        self.index.is_same(&other.index)
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Entry>> {
        self.index.get(namespace, name)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.index.iter()
    }

    /// The objects of one namespace, or of all; only those behind `after` (namespace, name), where that is given. The object
    /// that `after` names need not exist.
    pub fn range<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.index.range(namespace, after)
    }

    /// How many objects [`range`](Self::range) with the same arguments yields. The whole resource is counted at once; a part is
    /// walked through, without looking at the objects.
    pub fn count(&self, namespace: Option<&str>, after: Option<(&str, &str)>) -> usize {
        match (namespace, after) {
            (None, None) => self.len(),
            _ => self.range(namespace, after).count(),
        }
    }
}
