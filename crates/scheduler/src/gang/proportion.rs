//! Volcano's queues: what the groups of each may have of the cluster while others want it too.
//!
//! - Of each resource a queue deserves a share in proportion to its `weight`, among the queues whose groups use it or wait
//!   for it. What one does not want, or may not have, goes to the others in the same proportion.
//! - Nobody goes beyond its `capability`, or into what the `guarantee` of another queue keeps free; a queue deserves at
//!   least its own guarantee.
//! - A queue that has what it deserves of a resource gets no more of it while other queues wait. One that has less gets
//!   its next group, whole, and so may go beyond its share by one group.
//! - Of the groups whose turn it is, those of the queue go first that has the least of what it deserves.
//! - A group with too few members, one of a closed queue, and one that the whole cluster could not hold if it were empty
//!   wait, but nothing is kept for them.
//!
//! upstream: the plugin proportion. Today's asks for each pod, not for each group, whether the queue stays within its share;
//! then two groups that are each larger than the share of their queue keep each other waiting for ever, and all or nothing
//! is what groups are for.
//!
//! Nothing that runs is taken back: `reclaimable` changes nothing, as with the actions that Volcano carries out by default
//! (enqueue, allocate, backfill). Nor does the `affinity` of a queue to groups of nodes. There are no queues in queues.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::spec::{Group, NAME, PROPORTION, Queue};
use crate::cache::Cache;
use crate::resources::Resources;
use crate::types::GroupKey;

/// Shares are fractions: what differs by less than this part is the same.
const SAME: f64 = 1e-9;

/// What the groups of a queue have and want.
#[derive(Debug, Clone, Default)]
struct Demand {
    used: Resources,
    wanted: Resources,
}

/// How all queues stand that have anything or want it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standings(BTreeMap<String, Standing>);

/// How a queue stands.
#[derive(Debug, Clone, Default)]
struct Standing {
    used: Resources,
    wants: bool,
    weight: u32,
    /// What it deserves and the most that it may have, by resource.
    deserved: BTreeMap<String, (f64, i64)>,
}

impl Standing {
    fn share(&self) -> f64 {
        let shares = self.deserved.iter().map(|(resource, (deserved, _))| match self.used.of(resource) as f64 {
            used if *deserved > 0.0 => used / deserved,
            used => f64::from(u8::from(used > 0.0)),
        });
        shares.fold(0.0, f64::max)
    }
}

impl Standings {
    /// Why the queue is not to have this now.
    pub(super) fn obstacle(&self, queue: &str, asked: &Resources) -> Option<(&'static str, String)> {
        let own = self.0.get(queue)?;
        let shared =
            || asked.each().filter_map(|(resource, amount)| Some((resource, amount, own.deserved.get(resource)?)));
        let over: Vec<String> = shared()
            .filter(|(resource, amount, (_, most))| own.used.of(resource).saturating_add(*amount) > *most)
            .map(|(resource, ..)| format!("insufficient {resource}"))
            .collect();
        if !over.is_empty() {
            return Some((NAME, format!("queue {queue} resource quota insufficient: {}", over.join(", "))));
        }
        let rivals: Vec<&Standing> =
            self.0.iter().filter(|(name, other)| *name != queue && other.wants).map(|(_, other)| other).collect();
        if rivals.is_empty() {
            return None;
        }
        let (resource, _, (deserved, _)) =
            shared().find(|(resource, _, (deserved, _))| own.used.of(resource) as f64 >= deserved * (1.0 - SAME))?;
        let text = |amount| Resources::text(resource, amount);
        let weights: u32 = rivals.iter().map(|rival| rival.weight).fold(own.weight, u32::saturating_add);
        Some((
            PROPORTION,
            format!(
                "queue {queue} is overused: {resource} {} in use, {} deserved by weight {} of {weights} while other queues \
                 wait",
                text(own.used.of(resource)),
                text(deserved.round() as i64),
                own.weight
            ),
        ))
    }

    /// The queue has this too from now on.
    pub(super) fn take(&mut self, queue: &str, asked: &Resources) {
        if let Some(own) = self.0.get_mut(queue) {
            own.used.add(asked);
        }
    }

    /// Which part the queue has of what it deserves, of the resource of which that is the most.
    fn share(&self, queue: &str) -> f64 {
        self.0.get(queue).map_or(0.0, Standing::share)
    }
}

impl Standings {
    /// How the queues stand. `waiting` tells how many members of a group wait, and what they ask for together.
    pub(super) fn new<'a>(
        groups: &HashMap<GroupKey, Group>,
        queues: &HashMap<String, Queue>,
        cache: &Cache,
        waiting: impl Fn(&GroupKey) -> Option<(usize, &'a Resources)>,
    ) -> Self {
        let mut demands: BTreeMap<&str, Demand> = BTreeMap::new();
        for (key, group) in groups {
            let Some(queue) = &group.queue else {
                continue;
            };
            let demand = demands.entry(queue).or_default();
            let (placed, used) = cache.group_use(key).cloned().unwrap_or_default();
            demand.used.add(&used);
            if let Some((count, wanted)) = waiting(key)
                && queues.get(queue).is_none_or(|queue| queue.open)
                && can_be(group, (placed, &used), (count, wanted), cache.total())
            {
                demand.wanted.add(wanted);
            }
        }
        deserved(cache.total(), queues, &demands)
    }

    /// Of these groups, whose turn it is, the one to be tried before the group `key`; none if that is the first. They come
    /// with their place in the order within a queue.
    pub(super) fn goes_before<'a, P: Ord, T>(
        &self,
        groups: &HashMap<GroupKey, Group>,
        key: &GroupKey,
        turns: impl Iterator<Item = (&'a GroupKey, P, T)>,
    ) -> Option<(GroupKey, T)> {
        let share = |key: &GroupKey| Some(self.share(groups.get(key)?.queue.as_ref()?));
        let own = share(key)?;
        let earlier = turns.filter_map(|(other, place, turn)| {
            let share = share(other).filter(|share| *share < own - SAME)?;
            Some((share, place, other, turn))
        });
        let first = earlier.min_by(|one, two| one.0.total_cmp(&two.0).then_with(|| one.1.cmp(&two.1)));
        first.map(|(_, _, other, turn)| (other.clone(), turn))
    }
}

/// Whether the group has enough members, and the cluster, empty, would hold them.
fn can_be(group: &Group, placed: (usize, &Resources), waiting: (usize, &Resources), total: &Resources) -> bool {
    let amount = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let needed = group.min_member.saturating_sub(placed.0);
    let (count, needed) = (amount(waiting.0).max(1), amount(needed));
    let fits = |(resource, wanted): (&str, i64)| {
        placed.1.of(resource).saturating_add(wanted.saturating_mul(needed) / count) <= total.of(resource)
    };
    amount(waiting.0) >= needed && waiting.1.each().all(fits)
}

/// What each queue deserves of a cluster with so much.
fn deserved(total: &Resources, queues: &HashMap<String, Queue>, demands: &BTreeMap<&str, Demand>) -> Standings {
    let any = Queue::default();
    let mut standings: BTreeMap<String, Standing> = demands
        .iter()
        .map(|(name, demand)| {
            let standing = Standing {
                used: demand.used.clone(),
                wants: demand.wanted.each().next().is_some(),
                weight: queues.get(*name).unwrap_or(&any).weight,
                deserved: BTreeMap::new(),
            };
            ((*name).to_owned(), standing)
        })
        .collect();
    let of = |demand: &Demand, resource: &str| demand.used.of(resource).saturating_add(demand.wanted.of(resource));
    let resources: BTreeSet<&str> = demands
        .values()
        .flat_map(|demand| demand.used.each().chain(demand.wanted.each()))
        .map(|(resource, _)| resource)
        // Pods are no resource that queues share.
        .filter(|resource| *resource != "pods")
        .collect();
    for resource in resources {
        let total = total.of(resource);
        let guaranteed: i64 = queues.values().map(|queue| queue.guarantee.of(resource)).sum();
        let wants: Vec<(&str, i64, Want)> = demands
            .iter()
            .map(|(name, demand)| {
                let queue = queues.get(*name).unwrap_or(&any);
                let limit = queue.limit(resource, total, guaranteed);
                let most = of(demand, resource).min(limit).max(0) as f64;
                let least = (queue.guarantee.of(resource) as f64).min(most);
                (*name, limit, Want { weight: f64::from(queue.weight), least, most })
            })
            .collect();
        let given = divide(total as f64, wants.iter().map(|(_, _, want)| *want));
        for ((name, limit, _), given) in wants.iter().zip(given) {
            if let Some(standing) = standings.get_mut(*name) {
                standing.deserved.insert(resource.to_owned(), (given, *limit));
            }
        }
    }
    Standings(standings)
}

/// What a queue wants of one resource: in proportion to `weight`, but not below `least` nor beyond `most`.
#[derive(Debug, Clone, Copy)]
struct Want {
    weight: f64,
    least: f64,
    most: f64,
}

/// Divides `total`: all get the same for each unit of weight, within their bounds.
fn divide(total: f64, wants: impl Iterator<Item = Want> + Clone) -> Vec<f64> {
    let at = |level: f64| wants.clone().map(move |want| (want.weight * level).clamp(want.least, want.most));
    // Somewhere below this level everybody has the most; what they get together grows with it.
    let (mut low, mut high) = (0.0, wants.clone().map(|want| want.most / want.weight).fold(0.0, f64::max));
    if at(high).sum::<f64>() > total {
        // As often as it takes to halve any number to nothing.
        for _ in 0..128 {
            let middle = low + (high - low) / 2.0;
            if at(middle).sum::<f64>() > total { high = middle } else { low = middle }
        }
        return at(low).collect();
    }
    at(high).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_resource_is_divided_by_weight_among_those_who_want_it() {
        // Total, and of each queue: weight, guarantee, the most that it wants or may have; then what each gets.
        let check = |total: f64, wants: &[(f64, f64, f64)], expected: &[f64]| {
            let wants = wants.iter().map(|(weight, least, most)| Want { weight: *weight, least: *least, most: *most });
            let given = divide(total, wants);
            let same = given.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-6);
            assert!(same && given.len() == expected.len(), "{given:?}, not {expected:?}");
        };
        check(8.0, &[], &[]);
        check(8.0, &[(1.0, 0.0, 20.0)], &[8.0]);
        check(8.0, &[(1.0, 0.0, 20.0), (3.0, 0.0, 20.0)], &[2.0, 6.0]);
        // What one does not want goes to the others, by their weights.
        check(8.0, &[(1.0, 0.0, 20.0), (3.0, 0.0, 1.0)], &[7.0, 1.0]);
        check(12.0, &[(1.0, 0.0, 20.0), (2.0, 0.0, 20.0), (3.0, 0.0, 3.0)], &[3.0, 6.0, 3.0]);
        // There is enough for everybody.
        check(8.0, &[(1.0, 0.0, 2.0), (3.0, 0.0, 3.0)], &[2.0, 3.0]);
        // A guarantee is kept, at the cost of all others.
        check(8.0, &[(1.0, 4.0, 20.0), (3.0, 0.0, 20.0), (1.0, 0.0, 20.0)], &[4.0, 3.0, 1.0]);
        check(3.0, &[(1.0, 0.0, 20.0), (1.0, 0.0, 20.0)], &[1.5, 1.5]);
        check(0.0, &[(1.0, 0.0, 20.0), (1.0, 0.0, 20.0)], &[0.0, 0.0]);
    }

    fn gpus(count: i64) -> Resources {
        Resources {
            extended: BTreeMap::from([("nvidia.com/gpu".to_owned(), count)]),
            pods: count,
            ..Resources::default()
        }
    }

    #[test]
    fn a_queue_is_refused_what_others_want() {
        // Queues with what they use and want; what one of them asks for, and what is said to it.
        let check = |queues: &[(&str, Value, i64, i64)], asks: (&str, i64), expected: Option<&str>| {
            let known =
                queues.iter().map(|(name, spec, ..)| ((*name).to_owned(), Queue::read(&json!({ "spec": spec }))));
            let demands = queues
                .iter()
                .map(|(name, _, used, wanted)| (*name, Demand { used: gpus(*used), wanted: gpus(*wanted) }))
                .collect();
            let standings = deserved(&gpus(8), &known.collect(), &demands);
            let obstacle = standings.obstacle(asks.0, &gpus(asks.1)).map(|(_, message)| message);
            assert_eq!(obstacle.as_deref(), expected, "{queues:?} {asks:?}");
        };
        let weight = |weight: u32| json!({ "weight": weight });
        let overused =
            "queue a is overused: nvidia.com/gpu 2 in use, 2 deserved by weight 1 of 4 while other queues wait";
        check(&[("a", weight(1), 2, 4), ("b", weight(3), 0, 20)], ("a", 1), Some(overused));
        check(&[("a", weight(1), 1, 4), ("b", weight(3), 0, 20)], ("a", 1), None);
        // One group may go beyond the share, or groups larger than the share of their queue would wait for ever.
        check(&[("a", weight(1), 0, 4), ("b", weight(3), 0, 20)], ("a", 4), None);
        // Nobody else waits: all of it is free to be had.
        check(&[("a", weight(1), 4, 4), ("b", weight(3), 2, 0)], ("a", 2), None);
        // Others want less than their share.
        check(&[("a", weight(1), 4, 4), ("b", weight(3), 1, 1)], ("a", 2), None);
        // Limits are limits, whoever waits.
        let small = json!({ "weight": 1, "capability": { "nvidia.com/gpu": 3 } });
        let insufficient = "queue a resource quota insufficient: insufficient nvidia.com/gpu";
        check(&[("a", small.clone(), 2, 2)], ("a", 2), Some(insufficient));
        check(&[("a", small, 2, 1)], ("a", 1), None);
        // What is guaranteed to a queue is for nobody else, even while it does not want it.
        let safe = json!({ "weight": 1, "guarantee": { "resource": { "nvidia.com/gpu": 6 } } });
        check(&[("a", weight(9), 2, 2), ("b", safe.clone(), 0, 0)], ("a", 1), Some(insufficient));
        check(&[("a", weight(9), 1, 2), ("b", safe.clone(), 0, 0)], ("a", 1), None);
        check(&[("b", safe, 5, 2), ("a", weight(9), 2, 6)], ("b", 1), None);
        // A queue that is not known, as `default` need not be, counts as one of weight 1.
        let standings = deserved(&gpus(8), &HashMap::new(), &BTreeMap::new());
        assert_eq!(standings.obstacle("default", &gpus(1)), None);
    }

    #[test]
    fn a_group_that_cannot_be_wants_nothing() {
        let check = |min_member: usize, placed: i64, waiting: i64, expected: bool| {
            let group = Group { min_member, ..Group::default() };
            let count = |number: i64| usize::try_from(number).expect("not negative");
            let (used, wanted) = (gpus(placed), gpus(waiting));
            let can = can_be(&group, (count(placed), &used), (count(waiting), &wanted), &gpus(8));
            assert_eq!(can, expected, "{min_member} {placed} {waiting}");
        };
        check(4, 0, 4, true);
        check(4, 0, 3, false);
        check(4, 2, 2, true);
        check(8, 0, 8, true);
        check(9, 0, 9, false);
        // More than it needs may wait for ever.
        check(4, 0, 20, true);
        check(4, 4, 1, true);
    }
}
