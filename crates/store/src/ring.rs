//! The recent events of one resource, kept for watchers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::{Event, Revision};

/// What an event costs beyond the bytes of its object: itself, its entry, its key, its attributes.
const OVERHEAD: usize = 512;

/// The recent events of one resource, oldest first.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Arc<Event>>,
    /// What the events cost without their frames.
    bytes: usize,
    /// What their frames cost, which readers encode and count.
    frames: Arc<AtomicUsize>,
    /// Every event later than this revision is here.
    floor: Revision,
    limit: usize,
    limit_bytes: usize,
}

impl Ring {
    /// An empty ring that holds all there is after a revision.
    pub(crate) fn new(floor: Revision, limit: usize, limit_bytes: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, frames: Arc::default(), floor, limit: limit.max(1), limit_bytes }
    }

    /// Whether every event after a revision is here.
    pub(crate) fn reaches(&self, after: Revision) -> bool {
        after >= self.floor
    }

    /// The events after a revision, oldest first.
    pub(crate) fn after(&self, after: Revision) -> impl Iterator<Item = &Arc<Event>> {
        let start = self.events.partition_point(|e| e.revision <= after);
        self.events.range(start..)
    }

    /// Adds the newest event. What no longer fits, with what has been encoded of it since, goes to `evicted`, so that the caller
    /// chooses when to free it.
    pub(crate) fn push(&mut self, event: Arc<Event>, evicted: &mut Vec<Arc<Event>>) {
        self.bytes += cost(&event);
        event.enter_ring(&self.frames);
        self.events.push_back(event);
        // The newest event always stays: whoever waits for it has been woken already.
        while self.events.len() > 1 && (self.events.len() > self.limit || self.held() > self.limit_bytes) {
            self.pop(evicted);
        }
    }

    fn held(&self) -> usize {
        self.bytes + self.frames.load(Relaxed)
    }

    /// Lets go of the events up to and with a revision.
    pub(crate) fn trim(&mut self, through: Revision, evicted: &mut Vec<Arc<Event>>) {
        while self.events.front().is_some_and(|e| e.revision <= through) {
            self.pop(evicted);
        }
        self.events.shrink_to(64);
    }

    fn pop(&mut self, evicted: &mut Vec<Arc<Event>>) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= cost(&event);
            event.leave_ring();
            self.floor = event.revision;
            evicted.push(event);
        }
    }
}

/// The previous object is not counted: it is that of an earlier event, except for the oldest.
fn cost(event: &Event) -> usize {
    event.entry.value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Attributes, Entry, EventKind, FrameEncoding, Key};

    fn event(revision: Revision, size: usize) -> Arc<Event> {
        let entry = Entry {
            key: Key::new("core/pods", "a", "b"),
            value: Bytes::from(vec![0; size]),
            revision,
            create_revision: revision,
            attributes: Attributes::default(),
        };
        Arc::new(Event::new(EventKind::Created, Arc::new(entry), None))
    }

    fn revisions(ring: &Ring, after: Revision) -> Vec<Revision> {
        ring.after(after).map(|e| e.revision).collect()
    }

    #[test]
    fn the_oldest_leave_first() {
        let mut ring = Ring::new(4, 3, usize::MAX);
        let mut evicted = Vec::new();
        for revision in [5, 7, 7, 9] {
            assert!(ring.reaches(4));
            ring.push(event(revision, 1), &mut evicted);
        }
        assert_eq!(evicted.len(), 1);
        assert!(!ring.reaches(4));
        assert!(ring.reaches(5));
        assert_eq!(revisions(&ring, 5), [7, 7, 9]);
        assert_eq!(revisions(&ring, 7), [9]);
        assert_eq!(revisions(&ring, 9), []);
        // Half of revision 7 leaves: from before it, the ring is of no use.
        ring.push(event(10, 1), &mut evicted);
        assert!(!ring.reaches(6));
        assert!(ring.reaches(7));
        assert_eq!(revisions(&ring, 7), [9, 10]);
    }

    #[test]
    fn large_objects_leave_sooner_but_the_newest_stays() {
        let mut ring = Ring::new(0, 100, 10_000);
        let mut evicted = Vec::new();
        for revision in 1..=3 {
            ring.push(event(revision, 4_000), &mut evicted);
        }
        assert_eq!(revisions(&ring, 1), [2, 3]);
        ring.push(event(4, 50_000), &mut evicted);
        assert_eq!(revisions(&ring, 3), [4]);
        assert_eq!(evicted.len(), 3);
    }

    #[test]
    fn frames_count_while_their_event_is_in_the_ring() {
        let mut ring = Ring::new(0, 100, 20_000);
        let mut evicted = Vec::new();
        let encode = |event: &Event, encoding, size| {
            let frame = event.frame(EventKind::Created, encoding, || Ok::<_, ()>(Bytes::from(vec![0; size])));
            assert_eq!(frame.unwrap().len(), size);
        };
        for revision in 1..=4 {
            ring.push(event(revision, 4_000), &mut evicted);
        }
        assert_eq!(revisions(&ring, 0), [1, 2, 3, 4]);
        let events: Vec<_> = ring.after(0).cloned().collect();
        for event in &events {
            encode(event, FrameEncoding::Json, 4_100);
            // Of a frame that is there already nothing is added.
            encode(event, FrameEncoding::Json, 4_100);
        }
        encode(&events[3], FrameEncoding::Protobuf, 2_000);
        ring.push(event(5, 1_000), &mut evicted);
        assert_eq!(revisions(&ring, 3), [4, 5]);
        // A reader who still has it does not charge the ring.
        encode(&events[0], FrameEncoding::Protobuf, 1 << 20);
        ring.push(event(6, 1_000), &mut evicted);
        assert_eq!(revisions(&ring, 3), [4, 5, 6]);
        ring.trim(6, &mut evicted);
        assert_eq!(ring.held(), 0);
    }

    #[test]
    fn trimming_raises_the_floor_only_by_what_left() {
        let mut ring = Ring::new(0, 100, usize::MAX);
        let mut evicted = Vec::new();
        ring.trim(50, &mut evicted);
        assert!(ring.reaches(0));
        for revision in [60, 70] {
            ring.push(event(revision, 1), &mut evicted);
        }
        ring.trim(65, &mut evicted);
        assert!(!ring.reaches(59));
        assert!(ring.reaches(60));
        assert_eq!(revisions(&ring, 60), [70]);
    }
}
