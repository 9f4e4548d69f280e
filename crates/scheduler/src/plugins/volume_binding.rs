//! A pod runs where its volumes are, or can be made.

use crate::cache::Cache;
use crate::framework::{Candidate, ClusterEvent, Filtering, NodeInfo, Plugin, Refusal};
use crate::storage::{Claim, Need};

pub(super) struct VolumeBinding;

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, cache: &'a Cache) -> Filtering<'a> {
        if pod.claims.is_empty() {
            return Filtering::Skip;
        }
        let storage = &cache.storage;
        let mut needs = Vec::with_capacity(pod.claims.len());
        for claim in &pod.info.claims {
            match storage.claim(claim) {
                Claim::Needs(need) => needs.push(need),
                Claim::Impossible(why) => return Filtering::Refuse(Refusal::unresolvable(why)),
            }
        }
        if needs.iter().any(|need| matches!(need, Need::Elsewhere)) {
            return Filtering::Refuse(Refusal::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
        }
        Filtering::each_node(move |node: &NodeInfo| storage.fit(&needs, node).map(drop))
    }

    fn queueing_hint(&self, _pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Node(_) | ClusterEvent::Storage)
    }
}
