//! The groups and queues that the scheduler knows of, and whether a group may be tried now.

use std::collections::HashMap;

use tokio::time::Instant;

use super::proportion::Standings;
use super::spec::{DEFAULT_QUEUE, Group, NAME, Queue};
use crate::cache::Cache;
use crate::resources::Resources;
use crate::types::{Candidate, Family, GroupKey};

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

    /// How Volcano's queues stand. `waiting` tells how many members of a group wait, and what they ask for together.
    pub(crate) fn standings<'a>(
        &self,
        cache: &Cache,
        waiting: impl Fn(&GroupKey) -> Option<(usize, &'a Resources)>,
    ) -> Standings {
        Standings::new(&self.groups, &self.queues, cache, waiting)
    }

    /// Of these groups, whose turn it is, the one to be tried before the group `key`; none if that is the first. They come
    /// with their place in the order within a queue.
    pub(crate) fn goes_before<'a, P: Ord, T>(
        &self,
        key: &GroupKey,
        standings: &Standings,
        turns: impl Iterator<Item = (&'a GroupKey, P, T)>,
    ) -> Option<(GroupKey, T)> {
        standings.goes_before(&self.groups, key, turns)
    }
}

/// What all nodes together have left too little of: `nvidia.com/gpu 4 wanted, 2 left`.
fn lacks(wanted: &Resources, cache: &Cache) -> Option<String> {
    let left = |name: &str| -> i64 {
        cache.nodes().map(|node| (node.allocatable.of(name) - node.requested.of(name)).max(0)).sum()
    };
    wanted.shortage(left, "left")
}
