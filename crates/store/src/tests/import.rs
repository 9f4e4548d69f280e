//! Taking everything out of a store as of one revision, and making another store of it.

use super::*;

/// Everything, as it is imported.
fn imported(all: &[(std::sync::Arc<str>, Snapshot)]) -> Vec<Imported> {
    let entries = all.iter().flat_map(|(_, snapshot)| snapshot.iter());
    let import = |entry: &std::sync::Arc<Entry>| Imported {
        key: entry.key.clone(),
        value: entry.value.to_vec(),
        revision: entry.revision,
        create_revision: entry.create_revision,
    };
    entries.map(import).collect()
}

fn words(all: &[Imported]) -> Vec<String> {
    let mut words: Vec<String> = all.iter().map(|one| String::from_utf8_lossy(&one.value).into_owned()).collect();
    words.sort();
    words
}

#[tokio::test]
async fn everything_is_of_one_revision_also_what_is_gone_since() {
    let (store, dir) = open();
    store.commit(put("a", "old")).await.unwrap();
    store.commit(put_in(NODES, "n", "node", Precondition::Any)).await.unwrap();
    store.commit(put("a", "new")).await.unwrap();
    let key = Key::new(NODES, "default", "n");
    let gone = Op::Delete { key, last: encoded("node"), precondition: Precondition::Any };
    store.commit(gone).await.unwrap();
    let (revision, now) = store.everything();
    assert_eq!((revision, words(&imported(&now))), (4, vec!["new@3!".to_owned()]));
    let then = store.everything_at(2).await.unwrap();
    assert_eq!(words(&imported(&then)), ["node@2!", "old@1!"]);
    // As after a restart long ago: the rings, which know of the nodes, begin behind them.
    for _ in 0..10 {
        store.commit(put("b", "more")).await.unwrap();
    }
    store.close().await;
    let store = reopen(dir.path());
    assert!(!store.resources().iter().any(|resource| &**resource == NODES));
    let then = store.everything_at(2).await.unwrap();
    assert_eq!(words(&imported(&then)), ["node@2!", "old@1!"]);
    assert!(matches!(store.everything_at(99).await, Err(HistoryError::Future { .. })));
}

#[tokio::test]
async fn an_imported_store_goes_on_behind_every_revision_that_was_handed_out() {
    let (store, dir) = open();
    for word in ["one", "two"] {
        store.commit(put(word, word)).await.unwrap();
    }
    store.commit(put("one", "again")).await.unwrap();
    let (revision, all) = store.everything();
    let all = imported(&all);
    assert!(matches!(newest_revision(&Options::new(dir.path())), Err(OpenError::Locked { .. })));
    store.close().await;
    assert_eq!(newest_revision(&Options::new(dir.path())).unwrap(), 3);

    let other = TempDir::new().unwrap();
    let options = Options::new(other.path().join("store"));
    assert_eq!(newest_revision(&options).unwrap(), 0);
    // The store that it takes the place of was further.
    let used = 5000;
    import(&options, used, all.clone()).unwrap();
    let store = Store::open(options.clone(), attributes_of).unwrap();
    assert_eq!(store.snapshot(PODS).len(), 2);
    let one = store.get(&pod("one")).unwrap();
    assert_eq!((value(&one), one.revision, one.create_revision), ("again@3!", 3, 1));
    assert!(store.revision() > used + 1_000_000);
    // Who watched the other store begins anew, whether it was behind or before this one.
    for after in [0, revision, used, used + 1000] {
        assert!(store.watch(PODS, after).is_err(), "{after}");
    }
    let unchanged = Precondition::Revision(3);
    store.commit(put_in(PODS, "one", "third", unchanged)).await.unwrap();
    let next = store.revision();
    store.close().await;
    // What is there is not mixed with something else, and stays.
    assert!(matches!(import(&options, 0, all), Err(OpenError::Unwritable { .. })));
    let store = Store::open(options, attributes_of).unwrap();
    assert_eq!((store.revision(), store.snapshot(PODS).len()), (next, 2));
    let one = store.get(&pod("one")).unwrap();
    assert_eq!(value(&one), format!("third@{next}!"));
}
