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

#[tokio::test]
async fn a_write_that_was_cut_short_was_never_acknowledged() {
    let dir = filled().await;
    let log = file(dir.path(), |f| f.ends_with(".log"));
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 100]).unwrap();
    let store = reopen(dir.path());
    assert_eq!(store.revision(), 199);
    assert_eq!(store.snapshot(PODS).len(), 199);
    assert_eq!(store.commit(put("x", "w")).await.unwrap().revision, 200);
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
