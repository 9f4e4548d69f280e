//! What a writer asks for, and what it gets.

use std::sync::Arc;

use crate::{Attributes, Encoded, Entry, Key, Revision};

/// A set of changes that happen together or not at all, under one revision.
///
/// Preconditions are all checked against the state before the transaction. One key may be changed once.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The changes and the conditions, in the order in which watchers see them.
    pub ops: Vec<Op>,
    /// Whether it is taken while the disk is full: for what deletes, or leads to it.
    pub uses_reserve: bool,
    /// Who asks for it, in the words of whoever does: the log keeps it, and tells it to who reads it
    /// ([`Store::walk_log`](crate::Store::walk_log)).
    pub author: Option<Arc<str>>,
}

impl Transaction {
    /// A transaction of one change.
    pub fn one(op: Op) -> Self {
        vec![op].into()
    }
}

impl From<Op> for Transaction {
    fn from(op: Op) -> Self {
        Self::one(op)
    }
}

impl From<Vec<Op>> for Transaction {
    /// One that may use the reserve if it only deletes.
    fn from(ops: Vec<Op>) -> Self {
        let uses_reserve = ops.iter().all(|op| !matches!(op, Op::Put { .. }));
        Self { ops, uses_reserve, author: None }
    }
}

/// One change, or one condition.
#[derive(Clone, Debug)]
pub enum Op {
    /// Creates or replaces an object.
    Put {
        /// Its name.
        key: Key,
        /// Its new state.
        value: Encoded,
        /// What selectors ask for.
        attributes: Attributes,
        /// What must be there before.
        precondition: Precondition,
    },
    /// Deletes an object. That it is not there is a conflict, whatever is expected.
    Delete {
        /// Its name.
        key: Key,
        /// Its last state, as the event of the deletion shows it.
        last: Encoded,
        /// What must be there before.
        precondition: Precondition,
    },
    /// Changes nothing, but refuses the transaction unless the condition holds.
    Check {
        /// The name.
        key: Key,
        /// What must be there.
        precondition: Precondition,
    },
}

impl Op {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }

    /// The condition it makes.
    pub fn expect(&self) -> Precondition {
        match self {
            Self::Put { precondition, .. } | Self::Delete { precondition, .. } | Self::Check { precondition, .. } => {
                *precondition
            }
        }
    }
}

/// A precondition on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such object.
    Absent,
    /// The object was last written by this revision.
    Revision(Revision),
    /// No condition.
    Any,
}

/// A transaction that is durable and visible.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its revision. A transaction that changed nothing has the revision it was checked at.
    pub revision: Revision,
    /// The new entry of each put and the last state of each delete, in the order of the operations; checks leave nothing.
    pub entries: Vec<Arc<Entry>>,
}

/// Why a transaction was not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold. Nothing was changed.
    #[error("operation {op} of the transaction found another revision than it expected")]
    Conflict {
        /// The index of the operation.
        op: usize,
        /// What is there instead.
        current: Option<Arc<Entry>>,
    },
    /// The transaction makes no sense. Nothing was changed.
    #[error("operation {op} of the transaction is invalid: {reason}")]
    Invalid {
        /// The index of the operation.
        op: usize,
        /// Why.
        reason: &'static str,
    },
    /// The store has been closed. Nothing was changed.
    #[error("the store is closed")]
    Closed,
    /// The disk is full, and the transaction may not use the reserve. Nothing was changed.
    #[error("the disk of the store is full ({0}): only deletes are accepted; free some space there")]
    DiskFull(Arc<str>),
    /// This write failed and left nothing, or an earlier one did, and the database could not be opened again yet. Nothing was
    /// changed.
    #[error(
        "the store cannot write ({0}): nothing is accepted until it can, which it tries by itself; see to its disk"
    )]
    ReadOnly(Arc<str>),
    /// A value of the transaction cannot be transformed for the disk now. Nothing was changed.
    #[error("the store cannot encrypt the object ({0}): nothing of it is written until it can")]
    NotReady(Arc<str>),
    /// The write of this transaction failed, and the database could not be opened again at once to find out what the disk
    /// holds of it. If that finds it whole later, it happens after all, and readers and watchers see it then.
    #[error("the write failed ({0}), and it is not known yet whether it was done: look before trying again")]
    Uncertain(Arc<str>),
}
