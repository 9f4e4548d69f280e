//! Tests of the store as a whole: what one client, many clients and watchers see, and what they must not see.

mod damage;
mod failure;
mod import;
mod memory;
mod model;

use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use tempfile::TempDir;

pub(crate) use failure::Faults;

use crate::*;

const PODS: &str = "core/pods";
const NODES: &str = "core/nodes";

/// A store in a directory of its own, with rings of four events.
fn open() -> (Store, TempDir) {
    let dir = TempDir::new().unwrap();
    (reopen(dir.path()), dir)
}

fn reopen(path: &std::path::Path) -> Store {
    let mut options = Options::new(path);
    options.ring = 4;
    Store::open(options, attributes_of).unwrap()
}

/// The objects of these tests are words around their revision; the first word is the label `word`.
fn attributes_of(key: &Key, value: &[u8]) -> Attributes {
    let text = String::from_utf8_lossy(value);
    let word = text.split('@').next().unwrap_or_default();
    Attributes::new([("word", word)], [("metadata.name", &*key.name)])
}

fn encoded(word: &str) -> Encoded {
    Encoded::new(format!("{word}@!"), word.len() + 1)
}

fn put_in(resource: &str, name: &str, word: &str, precondition: Precondition) -> Op {
    let key = Key::new(resource, "default", name);
    Op::Put { attributes: attributes_of(&key, word.as_bytes()), key, value: encoded(word), precondition }
}

fn put(name: &str, word: &str) -> Op {
    put_in(PODS, name, word, Precondition::Any)
}

fn delete(name: &str, word: &str) -> Op {
    Op::Delete { key: pod(name), last: encoded(word), precondition: Precondition::Any }
}

fn pod(name: &str) -> Key {
    Key::new(PODS, "default", name)
}

fn value(entry: &Entry) -> &str {
    std::str::from_utf8(&entry.value).unwrap()
}

fn shown(event: &Event) -> String {
    let previous = event.previous.as_deref().map_or("-", value);
    format!("{:?} {} {previous}", event.kind, value(&event.entry))
}

/// The next event, which must come; a broken watcher fails the test rather than stopping it.
async fn next(watcher: &mut Watcher) -> Result<String, WatchError> {
    let next = tokio::time::timeout(Duration::from_secs(20), watcher.next());
    Ok(shown(&*next.await.expect("an event is due")?))
}

#[tokio::test]
async fn what_is_committed_is_read_and_watched_and_survives() {
    let (store, dir) = open();
    let mut watcher = store.watch(PODS, 0).unwrap();
    assert_eq!(store.revision(), 0);

    let first = store.commit(put("a", "one")).await.unwrap();
    assert_eq!(first.revision, 1);
    assert_eq!(value(&first.entries[0]), "one@1!");
    store.commit(put("a", "two")).await.unwrap();
    let gone = store.commit(delete("a", "end")).await.unwrap();
    assert_eq!(value(&gone.entries[0]), "end@3!");
    store.commit(put("b", "new")).await.unwrap();

    assert_eq!(store.get(&pod("a")), None);
    let entry = store.get(&pod("b")).unwrap();
    assert_eq!((entry.revision, entry.create_revision), (4, 4));
    let snapshot = store.snapshot(PODS);
    assert_eq!((snapshot.len(), snapshot.revision()), (1, 4));

    let expected = ["Created one@1! -", "Updated two@2! one@1!", "Deleted end@3! two@2!", "Created new@4! -"];
    for event in expected {
        assert_eq!(next(&mut watcher).await.unwrap(), event);
    }
    assert!(watcher.try_next().is_none());
    assert_eq!(watcher.progress(), 4);

    store.close().await;
    assert!(matches!(watcher.next().await, Err(WatchError::Closed)));
    assert!(matches!(store.commit(put("c", "x")).await, Err(CommitError::Closed)));

    let again = reopen(dir.path());
    assert_eq!(again.revision(), 4);
    assert_eq!(again.get(&pod("b")).unwrap(), entry);
    let mut watcher = again.watch(PODS, 1).unwrap();
    for event in &expected[1..] {
        assert_eq!(next(&mut watcher).await.unwrap(), *event);
    }
    assert_eq!(again.commit(put("c", "x")).await.unwrap().revision, 5);
}

#[tokio::test]
async fn a_compaction_leaves_the_first_record_after_it_wherever_it_lies() {
    let (store, dir) = open();
    for name in ["a", "b", "c"] {
        store.commit(put(name, name)).await.unwrap();
    }
    // The last of a file.
    store.shared().disk().as_ref().unwrap().purge().unwrap();
    assert_eq!(store.compact(2).await.unwrap(), 2);
    store.close().await;
    let store = reopen(dir.path());
    let mut watcher = store.watch(PODS, 2).unwrap();
    assert_eq!(next(&mut watcher).await.unwrap(), "Created c@3! -");
}

#[tokio::test]
async fn a_transaction_is_one_revision_in_all_resources() {
    let (store, _dir) = open();
    let mut pods = store.watch(PODS, 0).unwrap();
    let ops = vec![put("a", "x"), put_in(NODES, "n", "y", Precondition::Absent), put("b", "z")];
    let committed = store.commit(ops).await.unwrap();
    assert_eq!(committed.revision, 1);
    assert_eq!(committed.entries.len(), 3);
    assert_eq!(store.snapshot(PODS).len(), 2);
    assert_eq!(store.snapshot(NODES).len(), 1);

    assert_eq!(next(&mut pods).await.unwrap(), "Created x@1! -");
    // One event of the revision is still to come.
    assert_eq!(pods.progress(), 0);
    assert_eq!(next(&mut pods).await.unwrap(), "Created z@1! -");
    assert_eq!(pods.progress(), 1);

    let refused = vec![put("c", "x"), put_in(NODES, "n", "y", Precondition::Absent)];
    match store.commit(refused).await {
        Err(CommitError::Conflict { op, current }) => {
            assert_eq!((op, value(&current.unwrap())), (1, "y@1!"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get(&pod("c")), None);
    assert_eq!(store.revision(), 1);

    // What happens elsewhere moves a bookmark on.
    store.commit(put_in(NODES, "m", "y", Precondition::Any)).await.unwrap();
    assert_eq!(pods.progress(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_seen_before_it_is_durable() {
    let (store, _dir) = open();
    store.commit(put("a", "old")).await.unwrap();
    let mut watcher = store.watch(PODS, 1).unwrap();

    let before = store.stats();
    let (first, commits) = {
        let gate = store.shared().options.faults.gate.lock().unwrap();
        // The first finds nobody else, and stands at the gate itself.
        let first = tokio::spawn({
            let store = store.clone();
            async move { store.commit(put("a", "new")).await }
        });
        while !store.is_writing() {
            std::thread::yield_now();
        }
        let commits: Vec<_> = (1..50)
            .map(|n| {
                let op = match n {
                    1 => put_in(PODS, "a", "late", Precondition::Revision(1)),
                    _ => put(&format!("p{n}"), "new"),
                };
                let store = store.clone();
                let mut commit = Box::pin(async move { store.commit(op).await });
                // Polled once, it is in the queue.
                assert!((&mut commit).now_or_never().is_none());
                commit
            })
            .collect();
        // Nothing of all this shows.
        for _ in 0..20 {
            std::thread::yield_now();
            assert_eq!(store.revision(), 1);
            assert_eq!(value(&store.get(&pod("a")).unwrap()), "old@1!");
            assert_eq!(store.snapshot(PODS).len(), 1);
            assert!(watcher.try_next().is_none());
            assert_eq!(watcher.progress(), 1);
        }
        drop(gate);
        (first, commits)
    };
    let mut outcomes = vec![first.await.unwrap()];
    outcomes.extend(join_all(commits).await);
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(CommitError::Conflict { current, .. }) => {
                // It shows what an earlier transaction wrote, perhaps of the same batch.
                assert_eq!((n, value(&current.unwrap())), (1, "new@2!"));
            }
            other => assert!(other.is_ok(), "{n}: {other:?}"),
        }
    }
    assert_eq!(store.revision(), 50);
    for revision in 2..=50 {
        let event = watcher.next().await.unwrap();
        assert_eq!(event.revision, revision);
    }
    // One was at the gate, perhaps with a few more; all others were gathered meanwhile.
    let after = store.stats();
    assert!(after.batch.count - before.batch.count <= 3, "{after:?}");
    assert_eq!((after.commits, after.conflicts), (50, 1));
}

/// One after the other, each is written by who brings it; together, by the thread. Both take turns here.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn alone_or_together_all_is_committed_once() {
    let (store, _dir) = open();
    for round in 0..20 {
        for n in 0..5 {
            store.commit(put(&format!("alone{n}"), &format!("r{round}"))).await.unwrap();
        }
        let together = (0..8).map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..3 {
                    store.commit(put(&format!("together{n}"), "x")).await.unwrap();
                }
            })
        });
        for done in join_all(together).await {
            done.unwrap();
        }
    }
    assert_eq!(store.revision(), 20 * (5 + 8 * 3));
    assert_eq!(store.stats().commits, store.revision());
    assert_eq!(value(&store.get(&pod("alone4")).unwrap()), "r19@556!");
    store.close().await;
    let refused = store.commit(put("late", "x")).await;
    assert!(matches!(refused, Err(CommitError::Closed)), "{refused:?}");
}

#[tokio::test]
async fn a_watcher_that_fell_behind_reads_the_log() {
    let (store, _dir) = open();
    let mut watcher = store.watch(PODS, 0).unwrap();
    // Far more than the ring holds or a watcher takes at once, among others'.
    for n in 1..=600 {
        let resource = if n % 2 == 0 { NODES } else { PODS };
        let op = put_in(resource, &format!("p{}", n % 7), "w", Precondition::Any);
        store.commit(op).await.unwrap();
    }
    for revision in (1..=600).step_by(2) {
        let event = watcher.next().await.unwrap();
        assert_eq!(event.revision, revision);
        assert_eq!(event.entry.attributes.label("word"), Some("w"));
    }
    assert_eq!(watcher.progress(), 600);
    assert!(store.stats().log_reads > 0);

    // One that waits is woken again.
    let waiting = tokio::spawn(async move { watcher.next().await.map(|e| e.revision) });
    tokio::task::yield_now().await;
    store.commit(put("x", "w")).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 601);
}

#[tokio::test]
async fn what_grew_old_in_memory_is_read_from_the_log() {
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    options.ring_age = Duration::from_millis(20);
    let store = Store::open(options, attributes_of).unwrap();
    for n in 1..=50 {
        store.commit(put(&format!("p{n}"), "w")).await.unwrap();
    }
    // Nothing else happens, and still the events go, the newest too.
    while store.stats().log_reads == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(store.watch(PODS, 49).unwrap().next().await.unwrap().revision, 50);
    }
    let mut watcher = store.watch(PODS, 0).unwrap();
    for revision in 1..=50 {
        assert_eq!(watcher.next().await.unwrap().revision, revision);
    }
    store.commit(put("new", "w")).await.unwrap();
    assert_eq!(watcher.next().await.unwrap().revision, 51);
}

#[tokio::test]
async fn before_the_horizon_there_is_nothing() {
    let (store, dir) = open();
    for n in 1..=40 {
        store.commit(put(&format!("p{}", n % 10), "w")).await.unwrap();
    }
    let mut behind = store.watch(PODS, 10).unwrap();
    let (quiet, gone) = (store.watch(NODES, 3), store.watch(PODS, 29));
    assert_eq!(store.compact(30).await.unwrap(), 30);
    assert_eq!(store.compact(20).await.unwrap(), 30);
    let expected = Compacted { requested: 10, horizon: 30 };
    assert!(matches!(behind.next().await, Err(WatchError::Compacted(c)) if c == expected));
    assert_eq!(store.watch(PODS, 10).err(), Some(expected));
    assert_eq!(expected.to_string(), "revision 10 has been compacted: the oldest one is 30");
    assert!(matches!(gone.unwrap().next().await, Err(WatchError::Compacted(_))));
    assert!(matches!(store.snapshot_at(PODS, 29).await, Err(HistoryError::Compacted(_))));
    assert!(matches!(store.snapshot_at(PODS, 41).await, Err(HistoryError::Future { .. })));
    assert!(store.compact(41).await.is_err());
    // A resource of which nothing was lost can still be watched from then on.
    let mut quiet = quiet.unwrap();
    store.commit(put_in(NODES, "n", "w", Precondition::Any)).await.unwrap();
    assert_eq!(next(&mut quiet).await.unwrap(), "Created w@41! -");

    // At the horizon, all is there.
    let mut watcher = store.watch(PODS, 30).unwrap();
    for revision in 31..=40 {
        assert_eq!(watcher.next().await.unwrap().revision, revision);
    }
    let snapshot = store.snapshot_at(PODS, 30).await.unwrap();
    let revisions: Vec<_> = snapshot.iter().map(|e| e.revision).collect();
    assert_eq!(revisions, [30, 21, 22, 23, 24, 25, 26, 27, 28, 29]);

    // All of the log may go; the revisions go on.
    assert_eq!(store.compact(41).await.unwrap(), 41);
    drop((watcher, quiet));
    store.close().await;
    let again = reopen(dir.path());
    assert_eq!(again.revision(), 41);
    assert!(again.watch(PODS, 40).is_err());
    let mut watcher = again.watch(PODS, 41).unwrap();
    again.commit(put("z", "w")).await.unwrap();
    assert_eq!(next(&mut watcher).await.unwrap(), "Created w@42! -");
}

#[tokio::test]
async fn the_log_stays_within_its_bounds_by_itself() {
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    options.retain_revisions = 20;
    options.compact_every = Duration::from_secs(3600);
    let store = Store::open(options, attributes_of).unwrap();
    for n in 1..=200 {
        store.commit(put(&format!("p{n}"), "w")).await.unwrap();
    }
    // It lags behind by an eighth at most, once it has run.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.stats().horizon < 175 {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.compact_now().await.unwrap(), 180);
    store.close().await;

    // Too old is what was written before the store was opened with this setting.
    let mut options = Options::new(dir.path());
    options.retain_age = Duration::ZERO;
    options.compact_every = Duration::from_millis(5);
    let store = Store::open(options, attributes_of).unwrap();
    while store.stats().horizon < 200 {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.snapshot(PODS).len(), 200);
}

#[tokio::test]
async fn after_a_burst_the_memory_of_what_was_written_is_given_back() {
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    options.compact_every = Duration::from_millis(50);
    let store = Store::open(options, attributes_of).unwrap();
    let word = "w".repeat(100 << 10);
    for n in 0..25 {
        store.commit(put(&format!("p{n}"), &word)).await.unwrap();
    }
    let in_memory = || store.shared().disk().as_ref().unwrap().in_memory().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while in_memory() > 1 << 20 {
        assert!(std::time::Instant::now() < deadline, "{} bytes are held", in_memory());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close().await;
    assert_eq!(reopen(dir.path()).snapshot(PODS).len(), 25);
}

#[tokio::test]
async fn the_log_of_all_resources_is_followed() {
    let (store, _dir) = open();
    let told = |changes: &[Change]| -> Vec<String> {
        let change = |c: &Change| format!("{} {:?} {} {} {}", c.revision, c.kind, c.key, c.create_revision, c.size);
        changes.iter().map(change).collect()
    };
    store.commit(put("a", "one")).await.unwrap();
    store.commit(put_in(NODES, "n", "x", Precondition::Any)).await.unwrap();
    store.commit(put("a", "three")).await.unwrap();
    store.commit(delete("a", "end")).await.unwrap();
    let pods = "/registry/core/pods/default/a";
    let mut all = store.watch_log(0, |_| true).unwrap();
    let expected = [
        format!("1 Created {pods} 1 6"),
        "2 Created /registry/core/nodes/default/n 2 4".to_owned(),
        format!("3 Updated {pods} 1 8"),
        format!("4 Deleted {pods} 1 6"),
    ];
    assert_eq!(told(&all.next().await.unwrap()), expected);
    assert_eq!(all.reached(), 4);
    // What is of no interest is passed over, and what comes later is waited for.
    let mut some = store.watch_log(1, |key| &*key.resource == PODS).unwrap();
    assert_eq!(told(&some.next().await.unwrap()), expected[2..]);
    assert!(some.next().now_or_never().is_none());
    let ((), changes) = tokio::join!(
        async {
            store.commit(put_in(NODES, "m", "x", Precondition::Any)).await.unwrap();
            store.commit(put("b", "x")).await.unwrap();
        },
        some.next()
    );
    assert_eq!(told(&changes.unwrap()), ["6 Created /registry/core/pods/default/b 6 4"]);

    // More than is read at once comes in parts, each revision whole.
    for n in 0..300 {
        store.commit(Transaction::from(vec![put(&format!("p{n}"), "x"), put(&format!("q{n}"), "x")])).await.unwrap();
    }
    let mut many = store.watch_log(6, |_| true).unwrap();
    let mut revisions = Vec::new();
    while many.reached() < store.revision() {
        let changes = many.next().await.unwrap();
        assert!(changes.len() <= 256 && changes.last().unwrap().revision == many.reached());
        revisions.extend(changes.iter().map(|change| change.revision));
    }
    assert_eq!(revisions, (7..=306).flat_map(|revision| [revision, revision]).collect::<Vec<_>>());

    store.compact(100).await.unwrap();
    assert!(matches!(all.next().await, Err(WatchError::Compacted(Compacted { requested: 4, horizon: 100 }))));
    assert!(store.watch_log(99, |_| true).is_err());
    store.close().await;
    assert!(matches!(many.next().await, Err(WatchError::Closed)));
    let resources = store.resources();
    assert_eq!(resources.iter().map(|resource| &**resource).collect::<Vec<_>>(), [NODES, PODS]);
}

#[tokio::test]
async fn the_log_remembers_who_asked() {
    let (store, dir) = open();
    let by = |op: Op, author: &str| Transaction { author: Some(author.into()), ..op.into() };
    store.commit(by(put("a", "one"), "somebody")).await.unwrap();
    store.commit(put("a", "two")).await.unwrap();
    store.commit(by(delete("a", "end"), "somebody else")).await.unwrap();
    for n in 0..5000 {
        store.commit(put_in(NODES, &format!("n{}", n % 7), "x", Precondition::Any)).await.unwrap();
    }
    let told = |store: &Store, after: Revision, upto: Revision| {
        let mut told = Vec::new();
        let result = store.walk_log(after, upto, |c| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (value, previous) = (text(&c.value), c.previous.as_deref().map(text));
            assert!(c.time > 1_700_000_000_000);
            told.push(format!("{} {:?} {} {value} {previous:?} by {}", c.revision, c.kind, c.key.name, c.author));
        });
        result.map(|()| told)
    };
    let expected = [
        r#"1 Created a one@1! None by somebody"#,
        r#"2 Updated a two@2! Some("one@1!") by "#,
        r#"3 Deleted a end@3! Some("two@2!") by somebody else"#,
    ];
    assert_eq!(told(&store, 0, 3).unwrap(), expected);
    store.close().await;
    drop(store);
    let store = reopen(dir.path());
    assert_eq!(told(&store, 1, 2).unwrap(), expected[1..2]);
    // More than is read at once; and what has not happened is not waited for.
    assert_eq!(told(&store, 0, Revision::MAX).unwrap().len(), 5003);
    assert_eq!(told(&store, 5003, Revision::MAX).unwrap().len(), 0);
    store.compact(100).await.unwrap();
    assert_eq!(told(&store, 99, 101).unwrap_err().to_string(), "revision 99 has been compacted: the oldest one is 100");
    assert_eq!(told(&store, 100, 101).unwrap().len(), 1);
}

#[tokio::test]
async fn a_snapshot_is_the_same_until_its_resource_is_written() {
    let (store, _dir) = open();
    let empty = store.snapshot(PODS);
    assert!(empty.is_same(&store.snapshot(PODS)));
    store.commit(put("a", "one")).await.unwrap();
    let one = store.snapshot(PODS);
    assert!(!one.is_same(&empty));
    store.commit(put_in(NODES, "n", "x", Precondition::Any)).await.unwrap();
    assert!(one.is_same(&store.snapshot(PODS)), "another resource was written");
    store.commit(put("a", "one")).await.unwrap();
    let written = store.snapshot(PODS);
    assert!(!one.is_same(&written));
    store.commit(delete("a", "end")).await.unwrap();
    assert!(!written.is_same(&store.snapshot(PODS)));
    assert!(empty.is_same(&store.snapshot(PODS)), "there is nothing again");
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_revision() {
    let (store, _dir) = open();
    for n in 0..30 {
        store.commit(put(&format!("p{n:02}"), "w")).await.unwrap();
    }
    let first = store.snapshot(PODS);
    let mut names: Vec<String> = Vec::new();
    loop {
        // Between two pages, everything changes: some rings suffice to take it back, others do not.
        for n in 0..names.len() + 1 {
            store.commit(put(&format!("p{:02}", n * 3), "x")).await.unwrap();
            let _ = store.commit(delete(&format!("p{:02}", n * 3 + 1), "x")).await;
            store.commit(put(&format!("q{n}"), "x")).await.unwrap();
        }
        let page = store.snapshot_at(PODS, first.revision()).await.unwrap();
        assert_eq!(page.revision(), 30);
        assert_eq!(page.len(), 30);
        let last = names.last().cloned();
        let after = last.as_deref().map(|name| ("default", name));
        let before = names.len();
        let left = page.count(Some("default"), after);
        assert_eq!(left, 30 - before);
        for entry in page.range(Some("default"), after).take(4) {
            assert!(value(entry).starts_with("w@"));
            names.push(entry.key.name.to_string());
        }
        if names.len() == before {
            break;
        }
    }
    let expected: Vec<String> = (0..30).map(|n| format!("p{n:02}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn dropping_the_last_copy_closes_the_store() {
    let (store, dir) = open();
    let copy = store.clone();
    let mut watcher = store.watch(PODS, 0).unwrap();
    copy.commit(put("a", "x")).await.unwrap();
    drop(store);
    copy.commit(put("b", "x")).await.unwrap();
    drop(copy);
    assert!(watcher.next().await.is_ok());
    assert!(watcher.next().await.is_ok());
    assert!(matches!(watcher.next().await, Err(WatchError::Closed)));
    assert_eq!(reopen(dir.path()).revision(), 2);
}

#[tokio::test]
async fn statistics_count() {
    let (store, _dir) = open();
    store.commit(put("a", "x")).await.unwrap();
    store.commit(put_in(NODES, "n", "x", Precondition::Any)).await.unwrap();
    let _ = store.commit(put_in(NODES, "n", "x", Precondition::Absent)).await;
    let stats = store.stats();
    assert_eq!((stats.revision, stats.commits, stats.conflicts), (2, 2, 1));
    let objects: Vec<_> = stats.objects.iter().map(|(r, n)| (&**r, *n)).collect();
    assert_eq!(objects, [(NODES, 1), (PODS, 1)]);
    assert_eq!((stats.fsync.count, stats.batch.count), (2, 2));
    assert!(stats.log_bytes > 0);
}
