//! Lists as bodies: encoded in portions, of which a client that reads slowly holds one.
//!
//! The envelope says before the first item how long all of them are, so that a list is encoded as a whole before it is sent
//! (upstream encodes each item twice for this: apimachinery `pkg/runtime/serializer/protobuf/collections.go`). What is encoded of a
//! long list goes into the [`Portions`] of the server: whoever asks for the same objects within half a minute, as many clients
//! do at once after a restart, gets the same bytes. Where what is being sent leaves no room there, the length of a portion is
//! kept alone, and it is encoded again when its client is ready for it: from the store's own bytes, so that it is the same.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use machinery::api_types::ApiType;
use machinery::protobuf::{EncodeError, Kind, list_head, list_items};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// So many bytes of JSON are encoded at a time, which takes about a millisecond.
const PORTION: usize = 256 * 1024;
/// So many portions of one list are encoded at once, so that others have their turn in between.
const PORTIONS_AT_ONCE: usize = 4;
/// How many bytes of portions are kept, those that wait for slow clients included: eight lists of 2,000 pods.
const KEPT_BYTES: usize = 32 << 20;
/// How long a portion is kept that nobody asks for.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// The portions of lists that are kept. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Portions(Arc<Shared>);

struct Shared {
    limit: usize,
    hashes: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By what is in them, and since when nobody has asked for them.
    portions: HashMap<PortionKey, (Bytes, Instant)>,
    bytes: usize,
    /// Whether a task is there that lets go of what nobody asks for.
    is_watched: bool,
}

/// What a portion is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PortionKey {
    /// Hash of the type, and of the identities of the objects.
    objects: u64,
    count: usize,
    /// How many bytes of JSON they have.
    length: usize,
}

/// An object of a list.
pub(crate) struct Item {
    /// Hash of what tells one state of one object from all others.
    identity: u64,
    json: Bytes,
}

impl Default for Portions {
    fn default() -> Self {
        Self::new(KEPT_BYTES)
    }
}

impl Portions {
    fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, hashes: RandomState::new(), kept: Mutex::default() }))
    }

    /// An object by its key and revision, and its JSON.
    pub(crate) fn item(&self, identity: impl Hash, json: Bytes) -> Item {
        Item { identity: self.0.hashes.hash_one(identity), json }
    }

    fn key(&self, item: &ApiType, objects: &[Item]) -> PortionKey {
        let mut hasher = self.0.hashes.build_hasher();
        (item.package, item.name).hash(&mut hasher);
        objects.iter().for_each(|object| object.identity.hash(&mut hasher));
        let length = objects.iter().map(|object| object.json.len()).sum();
        PortionKey { objects: hasher.finish(), count: objects.len(), length }
    }

    fn find(&self, key: PortionKey) -> Option<Bytes> {
        let mut kept = self.0.kept.lock();
        let (bytes, used) = kept.portions.get_mut(&key)?;
        *used = Instant::now();
        Some(bytes.clone())
    }

    /// Keeps a portion if there is room for it, once the oldest of those that nobody is being sent are gone; what somebody else
    /// has encoded of it meanwhile takes its place.
    fn keep(&self, key: PortionKey, bytes: &Bytes) -> Option<Bytes> {
        let mut kept = self.0.kept.lock();
        if let Some((known, _)) = kept.portions.get(&key) {
            return Some(known.clone());
        }
        while kept.bytes + bytes.len() > self.0.limit {
            let idle = kept.portions.iter().filter(|(_, (bytes, _))| bytes.is_unique());
            let oldest = idle.min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key)?;
            kept.bytes -= kept.portions.remove(&oldest).map_or(0, |(bytes, _)| bytes.len());
        }
        kept.bytes += bytes.len();
        kept.portions.insert(key, (bytes.clone(), Instant::now()));
        if !std::mem::replace(&mut kept.is_watched, true) {
            tokio::spawn(expire(Arc::downgrade(&self.0)));
        }
        Some(bytes.clone())
    }
}

impl Kept {
    /// Lets go of what nobody has asked for since then, and is not being sent.
    fn expire(&mut self, since: Instant) {
        self.portions.retain(|_, (bytes, used)| *used > since || !bytes.is_unique());
        self.bytes = self.portions.values().map(|(bytes, _)| bytes.len()).sum();
    }
}

/// Ends when nothing is kept any more.
async fn expire(portions: Weak<Shared>) {
    loop {
        tokio::time::sleep(KEPT_FOR / 2).await;
        let Some(portions) = portions.upgrade() else { return };
        let mut kept = portions.kept.lock();
        if let Some(since) = Instant::now().checked_sub(KEPT_FOR) {
            kept.expire(since);
        }
        if kept.portions.is_empty() {
            kept.portions.shrink_to_fit();
            kept.is_watched = false;
            return;
        }
    }
}

/// A list that is ready to be sent.
pub(crate) struct List {
    head: Bytes,
    item: &'static ApiType,
    portions: VecDeque<Portion>,
    length: u64,
}

/// Some items of a list, one behind the other.
enum Portion {
    /// Encoded: the first, or one that is kept.
    Encoded(Bytes),
    /// To be encoded again.
    Objects(Vec<Item>),
}

impl List {
    /// Encodes a list of objects; `item` is the type of each, `metadata` the JSON of the list's own.
    ///
    /// # Errors
    /// When an object is not of its kind, or the metadata is none.
    pub(crate) async fn new(
        list: Kind<'_>,
        item: &'static ApiType,
        metadata: &[u8],
        objects: Vec<Item>,
        kept: &Portions,
    ) -> Result<Self, EncodeError> {
        let mut objects = split(objects);
        let (mut portions, mut length) = (VecDeque::with_capacity(objects.len()), 0);
        if objects.len() == 1 {
            let only = encode(item, &objects.remove(0))?;
            length = only.len();
            portions.push_back(Portion::Encoded(only));
        }
        let encoded = |objects: Vec<Item>| {
            let key = kept.key(item, &objects);
            let found = kept.find(key);
            async move {
                if let Some(found) = found {
                    return Ok((Ok(found), key, objects));
                }
                // What nobody waits for any more is not encoded.
                AbortOnDropHandle::new(tokio::spawn(async move { (encode(item, &objects), key, objects) })).await
            }
        };
        let mut encoded = stream::iter(objects).map(encoded).buffered(PORTIONS_AT_ONCE);
        while let Some(done) = encoded.next().await {
            let (bytes, key, objects) = done.map_err(|_| EncodeError::Broken("its encoder failed"))?;
            let bytes = bytes?;
            length += bytes.len();
            // The first is sent at once: every client may hold one.
            portions.push_back(match kept.keep(key, &bytes) {
                Some(kept) => Portion::Encoded(kept),
                None if portions.is_empty() => Portion::Encoded(bytes),
                None => Portion::Objects(objects),
            });
        }
        let head = list_head(list, metadata, length)?;
        let length = (head.len() + length) as u64;
        Ok(Self { head, item, portions, length })
    }

    /// How many bytes it has.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The bytes, in pieces.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let Self { head, item, portions, .. } = self;
        let encoded = stream::iter(portions).map(move |portion| match portion {
            Portion::Encoded(bytes) => Ok(bytes),
            Portion::Objects(objects) => encode(item, &objects).map_err(io::Error::other),
        });
        stream::once(async { Ok(head) }).chain(encoded)
    }
}

fn encode(item: &ApiType, objects: &[Item]) -> Result<Bytes, EncodeError> {
    list_items(item, objects.iter().map(|object| &object.json))
}

/// The objects in portions of about the same size. One that is neither short nor long ends where an object's identity says so:
/// when an object changes, comes or goes, the portions behind it stay the same.
fn split(objects: Vec<Item>) -> Vec<Vec<Item>> {
    let (mut portions, mut size) = (vec![Vec::new()], 0);
    let mut ends = false;
    for object in objects {
        if ends {
            portions.push(Vec::new());
            size = 0;
        }
        size += object.json.len();
        ends = size >= PORTION || size >= PORTION / 2 && object.identity % 16 == 0;
        if let Some(portion) = portions.last_mut() {
            portion.push(object);
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::protobuf::to_json;

    /// A list of the objects that have these revisions.
    async fn list_of(revisions: impl Iterator<Item = u64>, portions: &Portions) -> List {
        let map = |n, revision| {
            let metadata = json!({ "name": format!("m{n}"), "generation": revision });
            json!({ "metadata": metadata, "data": { "k": "v".repeat(2_000) } })
        };
        let items = revisions
            .enumerate()
            .map(|(n, revision)| portions.item((n, revision), map(n, revision).to_string().into()));
        let item = Kind::new("v1", "ConfigMap").unwrap().api_type;
        let list = Kind::new("v1", "ConfigMapList").unwrap();
        List::new(list, item, br#"{"resourceVersion":"7"}"#, items.collect(), portions).await.unwrap()
    }

    async fn list(count: usize, portions: &Portions) -> List {
        list_of(std::iter::repeat_n(1, count), portions).await
    }

    async fn read(list: List) -> Vec<u8> {
        let length = list.length();
        let pieces: Vec<Bytes> = list.into_stream().try_collect().await.unwrap();
        let body = pieces.concat();
        assert_eq!(body.len() as u64, length);
        body
    }

    /// The portions that a list has in memory.
    fn encoded(list: &List) -> Vec<&Bytes> {
        list.portions
            .iter()
            .filter_map(|portion| if let Portion::Encoded(bytes) = portion { Some(bytes) } else { None })
            .collect()
    }

    #[tokio::test]
    async fn slow_clients_hold_a_portion_each_and_what_is_kept_together() {
        const LIMIT: usize = 600 * 1024;
        let portions = Portions::new(LIMIT);
        let mut lists = Vec::new();
        for revision in 1..=5 {
            lists.push(list_of(std::iter::repeat_n(revision, 1_000), &portions).await);
        }
        // Beyond the first portion of each.
        let held: Vec<usize> =
            lists.iter().map(|list| encoded(list)[1..].iter().map(|bytes| bytes.len()).sum()).collect();
        assert!(held[0] > 0 && held.iter().sum::<usize>() <= LIMIT, "{held:?}");
        assert!(lists.iter().all(|list| encoded(list).len() < list.portions.len()));
        assert!(portions.0.kept.lock().bytes <= LIMIT);
        for (list, revision) in lists.into_iter().zip(1..) {
            // Whether it waited encoded or not, it is the same list.
            let whole = list_of(std::iter::repeat_n(revision, 1_000), &Portions::default()).await;
            assert!(read(list).await == read(whole).await);
        }
        // Nobody is being sent anything: there is room for others.
        let list = list_of(std::iter::repeat_n(6, 1_000), &portions).await;
        assert!(encoded(&list).len() > 2);
        let kept = portions.0.kept.lock();
        assert!(kept.bytes <= LIMIT);
        assert_eq!(kept.bytes, kept.portions.values().map(|(bytes, _)| bytes.len()).sum::<usize>());
    }

    #[tokio::test]
    async fn the_same_objects_are_encoded_once() {
        let portions = Portions::default();
        let first = list(1_000, &portions).await;
        let second = list(1_000, &portions).await;
        let addresses = |list: &List| encoded(list).iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>();
        assert!(addresses(&first).len() > 4 && addresses(&first) == addresses(&second));
        // One object has changed: what is before it is the same, and mostly what is behind it.
        let changed = list_of((0..1_000).map(|n| if n == 500 { 2 } else { 1 }), &portions).await;
        let same = addresses(&changed).iter().filter(|address| addresses(&first).contains(address)).count();
        assert!((2..addresses(&first).len()).contains(&same), "{same} of {}", addresses(&first).len());
        let found: Value = serde_json::from_slice(&to_json(&read(changed).await, "ConfigMapList").unwrap()).unwrap();
        assert_eq!(found["metadata"]["resourceVersion"], "7");
        for (n, item) in found["items"].as_array().unwrap().iter().enumerate() {
            let generation = if n == 500 { 2 } else { 1 };
            assert_eq!(item["metadata"], json!({ "name": format!("m{n}"), "generation": generation }));
        }
        // What is being sent stays for others; the rest goes when nobody asks for it.
        portions.0.kept.lock().expire(Instant::now());
        assert_eq!(addresses(&first), addresses(&list(1_000, &portions).await));
        drop((first, second));
        portions.0.kept.lock().expire(Instant::now());
        assert_eq!(portions.0.kept.lock().bytes, 0);
    }

    #[tokio::test]
    async fn short_lists_are_not_kept() {
        let none = Portions::new(0);
        let portions = Portions::default();
        for count in [0, 1, 50] {
            assert_eq!(read(list(count, &none).await).await, read(list(count, &portions).await).await);
        }
        assert_eq!(portions.0.kept.lock().bytes, 0);
    }
}
