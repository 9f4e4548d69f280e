//! What cannot be opened, and what the user is told: one line, with the way out.

// Shown when a test fails.
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

async fn filled() -> TempDir {
    let (store, dir) = open();
    for n in 0..200 {
        store.commit(put(&format!("p{n}"), &"w".repeat(500))).await.unwrap();
    }
    store.close().await;
    dir
}

fn refusal(path: &Path) -> OpenError {
    let mut options = Options::new(path);
    options.ring = 4;
    match Store::open(options, attributes_of) {
        Ok(store) => panic!("opened at revision {}", store.revision()),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains('\n') && line.len() < 600, "{line:?}");
            assert!(line.contains(&*path.to_string_lossy()), "{line}");
            error
        }
    }
}

/// The largest file of a kind.
fn file(dir: &Path, suits: impl Fn(&str) -> bool) -> PathBuf {
    let files = files(dir, suits).into_iter();
    files.max_by_key(|f| fs::metadata(f).unwrap().len()).unwrap()
}

fn files(dir: &Path, suits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    files.filter(|f| suits(&f.file_name().unwrap().to_string_lossy())).collect()
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    for byte in &mut bytes[at..at + 8] {
        *byte = !*byte;
    }
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_store_in_use() {
    let (store, dir) = open();
    match refusal(dir.path()) {
        OpenError::Locked { pid, .. } => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    // The one that has it did not notice.
    store.commit(put("a", "x")).await.unwrap();
    store.close().await;
    assert_eq!(reopen(dir.path()).revision(), 1);
}

#[tokio::test]
async fn a_place_that_cannot_be_written() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = refusal(&file.join("store"));
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
    let error = refusal(&file);
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
}

#[tokio::test]
async fn damaged_files() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 6] = [
        ("a write-ahead log with a flipped byte", |dir| {
            flip(&file(dir, |f| f.ends_with(".log")), |len| len / 2);
        }),
        ("tables with a flipped byte", |dir| {
            // Opening it once more makes tables of the write-ahead log.
            drop(reopen(dir));
            for table in files(dir, |f| f.ends_with(".sst")) {
                flip(&table, |len| len / 4);
            }
        }),
        ("a manifest of zeros", |dir| {
            fs::write(file(dir, |f| f.starts_with("MANIFEST")), [0; 100]).unwrap();
        }),
        ("no manifest", |dir| {
            fs::remove_file(file(dir, |f| f.starts_with("MANIFEST"))).unwrap();
        }),
        ("no head", |dir| {
            fs::remove_file(dir.join("CURRENT")).unwrap();
        }),
        ("a missing table", |dir| {
            drop(reopen(dir));
            fs::remove_file(file(dir, |f| f.ends_with(".sst"))).unwrap();
        }),
    ];
    for (what, damage) in cases {
        let dir = filled().await;
        damage(dir.path());
        println!("{what}");
        let error = refusal(dir.path());
        assert!(matches!(error, OpenError::Corrupt { .. }), "{what}: {error:?}");
    }
}

/// What a crash in the midst of a write leaves: a part of the record, and no witness of it.
#[tokio::test]
async fn a_write_that_was_cut_short_was_never_acknowledged() {
    let (store, dir) = open();
    for n in 0..199 {
        store.commit(put(&format!("p{n}"), "w")).await.unwrap();
    }
    let witness = fs::read(dir.path().join(WITNESS)).unwrap();
    store.commit(put("p199", &"w".repeat(500))).await.unwrap();
    store.close().await;
    fs::write(dir.path().join(WITNESS), witness).unwrap();
    let log = newest_log(dir.path());
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 100]).unwrap();
    let store = reopen(dir.path());
    assert_eq!(store.revision(), 199);
    assert_eq!(store.snapshot(PODS).len(), 199);
    assert_eq!(store.commit(put("x", "w")).await.unwrap().revision, 200);
}

/// What a crash leaves where the file system had made the file longer already: zeros instead of the rest of the record.
#[tokio::test]
async fn a_write_that_ends_in_zeros_was_never_acknowledged() {
    // The last record lies in one block, or in several.
    for length in [500, 100_000] {
        let (store, dir) = open();
        for n in 0..19 {
            store.commit(put(&format!("p{n}"), "w")).await.unwrap();
        }
        let witness = fs::read(dir.path().join(WITNESS)).unwrap();
        let log = newest_log(dir.path());
        let before = fs::metadata(&log).unwrap().len() as usize;
        store.commit(put("p19", &"w".repeat(length))).await.unwrap();
        store.close().await;
        let bytes = fs::read(&log).unwrap();
        for kept in [before, before + 3, before + HEADER, before + 50, before + length - 1, bytes.len() - 1] {
            let mut torn = bytes[..kept].to_vec();
            torn.resize(bytes.len().next_multiple_of(4096) + 4096, 0);
            // To whoever saw it acknowledged, it is lost.
            let acknowledged = copy(dir.path());
            fs::write(acknowledged.path().join(log.file_name().unwrap()), &torn).unwrap();
            assert!(!is_whole_or_refused(acknowledged.path(), 20), "{kept} of {}", bytes.len());
            let crashed = copy(dir.path());
            fs::write(crashed.path().join(WITNESS), &witness).unwrap();
            fs::write(crashed.path().join(log.file_name().unwrap()), &torn).unwrap();
            assert!(is_whole_or_refused(crashed.path(), 19), "{kept} of {}", bytes.len());
            assert!(is_whole_or_refused(crashed.path(), 19), "once more: {kept} of {}", bytes.len());
        }
    }
}

#[tokio::test]
async fn who_has_accepted_losses_is_not_told_to_do_so() {
    let dir = filled().await;
    fs::remove_file(file(dir.path(), |f| f.starts_with("MANIFEST"))).unwrap();
    let error = refusal(dir.path());
    assert!(error.to_string().contains("--accept-data-loss"), "{error}");
    let options = Options { accept_loss: true, ballast: 0, ..Options::new(dir.path()) };
    let error = Store::open(options, attributes_of).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Unrecoverable { .. }), "{error:?}");
    let line = error.to_string();
    assert!(!line.contains("--accept-data-loss") && line.contains("restore the directory from a copy"), "{line}");
}

const WITNESS: &str = "coracle.witness";

fn newest_log(dir: &Path) -> PathBuf {
    files(dir, |f| f.ends_with(".log")).into_iter().max().unwrap()
}

/// The header of a record: checksum (4), length (2), kind (1).
const HEADER: usize = 7;

/// Where the records of a write-ahead log of one block begin.
fn record_starts(log: &[u8]) -> Vec<usize> {
    assert!(log.len() < 32 << 10);
    let mut starts = vec![0];
    while let Some(header) = log.get(starts[starts.len() - 1]..).and_then(|rest| rest.get(..HEADER)) {
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        starts.push(starts[starts.len() - 1] + HEADER + length);
    }
    assert_eq!(starts.pop(), Some(log.len()));
    starts
}

/// A copy of a directory without what is taken as it is: ballast, lock.
fn copy(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in files(dir, |f| f != "coracle.ballast") {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}

/// Opens the store if it can be, and says whether all is there; else it must say that it is damaged.
fn is_whole_or_refused(dir: &Path, revision: Revision) -> bool {
    let options = Options { ballast: 0, ..Options::new(dir) };
    match Store::open(options, attributes_of) {
        Ok(store) => {
            assert_eq!(store.revision(), revision, "a lost revision will be used again");
            let objects: Vec<_> = store.snapshot(PODS).iter().map(|e| (e.revision, e.value.len())).collect();
            assert_eq!(objects.len() as u64, revision);
            true
        }
        Err(OpenError::Corrupt { .. } | OpenError::Lost { .. }) => false,
        Err(other) => panic!("{other:?}"),
    }
}

/// One flipped bit, anywhere in the headers and bodies of the records that were written last: nothing is lost in silence.
#[tokio::test]
async fn a_flipped_bit_in_the_write_ahead_log() {
    let (store, dir) = open();
    for n in 0..20 {
        store.commit(put(&format!("p{n}"), &"w".repeat(300))).await.unwrap();
    }
    store.close().await;
    let log = newest_log(dir.path());
    let name = log.file_name().unwrap().to_owned();
    let bytes = fs::read(&log).unwrap();
    let [.., before, last] = record_starts(&bytes)[..] else { panic!("records") };
    let headers = [before, last].into_iter().flat_map(|start| start..start + HEADER);
    let mut places: Vec<usize> = headers.chain((last..bytes.len()).step_by(23)).collect();
    places.extend([0, 4, 5, 6, 7, bytes.len() / 2, bytes.len() - 1]);
    let mut refused = 0;
    for place in places {
        for bit in [0, 3, 7] {
            let copy = copy(dir.path());
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << bit;
            fs::write(copy.path().join(&name), &damaged).unwrap();
            if !is_whole_or_refused(copy.path(), 20) {
                refused += 1;
                // What it was refused for is still there, and so it is the next time.
                assert_eq!(fs::read(copy.path().join(&name)).unwrap(), damaged, "byte {place}, bit {bit}");
                assert!(!is_whole_or_refused(copy.path(), 20), "byte {place}, bit {bit}");
            }
        }
    }
    assert!(refused > 60, "{refused}");
}

/// The same in a log of many blocks, whose records lie across their borders.
#[tokio::test]
async fn a_flipped_bit_in_a_long_write_ahead_log() {
    let dir = filled().await;
    let log = newest_log(dir.path());
    let bytes = fs::read(&log).unwrap();
    let block = 32 << 10;
    assert!(bytes.len() > 3 * block, "{}", bytes.len());
    // Headers at the beginning of blocks, and anywhere.
    let borders = (0..bytes.len()).step_by(block).flat_map(|start| [start + 4, start + 5, start + 6]);
    let anywhere = (0..bytes.len()).step_by(bytes.len() / 40);
    for place in borders.chain(anywhere).filter(|place| *place < bytes.len()) {
        let copy = copy(dir.path());
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (place % 8);
        fs::write(copy.path().join(log.file_name().unwrap()), &damaged).unwrap();
        is_whole_or_refused(copy.path(), 200);
    }
}

#[tokio::test]
async fn a_write_ahead_log_that_ends_too_early() {
    let dir = filled().await;
    let log = newest_log(dir.path());
    let name = log.file_name().unwrap().to_owned();
    let bytes = fs::read(&log).unwrap();
    for kept in [0, 1, 7, 100, bytes.len() / 3, bytes.len() / 2, bytes.len() - 2_000, bytes.len() - 1] {
        let copy = copy(dir.path());
        fs::write(copy.path().join(&name), &bytes[..kept]).unwrap();
        assert!(!is_whole_or_refused(copy.path(), 200), "{kept} of {}", bytes.len());
    }
    let copy = copy(dir.path());
    fs::remove_file(copy.path().join(&name)).unwrap();
    let error = refusal(copy.path());
    assert!(matches!(error, OpenError::Lost { durable: 200, found: 0, .. } | OpenError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_lost_is_given_up_on_request_and_its_revisions_are_not_used_again() {
    let dir = filled().await;
    let log = newest_log(dir.path());
    let bytes = fs::read(&log).unwrap();
    for damage in [
        |bytes: &[u8]| bytes[..bytes.len() - 100].to_vec(),
        |bytes: &[u8]| {
            let mut flipped = bytes.to_vec();
            flipped[bytes.len() / 2] ^= 1;
            flipped
        },
    ] {
        let copy = copy(dir.path());
        fs::write(copy.path().join(log.file_name().unwrap()), damage(&bytes)).unwrap();
        refusal(copy.path());
        let options = Options { accept_loss: true, ..Options::new(copy.path()) };
        let store = Store::open(options, attributes_of).unwrap();
        let kept = store.snapshot(PODS).len();
        assert!((90..200).contains(&kept), "{kept}");
        let revision = store.revision();
        assert!(revision > 1_000_000, "{revision}");
        assert!(store.watch(PODS, 150).is_err(), "watchers begin anew");
        let next = store.commit(put("x", "w")).await.unwrap();
        assert_eq!(next.revision, revision + 1);
        store.close().await;
        // From now on, it is as good as any.
        let again = reopen(copy.path());
        assert_eq!((again.revision(), again.snapshot(PODS).len()), (revision + 1, kept + 1));
    }
}

#[tokio::test]
async fn a_history_that_disagrees_with_the_objects_is_given_up_on_request() {
    let dir = filled().await;
    tamper(dir.path(), |db| {
        let log = db.cf_handle("log").unwrap();
        db.delete_cf(log, crate::record::log_key(198, 0)).unwrap();
    });
    let error = refusal(dir.path());
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    let options = Options { accept_loss: true, ..Options::new(dir.path()) };
    let store = Store::open(options, attributes_of).unwrap();
    let revision = store.revision();
    assert!(revision > 1_000_000, "{revision}");
    assert_eq!(store.snapshot(PODS).len(), 200);
    assert_eq!(store.commit(put("x", "w")).await.unwrap().revision, revision + 1);
    store.close().await;
    assert_eq!(reopen(dir.path()).snapshot(PODS).len(), 201);
}

#[tokio::test]
async fn an_unreadable_witness() {
    let dir = filled().await;
    fs::write(dir.path().join(WITNESS), [7; 5000]).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(&error, OpenError::Corrupt { detail, .. } if detail.contains(WITNESS)), "{error:?}");
}

/// Without its witness, nobody would see what a store has lost.
#[tokio::test]
async fn a_witness_that_somebody_removed() {
    let dir = filled().await;
    let witness = dir.path().join(WITNESS);
    fs::remove_file(&witness).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(&error, OpenError::Corrupt { detail, .. } if detail.contains("is gone")), "{error:?}");
    assert!(!witness.exists(), "nothing is written before somebody decides");
    let options = Options { accept_loss: true, ..Options::new(dir.path()) };
    let store = Store::open(options, attributes_of).unwrap();
    assert!(store.revision() > 200 && store.snapshot(PODS).len() == 200, "{}", store.revision());
    store.close().await;
    assert_eq!(reopen(dir.path()).snapshot(PODS).len(), 200, "it has a witness again");
}

#[tokio::test]
async fn a_store_of_an_earlier_version_gets_a_witness() {
    let dir = filled().await;
    let forget = |key: &str| tamper(dir.path(), |db| db.delete_cf(db.cf_handle("meta").unwrap(), key).unwrap());
    forget("witness");
    fs::remove_file(dir.path().join(WITNESS)).unwrap();
    let store = reopen(dir.path());
    assert_eq!(store.revision(), 200);
    store.commit(put("x", "w")).await.unwrap();
    store.close().await;
    // From now on there must be one.
    fs::remove_file(dir.path().join(WITNESS)).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::Corrupt { .. }));
}

/// Changes what is on disk behind the store's back.
fn tamper(dir: &Path, change: impl Fn(&rocksdb::DB)) {
    let families = ["objects", "log", "meta"];
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir, families).unwrap();
    change(&db);
}

#[tokio::test]
async fn a_log_and_objects_that_disagree() {
    let key = b"/registry/core/pods/default/p199";
    type Change = fn(&rocksdb::DB, &[u8]);
    let cases: [(&str, Change); 6] = [
        ("an object less", |db, key| {
            db.delete_cf(db.cf_handle("objects").unwrap(), key).unwrap();
        }),
        ("an object from the future", |db, key| {
            let objects = db.cf_handle("objects").unwrap();
            db.put_cf(objects, key, [9; 20]).unwrap();
        }),
        ("an object cut short", |db, key| {
            db.put_cf(db.cf_handle("objects").unwrap(), key, b"short").unwrap();
        }),
        ("a key that is none", |db, _| {
            let objects = db.cf_handle("objects").unwrap();
            db.put_cf(objects, b"/other", [0; 20]).unwrap();
        }),
        ("a gap in the log", |db, _| {
            let log = db.cf_handle("log").unwrap();
            db.delete_cf(log, crate::record::log_key(198, 0)).unwrap();
        }),
        ("a log that begins too late", |db, _| {
            let log = db.cf_handle("log").unwrap();
            db.delete_cf(log, crate::record::log_key(1, 0)).unwrap();
        }),
    ];
    for (what, change) in cases {
        let dir = filled().await;
        tamper(dir.path(), |db| change(db, key));
        println!("{what}");
        let error = refusal(dir.path());
        assert!(matches!(error, OpenError::Corrupt { .. }), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn a_store_of_a_later_version() {
    let dir = filled().await;
    tamper(dir.path(), |db| {
        let meta = db.cf_handle("meta").unwrap();
        db.put_cf(meta, "format", 7_u64.to_be_bytes()).unwrap();
    });
    let error = refusal(dir.path());
    assert!(matches!(error, OpenError::TooNew { found: 7, .. }), "{error:?}");
}

#[tokio::test]
async fn a_store_of_an_earlier_version_becomes_one_of_this() {
    let format = |dir: &Path| {
        let mut found = None;
        let db =
            rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), dir, ["objects", "log", "meta"], false);
        let db = db.unwrap();
        if let Some(bytes) = db.get_cf(db.cf_handle("meta").unwrap(), "format").unwrap() {
            found = Some(u64::from_be_bytes(bytes.try_into().unwrap()));
        }
        found
    };
    for earlier in [1_u64, 2] {
        let dir = filled().await;
        assert_eq!(format(dir.path()), Some(3));
        tamper(dir.path(), |db| {
            let meta = db.cf_handle("meta").unwrap();
            db.put_cf(meta, "format", earlier.to_be_bytes()).unwrap();
        });
        assert_eq!(reopen(dir.path()).snapshot(PODS).len(), 200);
        assert_eq!(format(dir.path()), Some(3), "which older versions refuse");
    }
}
