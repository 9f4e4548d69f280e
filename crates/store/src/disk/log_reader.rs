//! Reading the log.

use rocksdb::DBRawIterator;

use super::{Result, damaged};
use crate::Revision;
use crate::record::{LogRecord, parse_log_key};

/// A walk along the log.
pub(crate) struct LogReader<'a> {
    pub(super) rows: DBRawIterator<'a>,
}

impl LogReader<'_> {
    /// The record it stands at; nothing at the end.
    pub(crate) fn current(&self) -> Result<Option<(Revision, LogRecord<'_>)>> {
        Ok(self.current_place()?.map(|((revision, _), record)| (revision, record)))
    }

    /// As [`Self::current`], with the number of the record within its transaction.
    pub(crate) fn current_place(&self) -> Result<Option<((Revision, u32), LogRecord<'_>)>> {
        let Some((key, value)) = self.rows.item() else {
            self.rows.status()?;
            return Ok(None);
        };
        let parsed = parse_log_key(key).zip(LogRecord::decode(value));
        parsed.map(Some).ok_or_else(|| damaged("a record of the log is cut short"))
    }

    /// Goes on to the next record.
    pub(crate) fn advance(&mut self) {
        if self.rows.valid() {
            self.rows.next();
        }
    }
}
