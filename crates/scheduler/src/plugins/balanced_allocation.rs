//! Prefers nodes on which resources would be used up evenly, so that none is left over alone.

use serde::Deserialize;
use serde_json::Value;

use super::node_resources_fit::{Weighted, defaults};
use crate::cache::Cache;
use crate::framework::{Candidate, MAX_SCORE, NodeInfo, Plugin};

/// `NodeResourcesBalancedAllocationArgs`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeResourcesBalancedAllocation {
    resources: Vec<Weighted>,
}

impl NodeResourcesBalancedAllocation {
    pub(super) fn new(args: &Value) -> Result<Self, String> {
        let mut new: Self = super::arguments(args)?;
        if new.resources.is_empty() {
            new.resources = defaults();
        }
        Ok(new)
    }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    /// The best score, less the standard deviation of the shares in use: upstream's formula.
    fn score(&self, pod: &Candidate, _cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        // Upstream: many pods that ask for nothing would otherwise all go to the node that is balanced already.
        if self.resources.iter().all(|resource| pod.requests.of(&resource.name) == 0) {
            return None;
        }
        let mut shares = Vec::with_capacity(self.resources.len());
        let score = |node: &&NodeInfo| {
            shares.clear();
            shares.extend(self.resources.iter().filter_map(|resource| {
                let offered = node.allocatable.of(&resource.name);
                let used = node.requested.of(&resource.name).saturating_add(pod.requests.of(&resource.name));
                (offered > 0).then(|| (used as f64 / offered as f64).min(1.0))
            }));
            let deviation = match shares.as_slice() {
                [] | [_] => 0.0,
                [one, other] => ((one - other) / 2.0).abs(),
                more => {
                    let mean = more.iter().sum::<f64>() / more.len() as f64;
                    (more.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / more.len() as f64).sqrt()
                }
            };
            ((1.0 - deviation) * MAX_SCORE as f64) as i64
        };
        Some(nodes.iter().map(score).collect())
    }
}
