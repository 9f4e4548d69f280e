//! A claim of mode ReadWriteOncePod is mounted by one pod only.

use crate::cache::Cache;
use crate::framework::{Candidate, Check, ClusterEvent, Filtering, NodeInfo, Plugin, PodInfo, Refusal};

pub(super) struct VolumeRestrictions;

struct Exclusive<'a> {
    claims: Vec<&'a String>,
    /// How many mounts of these claims there are.
    users: usize,
}

impl Exclusive<'_> {
    fn shared_with(&self, other: &PodInfo) -> usize {
        other.claims.iter().filter(|claim| self.claims.contains(claim)).count()
    }
}

impl Check for Exclusive<'_> {
    fn check(&self, _node: &NodeInfo) -> Result<(), Refusal> {
        if self.users > 0 {
            return Err(Refusal::resolvable(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ));
        }
        Ok(())
    }

    fn add_pod(&mut self, other: &PodInfo, _node: &NodeInfo) {
        self.users += self.shared_with(other);
    }

    fn remove_pod(&mut self, other: &PodInfo, _node: &NodeInfo) {
        self.users = self.users.saturating_sub(self.shared_with(other));
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, cache: &'a Cache) -> Filtering<'a> {
        let exclusive = |claim: &&String| {
            let claim = cache.storage.claims.get(*claim);
            let modes = claim.and_then(|claim| claim.spec.as_ref()).and_then(|spec| spec.access_modes.as_ref());
            modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod")
        };
        let claims: Vec<&String> = pod.info.claims.iter().filter(exclusive).collect();
        if claims.is_empty() {
            return Filtering::Skip;
        }
        let users = claims.iter().map(|claim| cache.claim_users(claim)).sum();
        Filtering::Each(Box::new(Exclusive { claims, users }))
    }

    fn queueing_hint(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::PodRemoved(other) => other.claims.iter().any(|claim| pod.claims.contains(claim)),
            ClusterEvent::Storage => true,
            _ => false,
        }
    }
}
