//! A node must have left what a pod asks for, and nodes with more left are preferred.

use std::borrow::Cow;

use crate::framework::{ClusterEvent, Filter, MAX_SCORE, NodeInfo, PodInfo, Refusal, Score};

pub(super) struct NodeResourcesFit;

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let (wanted, used, offered) = (&pod.requests, &node.requested, &node.allocatable);
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let mut resolvable = true;
        let mut check = |wanted: i64, used: i64, offered: i64, reason: Cow<'static, str>| {
            // Nothing wanted fits always, also on a node that is overcommitted.
            if wanted > 0 && wanted > offered.saturating_sub(used) {
                reasons.push(reason);
                resolvable &= wanted <= offered;
            }
        };
        check(1, used.pods, offered.pods, "Too many pods".into());
        check(wanted.milli_cpu, used.milli_cpu, offered.milli_cpu, "Insufficient cpu".into());
        check(wanted.memory, used.memory, offered.memory, "Insufficient memory".into());
        check(
            wanted.ephemeral_storage,
            used.ephemeral_storage,
            offered.ephemeral_storage,
            "Insufficient ephemeral-storage".into(),
        );
        for (name, amount) in &wanted.extended {
            let of = |amounts: &crate::resources::Resources| amounts.extended.get(name).copied().unwrap_or(0);
            check(*amount, of(used), of(offered), format!("Insufficient {name}").into());
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Refusal { reasons, resolvable })
    }

    fn healed_by(&self, _event: ClusterEvent) -> bool {
        true
    }
}

impl Score for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    /// Least allocated: the share of CPU and memory that would be left, averaged.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let left = |used: i64, wanted: i64, offered: i64| {
            let used = used.saturating_add(wanted);
            if offered <= 0 || used > offered {
                return 0;
            }
            (offered - used).saturating_mul(MAX_SCORE) / offered
        };
        let cpu = left(node.nonzero.milli_cpu, pod.nonzero.milli_cpu, node.allocatable.milli_cpu);
        let memory = left(node.nonzero.memory, pod.nonzero.memory, node.allocatable.memory);
        (cpu + memory) / 2
    }
}
