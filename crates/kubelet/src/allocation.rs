//! What the node has allocated to its pods: whether another one fits, and what a resize may take (upstream:
//! `pkg/kubelet/allocation`).

use std::collections::HashMap;

use k8s_openapi::api::core::v1::PodSpec;
use machinery::placement::{HostPort, host_ports};
use machinery::resources::{Resources, spec_requests};
use parking_lot::Mutex;

/// What a pod holds of its node, or several pods together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// What it asks for, as far as the node has granted it.
    pub(crate) requests: Resources,
    /// Its ports of the host.
    pub(crate) host_ports: Vec<HostPort>,
}

impl Allocation {
    /// What a pod with this specification holds.
    pub(crate) fn of(spec: &PodSpec) -> Self {
        Self { requests: spec_requests(spec), host_ports: host_ports(spec) }
    }
}

/// What each pod holds, by uid, from its admission until nothing of it runs. A check and what it allows are one step: two pods
/// that ask at the same time are not both promised what is left.
#[derive(Debug, Default)]
pub(crate) struct Allocations(Mutex<HashMap<String, Allocation>>);

impl Allocations {
    /// Allocates `allocation` to the pod `uid`, instead of what it has, if `check` does not object to that beside what all
    /// others have.
    ///
    /// # Errors
    /// The objection of `check`. Then the pod has what it had.
    pub(crate) fn allocate<E>(
        &self,
        uid: &str,
        allocation: Allocation,
        check: impl FnOnce(&Allocation) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pods = self.0.lock();
        let mut others = Allocation::default();
        for (_, other) in pods.iter().filter(|(other, _)| *other != uid) {
            others.requests.add(&other.requests);
            others.host_ports.extend_from_slice(&other.host_ports);
        }
        check(&others)?;
        pods.insert(uid.to_owned(), allocation);
        Ok(())
    }

    /// Notes what the pod `uid` has had since before this process began.
    pub(crate) fn restore(&self, uid: &str, allocation: Allocation) {
        self.0.lock().insert(uid.to_owned(), allocation);
    }

    /// Takes back what the pod `uid` has.
    pub(crate) fn release(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_promised_once() {
        let cpu = |milli_cpu| Allocation {
            requests: Resources { milli_cpu, ..Resources::default() },
            ..Allocation::default()
        };
        let allocations = Allocations::default();
        let allocate = |uid: &str, milli_cpu| {
            allocations.allocate(uid, cpu(milli_cpu), |others| match others.requests.milli_cpu + milli_cpu {
                0..=1000 => Ok(()),
                sum => Err(sum),
            })
        };
        assert_eq!((allocate("a", 600), allocate("b", 600)), (Ok(()), Err(1200)));
        // What it has itself is not in its way, and a refusal leaves it that.
        assert_eq!((allocate("a", 900), allocate("a", 1001)), (Ok(()), Err(1001)));
        assert_eq!((allocate("b", 101), allocate("b", 100)), (Err(1001), Ok(())));
        allocations.release("a");
        assert_eq!(allocate("b", 1000), Ok(()));
    }
}
