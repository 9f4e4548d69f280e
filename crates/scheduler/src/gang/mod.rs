//! Gangs: pods that are of use only together, so that either enough of them are placed or none.
//!
//! A pod names its group: by the label `scheduling.x-k8s.io/pod-group` or `pod-group.scheduling.sigs.k8s.io/name` a
//! PodGroup of scheduling.x-k8s.io/v1alpha1, by the annotation `scheduling.k8s.io/group-name` one of
//! scheduling.volcano.sh/v1beta1. Where the addon has defined the kind, the pod waits for its group. Anybody else's
//! definition is there for somebody else's scheduler: here the label then means nothing, as with upstream's default
//! scheduler, and objects of the kind are left alone.
//!
//! ```text
//!   a member's turn ──► all waiting members of the group, one after the other, each on the books of those before it
//!                          ├─ enough of them placed (minMember): all are bound
//!                          └─ too few: every placement is taken back, nothing is held
//!                                └─ enough if pods of lower priority went: they go, and the nodes are kept for the gang
//! ```
//!
//! Because nothing is held between tries, two gangs that fit only one after the other cannot block each other, which is
//! what happens where each member waits, bound in the books, for the rest of its group.
//!
//! Volcano's groups are in queues, which share the cluster: [`proportion`].

mod clear;
mod objects;
mod place;
mod proportion;
mod queue_status;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use self::proportion::DEFAULT_QUEUE;
use crate::cache::Cache;
use crate::framework::Candidate;
use crate::resources::Resources;

pub(crate) use clear::{Clearing, clear};
pub(crate) use objects::{Told, known, watch};
pub(crate) use place::{Placement, Refused, in_order, place};
pub use proportion::Queue;
pub(crate) use proportion::{NAME as PROPORTION, Standings};

/// The name under which refusals of gangs are told, beside those of plugins.
pub(crate) const NAME: &str = "Coscheduling";

const LABELS: [&str; 3] =
    ["scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io/name", "pod-group.scheduling.sigs.k8s.io"];
const ANNOTATION: &str = "scheduling.k8s.io/group-name";

/// The two kinds of PodGroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// scheduling.x-k8s.io/v1alpha1, of the coscheduling plugin.
    Coscheduling,
    /// scheduling.volcano.sh/v1beta1.
    Volcano,
}

/// Which group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Of which kind.
    pub family: Family,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl GroupKey {
    /// The group that `pod` names.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let labelled = LABELS.iter().find_map(|label| meta.labels.as_ref()?.get(*label));
        let annotated = meta.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        let (family, name) = match (labelled, annotated) {
            (Some(name), _) => (Family::Coscheduling, name),
            (None, Some(name)) => (Family::Volcano, name),
            (None, None) => return None,
        };
        let namespace = meta.namespace.clone().unwrap_or_default();
        (!name.is_empty()).then(|| Self { family, namespace, name: name.clone() })
    }
}

impl std::fmt::Display for GroupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A group, as its object says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// Fewer members are of no use.
    pub min_member: usize,
    /// What the cluster must have left before a member is placed.
    pub min_resources: Resources,
    /// How long the group may wait before somebody is told.
    pub timeout: Option<Duration>,
    /// Volcano: the queue that it counts against.
    pub queue: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GroupSpec {
    min_member: usize,
    min_resources: BTreeMap<String, Quantity>,
    schedule_timeout_seconds: Option<u64>,
    queue: Option<String>,
}

impl Group {
    /// Reads the object of a group. What is missing or malformed counts as not said.
    pub fn read(family: Family, object: &Value) -> Self {
        let spec = GroupSpec::deserialize(&object["spec"]).unwrap_or_default();
        Self {
            min_member: spec.min_member,
            min_resources: Resources::from_list(&spec.min_resources),
            timeout: spec.schedule_timeout_seconds.map(Duration::from_secs),
            queue: (family == Family::Volcano)
                .then(|| spec.queue.filter(|queue| !queue.is_empty()).unwrap_or_else(|| DEFAULT_QUEUE.to_owned())),
        }
    }
}

/// What is known of groups.
#[derive(Debug, Default)]
pub struct Groups {
    /// The kinds that the addon has defined in the cluster.
    pub families: Vec<Family>,
    /// The groups.
    pub groups: HashMap<GroupKey, Group>,
    /// Volcano's queues.
    pub queues: HashMap<String, Queue>,
    /// Since when a group is tried in vain, and whether somebody was told that it takes too long.
    waiting: HashMap<GroupKey, (Instant, bool)>,
}

impl Groups {
    /// Whether pods that name the group wait for it. Where the addon is off they are like any other.
    pub fn govern(&self, key: &GroupKey) -> bool {
        self.families.contains(&key.family)
    }

    /// Why no member is to be placed now, before nodes are looked at, and by what. `waiting` members and `placed` ones are
    /// there, and those that are needed next ask for `asked`.
    pub(crate) fn obstacle(
        &self,
        key: &GroupKey,
        waiting: usize,
        placed: usize,
        asked: &Resources,
        cache: &Cache,
        standings: &Standings,
    ) -> Option<(&'static str, String)> {
        let Some(group) = self.groups.get(key) else {
            return Some((NAME, format!("pod group {key} not found")));
        };
        if waiting + placed < group.min_member {
            let message = match key.family {
                Family::Coscheduling => format!(
                    "pod group {key} cannot find enough sibling pods, current pods number: {}, minMember of group: {}",
                    waiting + placed,
                    group.min_member
                ),
                Family::Volcano => format!(
                    "pod group {key} is not ready, {} Pending, {} minAvailable",
                    waiting + placed,
                    group.min_member
                ),
            };
            return Some((NAME, message));
        }
        if placed < group.min_member
            && let Some(lack) = lacks(&group.min_resources, cache)
        {
            return Some((NAME, format!("pod group {key} is not ready, minResources are not available: {lack}")));
        }
        self.queue_obstacle(group, asked, standings)
    }

    /// How many of `members`, of which the first `needed` count already, the queue of their group may have now.
    pub(crate) fn admitted(
        &self,
        key: &GroupKey,
        members: &[Candidate],
        needed: usize,
        mut standings: Standings,
    ) -> usize {
        let Some((group, queue)) = self.groups.get(key).and_then(|group| Some((group, group.queue.as_ref()?))) else {
            return members.len();
        };
        for (number, member) in members.iter().enumerate() {
            if number >= needed.max(1) && self.queue_obstacle(group, &member.requests, &standings).is_some() {
                return number;
            }
            standings.take(queue, &member.requests);
        }
        members.len()
    }

    fn queue_obstacle(
        &self,
        group: &Group,
        asked: &Resources,
        standings: &Standings,
    ) -> Option<(&'static str, String)> {
        let name = group.queue.as_ref()?;
        match self.queues.get(name) {
            None if name != DEFAULT_QUEUE => Some((NAME, format!("queue {name} not found"))),
            Some(queue) if !queue.open => Some((NAME, format!("queue {name} is not open"))),
            _ => standings.obstacle(name, asked),
        }
    }

    /// The group was tried in vain.
    pub fn note_in_vain(&mut self, key: &GroupKey, now: Instant) {
        self.waiting.entry(key.clone()).or_insert((now, false));
    }

    /// The group was placed, or is gone.
    pub fn settled(&mut self, key: &GroupKey) {
        self.waiting.remove(key);
    }

    /// When the next group has waited for longer than it wants to.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timeouts().map(|(at, _)| at).min()
    }

    /// The groups that have waited for too long by now; each is told of once.
    pub fn take_overdue(&mut self, now: Instant) -> Vec<GroupKey> {
        let overdue: Vec<GroupKey> = self.timeouts().filter(|(at, _)| *at <= now).map(|(_, key)| key.clone()).collect();
        for key in &overdue {
            if let Some((_, told)) = self.waiting.get_mut(key) {
                *told = true;
            }
        }
        overdue
    }

    fn timeouts(&self) -> impl Iterator<Item = (Instant, &GroupKey)> {
        let waiting = self.waiting.iter().filter(|(_, (_, told))| !told);
        waiting.filter_map(|(key, (since, _))| Some((*since + self.groups.get(key)?.timeout?, key)))
    }
}

/// What all nodes together have left too little of: `nvidia.com/gpu 4 wanted, 2 left`.
fn lacks(wanted: &Resources, cache: &Cache) -> Option<String> {
    let left = |name: &str| -> i64 {
        cache.nodes().map(|node| (node.allocatable.of(name) - node.requested.of(name)).max(0)).sum()
    };
    shortage(wanted, left, "left")
}

fn shortage(wanted: &Resources, has: impl Fn(&str) -> i64, word: &str) -> Option<String> {
    let short: Vec<String> = wanted
        .each()
        .filter_map(|(name, amount)| {
            let has = has(name);
            (has < amount).then(|| {
                format!("{name} {} wanted, {} {word}", Resources::text(name, amount), Resources::text(name, has))
            })
        })
        .collect();
    (!short.is_empty()).then(|| short.join(", "))
}
