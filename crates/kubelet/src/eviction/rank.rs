//! Which pod is evicted when the machine runs out of something, and whether that can help. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use machinery::quantity::Quantity;
use tokio::time::Instant;

use super::signals::{Met, Signal};

/// From this priority on a pod is never evicted (upstream: `IsCriticalPod` in `pkg/kubelet/types/pod_update.go`).
const CRITICAL: i32 = 2_000_000_000;

/// What a container uses of what runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerUsage {
    /// Its name.
    pub(crate) name: String,
    /// How much it uses.
    pub(crate) used: u64,
    /// How much it asked for.
    pub(crate) requested: Quantity,
}

/// What a pod uses of what runs out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodUsage {
    /// The pod.
    pub(crate) uid: String,
    /// Its priority.
    pub(crate) priority: i32,
    /// How much it uses.
    pub(crate) used: u64,
    /// How much it asked for.
    pub(crate) requested: u64,
    /// Its containers.
    pub(crate) containers: Vec<ContainerUsage>,
}

/// The pod to evict, and the message that says why: of those that use more than they asked for the one of the lowest
/// priority, and of these the one that uses the most beyond that; then of the others. (Upstream: `rankMemoryPressure`,
/// `rankDiskPressureFunc` and `rankPIDPressure` in `pkg/kubelet/eviction/helpers.go`.)
///
/// None where all that may go use less than what is missing: others have taken it, and it would not come back.
pub(crate) fn choose(mut pods: Vec<PodUsage>, met: Met) -> Option<(PodUsage, String)> {
    if total(&pods) < met.missing() {
        return None;
    }
    pods.retain(|pod| !is_critical(pod.priority) && pod.used > 0);
    let order = |pod: &PodUsage| {
        // Nobody asks for processes or inodes.
        let exceeds = met.signal != Signal::Pids && pod.used > pod.requested;
        let beyond = i128::from(pod.used) - i128::from(pod.requested);
        (Reverse(exceeds), pod.priority, Reverse(beyond))
    };
    let pod = pods.into_iter().min_by_key(order)?;
    let message = message(&pod, met);
    Some((pod, message))
}

/// What all pods that may go use together.
pub(crate) fn total(pods: &[PodUsage]) -> u64 {
    let can_evict = pods.iter().filter(|pod| !is_critical(pod.priority));
    can_evict.fold(0, |sum, pod| sum.saturating_add(pod.used))
}

/// Critical pods are admitted whatever the node is short of.
pub(crate) fn is_critical(priority: i32) -> bool {
    priority >= CRITICAL
}

/// Upstream: `evictionMessage` in `pkg/kubelet/eviction/helpers.go`.
fn message(pod: &PodUsage, met: Met) -> String {
    let resource = met.signal.resource();
    let (threshold, available) = (amount(met.signal, met.threshold), amount(met.signal, met.available));
    let mut message =
        format!("The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}. ");
    if met.signal == Signal::Pids || met.signal.is_inodes() {
        return message;
    }
    for ContainerUsage { name, used, requested } in &pod.containers {
        let used = amount(met.signal, *used);
        if used > *requested {
            let text = format!(
                "Container {name} was using {used}, request is {requested}, has larger consumption of {resource}. "
            );
            message.push_str(&text);
        }
    }
    message
}

fn amount(signal: Signal, number: u64) -> Quantity {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    match signal == Signal::Pids || signal.is_inodes() {
        true => Quantity::from_milli(number.saturating_mul(1000)),
        false => Quantity::from_bytes(number),
    }
}

/// Whether evictions do any good. On a machine that is shared, what a pod gives back can go to the programs of its user at
/// once; then the next pod is left alone. (Upstream, `synchronize` in `pkg/kubelet/eviction/eviction_manager.go`, evicts one pod
/// after the other for as long as a threshold is met; its transition period of five minutes is that of the node's conditions.)
#[derive(Debug, Default)]
pub(crate) struct HoldOff(BTreeMap<Signal, Eviction>);

/// The last eviction for one signal.
#[derive(Debug, Clone, Copy)]
struct Eviction {
    at: Instant,
    /// How much was left before.
    available: u64,
    /// How much the pod used.
    used: u64,
    /// How much the others used, of those that may go.
    others: u64,
    /// Until when no further pod goes, once what it gave back was found to be gone.
    held_until: Option<Instant>,
}

impl HoldOff {
    /// Notes that a pod was evicted for `met` that used so much, and how much the others use.
    pub(crate) fn evicted(&mut self, met: Met, used: u64, others: u64, now: Instant) {
        let eviction = Eviction { at: now, available: met.available, used, others, held_until: None };
        self.0.insert(met.signal, eviction);
    }

    /// Whether a further pod may be evicted for `met`, now that those that may go use `used` together. When pods themselves
    /// have taken what the last one gave back, one may: what they go on to take is not theirs to keep, and of memory the
    /// kernel would end something else for it. Else the answer stays no until the condition has been away for `pause`.
    pub(crate) fn allows(&mut self, met: Met, used: u64, now: Instant, pause: Duration) -> bool {
        let Some(last) = self.0.get_mut(&met.signal) else { return true };
        let is_over = match last.held_until {
            Some(until) => until <= now,
            None => now.saturating_duration_since(last.at) >= pause,
        };
        let lost = last.available.saturating_add(last.used).saturating_sub(met.available);
        // Half of it is enough: the pods that stay go on working.
        let came_back = lost <= last.used / 2;
        if is_over || came_back {
            self.0.remove(&met.signal);
            return true;
        }
        let grown = used.saturating_sub(last.others);
        if grown >= lost / 2 {
            return true;
        }
        last.held_until = Some(now + pause);
        false
    }

    /// Notes that `met` lasts, without asking whether a pod may go.
    pub(crate) fn lasts(&mut self, met: Met, now: Instant, pause: Duration) {
        if let Some(until) = self.0.get_mut(&met.signal).and_then(|last| last.held_until.as_mut()) {
            *until = now + pause;
        }
    }
}

/// For so long nothing is tried again that was of no use, unless much less is left by then.
const FUTILE: Duration = Duration::from_secs(60);
/// So many bytes of a disk are much; of the rest a sixteenth of the threshold is.
const MUCH: u64 = 64 << 20;

/// When neither images nor pods could give anything back, and how much was left then: to count what all pods use costs the
/// machine much, so that is not done every second for as long as others take what is missing.
#[derive(Debug, Default)]
pub(crate) struct Futile(BTreeMap<Signal, (Instant, u64)>);

impl Futile {
    /// Notes that nothing could be done about `met`.
    pub(crate) fn note(&mut self, met: Met, now: Instant) {
        self.0.insert(met.signal, (now, met.available));
    }

    /// Notes that something could be done about `met`.
    pub(crate) fn forget(&mut self, met: Met) {
        self.0.remove(&met.signal);
    }

    /// Whether it is of no use to try again.
    pub(crate) fn is(&self, met: Met, now: Instant) -> bool {
        let is_disk = met.signal.is_disk() && !met.signal.is_inodes();
        let much = if is_disk { MUCH } else { met.threshold / 16 };
        self.0.get(&met.signal).is_some_and(|(at, available)| {
            now.saturating_duration_since(*at) < FUTILE && met.available.saturating_add(much) >= *available
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MI: u64 = 1 << 20;

    fn pod(uid: &str, priority: i32, used: u64, requested: u64) -> PodUsage {
        let requested_quantity = Quantity::from_bytes(i64::try_from(requested).unwrap());
        let container = ContainerUsage { name: "c".to_owned(), used, requested: requested_quantity };
        PodUsage { uid: uid.to_owned(), priority, used, requested, containers: vec![container] }
    }

    fn met(signal: Signal, threshold: u64, available: u64) -> Met {
        Met { signal, threshold, available }
    }

    #[test]
    fn usage_beyond_requests_then_priority_then_usage() {
        let memory = met(Signal::Memory, 100 * MI, 52 * MI);
        let check = |pods: &[PodUsage], expect: Option<&str>| {
            let chosen = choose(pods.to_vec(), memory).map(|(pod, _)| pod.uid);
            assert_eq!(chosen.as_deref(), expect, "{pods:?}");
        };
        let (small, large) = (pod("small", 0, 60 * MI, 0), pod("large", 0, 90 * MI, 0));
        let modest = pod("modest", 0, 500 * MI, 600 * MI);
        check(&[modest.clone(), small.clone(), large.clone()], Some("large"));
        check(&[modest.clone(), pod("important", 5, 90 * MI, 0), small.clone()], Some("small"));
        check(&[modest.clone(), pod("important", 5, 90 * MI, 0)], Some("important"));
        check(&[modest.clone(), pod("critical", CRITICAL, 900 * MI, 0)], Some("modest"));
        check(&[pod("close", 0, 500 * MI, 450 * MI), pod("far", 0, 90 * MI, MI)], Some("far"));
        check(&[], None);
        // 48 MiB are missing, and all pods together do not have so much.
        check(&[pod("a", 0, 20 * MI, 0), pod("b", 0, 27 * MI, 0)], None);
        check(&[pod("a", 0, 20 * MI, 0), pod("b", 0, 28 * MI, 0)], Some("b"));
    }

    #[test]
    fn messages_are_upstreams() {
        let check = |met: Met, expect: &str| {
            let (_, message) = choose(vec![pod("p", 0, 60 * MI, 10 * MI)], met).unwrap();
            assert_eq!(message, expect);
        };
        check(
            met(Signal::Memory, 100 * MI, 52 * MI),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container c was using \
             60Mi, request is 10Mi, has larger consumption of memory. ",
        );
        check(
            met(Signal::ImageFs, 1024 * MI, 1000 * MI),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 1000Mi. Container c was \
             using 60Mi, request is 10Mi, has larger consumption of ephemeral-storage. ",
        );
        check(
            met(Signal::NodeFsInodes, 10_000, 9_999),
            "The node was low on resource: inodes. Threshold quantity: 10k, available: 9999. ",
        );
        check(
            met(Signal::Pids, 1_000, 7),
            "The node was low on resource: pids. Threshold quantity: 1k, available: 7. ",
        );
    }

    #[test]
    fn evictions_end_where_others_take_what_they_give_back() {
        let (mut hold_off, now, pause) = (HoldOff::default(), Instant::now(), Duration::from_secs(300));
        let memory = |available| met(Signal::Memory, 100 * MI, available);
        assert!(hold_off.allows(memory(50 * MI), 0, now, pause));
        hold_off.evicted(memory(50 * MI), 60 * MI, 0, now);
        // It came back for the most part, and is still too little.
        assert!(hold_off.allows(memory(90 * MI), 0, now, pause));
        hold_off.evicted(memory(90 * MI), 60 * MI, 0, now);
        // No pod goes for as long as that lasts.
        for half in 0..10 {
            assert!(!hold_off.allows(memory(70 * MI), 39 * MI, now + pause / 2 * half, pause), "{half}");
        }
        hold_off.lasts(memory(70 * MI), now + pause * 5, pause);
        assert!(!hold_off.allows(memory(70 * MI), 0, now + pause * 6 - Duration::from_secs(1), pause));
        assert!(hold_off.allows(memory(70 * MI), 0, now + pause * 7, pause));
        // What became of an eviction long ago says nothing.
        hold_off.evicted(memory(70 * MI), 60 * MI, 0, now);
        assert!(hold_off.allows(memory(70 * MI), 0, now + pause, pause));
    }

    #[test]
    fn a_second_greedy_pod_is_met_where_others_are_not_to_blame() {
        let (now, pause) = (Instant::now(), Duration::from_secs(300));
        for signal in [Signal::Memory, Signal::NodeFs, Signal::ImageFsInodes, Signal::Pids] {
            let (mut hold_off, left) = (HoldOff::default(), met(signal, 1_000, 900));
            hold_off.evicted(left, 400, 1_000, now);
            // Its 400 are gone, and the other pods use what they used.
            assert!(!hold_off.allows(left, 1_000, now, pause), "{signal:?}");
            assert!(!hold_off.allows(left, 1_199, now + pause / 2, pause), "{signal:?}");
            assert!(hold_off.allows(left, 1_200, now + pause / 2, pause), "{signal:?}");
            // Each signal is judged by itself.
            assert!(hold_off.allows(met(Signal::NodeFsInodes, 2, 1), 0, now, pause));
        }
    }

    #[test]
    fn what_was_of_no_use_is_not_tried_again_at_once() {
        let (mut futile, now) = (Futile::default(), Instant::now());
        let disk = |available: u64| met(Signal::NodeFs, 1_000 * MI, available * MI);
        assert!(!futile.is(disk(500), now));
        futile.note(disk(500), now);
        assert!(futile.is(disk(900), now) && futile.is(disk(436), now) && !futile.is(disk(435), now));
        assert!(!futile.is(met(Signal::Memory, 2, 1), now) && !futile.is(disk(500), now + FUTILE));
        futile.note(met(Signal::Pids, 1_600, 700), now);
        assert!(futile.is(met(Signal::Pids, 1_600, 600), now) && !futile.is(met(Signal::Pids, 1_600, 599), now));
    }
}
