//! What becomes of memory once a burst of writes is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

/// More than after which objects are moved.
const BURST: usize = 20 << 20;

#[tokio::test]
async fn objects_are_moved_together_after_a_burst_and_stay_what_they_are() {
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    (options.compact_every, options.ring_age) = (Duration::from_millis(50), Duration::from_millis(50));
    let store = Store::open(options, attributes_of).unwrap();
    let large = "x".repeat(100_000);
    store.commit(put("stays", &large)).await.unwrap();
    for _ in 0..BURST / large.len() {
        store.commit(put_in(NODES, "n", &large, Precondition::Any)).await.unwrap();
    }
    let before = store.get(&pod("stays")).unwrap();
    let start = Instant::now();
    let after = loop {
        // Whoever writes meanwhile loses nothing.
        store.commit(put("other", "y")).await.unwrap();
        let now = store.get(&pod("stays")).unwrap();
        assert_eq!(now, before);
        if !Arc::ptr_eq(&now, &before) {
            break now;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is moved");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_ne!(after.value.as_ptr(), before.value.as_ptr());
    let revision = store.revision();
    let last = store.get(&pod("other")).unwrap();
    assert_eq!((last.revision, value(&last)), (revision, format!("y@{revision}!").as_str()));
    // A precondition holds of what was moved.
    let unchanged = Precondition::Revision(before.revision);
    store.commit(put_in(PODS, "stays", "z", unchanged)).await.unwrap();
    assert!(store.commit(put_in(PODS, "stays", "z", unchanged)).await.is_err());
    // Nothing is moved again until much has been written.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(Arc::ptr_eq(&last, &store.get(&pod("other")).unwrap()));
}
