//! Which pod is evicted when the machine runs out of something, and whether that can help. Pure.

use std::cmp::Reverse;
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
    pods.retain(|pod| pod.priority < CRITICAL && pod.used > 0);
    let used: u64 = pods.iter().fold(0, |sum, pod| sum.saturating_add(pod.used));
    if used < met.missing() {
        return None;
    }
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

/// Whether evictions for want of memory do any good. On a machine that is shared, what a pod gives back can go to the
/// programs of its user at once; then the next pod is left alone for a while.
#[derive(Debug, Default)]
pub(crate) struct HoldOff {
    /// How much memory there should be after the last eviction, at least.
    expected: Option<u64>,
    until: Option<Instant>,
}

impl HoldOff {
    /// Notes that a pod was evicted for `met` that used so much.
    pub(crate) fn evicted(&mut self, met: Met, used: u64) {
        if met.signal == Signal::Memory {
            // Half of it: the pods that stay go on working.
            self.expected = Some(met.available.saturating_add(used / 2));
        }
    }

    /// Whether a further pod may be evicted for `met`.
    pub(crate) fn allows(&mut self, met: Met, now: Instant, pause: Duration) -> bool {
        if met.signal != Signal::Memory {
            return true;
        }
        if let Some(expected) = self.expected.take()
            && met.available < expected
        {
            self.until = Some(now + pause);
        }
        self.until.is_none_or(|until| until <= now)
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
        assert!(hold_off.allows(memory(50 * MI), now, pause));
        hold_off.evicted(memory(50 * MI), 60 * MI);
        // It came back for the most part, and is still too little.
        assert!(hold_off.allows(memory(90 * MI), now, pause));
        hold_off.evicted(memory(90 * MI), 60 * MI);
        assert!(!hold_off.allows(memory(70 * MI), now, pause));
        assert!(!hold_off.allows(memory(70 * MI), now + pause / 2, pause));
        // A disk does not come back by itself.
        assert!(hold_off.allows(met(Signal::NodeFs, 2, 1), now, pause));
        assert!(hold_off.allows(memory(70 * MI), now + pause, pause));
    }
}
