//! Writing values again as the transformer writes them now: after a change of keys.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

use crate::Key;
use crate::disk::{Disk, DiskError, Result, damaged};
use crate::health::Health;
use crate::history;
use crate::maintain;
use crate::record::{LogRecord, ObjectRecord};
use crate::state::Shared;
use crate::transformer::Transformer;
use crate::writer::Writer;

/// How much is written together, while the writer waits.
const BATCH_BYTES: usize = 1 << 20;
/// How much is read while the writer waits.
const ROWS: usize = 4096;
/// Who waits to write has its turn between two batches.
const PAUSE: Duration = Duration::from_millis(1);

/// Writes again what is stale, objects and history, and moves everything into new tables. Returns how many objects were
/// stale. Blocks on the disk.
pub(crate) fn rewrite(shared: &Shared, writer: &Mutex<Option<Writer>>) -> Result<u64> {
    let Some(transformer) = shared.options.transformer.as_deref() else { return Ok(0) };
    // A record of the log that a compaction removes meanwhile would come back.
    let _no_compaction = shared.compacting.lock();
    let done = objects(shared, writer, transformer).and_then(|objects| {
        history(shared, transformer)?;
        with_disk(shared, Disk::purge)?;
        Ok(objects)
    });
    maintain::wake_if_failed(shared, writer);
    done
}

/// Nothing may be written before a database that failed was opened again, and the reserve of a full disk is for others.
fn with_disk<T>(shared: &Shared, work: impl FnOnce(&Disk) -> Result<T>) -> Result<T> {
    let guard = shared.disk();
    let disk = guard.as_ref().ok_or_else(|| DiskError::Io("the store is closed".to_owned()))?;
    if let Health::DiskFull(why) | Health::ReadOnly(why) = shared.health.get() {
        return Err(DiskError::Io(format!("the store cannot write just now ({why})")));
    }
    shared.fail_with(work(disk))
}

fn objects(shared: &Shared, writer: &Mutex<Option<Writer>>, transformer: &dyn Transformer) -> Result<u64> {
    let mut next = Some(Vec::new());
    let mut count = 0;
    while let Some(from) = next.take() {
        // As long as it is held, no object becomes another one.
        let Ok(writing) = writer.lock() else { return Err(DiskError::Io("the store is closed".to_owned())) };
        with_disk(shared, |disk| {
            let mut batch = disk.batch()?;
            let (mut rows, mut stale) = (0, 0);
            disk.objects(&from, |path, record| {
                if batch.size() >= BATCH_BYTES || rows >= ROWS {
                    next = Some(path.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                rows += 1;
                let key = Key::decode(path).ok_or_else(|| damaged("a key is no object's"))?;
                if transformer.is_stale(&key.resource, path, record.value) {
                    let value = again(transformer, &key, path, record.value)?;
                    batch.rewrite_object(path, &ObjectRecord { value: &value, ..record });
                    stale += 1;
                }
                Ok(ControlFlow::Continue(()))
            })?;
            count += stale;
            if stale > 0 { disk.write(batch) } else { Ok(()) }
        })?;
        drop(writing);
        std::thread::sleep(PAUSE);
    }
    Ok(count)
}

/// Records are added while this goes on, and they are not stale; those that are there are changed by nobody else.
fn history(shared: &Shared, transformer: &dyn Transformer) -> Result<()> {
    with_disk(shared, |disk| {
        let mut reader = disk.log_after(0)?;
        let mut batch = disk.batch()?;
        let mut stale = false;
        while let Some((at, record)) = reader.current_place()? {
            let key = history::key(&record)?;
            let is_stale = |value| transformer.is_stale(&key.resource, record.key, value);
            if is_stale(record.value) || record.previous.is_some_and(|(_, value)| is_stale(value)) {
                let value = again(transformer, &key, record.key, record.value)?;
                let previous = match record.previous {
                    None => None,
                    Some((revision, value)) => Some((revision, again(transformer, &key, record.key, value)?)),
                };
                let previous = previous.as_ref().map(|(revision, value)| (*revision, &**value));
                batch.rewrite_record(at, &LogRecord { value: &value, previous, ..record });
                stale = true;
            }
            if batch.size() >= BATCH_BYTES {
                disk.write(std::mem::replace(&mut batch, disk.batch()?))?;
                stale = false;
            }
            reader.advance();
        }
        if stale { disk.write(batch) } else { Ok(()) }
    })
}

fn again(transformer: &dyn Transformer, key: &Key, path: &[u8], stored: &[u8]) -> Result<Vec<u8>> {
    let failed = |why| DiskError::Unreadable(format!("{key}: {why}"));
    let value = transformer.transform_from_storage(&key.resource, path, stored).map_err(failed)?;
    transformer.transform_to_storage(&key.resource, path, &value).map(Cow::into_owned).map_err(failed)
}
