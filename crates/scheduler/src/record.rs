//! What was decided lately, and why: for `coracle explain` and for whoever else asks.
//!
//! Decisions are recorded as they are made and never computed again: by the time somebody asks, the cluster is another
//! one. What is kept is bounded: so many pods, and of large clusters the best nodes and some examples of each refusal.

mod kept;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use informer::Recent;
use k8s_openapi::jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use self::kept::{Kept, Shared};

use crate::cache::Cache;
use crate::schedule::{Decision, Trace};
use crate::types::{NodeId, PodInfo};

/// The decisions about so many pods are kept.
const PODS: usize = 512;
/// So many different outcomes of earlier attempts are kept of a pod.
const ATTEMPTS: usize = 16;
/// So many nodes are kept with their scores, and with each reason for a refusal.
const NODES: usize = 24;

/// The latest decision about a pod.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's unique id.
    pub uid: String,
    /// The scheduler's name.
    pub scheduler: String,
    /// When.
    pub at: Timestamp,
    /// How long it took to decide, in microseconds.
    pub took_micros: u64,
    /// How long the pod has been waiting for it, in milliseconds, other attempts included.
    pub waited_millis: u64,
    /// The how manieth attempt it was.
    pub attempt: u32,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many of them were looked at.
    pub evaluated: usize,
    /// How many of those would do.
    pub feasible: usize,
    /// The node that won.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node that is being cleared for the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nominated: Option<String>,
    /// The pods that have to go from there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<String>,
    /// The group that the pod is placed with, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where no node was found: why, as the event says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where no node was found: what the pod waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<&'static str>,
    /// The nodes that would do, the best first, with their scores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scored: Vec<Scored>,
    /// Why nodes were refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// What became of the attempts before, oldest first: the latest of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempts>,
}

/// Attempts that ended in the same way, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// The first of them.
    pub from: u32,
    /// The last of them.
    pub to: u32,
    /// When the first was made.
    pub since: Timestamp,
    /// When the last was made.
    pub until: Timestamp,
    /// How they ended, in words.
    pub outcome: String,
}

/// A node that would do.
#[derive(Debug, Clone, Serialize)]
pub struct Scored {
    /// The node.
    pub node: String,
    /// The sum of all scores, each with its weight.
    pub total: i64,
    /// The scores.
    pub scores: Vec<Part>,
}

/// What one plugin gave a node.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Part {
    /// The plugin.
    pub plugin: &'static str,
    /// 0 to 100.
    pub score: i64,
    /// How much it counts.
    pub weight: i64,
}

/// Nodes that were refused for one reason.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// The plugin that refused.
    pub plugin: &'static str,
    /// Why.
    pub reason: String,
    /// How many nodes.
    pub count: usize,
    /// Their names, or some of them.
    pub nodes: Vec<String>,
}

impl Record {
    /// All attempts that are known, this one's among them, oldest first.
    pub fn attempts(&self) -> Vec<Attempts> {
        let mut all = self.earlier.clone();
        self.add_to(&mut all);
        all
    }

    fn add_to(&self, all: &mut Vec<Attempts>) {
        let outcome = self.outcome();
        match all.last_mut().filter(|last| last.outcome == outcome) {
            Some(last) => (last.to, last.until) = (self.attempt, self.at),
            None => {
                all.push(Attempts { from: self.attempt, to: self.attempt, since: self.at, until: self.at, outcome });
            }
        }
    }

    /// How the attempt ended.
    fn outcome(&self) -> String {
        match (&self.node, &self.nominated) {
            (Some(node), _) => format!("chose node {node}"),
            (None, Some(node)) => format!("is clearing node {node} of {}: {}", self.victims.join(", "), self.message),
            (None, None) => self.message.clone(),
        }
    }

    /// A record of a decision about `pod` that took so long.
    pub(crate) fn new(pod: &PodInfo, scheduler: &str, took: Duration) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            scheduler: scheduler.to_owned(),
            at: Timestamp::now(),
            took_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            ..Self::default()
        }
    }

    /// Takes over what was found on the way, as much of it as is kept.
    pub(crate) fn trace(self, cache: &Cache, trace: &Trace, decision: Option<&Decision>) -> Self {
        self.trace_of(NODES, cache, trace, decision)
    }

    /// Takes over what was found on the way: of so many nodes that would do, and of so many for each refusal.
    pub(crate) fn trace_of(mut self, most: usize, cache: &Cache, trace: &Trace, decision: Option<&Decision>) -> Self {
        self.nodes = cache.len();
        self.feasible = trace.feasible.len();
        self.evaluated = trace.feasible.len() + trace.refused.len();
        self.node = decision.map(|decision| decision.node.clone());
        let name = |id: NodeId| cache.node(id).map(|node| node.name().to_owned()).unwrap_or_default();
        let mut order: Vec<(i64, usize)> = (0..trace.feasible.len())
            .map(|index| (trace.scores.iter().map(|(_, weight, scores)| weight * scores[index]).sum(), index))
            .collect();
        let winner = self.node.clone();
        let won = |index: usize| winner.as_deref().is_some_and(|won| name(trace.feasible[index]) == won);
        // Only the best are put in order, and the winner goes first among equals.
        if order.len() > most {
            order.select_nth_unstable_by_key(most, |(total, _)| -total);
            if let Some(place) = order.iter().position(|(_, index)| won(*index)).filter(|place| *place >= most) {
                order.swap(0, place);
            }
            order.truncate(most);
        }
        order.sort_by_key(|(total, index)| (-total, !won(*index), *index));
        self.scored = order
            .into_iter()
            .map(|(total, index)| Scored {
                node: name(trace.feasible[index]),
                total,
                scores: trace
                    .scores
                    .iter()
                    .map(|(plugin, weight, scores)| Part { plugin, score: scores[index], weight: *weight })
                    .collect(),
            })
            .collect();
        let mut refused: BTreeMap<(&'static str, &str), (usize, Vec<String>)> = BTreeMap::new();
        for (id, plugin, refusal) in &trace.refused {
            for reason in &refusal.reasons {
                let (count, nodes) = refused.entry((plugin, reason)).or_default();
                *count += 1;
                if nodes.len() < most {
                    nodes.push(name(*id));
                }
            }
        }
        self.refused = refused
            .into_iter()
            .map(|((plugin, reason), (count, nodes))| Refused { plugin, reason: reason.to_owned(), count, nodes })
            .collect();
        self
    }
}

/// What a pod waits for that this plugin refused.
pub(crate) fn unschedulable_hint(plugin: &str) -> &'static str {
    match plugin {
        "NodeUnschedulable" => "a node that is not cordoned (kubectl uncordon)",
        "NodeName" => "the node that it names",
        "TaintToleration" => "a node without taints that the pod does not tolerate",
        "NodeAffinity" => "a node with the labels that its selector and affinity ask for",
        "NodePorts" => "a node on which the host ports are free",
        "NodeResourcesFit" => "pods that leave, or a node with more of what is insufficient",
        "VolumeRestrictions" => "the pod that uses its ReadWriteOncePod claim to leave",
        "VolumeBinding" => "its claims and volumes",
        "PodTopologySpread" => "pods or nodes that even out the spread over its topology",
        "InterPodAffinity" => "pods to come or go that its affinity, or theirs, is about",
        super::gang::PROPORTION => "its queue to have less, or other queues to want less",
        super::gang::NAME => "room for enough pods of its group at the same time",
        _ => "a change of the cluster",
    }
}

#[derive(Debug)]
struct State {
    /// By namespace and name of the pod.
    kept: Recent<(String, String), Kept>,
    shared: Shared,
}

/// The latest decisions. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Records(Arc<Mutex<State>>);

impl Default for Records {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { kept: Recent::new(PODS), shared: Shared::default() })))
    }
}

impl Records {
    /// The latest decision about a pod, if it is still kept.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Record> {
        self.state().kept.get(&(namespace.to_owned(), name.to_owned())).map(Kept::unpack)
    }

    /// All that are kept, oldest first; with a namespace, only its own.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Record> {
        let state = self.state();
        let wanted = state.kept.iter().filter(|((own, _), _)| namespace.is_none_or(|namespace| namespace == own));
        wanted.map(|(_, kept)| kept.unpack()).collect()
    }

    pub(crate) fn put(&self, mut record: Record) {
        let key = (record.namespace.clone(), record.name.clone());
        let mut state = self.state();
        if let Some(before) = state.kept.get(&key).map(Kept::head).filter(|before| before.uid == record.uid) {
            record.earlier = before.attempts();
            let excess = record.earlier.len().saturating_sub(ATTEMPTS);
            record.earlier.drain(..excess);
        }
        let kept = state.shared.pack(record);
        state.kept.insert(key, kept);
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, attempt: u32, message: &str, node: Option<&str>) -> Record {
        Record {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            uid: uid.to_owned(),
            attempt,
            at: Timestamp::from_second(attempt.into()).expect("a time"),
            message: message.to_owned(),
            node: node.map(str::to_owned),
            ..Record::default()
        }
    }

    /// `1-2 full, 3 chose node a`
    fn told(attempts: &[Attempts]) -> String {
        let one = |all: &Attempts| {
            assert_eq!((all.since.as_second(), all.until.as_second()), (all.from.into(), all.to.into()));
            let which = if all.from == all.to { all.from.to_string() } else { format!("{}-{}", all.from, all.to) };
            format!("{which} {}", all.outcome)
        };
        attempts.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn attempts_before_are_remembered_by_how_they_ended() {
        let records = Records::default();
        for (attempt, message) in [(1, "full"), (2, "full"), (3, "no label"), (4, "full")] {
            records.put(record("a", attempt, message, None));
        }
        let mut clearing = record("a", 5, "full", None);
        (clearing.nominated, clearing.victims) = (Some("n".to_owned()), vec!["ns/v".to_owned()]);
        records.put(clearing);
        records.put(record("a", 6, "", Some("n")));
        let found = records.get("ns", "p").expect("kept");
        let earlier = "1-2 full, 3 no label, 4 full, 5 is clearing node n of ns/v: full";
        assert_eq!((told(&found.earlier), found.node.as_deref()), (earlier.to_owned(), Some("n")));
        assert_eq!(told(&found.attempts()), format!("{earlier}, 6 chose node n"));
        // Another pod of the same name has no past.
        records.put(record("b", 1, "full", None));
        assert_eq!(told(&records.get("ns", "p").expect("kept").attempts()), "1 full");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let records = Records::default();
        for attempt in 1..=100 {
            records.put(record("a", attempt, &format!("reason {attempt}"), None));
        }
        let earlier = records.get("ns", "p").expect("kept").earlier;
        assert_eq!((earlier.len(), earlier[0].from, earlier.last().map(|last| last.to)), (ATTEMPTS, 84, Some(99)));
    }
}
