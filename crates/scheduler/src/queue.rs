//! Pods that wait for a node.
//!
//! ```text
//!   add ──► active (by priority, then age) ──pop──► scheduling
//!             ▲                                        │ refused
//!             │ back-off over, and woken               ▼
//!             └──────────────────────────────────── waiting
//! ```
//!
//! A refused pod waits until a change of the cluster that one of the plugins that refused it names as a remedy. It also
//! waits out a back-off (1 s, doubling to 10 s, upstream's numbers), so that a pod which is refused again and again
//! costs little. After five minutes it is tried in any case.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::framework::{ClusterEvent, PodInfo};
use crate::plugins;

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// A pod is tried again after this time even if nothing seemed to help it.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The pods that wait for a node, each at most once, by unique id.
#[derive(Default)]
pub struct SchedulingQueue {
    pods: HashMap<String, Queued>,
    active: BinaryHeap<Turn>,
    sequence: u64,
}

struct Queued {
    info: Arc<PodInfo>,
    attempts: u32,
    place: Place,
}

enum Place {
    /// In `active`, with this number; entries of the heap with another number are stale.
    Active(u64),
    /// Handed out.
    Scheduling,
    /// Refused by these plugins. Tried at `at`: never before the back-off is over.
    Waiting { refused_by: BTreeSet<&'static str>, back_off_until: Instant, at: Instant },
}

/// A pod's turn in the heap: the highest priority first, then the oldest.
#[derive(PartialEq, Eq)]
struct Turn {
    priority: i32,
    sequence: u64,
    uid: String,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.priority.cmp(&other.priority)).then(other.sequence.cmp(&self.sequence))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl SchedulingQueue {
    /// Adds a pod, or replaces what was known of it. A change of the pod itself may help it: it is tried at once.
    pub fn add(&mut self, info: Arc<PodInfo>) {
        let uid = info.uid().to_owned();
        let known = self.pods.get_mut(&uid);
        let unchanged =
            known.as_ref().is_some_and(|queued| queued.info.pod.metadata.generation == info.pod.metadata.generation);
        match known {
            // Status updates (ours, above all: they say that the pod is unschedulable) help nobody.
            Some(queued) if unchanged || matches!(queued.place, Place::Scheduling) => {
                queued.info = info;
            }
            Some(queued) => {
                queued.info = info;
                self.activate(&uid);
            }
            None => {
                let queued = Queued { info, attempts: 0, place: Place::Scheduling };
                self.pods.insert(uid.clone(), queued);
                self.activate(&uid);
            }
        }
    }

    /// The pod is gone, or has its node.
    pub fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// The pod whose turn it is. It counts as being scheduled until [`Self::remove`] or [`Self::refused`].
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.wake_due(now);
        while let Some(turn) = self.active.pop() {
            if let Some(queued) = self.pods.get_mut(&turn.uid)
                && matches!(queued.place, Place::Active(sequence) if sequence == turn.sequence)
            {
                queued.place = Place::Scheduling;
                queued.attempts += 1;
                return Some(Arc::clone(&queued.info));
            }
        }
        None
    }

    /// The pod was refused by these plugins (none: its binding failed), and waits.
    pub fn refused(&mut self, uid: &str, refused_by: BTreeSet<&'static str>, now: Instant) {
        let Some(queued) = self.pods.get_mut(uid) else {
            return;
        };
        let doublings = queued.attempts.saturating_sub(1).min(10);
        let back_off = (FIRST_BACK_OFF * 2u32.pow(doublings)).min(LONGEST_BACK_OFF);
        let wait = if refused_by.is_empty() { back_off } else { LONGEST_WAIT };
        queued.place = Place::Waiting { refused_by, back_off_until: now + back_off, at: now + wait };
    }

    /// The cluster changed: pods that this may help are tried as soon as their back-off is over.
    pub fn wake(&mut self, event: ClusterEvent) {
        for queued in self.pods.values_mut() {
            if let Place::Waiting { refused_by, back_off_until, at } = &mut queued.place {
                let heals = |name: &&'static str| plugins::filter(name).is_none_or(|filter| filter.healed_by(event));
                if refused_by.iter().any(heals) {
                    *at = (*at).min(*back_off_until);
                }
            }
        }
    }

    /// When the next waiting pod is to be tried.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.pods.values().filter_map(|queued| match queued.place {
            Place::Waiting { at, .. } => Some(at),
            _ => None,
        });
        waiting.min()
    }

    fn wake_due(&mut self, now: Instant) {
        let due = |queued: &Queued| matches!(queued.place, Place::Waiting { at, .. } if at <= now);
        let uids: Vec<String> =
            self.pods.iter().filter(|(_, queued)| due(queued)).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            self.activate(&uid);
        }
    }

    fn activate(&mut self, uid: &str) {
        let Some(queued) = self.pods.get_mut(uid) else {
            return;
        };
        self.sequence += 1;
        queued.place = Place::Active(self.sequence);
        self.active.push(Turn {
            priority: queued.info.spec().priority.unwrap_or(0),
            sequence: self.sequence,
            uid: uid.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, priority: i32, generation: i64) -> Arc<PodInfo> {
        let pod = json!({
            "metadata": { "name": uid, "uid": uid, "generation": generation },
            "spec": { "containers": [], "priority": priority },
        });
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod"))))
    }

    fn pop(queue: &mut SchedulingQueue, now: Instant) -> Option<String> {
        queue.pop(now).map(|info| info.uid().to_owned())
    }

    #[test]
    fn priority_goes_first_then_age() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.add(pod(uid, priority, 1));
        }
        queue.add(pod("c", 0, 1));
        queue.remove("d");
        let order: Vec<String> = std::iter::from_fn(|| pop(&mut queue, now)).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn a_refused_pod_waits_for_what_helps_it_and_for_its_back_off() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        queue.add(pod("a", 0, 1));
        pop(&mut queue, now);
        queue.refused("a", BTreeSet::from(["TaintToleration"]), now);
        queue.wake(ClusterEvent::PodRemoved);
        assert_eq!(pop(&mut queue, now + 20 * second), None, "no taint went away");
        queue.wake(ClusterEvent::NodeUpdated);
        assert_eq!(queue.next_due(), Some(now + second));
        assert_eq!(pop(&mut queue, now), None, "its back-off is not over");
        assert_eq!(pop(&mut queue, now + second).as_deref(), Some("a"));
        queue.refused("a", BTreeSet::from(["TaintToleration"]), now);
        queue.wake(ClusterEvent::NodeAdded);
        assert_eq!(queue.next_due(), Some(now + 2 * second), "longer the second time");
        assert!(pop(&mut queue, now + LONGEST_WAIT).is_some(), "tried in any case at last");
    }

    #[test]
    fn a_changed_pod_is_tried_at_once_but_not_for_its_status() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        queue.add(pod("a", 0, 1));
        pop(&mut queue, now);
        queue.refused("a", BTreeSet::from(["NodeAffinity"]), now);
        queue.add(pod("a", 0, 1));
        assert_eq!(pop(&mut queue, now), None);
        queue.add(pod("a", 0, 2));
        assert_eq!(pop(&mut queue, now).as_deref(), Some("a"));
    }
}
