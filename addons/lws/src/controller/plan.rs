//! What a LeaderWorkerSet needs: its StatefulSets and services, groups to restart, and its status.
//!
//! The rules are those that the LeaderWorkerSet project publishes: leaders are a StatefulSet whose partition this
//! controller moves down as groups get ready; each leader has a StatefulSet of its workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use controllers::meta::ConditionStatus;
use controllers::owner::Owner;
use controllers::pods::PodPhase;
use controllers::{meta, pods};
use informer::EventType;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::make::{self, ExclusiveTopology, label};
use crate::api::{LeaderWorkerSetSpec, LeaderWorkerSetStatus, RestartPolicy, StartupPolicy};
use crate::labels;

/// What a plan is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// All Pods of the set, leaders and workers.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// All StatefulSets of the set, by name: that of the leaders and those of the workers.
    pub(crate) sets: BTreeMap<String, Arc<StatefulSet>>,
    /// The services that are there, by name.
    pub(crate) services: Vec<String>,
    /// The generation of what the set asks for.
    pub(crate) generation: Option<i64>,
    /// The name of the present revision.
    pub(crate) revision: String,
    /// What the revisions keep, by name, for groups that are still of an earlier one.
    pub(crate) revisions: BTreeMap<String, Value>,
    /// The value of the exclusive topology's label on the nodes of leaders, by the name of the leader.
    pub(crate) topology: BTreeMap<String, String>,
    /// The topologies that the set asks for by annotations.
    pub(crate) topology_keys: ExclusiveTopology,
}

/// What is to be done for a LeaderWorkerSet, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The StatefulSet of the leaders, to be applied.
    pub(crate) leaders: Value,
    /// Services to create.
    pub(crate) services: Vec<Value>,
    /// Leaders whose groups start anew: deleted with all that is theirs.
    pub(crate) restart: Vec<Arc<Pod>>,
    /// StatefulSets of workers to create.
    pub(crate) workers: Vec<Value>,
    /// The status before any of this shows.
    pub(crate) status: LeaderWorkerSetStatus,
    /// What there is to tell.
    pub(crate) events: Vec<(EventType, &'static str, String)>,
}

/// How a group stands.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    ready: bool,
    updated: bool,
}

/// Decides what the set `owner`, with this specification and status, needs.
pub(crate) fn plan(
    snapshot: &Snapshot,
    owner: &Owner,
    spec: &LeaderWorkerSetSpec,
    status: &LeaderWorkerSetStatus,
    now: Timestamp,
) -> Plan {
    let mut planner = Planner { snapshot, owner, spec, plan: Plan::default() };
    let (partition, replicas) = planner.rollout();
    planner.plan.leaders =
        make::leaders(owner, spec, &snapshot.topology_keys, &snapshot.revision, (partition, replicas));
    match snapshot.sets.get(owner.name()) {
        None => planner.tell("GroupsProgressing", format!("Created leader statefulset {}", owner.name())),
        Some(set) if revision_of(set) != snapshot.revision => {}
        Some(set) => {
            let before = partition_of(set);
            if before != partition {
                planner.tell("GroupsUpdating", format!("Updating replicas {before} to {partition}"));
            }
        }
    }
    planner.connect();
    planner.restart();
    planner.grow();
    planner.count(status, now);
    planner.plan
}

fn revision_of(set: &StatefulSet) -> &str {
    let labels = set.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(labels::REVISION)).map_or("", String::as_str)
}

fn partition_of(set: &StatefulSet) -> i32 {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.partition).unwrap_or_default()
}

fn replicas_of(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether all Pods of a StatefulSet are of its present template and ready.
fn is_ready(set: &StatefulSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    status.observed_generation >= set.metadata.generation
        && status.ready_replicas.unwrap_or_default() == replicas_of(set)
        && status.update_revision == status.current_revision
}

fn runs(pod: &Pod) -> bool {
    pods::phase(pod) == PodPhase::Running && pods::is_ready(pod) && !meta::is_deleting(pod)
}

fn has_restarted(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let started = matches!(pods::phase(pod), PodPhase::Running | PodPhase::Pending);
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    started && all.map(|container| container.restart_count).sum::<i32>() > 0
}

/// Whether a worker is of this leader's group, and somebody's, while the leader has no workers yet.
fn is_leftover(pod: &Pod, leader: &Pod) -> bool {
    label(pod, labels::WORKER_INDEX) != "0"
        && label(pod, labels::GROUP_INDEX) == label(leader, labels::GROUP_INDEX)
        && meta::controller_of(&pod.metadata).is_some()
}

struct Planner<'a> {
    snapshot: &'a Snapshot,
    owner: &'a Owner,
    spec: &'a LeaderWorkerSetSpec,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn tell(&mut self, reason: &'static str, message: String) {
        self.plan.events.push((EventType::Normal, reason, message));
    }

    fn leaders(&self) -> impl Iterator<Item = (i32, &'a Arc<Pod>)> {
        let name = self.owner.name().to_owned();
        let all = self.snapshot.pods.iter().filter(|pod| label(pod, labels::WORKER_INDEX) == "0");
        all.filter_map(move |pod| Some((pods::ordinal(&name, meta::name(&**pod))?, pod)))
    }

    fn group(&self, index: i32) -> Group {
        let name = format!("{}-{index}", self.owner.name());
        let Some((_, leader)) = self.leaders().find(|(of, _)| *of == index) else {
            return Group::default();
        };
        let is_current = |revision: &str| revision == self.snapshot.revision;
        let (ready, updated) = (runs(leader), is_current(label(leader, labels::REVISION)));
        if self.spec.leader_worker_template.size == 1 {
            return Group { ready, updated };
        }
        let Some(workers) = self.snapshot.sets.get(&name) else {
            return Group::default();
        };
        Group { ready: ready && is_ready(workers), updated: updated && is_current(revision_of(workers)) }
    }

    /// The partition and the size of the leaders' StatefulSet.
    fn rollout(&self) -> (i32, i32) {
        let (partition, replicas) = self.rolling();
        (partition.max(self.spec.partition()), replicas)
    }

    fn rolling(&self) -> (i32, i32) {
        let wanted = self.spec.replicas;
        let Some(set) = self.snapshot.sets.get(self.owner.name()) else {
            return (0, wanted);
        };
        let (step, surge) = self.spec.bounds();
        let size = replicas_of(set);
        if revision_of(set) != self.snapshot.revision {
            // A rollout begins; scaling comes first.
            return (wanted.min(size), Self::with_surge(wanted, wanted, surge));
        }
        let partition = partition_of(set);
        if partition == 0 && size == wanted {
            return (0, wanted);
        }
        let groups: Vec<Group> = (0..size).map(|index| self.group(index)).collect();
        let well = |index: i32| {
            let group = usize::try_from(index).ok().and_then(|index| groups.get(index));
            group.is_some_and(|group| group.ready && group.updated)
        };
        let unready = (0..wanted).filter(|index| !well(*index)).count();
        let unready = i32::try_from(unready).unwrap_or(i32::MAX);
        let replicas = Self::with_surge(wanted, unready, surge);
        let before = set.metadata.annotations.as_ref().and_then(|all| all.get(labels::REPLICAS)?.parse::<i32>().ok());
        if before != Some(wanted) {
            // Scaled in the middle of it.
            return (partition.min(wanted + surge), replicas);
        }
        // What surge has been taken back already is not there to be unavailable.
        let step = step + surge - (wanted + surge - size);
        (next_partition(&groups, size, step, partition), replicas)
    }

    /// The size with as many groups beyond `wanted` as are still of use.
    fn with_surge(wanted: i32, unready: i32, surge: i32) -> i32 {
        if unready > surge {
            return wanted + surge;
        }
        wanted + (unready - 1).max(0)
    }

    fn connect(&mut self) {
        let namespace = &self.owner.key.namespace;
        let missing = |name: &str| !self.snapshot.services.iter().any(|known| known == name);
        let name = self.owner.name();
        if !self.spec.has_own_subdomains() {
            if missing(name) {
                let selector = json!({ labels::NAME: name });
                let owner = json!(self.owner.controller);
                self.plan.services.push(make::service(name, namespace, &selector, &owner));
            }
            return;
        }
        let mut services = Vec::new();
        for (index, leader) in self.leaders().filter(|(_, leader)| missing(meta::name(&***leader))) {
            let selector = json!({ labels::NAME: name, labels::GROUP_INDEX: index.to_string() });
            let owner = json!(meta::controller_ref(&**leader));
            services.push(make::service(meta::name(&**leader), namespace, &selector, &owner));
        }
        self.plan.services.extend(services);
    }

    /// The leaders of groups in which a Pod has restarted or goes, if that is to end the group.
    fn restart(&mut self) {
        let after_start = match self.spec.leader_worker_template.restart_policy {
            RestartPolicy::RecreateGroupOnPodRestart => false,
            RestartPolicy::RecreateGroupAfterStart => true,
            RestartPolicy::Default | RestartPolicy::None => return,
        };
        let mut restart = Vec::new();
        for (index, leader) in self.leaders().filter(|(_, leader)| !meta::is_deleting(&***leader)) {
            let group = self.workers_of(index, leader);
            if after_start {
                let all = i32::try_from(group.len()).unwrap_or(i32::MAX) == self.spec.leader_worker_template.size - 1;
                let started = group.iter().chain([&leader]).all(|pod| pods::phase(pod) != PodPhase::Pending);
                if !(all && started) {
                    continue;
                }
            }
            if has_restarted(leader) || group.iter().any(|pod| has_restarted(pod) || meta::is_deleting(&***pod)) {
                restart.push(Arc::clone(leader));
            }
        }
        self.plan.restart = restart;
    }

    /// The workers of this leader: those of an earlier one of its name are on their way out and say nothing of it.
    fn workers_of(&self, index: i32, leader: &Pod) -> Vec<&'a Arc<Pod>> {
        let set = self.snapshot.sets.get(&format!("{}-{index}", self.owner.name()));
        let ours = |set: &&Arc<StatefulSet>| {
            meta::controller_of(&set.metadata).is_some_and(|owner| owner.uid == meta::uid(leader))
        };
        let Some(set) = set.filter(ours) else { return Vec::new() };
        let member =
            |pod: &&Arc<Pod>| meta::controller_of(&pod.metadata).is_some_and(|owner| owner.uid == meta::uid(&**set));
        self.snapshot.pods.iter().filter(member).collect()
    }

    fn grow(&mut self) {
        if self.spec.leader_worker_template.size == 1 {
            return;
        }
        let mut workers = Vec::new();
        for (_, leader) in self.leaders().filter(|(_, leader)| !meta::is_deleting(&***leader)) {
            let name = meta::name(&**leader);
            let restarts = self.plan.restart.iter().any(|other| Arc::ptr_eq(other, leader));
            let waits = self.spec.startup_policy == StartupPolicy::LeaderReady && !pods::is_ready(leader);
            // While Pods of an earlier leader are there, theirs are the names.
            let taken = || self.snapshot.pods.iter().any(|pod| is_leftover(pod, leader));
            if restarts || waits || self.snapshot.sets.contains_key(name) || taken() {
                continue;
            }
            let topology = match &self.snapshot.topology_keys.exclusive {
                None => None,
                // Without a node the leader has no topology domain yet.
                Some(key) => match self.snapshot.topology.get(name) {
                    Some(value) => Some((key.as_str(), value.as_str())),
                    None => continue,
                },
            };
            // A leader of an earlier revision gets the workers of that one.
            let kept = self.snapshot.revisions.get(label(leader, labels::REVISION));
            let kept = kept.and_then(LeaderWorkerSetSpec::of_revision);
            let spec = kept.as_ref().unwrap_or(self.spec);
            workers.push(make::workers(self.owner.name(), spec, &self.snapshot.topology_keys, leader, topology));
        }
        self.plan.workers = workers;
    }

    fn count(&mut self, status: &LeaderWorkerSetStatus, now: Timestamp) {
        let (wanted, floor) = (self.spec.replicas, self.spec.partition());
        let (mut ready, mut updated, mut ready_wanted) = (0, 0, 0);
        let (mut current_part, mut updated_part, mut done_part) = (0, 0, 0);
        for (index, leader) in self.leaders() {
            // A leader whose workers have not been made is no group yet.
            if self.spec.leader_worker_template.size > 1 && !self.snapshot.sets.contains_key(meta::name(&**leader)) {
                continue;
            }
            let group = self.group(index);
            let (is_wanted, in_part) = (index < wanted, index < wanted && index >= floor);
            ready += i32::from(group.ready);
            updated += i32::from(group.updated);
            ready_wanted += i32::from(is_wanted && group.ready);
            current_part += i32::from(in_part);
            updated_part += i32::from(in_part && group.updated);
            done_part += i32::from(in_part && group.updated && group.ready);
        }
        let conditions: &[(&'static str, &'static str, &str)] = &[
            ("Available", "AllGroupsReady", "All replicas are ready"),
            ("Progressing", "GroupsProgressing", "Replicas are progressing"),
            ("UpdateInProgress", "GroupsUpdating", "Rolling Upgrade is in progress"),
        ];
        let is_true: &[&str] = if updated_part < current_part {
            &["UpdateInProgress", "Progressing"]
        } else if ready_wanted == wanted && done_part == current_part {
            &["Available"]
        } else {
            &["Progressing"]
        };
        let leaders = self.snapshot.sets.get(self.owner.name());
        let known = status.conditions.as_deref().unwrap_or_default();
        let mut list = Vec::new();
        for (type_, reason, message) in conditions {
            let old = known.iter().find(|condition| condition.type_ == *type_);
            let wanted = is_true.contains(type_);
            if old.is_none() && !wanted {
                continue;
            }
            let word = ConditionStatus::from(wanted);
            if let Some(old) = old.filter(|old| old.status == word) {
                list.push(old.clone());
                continue;
            }
            if wanted && is_true[0] == *type_ {
                let message = format!("{message}, with {ready} groups ready of total {} groups", self.spec.replicas);
                self.tell(reason, message);
            }
            list.push(Condition {
                type_: (*type_).to_owned(),
                status: word.as_str().to_owned(),
                reason: (*reason).to_owned(),
                message: (*message).to_owned(),
                last_transition_time: meta::seconds(now),
                observed_generation: None,
            });
        }
        self.plan.status = LeaderWorkerSetStatus {
            conditions: Some(list),
            replicas: Some(leaders.and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas)),
            ready_replicas: Some(ready),
            updated_replicas: Some(updated),
            hpa_pod_selector: Some(format!("{}={},{}=0", labels::NAME, self.owner.name(), labels::WORKER_INDEX)),
            observed_generation: self.snapshot.generation,
        };
    }
}

/// Where the partition of a rollout goes next: down, as far as `step` unavailable groups allow.
fn next_partition(groups: &[Group], size: i32, step: i32, partition: i32) -> i32 {
    let at = |index: i32| usize::try_from(index).ok().and_then(|index| groups.get(index)).copied().unwrap_or_default();
    let done = groups.iter().rev().take_while(|group| group.ready && group.updated).count();
    let lowest = (size - i32::try_from(done).unwrap_or(i32::MAX) - step).max(0);
    // Groups further down that are not ready count as unavailable too.
    let unavailable = (0..lowest).filter(|index| !at(*index).ready).count();
    let mut next = lowest + i32::try_from(unavailable).unwrap_or(i32::MAX);
    // One that is not ready costs nothing to update.
    for index in (lowest..=next.min(size - 1)).rev() {
        let group = at(index);
        if group.ready && !group.updated {
            break;
        }
        next = index;
    }
    next.min(partition)
}
