//! What the store keeps under a key, and what it says when that changes.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{Attributes, Key, Revision};

/// One object as of one revision. Never changed, only replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// The object's JSON as it is served, its own revision in it.
    pub value: Bytes,
    /// The revision that wrote it.
    pub revision: Revision,
    /// The revision that created the object; it stays the same until the object is deleted.
    pub create_revision: Revision,
    /// What selectors ask for.
    pub attributes: Attributes,
}

impl Entry {
    /// The same in memory of its own. What many objects have in common stays shared.
    pub(crate) fn moved(&self) -> Self {
        let Key { resource, namespace, name } = &self.key;
        Self {
            key: Key { resource: Arc::clone(resource), namespace: Arc::clone(namespace), name: Arc::from(&**name) },
            value: Bytes::copy_from_slice(&self.value),
            attributes: self.attributes.clone(),
            ..*self
        }
    }
}

/// An encoded object that does not know its revision yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The object's JSON without the revision.
    pub bytes: Bytes,
    /// The offset at which the decimal revision is inserted: between the quotes of `"resourceVersion":""`.
    pub revision_at: usize,
}

impl Encoded {
    /// An encoded object, and the offset at which its revision goes.
    pub fn new(bytes: impl Into<Bytes>, revision_at: usize) -> Self {
        Self { bytes: bytes.into(), revision_at }
    }

    /// The object with its revision in it, in a buffer of exactly its size. The offset has been checked.
    pub(crate) fn splice(&self, revision: Revision) -> Bytes {
        let at = self.revision_at.min(self.bytes.len());
        let digits = revision.to_string();
        let mut value = Vec::with_capacity(self.bytes.len() + digits.len());
        value.extend_from_slice(&self.bytes[..at]);
        value.extend_from_slice(digits.as_bytes());
        value.extend_from_slice(&self.bytes[at..]);
        Bytes::from(value)
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was not there before. The API says `ADDED`.
    Created,
    /// It was there before. The API says `MODIFIED`.
    Updated,
    /// It is no longer there. The API says `DELETED`.
    Deleted,
}

/// What the frames of a watch are encoded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameEncoding {
    /// Lines of JSON.
    Json,
    /// Protobuf.
    Protobuf,
}

/// The encoded frame of an event for each kind that it may be shown as.
type Frames = [OnceLock<Bytes>; 3];

/// One change of one object. Shared by everyone who watches it.
#[derive(Debug)]
pub struct Event {
    /// The revision of the change. Events of one transaction share it.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; for a deletion its last state, with the revision of the deletion.
    pub entry: Arc<Entry>,
    /// The object before the change; absent for a creation.
    pub previous: Option<Arc<Entry>>,
    /// Who made it, for the log; what is read back from there is not told.
    pub(crate) author: Option<Arc<str>>,
    json: Frames,
    /// Apart, since of most resources nobody asks for it.
    protobuf: OnceLock<Box<Frames>>,
    /// The bytes of the frames that count for the ring, or [`UNCOUNTED`].
    counted: AtomicUsize,
    /// Where the ring that has the event adds up the bytes of the frames of all its events.
    total: OnceLock<Arc<AtomicUsize>>,
}

/// Of an event that has left its ring.
const UNCOUNTED: usize = usize::MAX;

impl Event {
    pub(crate) fn new(kind: EventKind, entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        Self {
            revision: entry.revision,
            kind,
            entry,
            previous,
            author: None,
            json: Frames::default(),
            protobuf: OnceLock::new(),
            counted: AtomicUsize::new(0),
            total: OnceLock::new(),
        }
    }

    /// The event with its author.
    pub(crate) fn by(self, author: Option<Arc<str>>) -> Self {
        Self { author, ..self }
    }

    /// Adds the frames that readers encode to a ring's total from now on: the event enters the ring before anybody reads it.
    pub(crate) fn enter_ring(&self, total: &Arc<AtomicUsize>) {
        // A ring takes each event once.
        let _ = self.total.set(Arc::clone(total));
    }

    /// Takes its frames off the ring's total; what is encoded later counts no more.
    pub(crate) fn leave_ring(&self) {
        let counted = self.counted.swap(UNCOUNTED, AcqRel);
        if let Some(total) = self.total.get().filter(|_| counted != UNCOUNTED) {
            total.fetch_sub(counted, Relaxed);
        }
    }

    fn count_frame(&self, bytes: usize) {
        let Some(total) = self.total.get() else { return };
        // In this order, so that the total is never less than what an event takes off again.
        total.fetch_add(bytes, Relaxed);
        let counted =
            self.counted.fetch_update(AcqRel, Acquire, |counted| (counted != UNCOUNTED).then(|| counted + bytes));
        if counted.is_err() {
            total.fetch_sub(bytes, Relaxed);
        }
    }

    /// The event as it goes over the wire, encoded once whatever the number of watchers.
    ///
    /// A watch with a selector shows an update as a creation or a deletion when the object begins or ceases to match, so
    /// there is one frame for each kind. What a frame looks like is the reader's choice: all readers of an encoding must choose
    /// the same.
    ///
    /// # Errors
    /// What `encode` says; nothing is kept then.
    pub fn frame<E>(
        &self,
        shown_as: EventKind,
        encoding: FrameEncoding,
        encode: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let frames = match encoding {
            FrameEncoding::Json => &self.json,
            FrameEncoding::Protobuf => &**self.protobuf.get_or_init(Default::default),
        };
        let frame = &frames[shown_as as usize];
        match frame.get() {
            Some(frame) => Ok(frame.clone()),
            None => {
                let encoded = encode()?;
                let kept = frame.get_or_init(|| {
                    self.count_frame(encoded.len());
                    encoded
                });
                Ok(kept.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_spliced_in() {
        for (bytes, at, revision, expected) in [
            (r#"{"v":""}"#, 6, 7, r#"{"v":"7"}"#),
            ("", 0, 12, "12"),
            ("ab", 2, 345, "ab345"),
            ("ab", 0, u64::MAX, "18446744073709551615ab"),
        ] {
            let value = Encoded::new(bytes, at).splice(revision);
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn a_frame_is_encoded_once() {
        let entry = Entry {
            key: Key::new("core/pods", "a", "b"),
            value: Bytes::new(),
            revision: 1,
            create_revision: 1,
            attributes: Attributes::default(),
        };
        let event = Event::new(EventKind::Created, Arc::new(entry), None);
        let frame = |shown_as, encoding, frame: Result<&'static str, ()>| {
            event.frame(shown_as, encoding, || frame.map(|frame| Bytes::from_static(frame.as_bytes())))
        };
        assert_eq!(frame(EventKind::Created, FrameEncoding::Json, Err(())), Err(()));
        for (shown_as, encoding, encoded, expected) in [
            (EventKind::Created, FrameEncoding::Json, "1", "1"),
            (EventKind::Created, FrameEncoding::Json, "2", "1"),
            (EventKind::Deleted, FrameEncoding::Json, "3", "3"),
            (EventKind::Created, FrameEncoding::Protobuf, "4", "4"),
            (EventKind::Created, FrameEncoding::Protobuf, "5", "4"),
            (EventKind::Created, FrameEncoding::Json, "6", "1"),
        ] {
            assert_eq!(frame(shown_as, encoding, Ok(encoded)).unwrap(), expected, "{shown_as:?} {encoding:?}");
        }
    }
}
