//! Lists as bodies, of which a client that reads slowly holds one portion.
//!
//! The envelope says before the first item how long all of them are, so that a list is encoded as a whole before it is sent
//! (upstream encodes each item twice for this: apimachinery `pkg/runtime/serializer/protobuf/collections.go`). What is encoded is
//! kept while the portions that wait for their clients fit into the [`Budget`] of the server. Of what does not fit the length
//! is kept, and it is encoded again when the client is ready for it: from the store's own bytes, so that it is the same.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use machinery::api_types::ApiType;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use super::encode::{EncodeError, Kind, list_head, list_items};

/// So many bytes of JSON are encoded at a time, which takes about a millisecond.
const PORTION: usize = 256 * 1024;
/// So many portions of one list are encoded at once, so that others have their turn in between.
const PORTIONS_AT_ONCE: usize = 4;

/// How much of encoded lists may wait for slow clients, beyond the portion that each of them is being sent.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

/// What one permit of a [`Budget`] stands for.
const UNIT: usize = 1024;

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    /// Room for so many bytes, if there is some now.
    fn charge(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

impl Default for Budget {
    /// Eight lists of 2,000 pods.
    fn default() -> Self {
        Self::new(32 << 20)
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
    /// Encoded, within the budget.
    Encoded(Bytes, Option<OwnedSemaphorePermit>),
    /// To be encoded again.
    Objects(Vec<Bytes>),
}

impl List {
    /// Encodes a list of objects from their JSON; `item` is the type of each, `metadata` the JSON of the list's own.
    ///
    /// # Errors
    /// When an object is not of its kind, or the metadata is none.
    pub(crate) async fn new(
        list: Kind<'_>,
        item: &'static ApiType,
        metadata: &[u8],
        objects: Vec<Bytes>,
        budget: &Budget,
    ) -> Result<Self, EncodeError> {
        let mut objects = portions(objects);
        let (mut portions, mut length) = (VecDeque::with_capacity(objects.len()), 0);
        if objects.len() == 1 {
            let only = list_items(item, &objects.remove(0))?;
            length = only.len();
            portions.push_back(Portion::Encoded(only, None));
        }
        // What nobody waits for any more is not encoded.
        let encode = |portion: Vec<Bytes>| {
            AbortOnDropHandle::new(tokio::spawn(async move { (list_items(item, &portion), portion) }))
        };
        let mut encoded = stream::iter(objects).map(encode).buffered(PORTIONS_AT_ONCE);
        while let Some(done) = encoded.next().await {
            let (encoded, objects) = done.map_err(|_| EncodeError::Broken("its encoder failed"))?;
            let encoded = encoded?;
            length += encoded.len();
            // The first is sent at once: every client may hold one.
            let charged = match portions.is_empty() {
                true => Some(None),
                false => budget.charge(encoded.len()).map(Some),
            };
            portions.push_back(match charged {
                Some(permit) => Portion::Encoded(encoded, permit),
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
            Portion::Encoded(bytes, _charged) => Ok(bytes),
            Portion::Objects(objects) => list_items(item, &objects).map_err(io::Error::other),
        });
        stream::once(async { Ok(head) }).chain(encoded)
    }
}

/// The objects in portions of about the same size.
fn portions(objects: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let (mut portions, mut size) = (vec![Vec::new()], 0);
    for object in objects {
        if size >= PORTION {
            portions.push(Vec::new());
            size = 0;
        }
        size += object.len();
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

    async fn list(count: usize, budget: &Budget) -> List {
        let map = |n| json!({ "metadata": { "name": format!("m{n}") }, "data": { "k": "v".repeat(2_000) } });
        let objects = (0..count).map(|n| map(n).to_string().into()).collect();
        let item = Kind::new("v1", "ConfigMap").unwrap().api_type;
        let list = Kind::new("v1", "ConfigMapList").unwrap();
        List::new(list, item, br#"{"resourceVersion":"7"}"#, objects, budget).await.unwrap()
    }

    async fn read(list: List) -> Vec<u8> {
        let length = list.length();
        let pieces: Vec<Bytes> = list.into_stream().try_collect().await.unwrap();
        let body = pieces.concat();
        assert_eq!(body.len() as u64, length);
        body
    }

    /// What a list has in memory beyond its first portion.
    fn waiting(list: &List) -> usize {
        let later = list.portions.iter().skip(1);
        later.map(|portion| if let Portion::Encoded(bytes, _) = portion { bytes.len() } else { 0 }).sum()
    }

    #[tokio::test]
    async fn slow_clients_hold_a_portion_each_and_the_budget_together() {
        const BUDGET: usize = 600 * 1024;
        let budget = Budget::new(BUDGET);
        let mut lists = Vec::new();
        for _ in 0..5 {
            lists.push(list(1_000, &budget).await);
        }
        let held: Vec<usize> = lists.iter().map(waiting).collect();
        assert!(held[0] > 0 && held[4] == 0 && held.iter().sum::<usize>() <= BUDGET, "{held:?}");
        let whole = read(list(1_000, &Budget::default()).await).await;
        for list in lists {
            // Whether it waited encoded or not, it is the same list.
            assert!(read(list).await == whole);
        }
        assert_eq!(budget.0.available_permits(), BUDGET / UNIT);
        let found: Value = serde_json::from_slice(&to_json(&whole, "ConfigMapList").unwrap()).unwrap();
        assert_eq!(found["metadata"]["resourceVersion"], "7");
        let names = found["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
        assert!(names.eq((0..1_000).map(|n| format!("m{n}"))));
    }

    #[tokio::test]
    async fn short_lists_need_no_budget() {
        let none = Budget::new(0);
        for count in [0, 1, 100] {
            assert_eq!(read(list(count, &none).await).await, read(list(count, &Budget::default()).await).await);
        }
    }
}
