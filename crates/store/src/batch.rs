//! What is written together: objects, and the log of their changes, as they lie on disk.

use std::borrow::Cow;

use rocksdb::{ColumnFamily, WriteBatch};

use crate::disk::{DiskError, Result};
use crate::record::{LogRecord, ObjectRecord, log_key};
use crate::{Event, EventKind, Key, Revision, Transformer};

/// What is written together.
pub(crate) struct Batch<'a> {
    batch: WriteBatch,
    objects: &'a ColumnFamily,
    log: &'a ColumnFamily,
    transformer: Option<&'a dyn Transformer>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Batch<'a> {
    /// An empty one, for these column families.
    pub(crate) fn new(
        objects: &'a ColumnFamily,
        log: &'a ColumnFamily,
        transformer: Option<&'a dyn Transformer>,
    ) -> Self {
        Self { batch: WriteBatch::default(), objects, log, transformer, key: Vec::new(), value: Vec::new() }
    }

    /// What RocksDB writes.
    pub(crate) fn into_inner(self) -> WriteBatch {
        self.batch
    }

    /// Adds an event and what it does to its object. `number` tells the events of one transaction apart; `end` is the end of
    /// the log before. Returns its end after.
    pub(crate) fn add(&mut self, event: &Event, number: u32, time: u64, end: u64) -> Result<u64> {
        self.key.clear();
        event.entry.key.encode(&mut self.key);
        let value = self.transform(&event.entry.key, &event.entry.value)?;
        let previous = match &event.previous {
            None => None,
            Some(previous) => Some((previous.revision, self.transform(&previous.key, &previous.value)?)),
        };
        let mut record = LogRecord {
            kind: event.kind,
            time,
            end,
            create_revision: event.entry.create_revision,
            key: &self.key,
            author: event.author.as_deref().unwrap_or_default().as_bytes(),
            value: &value,
            previous: previous.as_ref().map(|(revision, value)| (*revision, &**value)),
        };
        record.end += record.size();
        self.value.clear();
        record.encode(&mut self.value);
        let end = record.end;
        self.batch.put_cf(self.log, log_key(event.revision, number), &self.value);
        if event.kind == EventKind::Deleted {
            self.batch.delete_cf(self.objects, &self.key);
        } else {
            self.value.clear();
            let object = ObjectRecord {
                revision: event.entry.revision,
                create_revision: event.entry.create_revision,
                value: &value,
            };
            object.encode(&mut self.value);
            self.batch.put_cf(self.objects, &self.key, &self.value);
        }
        Ok(end)
    }

    /// A value of the object with the key at hand, as it is written.
    fn transform<'e>(&self, key: &Key, value: &'e [u8]) -> Result<Cow<'e, [u8]>> {
        let Some(transformer) = self.transformer else { return Ok(Cow::Borrowed(value)) };
        let written = transformer.transform_to_storage(&key.resource, &self.key, value);
        written.map_err(|why| DiskError::Unreadable(format!("{key}: {why}")))
    }

    /// Adds an object, and nothing to the log.
    pub(crate) fn add_object(&mut self, key: &Key, record: &ObjectRecord<'_>) -> Result<()> {
        self.key.clear();
        key.encode(&mut self.key);
        let value = self.transform(key, record.value)?;
        self.value.clear();
        ObjectRecord { value: &value, ..*record }.encode(&mut self.value);
        self.batch.put_cf(self.objects, &self.key, &self.value);
        Ok(())
    }

    /// Writes an object again, with another value of the same meaning.
    pub(crate) fn rewrite_object(&mut self, path: &[u8], record: &ObjectRecord<'_>) {
        self.value.clear();
        record.encode(&mut self.value);
        self.batch.put_cf(self.objects, path, &self.value);
    }

    /// Writes a record of the log again, with other values of the same meaning.
    pub(crate) fn rewrite_record(&mut self, at: (Revision, u32), record: &LogRecord<'_>) {
        self.value.clear();
        record.encode(&mut self.value);
        self.batch.put_cf(self.log, log_key(at.0, at.1), &self.value);
    }

    /// The bytes of what is to be written.
    pub(crate) fn size(&self) -> usize {
        self.batch.size_in_bytes()
    }
}
