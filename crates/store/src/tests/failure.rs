//! Writes that fail, and how the store gets over them.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::disk::{DiskError, Result};

/// How the disk of a test misbehaves.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    fault: AtomicU8,
    /// Whoever holds it holds up every write.
    pub(crate) gate: Mutex<()>,
}

/// No fault.
const NONE: u8 = 0;
/// Nothing is written.
const NOT_WRITTEN: u8 = 1;
/// It is written, but not known to be: a failed sync.
const NOT_SYNCED: u8 = 2;
/// Nothing is written, and the database does not open.
const DEAD: u8 = 3;
/// Nothing is written, and the database does not open, for lack of space.
const FULL: u8 = 4;

impl Faults {
    pub(crate) fn writing(&self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        let _open = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        match self.fault.load(SeqCst) {
            NONE => return write(),
            // Once, since the database that is opened next is another one.
            NOT_SYNCED => {
                self.fault.store(NONE, SeqCst);
                write()?;
            }
            NOT_WRITTEN => self.fault.store(NONE, SeqCst),
            _ => {}
        }
        Err(DiskError::Io("Input/output error".to_owned()))
    }

    pub(crate) fn opening(&self) -> Result<(), String> {
        match self.fault.load(SeqCst) {
            DEAD => Err("Too many open files".to_owned()),
            FULL => Err("No space left on device".to_owned()),
            _ => Ok(()),
        }
    }
}

fn set(store: &Store, fault: u8) {
    store.shared().options.faults.fault.store(fault, SeqCst);
}

/// Waits until the store is in such a state.
async fn until(store: &Store, state: impl FnMut(&Health) -> bool) -> Health {
    let mut health = store.watch_health();
    let found = tokio::time::timeout(Duration::from_secs(20), health.wait_for(state)).await;
    found.expect("the state comes in time").unwrap().clone()
}

async fn healthy(store: &Store) {
    until(store, |health| *health == Health::Healthy).await;
}

#[tokio::test]
async fn reads_and_watches_go_on_while_nothing_can_be_written() {
    refuses_and_recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_watches_go_on_while_nothing_can_be_written_from_anywhere() {
    refuses_and_recovers().await;
}

async fn refuses_and_recovers() {
    let (store, dir) = open();
    for n in 1..=20 {
        store.commit(put("a", &format!("old{n}"))).await.unwrap();
    }
    let mut watcher = store.watch(PODS, 20).unwrap();
    let mut behind = store.watch(PODS, 1).unwrap();
    set(&store, DEAD);
    let ops = ["a", "b", "c"].map(|name| store.commit(put(name, "new")));
    let outcomes = join_all(ops).await;
    assert!(matches!(outcomes[0], Err(CommitError::Uncertain(_))), "{outcomes:?}");
    for outcome in &outcomes {
        assert!(matches!(outcome, Err(CommitError::Uncertain(_) | CommitError::ReadOnly(_))), "{outcome:?}");
    }
    let health = until(&store, |health| *health == Health::ReadOnly("Input/output error".into()) || says_files(health));
    assert_ne!(health.await, Health::Healthy);
    let refused = store.commit(put("d", "new")).await.unwrap_err();
    assert!(matches!(refused, CommitError::ReadOnly(_)), "{refused:?}");
    assert!(refused.to_string().starts_with("the store cannot write ("), "{refused}");
    // The reason is kept up to date.
    until(&store, says_files).await;
    assert_eq!(store.revision(), 20);
    assert_eq!(value(&store.get(&pod("a")).unwrap()), "old20@20!");
    assert_eq!(store.snapshot(PODS).len(), 1);
    assert!(watcher.next().now_or_never().is_none());
    assert!(matches!(behind.next().await, Err(WatchError::Io(_))), "the log cannot be read, which is not the end");

    set(&store, NONE);
    healthy(&store).await;
    assert_eq!(next(&mut behind).await.unwrap(), "Updated old2@2! old1@1!");
    // Nothing of the failed revisions is on disk, so the first of them is used now.
    assert_eq!(store.commit(put("d", "new")).await.unwrap().revision, 21);
    assert_eq!(next(&mut watcher).await.unwrap(), "Created new@21! -");
    drop((watcher, behind));
    store.close().await;
    let again = reopen(dir.path());
    assert_eq!((again.revision(), again.snapshot(PODS).len()), (21, 2));
}

fn says_files(health: &Health) -> bool {
    matches!(health, Health::ReadOnly(why) if why.contains("Too many open files"))
}

#[tokio::test]
async fn a_database_without_space_to_open_is_read_until_there_is_some() {
    let (store, dir) = open();
    store.commit(put("a", "kept")).await.unwrap();
    let revision = store.commit(put("b", "kept")).await.unwrap().revision;
    store.close().await;

    let options = Options::new(dir.path());
    options.faults.fault.store(FULL, SeqCst);
    let fresh = tempfile::tempdir().unwrap();
    let nothing = Options { path: fresh.path().join("new"), ..options.clone() };
    let refused = Store::open(nothing, attributes_of).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|text| text.contains("No space left on device")), "there is nothing to read");

    let store = Store::open(options, attributes_of).unwrap();
    let health = store.watch_health().borrow().clone();
    assert!(matches!(&health, Health::ReadOnly(why) if why.contains("No space left on device")), "{health:?}");
    assert_eq!(value(&store.get(&pod("a")).unwrap()), "kept@1!");
    let mut watcher = store.watch(PODS, revision).unwrap();
    let refused = store.commit(delete("a", "end")).await.unwrap_err();
    assert!(matches!(refused, CommitError::ReadOnly(_)), "{refused:?}");

    set(&store, NONE);
    healthy(&store).await;
    assert_eq!(store.commit(put("c", "new")).await.unwrap().revision, revision + 1);
    assert_eq!(next(&mut watcher).await.unwrap(), format!("Created new@{}! -", revision + 1));
    drop(watcher);
    store.close().await;
    assert_eq!(reopen(dir.path()).snapshot(PODS).len(), 3);
}

#[tokio::test]
async fn a_write_that_failed_as_a_whole_leaves_nothing() {
    let (store, _dir) = open();
    store.commit(put("a", "old")).await.unwrap();
    set(&store, NOT_WRITTEN);
    let refused = store.commit(vec![put("a", "new"), put("b", "new")]).await.unwrap_err();
    // It is known, since the database has been opened again.
    assert!(matches!(refused, CommitError::ReadOnly(_)), "{refused:?}");
    healthy(&store).await;
    assert_eq!(store.get(&pod("b")), None);
    let first = put_in(PODS, "b", "second", Precondition::Absent);
    let second = put_in(PODS, "a", "second", Precondition::Revision(1));
    assert_eq!(store.commit(vec![first, second]).await.unwrap().revision, 2);
    assert_eq!(value(&store.get(&pod("a")).unwrap()), "second@2!");
}

/// A full disk's store is opened again in a moment, and whoever makes space must not be sent away meanwhile.
#[tokio::test]
async fn a_delete_waits_until_the_store_is_open_again() {
    let (store, _dir) = open();
    for name in ["a", "b"] {
        store.commit(put(name, "old")).await.unwrap();
    }
    set(&store, DEAD);
    store.commit(put("c", "new")).await.unwrap_err();
    until(&store, says_files).await;
    let deleting = tokio::spawn({
        let store = store.clone();
        async move { join_all(["a", "b"].map(|name| store.commit(delete(name, "end")))).await }
    });
    let refused = store.commit(put("d", "new")).await.unwrap_err();
    assert!(matches!(refused, CommitError::ReadOnly(_)), "a write does not wait: {refused:?}");
    assert!(!deleting.is_finished());
    set(&store, NONE);
    for deleted in deleting.await.unwrap() {
        deleted.unwrap();
    }
    assert!(store.snapshot(PODS).is_empty());
}

#[tokio::test]
async fn what_was_written_after_all_is_shown_once_it_is_known() {
    let (store, dir) = open();
    store.commit(vec![put("a", "old"), put("b", "old")]).await.unwrap();
    let mut watcher = store.watch(PODS, 1).unwrap();
    let mut nodes = store.watch(NODES, 1).unwrap();
    set(&store, NOT_SYNCED);
    let ops = vec![put("a", "new"), delete("b", "end"), put_in(NODES, "n", "first", Precondition::Absent)];
    assert_eq!(store.commit(ops).await.unwrap().revision, 2);
    healthy(&store).await;
    // Its revision is not used for anything else.
    assert_eq!(store.revision(), 2);
    assert_eq!(next(&mut watcher).await.unwrap(), "Updated new@2! old@1!");
    assert_eq!(next(&mut watcher).await.unwrap(), "Deleted end@2! old@1!");
    assert_eq!(next(&mut nodes).await.unwrap(), "Created first@2! -");
    assert_eq!(value(&store.get(&pod("a")).unwrap()), "new@2!");
    let entry = store.get(&Key::new(NODES, "default", "n")).unwrap();
    assert_eq!(entry.attributes.label("word"), Some("first"));
    assert_eq!(store.commit(put("b", "again")).await.unwrap().revision, 3);
    assert_eq!(next(&mut watcher).await.unwrap(), "Created again@3! -");
    store.close().await;
    let again = reopen(dir.path());
    assert_eq!((again.revision(), again.snapshot(PODS).len()), (3, 2));
}

/// Failures of all kinds among many writers: what was acknowledged is there, once, under its revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_many_failures() {
    let (store, dir) = open();
    let writers = (0..4).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut refused = Vec::new();
            let mut failures = 0;
            for turn in 0.. {
                match store.commit(put(&format!("w{n}-{turn}"), "x")).await {
                    Ok(committed) => acknowledged.push((turn, committed.revision)),
                    Err(CommitError::Uncertain(_)) => failures += 1,
                    Err(CommitError::ReadOnly(_)) => {
                        failures += 1;
                        refused.push(turn);
                        tokio::task::yield_now().await;
                    }
                    Err(other) => panic!("{other}"),
                }
                if acknowledged.len() == 200 {
                    break;
                }
            }
            (n, acknowledged, refused, failures)
        })
    });
    let writers: Vec<_> = writers.collect();
    for round in 0..20_u64 {
        let goal = store.revision() + 10;
        set(&store, if round % 2 == 0 { NOT_WRITTEN } else { NOT_SYNCED });
        while store.revision() < goal && !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut failures = 0;
    let mut revisions = std::collections::BTreeSet::new();
    for done in join_all(writers).await {
        let (n, acknowledged, refused, failed) = done.unwrap();
        failures += failed;
        for turn in refused {
            assert_eq!(store.get(&pod(&format!("w{n}-{turn}"))), None, "it was refused");
        }
        for (turn, revision) in acknowledged {
            let entry = store.get(&pod(&format!("w{n}-{turn}"))).expect("it was acknowledged");
            assert_eq!((entry.revision, value(&entry)), (revision, format!("x@{revision}!").as_str()));
            assert!(revisions.insert(revision), "{revision} was handed out twice");
        }
    }
    assert!(failures > 0);
    set(&store, NONE);
    healthy(&store).await;
    let before: Vec<_> = store.snapshot(PODS).iter().cloned().collect();
    store.close().await;
    let again = reopen(dir.path());
    assert_eq!(again.snapshot(PODS).iter().cloned().collect::<Vec<_>>(), before);
}

/// Puts a letter before each value of a pod: a cipher that anybody can read.
#[derive(Debug)]
struct Letter(AtomicU8);

impl crate::Transformer for Letter {
    fn ready(&self, resource: &str) -> Result<(), String> {
        if resource == PODS && self.0.load(SeqCst) == 0 { Err("no letter is left".to_owned()) } else { Ok(()) }
    }

    fn transform_to_storage<'a>(&self, resource: &str, _: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        if resource != PODS {
            return Ok(Cow::Borrowed(value));
        }
        Ok(Cow::Owned([&[self.0.load(SeqCst)], value].concat()))
    }

    fn transform_from_storage<'a>(&self, resource: &str, _: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        match value {
            _ if resource != PODS => Ok(Cow::Borrowed(value)),
            [b'A' | b'B', value @ ..] => Ok(Cow::Borrowed(value)),
            _ => Err("no letter".to_owned()),
        }
    }

    fn is_stale(&self, resource: &str, _: &[u8], value: &[u8]) -> bool {
        resource == PODS && value.first() != Some(&self.0.load(SeqCst))
    }
}

/// While others write, and although the disk fails in the midst of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_written_again_once_the_disk_takes_them() {
    let dir = TempDir::new().unwrap();
    let letter = std::sync::Arc::new(Letter(AtomicU8::new(b'A')));
    let options = Options { transformer: Some(letter.clone()), ballast: 0, ring: 4, ..Options::new(dir.path()) };
    let store = Store::open(options.clone(), attributes_of).unwrap();
    for n in 0..50 {
        store.commit(put(&format!("p{n}"), "x")).await.unwrap();
        store.commit(put_in(NODES, &format!("n{n}"), "y", Precondition::Any)).await.unwrap();
    }
    letter.0.store(b'B', SeqCst);
    store.shared().health.set(Health::DiskFull("no space".into()));
    assert!(store.rewrite().await.is_err(), "the reserve is for deletes");
    store.shared().health.set(Health::Healthy);
    set(&store, NOT_WRITTEN);
    assert!(store.rewrite().await.is_err());
    healthy(&store).await;
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..50 {
                store.commit(put(&format!("p{n}"), "z")).await.unwrap();
            }
        }
    });
    assert!(store.rewrite().await.unwrap() <= 50);
    writing.await.unwrap();
    assert_eq!(store.rewrite().await.unwrap(), 0, "nothing is left to be done");
    store.close().await;
    let store = Store::open(options, attributes_of).unwrap();
    assert_eq!(store.revision(), 150);
    let mut watcher = store.watch(PODS, 0).unwrap();
    assert_eq!(next(&mut watcher).await.unwrap(), "Created x@1! -");
    for n in 0..50 {
        let entry = store.get(&pod(&format!("p{n}"))).unwrap();
        assert_eq!((value(&entry), entry.create_revision), (format!("z@{}!", 101 + n).as_str(), 2 * n + 1));
    }
    drop(watcher);
    store.close().await;
    let db =
        rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), dir.path(), ["objects", "log", "meta"], false);
    let db = db.unwrap();
    let log = db.iterator_cf(db.cf_handle("log").unwrap(), rocksdb::IteratorMode::Start);
    let values = log.map(|row| String::from_utf8_lossy(&row.unwrap().1).into_owned());
    assert!(values.into_iter().all(|value| !value.contains("Ax@")), "the history is written again, too");
}

#[tokio::test]
async fn what_cannot_be_transformed_is_refused_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let letter = std::sync::Arc::new(Letter(AtomicU8::new(b'A')));
    let options = Options { transformer: Some(letter.clone()), ballast: 0, ..Options::new(dir.path()) };
    let store = Store::open(options, attributes_of).unwrap();
    store.commit(put("a", "x")).await.unwrap();
    letter.0.store(0, SeqCst);
    for refused in [store.commit(put("b", "x")).await, store.commit(delete("a", "x")).await] {
        assert!(matches!(&refused, Err(CommitError::NotReady(why)) if &**why == "no letter is left"), "{refused:?}");
    }
    assert_eq!(*store.watch_health().borrow(), Health::Healthy);
    store.commit(put_in(NODES, "n", "y", Precondition::Any)).await.unwrap();
    assert_eq!(store.revision(), 2, "what was refused took no revision");
    letter.0.store(b'B', SeqCst);
    store.commit(delete("a", "x")).await.unwrap();
    assert!(store.get(&pod("a")).is_none());
}
