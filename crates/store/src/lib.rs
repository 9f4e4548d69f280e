//! Objects under keys, each change with a revision, on RocksDB.
//!
//! The store keeps bytes and never knows what kind of object they are. It is what etcd is to Kubernetes, in one process:
//!
//! | column family | key | value |
//! |---|---|---|
//! | `objects` | `/registry/GROUP/RESOURCE/NAMESPACE/NAME` | revision, creation revision, the object's JSON as it is served |
//! | `log` | revision, number within the transaction | operation, key, value, previous value, time |
//! | `meta` | `format`, `horizon` | a number |
//!
//! A [`Transformer`] may change values on their way to the disk and back, to encrypt them; what is in memory is not changed.
//!
//! Prefixes and column families that fall out of use stay reserved for ever.
//!
//! **Writing.** One thread takes all transactions that wait, checks each against the objects in memory (as the earlier ones
//! of the same batch leave them), gives those that pass consecutive revisions, writes one batch and syncs once. Then it
//! shows the batch to readers and watchers, and answers. Meanwhile the next batch gathers. A transaction that comes alone
//! is a batch of its own, written by the task that brings it.
//!
//! **Reading** happens in memory alone: an ordered map for each resource, of which a snapshot costs nothing.
//!
//! **Watching.** Each resource has a ring of recent events; a [`Watcher`] is a cursor into it, woken once for each batch. One
//! that falls behind reads the log on disk, until that has been compacted. A [`LogWatcher`] reads the log of all resources,
//! for people.
//!
//! What always holds:
//! - A revision is visible only once it is durable.
//! - Revisions have no gaps and are never used twice, also after `kill -9`. A witness beside the database tells a
//!   write-ahead log that was damaged from one that a crash cut short: the store is not opened then.
//! - All changes of a transaction share its revision and become visible together, in all resources.
//! - After a failed write nothing more is written until the database was opened again and read, since before that it is not
//!   known what the disk holds. Reads and watches go on meanwhile, and [`Store::health`] says so.
//! - A full disk leaves room for deletes: a ballast file is given back for them, and made again when there is space.
//!   Without space even to open the database, it is opened for reading, and again once there is some.

mod attributes;
mod entry;
mod health;
mod key;
mod options;
mod torn;
mod transaction;
mod transformer;

mod changes;
mod history;
mod import;
mod log;
mod past;
mod snapshot;
mod stats;
mod store;
mod watch;

mod ballast;
mod batch;
mod compact;
mod disk;
mod index;
mod maintain;
mod record;
mod recover;
mod rewrite;
mod ring;
mod stage;
mod state;
mod witness;
mod writer;

#[cfg(test)]
mod tests;

pub use attributes::Attributes;
pub use changes::{Change, LogWatcher};
pub use entry::{Encoded, Entry, Event, EventKind, FrameEncoding};
pub use health::Health;
pub use history::{Compacted, HistoryError};
pub use import::{Imported, import, newest_revision};
pub use key::Key;
pub use log::LoggedChange;
pub use options::{OpenError, Options};
pub use past::{Moment, Past};
pub use snapshot::Snapshot;
pub use stats::{Histogram, Stats};
pub use store::Store;
pub use transaction::{CommitError, Committed, Op, Precondition, Transaction};
pub use transformer::Transformer;
pub use watch::{WatchError, Watcher};

/// The number of a change, counted over all resources from 1. What the API calls `resourceVersion`.
pub type Revision = u64;
