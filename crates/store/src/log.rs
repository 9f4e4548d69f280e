//! The log as it is, for people who ask what has happened and who did it.

use std::borrow::Cow;

use crate::history::{self, HistoryError};
use crate::state::Shared;
use crate::{EventKind, Key, Revision};

/// A change of one object as the log remembers it, while it is looked at.
#[derive(Debug)]
pub struct LoggedChange<'a> {
    /// The revision of the change. Changes of one transaction share it.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// When, in milliseconds since 1970 by the clock of the machine, which may jump.
    pub time: u64,
    /// The object's name.
    pub key: Key,
    /// What [`Transaction::author`](crate::Transaction::author) was; empty if nobody said.
    pub author: Cow<'a, str>,
    /// The object after the change, as it is served; for a deletion its last state.
    pub value: Cow<'a, [u8]>,
    /// The object before the change; absent for a creation.
    pub previous: Option<Cow<'a, [u8]>>,
}

/// Shows the changes after a revision, up to and with another or the newest, oldest first. Blocks on the disk, which others
/// may write between two stretches of it.
pub(crate) fn walk(
    shared: &Shared,
    after: Revision,
    upto: Revision,
    mut look: impl FnMut(&LoggedChange<'_>),
) -> Result<(), HistoryError> {
    let upto = upto.min(shared.published().revision);
    let mut reached = after;
    while reached < upto {
        reached = history::scan(shared, reached, upto, |revision, record| {
            let key = history::key(record)?;
            let value = shared.decoder.value(&key, record.key, record.value)?;
            let previous =
                record.previous.map(|(_, value)| shared.decoder.value(&key, record.key, value)).transpose()?;
            let author = String::from_utf8_lossy(record.author);
            look(&LoggedChange { revision, kind: record.kind, time: record.time, key, author, value, previous });
            Ok(None)
        })?;
    }
    Ok(())
}
