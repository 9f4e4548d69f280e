//! Pods that wait for a node.
//!
//! ```text
//!   add ──► active (by priority, then age) ──pop──► scheduling
//!             ▲                                        │ refused
//!             │ back-off over, and woken               ▼
//!             └──────────────────────────────────── waiting
//! ```
//!
//! A refused pod waits until a change of the cluster that one of the plugins that refused it says may help it. It also
//! waits out a back-off (1 s, doubling to 10 s, upstream's numbers), so that a pod which is refused again and again
//! costs little. After five minutes it is tried in any case.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use informer::give_back;
use informer::{Cause, Causes};
use tokio::time::Instant;

use crate::resources::Resources;
use crate::types::{Candidate, GroupKey};

/// A pod is tried again after this time even if nothing seemed to help it.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The first and the longest back-off.
#[derive(Debug, Clone, Copy)]
pub struct BackOff(pub Duration, pub Duration);

impl Default for BackOff {
    fn default() -> Self {
        Self(Duration::from_secs(1), Duration::from_secs(10))
    }
}

/// The pods that wait for a node, each at most once, by unique id.
#[derive(Default)]
pub struct SchedulingQueue {
    pods: HashMap<String, Queued>,
    active: BinaryHeap<Turn>,
    /// When waiting pods are tried, in order.
    due: BTreeMap<(Instant, u64), String>,
    /// Pods of groups for which nothing is decided yet.
    groups: HashMap<GroupKey, Members>,
    sequence: u64,
    back_off: BackOff,
}

struct Queued {
    pod: Candidate,
    attempts: u32,
    since: Instant,
    state: QueuedState,
    /// Why it is to be tried. For people: nothing is decided by it.
    causes: Option<Causes>,
}

#[derive(Default)]
struct Members {
    uids: BTreeSet<String>,
    /// What they ask for together.
    requests: Resources,
}

/// Where a pod is between two attempts.
enum QueuedState {
    /// In `active`, with this number; entries of the heap with another number are stale.
    Active(u64),
    /// Handed out.
    Scheduling,
    /// Refused by these plugins. Tried at the time in `due`: never before the back-off is over.
    Waiting { refused_by: BTreeSet<&'static str>, back_off_until: Instant, due: (Instant, u64) },
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
    /// An empty queue with this back-off.
    pub fn new(back_off: BackOff) -> Self {
        Self { back_off, ..Self::default() }
    }

    /// Adds a pod because of `cause`, or replaces what was known of it. A change of the pod itself may help it: it is tried
    /// at once.
    pub fn add(&mut self, pod: Candidate, cause: Cause, now: Instant) {
        let uid = pod.uid.clone();
        let known = self.pods.get_mut(&uid);
        match known {
            Some(queued) => {
                let helps = queued.pod.generation != pod.generation || queued.pod.labels != pod.labels;
                let new = pod.clone();
                let old = std::mem::replace(&mut queued.pod, pod);
                // Status updates (ours, above all: they say that the pod is unschedulable) help nobody.
                if helps {
                    Causes::add(&mut queued.causes, cause);
                    let waiting = !matches!(queued.state, QueuedState::Scheduling);
                    if self.leave_group(&old) || old.group.is_none() {
                        self.join_group(&new);
                    }
                    if waiting {
                        self.activate(&uid);
                    }
                }
            }
            None => {
                self.join_group(&pod);
                let (state, causes) = (QueuedState::Scheduling, Some(Causes::new(cause)));
                self.pods.insert(uid.clone(), Queued { pod, attempts: 0, since: now, state, causes });
                self.activate(&uid);
            }
        }
    }

    /// The pod is gone, or has its node.
    pub fn remove(&mut self, uid: &str) {
        if let Some(queued) = self.pods.remove(uid) {
            give_back(&mut self.pods);
            if let QueuedState::Waiting { due, .. } = queued.state {
                self.due.remove(&due);
            }
            self.leave_group(&queued.pod);
        }
    }

    /// A node was found for the pod. It stays here until the binding is heard of, but its group waits for it no longer.
    pub fn decided(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get(uid).map(|queued| queued.pod.clone()) {
            self.leave_group(&pod);
        }
    }

    /// How many pods of a group wait, in whatever state they are, and what they ask for together.
    pub fn waiting(&self, group: &GroupKey) -> Option<(usize, &Resources)> {
        self.groups.get(group).map(|members| (members.uids.len(), &members.requests))
    }

    /// Groups whose turn it is: each with the member that goes first, and its place in the order, the lowest first.
    pub fn turns(&self) -> impl Iterator<Item = (&GroupKey, (Reverse<i32>, u64), &Candidate)> {
        self.groups.iter().filter_map(|(group, members)| {
            let members = members.uids.iter().filter_map(|uid| self.pods.get(uid));
            let active = members.filter_map(|queued| match queued.state {
                QueuedState::Active(sequence) => Some(((Reverse(queued.pod.priority), sequence), &queued.pod)),
                _ => None,
            });
            active.min_by_key(|(place, _)| *place).map(|(place, first)| (group, place, first))
        })
    }

    /// Gives back a pod that was handed out: others go first.
    pub fn postpone(&mut self, uid: &str) {
        if let Some(queued) = self.pods.get_mut(uid) {
            queued.attempts = queued.attempts.saturating_sub(1);
            self.activate(uid);
        }
    }

    /// Whether the pod is here.
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The pod whose turn it is. It counts as being scheduled until [`Self::remove`] or [`Self::refused`].
    pub fn pop(&mut self, now: Instant) -> Option<Candidate> {
        self.drop_stale_turns(now);
        let queued = self.pods.get_mut(&self.active.pop()?.uid)?;
        queued.state = QueuedState::Scheduling;
        queued.attempts += 1;
        Some(queued.pod.clone())
    }

    /// The pod whose turn it is, and since when there is a reason to try it. It stays where it is.
    pub fn peek(&mut self, now: Instant) -> Option<(&Candidate, Instant)> {
        self.drop_stale_turns(now);
        let queued = self.pods.get(&self.active.peek()?.uid)?;
        Some((&queued.pod, queued.causes.as_ref().map_or(queued.since, Causes::since)))
    }

    /// How many pods could be tried now. It looks at all of them.
    pub fn active(&self) -> usize {
        self.active.iter().filter(|turn| self.is_current(turn)).count()
    }

    fn is_current(&self, turn: &Turn) -> bool {
        let queued = self.pods.get(&turn.uid);
        queued.is_some_and(|queued| matches!(queued.state, QueuedState::Active(sequence) if sequence == turn.sequence))
    }

    /// Lets those take part whose back-off is over; afterwards the first turn is that of a pod that waits for it.
    fn drop_stale_turns(&mut self, now: Instant) {
        self.activate_due(now);
        while self.active.peek().is_some_and(|turn| !self.is_current(turn)) {
            self.active.pop();
        }
    }

    fn activate_due(&mut self, now: Instant) {
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let uid = entry.get().clone();
            self.activate(&uid);
        }
    }

    /// All pods of a group, in whatever state they are; they count as being scheduled from now on.
    pub fn take_group(&mut self, group: &GroupKey) -> Vec<Candidate> {
        let members: Vec<String> = self.groups.get(group).into_iter().flat_map(|group| &group.uids).cloned().collect();
        let mut taken = Vec::with_capacity(members.len());
        for uid in members {
            if let Some(queued) = self.pods.get_mut(&uid) {
                match &queued.state {
                    QueuedState::Waiting { due, .. } => {
                        self.due.remove(due);
                        queued.attempts += 1;
                    }
                    QueuedState::Active(_) => queued.attempts += 1,
                    QueuedState::Scheduling => {}
                }
                queued.state = QueuedState::Scheduling;
                taken.push(queued.pod.clone());
            }
        }
        taken
    }

    /// The pod was refused by these plugins (none: its binding failed), and waits.
    pub fn refused(&mut self, uid: &str, refused_by: BTreeSet<&'static str>, now: Instant) {
        let Some(queued) = self.pods.get(uid) else {
            return;
        };
        // If it was decided, that is taken back.
        let pod = queued.pod.clone();
        self.join_group(&pod);
        let Some(queued) = self.pods.get_mut(uid) else {
            return;
        };
        if let QueuedState::Waiting { due, .. } = queued.state {
            self.due.remove(&due);
        }
        let doublings = queued.attempts.saturating_sub(1).min(10);
        let back_off = (self.back_off.0 * 2u32.pow(doublings)).min(self.back_off.1);
        let wait = if refused_by.is_empty() {
            Causes::add(&mut queued.causes, Cause::RETRY);
            back_off
        } else {
            LONGEST_WAIT
        };
        self.sequence += 1;
        let due = (now + wait, self.sequence);
        queued.state = QueuedState::Waiting { refused_by, back_off_until: now + back_off, due };
        self.due.insert(due, uid.to_owned());
    }

    /// The cluster changed by `cause`: waiting pods that this may help are tried as soon as their back-off is over. `helps`
    /// is asked for a pod and the plugins that refused it, and answers with the one that says so.
    pub fn wake(&mut self, cause: &Cause, helps: impl Fn(&Candidate, &BTreeSet<&'static str>) -> Option<&'static str>) {
        // Most of the time nobody waits.
        if self.due.is_empty() {
            return;
        }
        for (uid, queued) in &mut self.pods {
            if let QueuedState::Waiting { refused_by, back_off_until, due } = &mut queued.state
                && due.0 > *back_off_until
                && let Some(plugin) = helps(&queued.pod, refused_by)
            {
                Causes::add(&mut queued.causes, cause.clone().hinted_by(plugin));
                self.due.remove(due);
                due.0 = *back_off_until;
                self.due.insert(*due, uid.clone());
            }
        }
    }

    /// Why the pod is being tried. Asked once for each attempt: what comes later is why there is another one.
    pub fn take_causes(&mut self, uid: &str) -> Causes {
        let causes = self.pods.get_mut(uid).and_then(|queued| queued.causes.take());
        // Nothing has happened, but it has waited for long.
        causes.unwrap_or_else(|| Causes::new(Cause::REQUEUE_AFTER))
    }

    /// When the next waiting pod is to be tried.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// How often the pod was tried, and since when it is here.
    pub fn history(&self, uid: &str) -> Option<(u32, Instant)> {
        self.pods.get(uid).map(|queued| (queued.attempts, queued.since))
    }

    fn activate(&mut self, uid: &str) {
        let Some(queued) = self.pods.get_mut(uid) else {
            return;
        };
        if let QueuedState::Waiting { due, .. } = queued.state {
            self.due.remove(&due);
        }
        self.sequence += 1;
        queued.state = QueuedState::Active(self.sequence);
        self.active.push(Turn { priority: queued.pod.priority, sequence: self.sequence, uid: uid.to_owned() });
    }

    fn join_group(&mut self, pod: &Candidate) {
        if let Some(group) = &pod.group {
            let members = self.groups.entry(group.clone()).or_default();
            if members.uids.insert(pod.uid.clone()) {
                members.requests.add(&pod.requests);
            }
        }
    }

    /// Whether it was a member.
    fn leave_group(&mut self, pod: &Candidate) -> bool {
        let Some((group, members)) = pod.group.as_ref().and_then(|group| Some((group, self.groups.get_mut(group)?)))
        else {
            return false;
        };
        let left = members.uids.remove(&pod.uid);
        if left {
            members.requests.subtract(&pod.requests);
        }
        if members.uids.is_empty() {
            self.groups.remove(group);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn pod(uid: &str, priority: i32, generation: i64) -> Candidate {
        let pod = json!({
            "metadata": { "name": uid, "uid": uid, "generation": generation },
            "spec": { "containers": [], "priority": priority },
        });
        Candidate::new(Arc::new(serde_json::from_value(pod).expect("a pod")))
    }

    fn pop(queue: &mut SchedulingQueue, now: Instant) -> Option<String> {
        queue.pop(now).map(|pod| pod.uid.clone())
    }

    #[test]
    fn priority_goes_first_then_age() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.add(pod(uid, priority, 1), Cause::new("a test"), now);
        }
        queue.add(pod("c", 0, 1), Cause::new("a test"), now);
        queue.remove("d");
        let order: Vec<String> = std::iter::from_fn(|| pop(&mut queue, now)).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn who_looks_at_the_next_pod_leaves_it_there() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        assert!(queue.peek(now).is_none());
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 1)] {
            queue.add(pod(uid, priority, 1), Cause::new("a test"), now);
        }
        queue.remove("b");
        // Its first turn is stale.
        queue.add(pod("c", 1, 2), Cause::new("a test"), now);
        for _ in 0..2 {
            assert_eq!(queue.peek(now).map(|(pod, _)| pod.uid.clone()).as_deref(), Some("c"));
            assert_eq!(queue.active(), 2);
        }
        assert_eq!(pop(&mut queue, now).as_deref(), Some("c"));
        queue.refused("c", BTreeSet::new(), now);
        let later = now + LONGEST_WAIT;
        assert_eq!((queue.active(), queue.peek(later).map(|(pod, _)| pod.uid.clone()).as_deref()), (1, Some("c")));
        assert_eq!(queue.active(), 2, "its back-off is over");
    }

    #[test]
    fn a_refused_pod_waits_for_what_helps_it_and_for_its_back_off() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let event = Cause::new("an event");
        queue.add(pod("a", 0, 1), Cause::new("a test"), now);
        pop(&mut queue, now);
        queue.refused("a", BTreeSet::from(["TaintToleration"]), now);
        queue.wake(&event, |_, refused_by| refused_by.get("NodePorts").copied());
        assert_eq!(pop(&mut queue, now + 20 * second), None, "that was no help");
        queue.wake(&event, |_, refused_by| refused_by.get("TaintToleration").copied());
        assert_eq!(queue.next_due(), Some(now + second));
        assert_eq!(pop(&mut queue, now), None, "its back-off is not over");
        assert_eq!(pop(&mut queue, now + second).as_deref(), Some("a"));
        queue.refused("a", BTreeSet::from(["TaintToleration"]), now);
        queue.wake(&event, |_, _| Some("TaintToleration"));
        assert_eq!(queue.next_due(), Some(now + 2 * second), "longer the second time");
        assert!(pop(&mut queue, now + LONGEST_WAIT).is_some(), "tried in any case at last");
        assert!(queue.due.is_empty());
    }

    #[test]
    fn a_changed_pod_is_tried_at_once_but_not_for_its_status() {
        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        queue.add(pod("a", 0, 1), Cause::new("a test"), now);
        pop(&mut queue, now);
        queue.refused("a", BTreeSet::from(["NodeAffinity"]), now);
        queue.add(pod("a", 0, 1), Cause::new("a test"), now);
        assert_eq!(pop(&mut queue, now), None);
        queue.add(pod("a", 0, 2), Cause::new("a test"), now);
        assert_eq!(pop(&mut queue, now).as_deref(), Some("a"));
    }
}
