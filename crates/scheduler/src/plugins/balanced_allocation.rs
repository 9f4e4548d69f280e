//! Prefers nodes on which CPU and memory would be used up evenly, so that neither is left over alone.

use crate::framework::{MAX_SCORE, NodeInfo, PodInfo, Score};

pub(super) struct NodeResourcesBalancedAllocation;

impl Score for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    /// The best score, less the standard deviation of the two shares in use: upstream's formula.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let share = |used: i64, wanted: i64, offered: i64| {
            if offered <= 0 {
                return 1.0;
            }
            (used.saturating_add(wanted) as f64 / offered as f64).min(1.0)
        };
        let (used, wanted, offered) = (&node.requested, &pod.requests, &node.allocatable);
        let cpu = share(used.milli_cpu, wanted.milli_cpu, offered.milli_cpu);
        let memory = share(used.memory, wanted.memory, offered.memory);
        let deviation = ((cpu - memory) / 2.0).abs();
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}
