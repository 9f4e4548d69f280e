//! Requests that wait for a seat, in queues that get their turns fairly.
//!
//! Each queue has a virtual start: what it has been given so far, in seats. The queue with the lowest is next, so that one
//! whose requests take many seats, or of which there are many, gets no more than the others. A queue that was empty begins
//! where the others are: nobody saves up turns.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::dump::{QueuedRequest, RequestInfo};

/// A request that waits.
#[derive(Debug)]
struct Waiter {
    id: u64,
    width: u32,
    request: Arc<RequestInfo>,
    grant: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    virtual_start: u64,
}

/// Where a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    queue: u32,
    id: u64,
}

/// The queues of a level; those in which nobody has waited lately are not there.
#[derive(Debug, Default)]
pub(super) struct QueueSet {
    queues: HashMap<u32, Queue>,
    /// The queues that are not empty, by their virtual start.
    order: BTreeSet<(u64, u32)>,
    virtual_time: u64,
    next_id: u64,
}

impl QueueSet {
    /// Lets a request wait in the shortest queue of its hand, unless that is as long as a queue may be.
    pub(super) fn enqueue(
        &mut self,
        hand: &[u32],
        limit: usize,
        width: u32,
        request: impl FnOnce() -> RequestInfo,
    ) -> Option<(Place, oneshot::Receiver<()>)> {
        let length = |queue: &u32| self.queues.get(queue).map_or(0, |queue| queue.waiters.len());
        let index = hand.iter().copied().min_by_key(length).filter(|shortest| length(shortest) < limit)?;
        let queue = self.queues.entry(index).or_default();
        if queue.waiters.is_empty() {
            queue.virtual_start = queue.virtual_start.max(self.virtual_time);
            self.order.insert((queue.virtual_start, index));
        }
        let (grant, granted) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        queue.waiters.push_back(Waiter { id, width, request: Arc::new(request()), grant });
        Some((Place { queue: index, id }, granted))
    }

    /// All requests that wait, queue by queue, in the order of their turns.
    pub(super) fn queued(&self) -> Vec<QueuedRequest> {
        let of_queue = |(index, queue): (&u32, &Queue)| {
            let (index, virtual_start) = (*index, queue.virtual_start);
            let waiters = queue.waiters.iter().enumerate().map(move |(at, waiter)| QueuedRequest {
                queue: index,
                index: at,
                width: waiter.width,
                virtual_start,
                request: Arc::clone(&waiter.request),
            });
            waiters.collect::<Vec<_>>()
        };
        let mut queued: Vec<_> = self.queues.iter().flat_map(of_queue).collect();
        queued.sort_by_key(|request| (request.queue, request.index));
        queued
    }

    /// How many seats the next request takes; `None` when nobody waits.
    pub(super) fn next_width(&self) -> Option<u32> {
        let (_, index) = self.order.first()?;
        self.queues.get(index)?.waiters.front().map(|waiter| waiter.width)
    }

    /// Tells the next request that it has its seats.
    pub(super) fn grant_next(&mut self) {
        let Some((start, index)) = self.order.pop_first() else { return };
        let Some(queue) = self.queues.get_mut(&index) else { return };
        self.virtual_time = start;
        if let Some(waiter) = queue.waiters.pop_front() {
            queue.virtual_start += u64::from(waiter.width);
            // Who waits holds the other end until they have left the queue.
            let _ = waiter.grant.send(());
        }
        if !queue.waiters.is_empty() {
            self.order.insert((queue.virtual_start, index));
        }
        self.forget();
    }

    /// Takes out a request that waits no longer; false when it has been granted.
    pub(super) fn leave(&mut self, place: Place) -> bool {
        let Some(queue) = self.queues.get_mut(&place.queue) else { return false };
        let Some(at) = queue.waiters.iter().position(|waiter| waiter.id == place.id) else { return false };
        queue.waiters.remove(at);
        if queue.waiters.is_empty() {
            self.order.remove(&(queue.virtual_start, place.queue));
        }
        self.forget();
        true
    }

    /// Once nobody waits, nobody is ahead of anybody.
    fn forget(&mut self) {
        if self.order.is_empty() {
            self.queues = HashMap::new();
            self.virtual_time = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grants all there is, and says whose turn it was each time.
    fn turns(set: &mut QueueSet, waiting: &mut Vec<(char, oneshot::Receiver<()>)>) -> String {
        let mut turns = String::new();
        while set.next_width().is_some() {
            set.grant_next();
            let at = waiting.iter_mut().position(|(_, granted)| granted.try_recv().is_ok()).unwrap();
            turns.push(waiting.remove(at).0);
        }
        turns
    }

    #[test]
    fn queues_take_turns() {
        let (mut set, mut waiting) = (QueueSet::default(), Vec::new());
        for (name, queue, width) in "aaaaaabbb".chars().map(|name| (name, u32::from(name), 1)) {
            waiting.push((name, set.enqueue(&[queue], 10, width, RequestInfo::default).unwrap().1));
        }
        assert_eq!(turns(&mut set, &mut waiting), "abababaaa");
        // Wide ones of c against narrow ones of d, which comes later.
        for (name, width) in [('c', 3), ('c', 3), ('c', 3)] {
            waiting.push((name, set.enqueue(&[u32::from(name)], 10, width, RequestInfo::default).unwrap().1));
        }
        set.grant_next();
        assert!(waiting.remove(0).1.try_recv().is_ok());
        for name in "dddd".chars() {
            waiting.push((name, set.enqueue(&[u32::from(name)], 10, 1, RequestInfo::default).unwrap().1));
        }
        assert_eq!(turns(&mut set, &mut waiting), "dddcdc");
    }

    #[test]
    fn the_shortest_queue_of_a_hand_and_no_more_than_fit() {
        let mut set = QueueSet::default();
        let mut places = Vec::new();
        for expect in [3, 5, 3, 5] {
            let (place, granted) = set.enqueue(&[3, 5], 2, 1, RequestInfo::default).unwrap();
            assert_eq!(place.queue, expect);
            places.push((place, granted));
        }
        assert!(set.enqueue(&[3, 5], 2, 1, RequestInfo::default).is_none());
        assert!(set.leave(places[0].0));
        assert!(!set.leave(places[0].0), "it has left already");
        let (place, _granted) = set.enqueue(&[3, 5], 2, 1, RequestInfo::default).unwrap();
        assert_eq!(place.queue, 3);
        for place in [places[1].0, places[2].0, places[3].0, place] {
            assert!(set.leave(place));
        }
        assert_eq!(set.next_width(), None);
        assert!(set.queues.is_empty(), "what nobody waits in costs nothing");
    }
}
