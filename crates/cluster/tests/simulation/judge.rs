//! Looks at every revision of the store, in order and with nothing left out, and objects to what must never be.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use registry::Registry;
use serde::de::DeserializeOwned;
use store::{Event, EventKind, Watcher};

use crate::objects::{
    AGENT, DB, QUOTA, SURGE, UNAVAILABLE, WEB, amount, gpus, image, index, is_active, is_ready, made_for, ordinal,
    owner,
};
use crate::world::NAMESPACE;

const RESOURCES: [&str; 8] = [
    "core/pods",
    "core/nodes",
    "core/resourcequotas",
    "apps/deployments",
    "apps/replicasets",
    "apps/statefulsets",
    "apps/daemonsets",
    "batch/jobs",
];

/// The objects as of one revision.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) quotas: BTreeMap<String, ResourceQuota>,
    pub(crate) deployments: BTreeMap<String, Deployment>,
    pub(crate) replica_sets: BTreeMap<String, ReplicaSet>,
    pub(crate) stateful_sets: BTreeMap<String, StatefulSet>,
    pub(crate) daemon_sets: BTreeMap<String, DaemonSet>,
    pub(crate) jobs: BTreeMap<String, Job>,
}

pub(crate) struct Judge {
    watchers: Vec<Watcher>,
    revision: u64,
    pub(crate) state: State,
    /// Nobody but the controllers takes pods away.
    calm: bool,
    /// What the user deletes is in no order.
    pub(crate) excused: HashSet<String>,
    web: Bounds,
    db: Bounds,
    /// The nodes on which the DaemonSet had a pod that was ready.
    served: BTreeSet<String>,
    /// The indexes of each Job that have succeeded.
    succeeded: BTreeMap<String, BTreeSet<String>>,
    /// The pods of each Job that ended without success, or were taken away.
    ended: BTreeMap<String, BTreeSet<String>>,
    /// The latest changes, for the report.
    trail: Vec<String>,
}

/// Within what a workload has to stay. While its controllers have not caught up with a change, both the old and the new
/// bound are right.
#[derive(Debug, Default)]
struct Bounds {
    most: usize,
    least: usize,
}

impl Judge {
    pub(crate) fn new(registry: &Registry, calm: bool) -> Self {
        let watch = |resource: &&str| registry.store().watch(resource, 0).expect("all of history");
        Self {
            watchers: RESOURCES.iter().map(watch).collect(),
            revision: 0,
            state: State::default(),
            calm,
            excused: HashSet::new(),
            web: Bounds::default(),
            db: Bounds::default(),
            served: BTreeSet::new(),
            succeeded: BTreeMap::new(),
            ended: BTreeMap::new(),
            trail: Vec::new(),
        }
    }

    /// Looks at what happened since the last time.
    pub(crate) async fn catch_up(&mut self, registry: &Registry) -> Result<(), String> {
        let present = registry.store().revision();
        let mut events = Vec::new();
        for watcher in &mut self.watchers {
            while watcher.progress() < present {
                events.push(watcher.next().await.map_err(|error| error.to_string())?);
            }
        }
        // What came after `present` is looked at now, too: events of one revision are of one resource here.
        events.sort_by_key(|event| event.revision);
        for event in events {
            if event.revision < self.revision {
                return Err(format!("revision {} is shown after {}", event.revision, self.revision));
            }
            self.revision = event.revision;
            self.judge(&event).map_err(|wrong| self.report(&wrong))?;
        }
        Ok(())
    }

    pub(crate) fn report(&self, wrong: &str) -> String {
        // All of it where one story alone is told.
        let lines = if std::env::var_os("CORACLE_SEED").is_some() { usize::MAX } else { 80 };
        let from = self.trail.len().saturating_sub(lines);
        format!("at revision {}: {wrong}\n{}", self.revision, self.trail[from..].join("\n"))
    }

    fn judge(&mut self, event: &Event) -> Result<(), String> {
        let key = &event.entry.key;
        if !key.namespace.is_empty() && &*key.namespace != NAMESPACE {
            return Ok(());
        }
        let name = key.name.to_string();
        match &*key.resource {
            "core/pods" => self.pod(event, name)?,
            "core/nodes" => set(&mut self.state.nodes, event, name),
            "core/resourcequotas" => set(&mut self.state.quotas, event, name),
            "apps/deployments" => {
                set(&mut self.state.deployments, event, name.clone());
                self.note(event, &name, self.state.deployments.get(&name).map(told_of_deployment));
                self.web.widen(self.web_bounds());
            }
            "apps/replicasets" => {
                set(&mut self.state.replica_sets, event, name.clone());
                self.note(event, &name, self.state.replica_sets.get(&name).map(told_of_set));
            }
            "apps/statefulsets" => {
                set(&mut self.state.stateful_sets, event, name.clone());
                self.note(event, &name, self.state.stateful_sets.get(&name).map(told_of_stateful_set));
                let wanted = self.db_replicas();
                self.db.widen((wanted, 0));
            }
            "apps/daemonsets" => set(&mut self.state.daemon_sets, event, name),
            "batch/jobs" => self.job(event, name)?,
            _ => {}
        }
        self.look_at_web()?;
        self.look_at_db()?;
        self.look_at_agent()
    }

    fn note(&mut self, event: &Event, name: &str, told: Option<String>) {
        let told = told.unwrap_or_default();
        self.trail.push(format!("{:>6} {:?} {} {name} {told}", event.revision, event.kind, event.entry.key.resource));
    }

    fn pod(&mut self, event: &Event, name: String) -> Result<(), String> {
        let pod: Pod = decode(event);
        let before = self.state.pods.get(&name).cloned();
        self.trail.push(format!("{:>6} {:?} {}", event.revision, event.kind, tell(&pod)));
        if event.kind == EventKind::Created {
            self.created(&name, &pod)?;
        }
        let goes = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let leaves = goes(&pod) || event.kind == EventKind::Deleted;
        let was_there = before.as_ref().is_some_and(|before| !goes(before) && is_active(before));
        if leaves && was_there && !self.excused.contains(&name) && owner(&pod) == Some(("StatefulSet", DB)) {
            self.last_goes_first(&name, &pod)?;
        }
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let old = before.as_ref().filter(|before| before.metadata.uid == pod.metadata.uid).and_then(node);
        if old.is_some() && old != node(&pod) {
            return Err(format!("{name} moves from {old:?} to {:?}", node(&pod)));
        }
        if let (Some(("Job", job)), Some(index)) = (owner(&pod), index(&pod)) {
            if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded") {
                self.succeeded.entry(job.to_owned()).or_default().insert(index.to_owned());
            } else if is_finished(&pod) || leaves {
                self.ended.entry(job.to_owned()).or_default().insert(name.clone());
            }
        }
        match event.kind {
            EventKind::Deleted => self.state.pods.remove(&name),
            _ => self.state.pods.insert(name, pod.clone()),
        };
        match node(&pod).filter(|_| old.is_none() && event.kind != EventKind::Deleted) {
            Some(node) => self.fits(&node),
            None => Ok(()),
        }
    }

    /// What must be so whenever a pod comes.
    fn created(&self, name: &str, pod: &Pod) -> Result<(), String> {
        // Quotas are kept.
        let hard = self.state.quotas.get(QUOTA).and_then(|quota| quota.spec.as_ref()?.hard.clone()).unwrap_or_default();
        if let Some(hard) = hard.get("pods").map(amount) {
            let used = self.state.pods.values().filter(|pod| !is_finished(pod)).count() + 1;
            if used as f64 > hard {
                return Err(format!("{name} is number {used} where {hard} are allowed"));
            }
        }
        match owner(pod) {
            Some(("StatefulSet", DB)) => {
                let number = ordinal(name).ok_or("a member without a number")?;
                if number >= self.db.most {
                    return Err(format!("{name} was never asked for"));
                }
                for lower in (0..number).filter(|_| self.calm) {
                    let lower = format!("{DB}-{lower}");
                    if !self.state.pods.get(&lower).is_some_and(|pod| is_active(pod) && is_ready(pod)) {
                        return Err(format!("{name} comes while {lower} is not ready"));
                    }
                }
                Ok(())
            }
            Some(("DaemonSet", AGENT)) => {
                let node = made_for(pod).ok_or("a pod of a DaemonSet for no node")?;
                let mut others =
                    self.state.pods.iter().filter(|(_, pod)| is_active(pod) && made_for(pod) == Some(node));
                match others.next() {
                    Some((other, _)) => Err(format!("{name} comes to {node}, where {other} is")),
                    None => Ok(()),
                }
            }
            Some(("Job", job)) => {
                let index = index(pod).ok_or("a pod of a Job without index")?;
                if self.succeeded.get(job).is_some_and(|done| done.contains(index)) {
                    return Err(format!("{name} comes for index {index}, which has succeeded"));
                }
                let of_job = |pod: &&Pod| owner(pod) == Some(("Job", job)) && is_active(pod);
                let active: Vec<&Pod> = self.state.pods.values().filter(of_job).collect();
                if active.iter().any(|pod| self::index(pod) == Some(index)) {
                    return Err(format!("{name} comes for index {index}, which has a pod"));
                }
                let parallelism = self.state.jobs.get(job).and_then(|job| job.spec.as_ref()?.parallelism).unwrap_or(1);
                if active.len() + 1 > usize::try_from(parallelism).unwrap_or_default() {
                    return Err(format!("{name} is one more than {parallelism} at once"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A member of the StatefulSet goes: those after it are gone for good, or have been renewed already.
    fn last_goes_first(&self, name: &str, pod: &Pod) -> Result<(), String> {
        let number = ordinal(name);
        for (other, later) in &self.state.pods {
            let after = owner(later) == Some(("StatefulSet", DB)) && ordinal(other) > number;
            if after && image(later) <= image(pod) && !self.excused.contains(other) {
                return Err(format!("{name} goes before {other}"));
            }
        }
        Ok(())
    }

    /// The node has room for what is bound to it.
    fn fits(&self, node: &str) -> Result<(), String> {
        let Some(offered) = self.state.nodes.get(node).and_then(|node| node.status.as_ref()?.allocatable.clone())
        else {
            return Ok(());
        };
        let here = |pod: &&Pod| {
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node) && !is_finished(pod)
        };
        let pods: Vec<&Pod> = self.state.pods.values().filter(here).collect();
        let used: f64 = pods.iter().map(|pod| gpus(pod)).sum();
        let of = |name: &str| offered.get(name).map_or(0.0, amount);
        if used > of("nvidia.com/gpu") || pods.len() as f64 > of("pods") {
            return Err(format!("{node} has {} pods with {used} cards, and offers {offered:?}", pods.len()));
        }
        Ok(())
    }

    fn job(&mut self, event: &Event, name: String) -> Result<(), String> {
        let job: Job = decode(event);
        let number = |job: &Job| job.status.as_ref().and_then(|status| status.succeeded).unwrap_or_default();
        let before = self.state.jobs.get(&name).map_or(0, number);
        let completions = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or_default();
        self.note(event, &name, Some(told_of_job(&job)));
        if number(&job) < before || number(&job) > completions {
            return Err(format!("{name} has succeeded {} times after {before}, of {completions}", number(&job)));
        }
        let ended = self.ended.get(&name).map_or(0, BTreeSet::len);
        let failed = job.status.as_ref().and_then(|status| status.failed).unwrap_or_default();
        if usize::try_from(failed).unwrap_or_default() > ended {
            return Err(format!("{name} counts {failed} failures where {ended} pods have ended otherwise"));
        }
        let seen = self.succeeded.get(&name).map_or(0, BTreeSet::len);
        if usize::try_from(number(&job)).unwrap_or_default() > seen {
            return Err(format!("{name} counts {} where {seen} have succeeded", number(&job)));
        }
        set(&mut self.state.jobs, event, name);
        Ok(())
    }

    fn web_bounds(&self) -> (usize, usize) {
        let replicas = self.state.deployments.get(WEB).and_then(|web| web.spec.as_ref()?.replicas).unwrap_or_default();
        let replicas = usize::try_from(replicas).unwrap_or_default();
        (replicas + SURGE, replicas.saturating_sub(UNAVAILABLE))
    }

    fn db_replicas(&self) -> usize {
        let replicas = self.state.stateful_sets.get(DB).and_then(|db| db.spec.as_ref()?.replicas).unwrap_or_default();
        usize::try_from(replicas).unwrap_or_default()
    }

    /// Never above surge, never below available.
    fn look_at_web(&mut self) -> Result<(), String> {
        let of_web = |pod: &&Pod| owner(pod).is_some_and(|(kind, _)| kind == "ReplicaSet") && is_active(pod);
        let pods: Vec<&Pod> = self.state.pods.values().filter(of_web).collect();
        let (active, available) = (pods.len(), pods.iter().filter(|pod| is_ready(pod)).count());
        if active > self.web.most {
            return Err(format!("{active} pods of {WEB}, where {} are the most", self.web.most));
        }
        if self.calm && available < self.web.least {
            return Err(format!("{available} pods of {WEB} are available, where {} are the least", self.web.least));
        }
        let current = |meta: &ObjectMeta, observed: Option<i64>| meta.generation == observed;
        let sets = self.state.replica_sets.values();
        let sizes: i32 = sets.clone().filter_map(|set| set.spec.as_ref()?.replicas).sum();
        let caught_up = self.state.deployments.get(WEB).is_some_and(|web| {
            current(&web.metadata, web.status.as_ref().and_then(|status| status.observed_generation))
        }) && sets
            .clone()
            .all(|set| current(&set.metadata, set.status.as_ref().and_then(|status| status.observed_generation)));
        let (most, least) = self.web_bounds();
        // Nothing is on its way any more.
        let settled = caught_up && usize::try_from(sizes) == Ok(active);
        if settled && active <= most && available >= least {
            self.web = Bounds { most, least };
        }
        Ok(())
    }

    /// One after the other.
    fn look_at_db(&mut self) -> Result<(), String> {
        let pods = self.state.pods.values().filter(|pod| owner(pod) == Some(("StatefulSet", DB)));
        let all: Vec<&Pod> = pods.collect();
        // Some may go meanwhile: upstream waits for those before a member only when it makes one, and for those after it
        // only when it ends one.
        let coming = all.iter().filter(|pod| is_active(pod) && !is_ready(pod));
        let coming: Vec<&str> = coming.filter_map(|pod| pod.metadata.name.as_deref()).collect();
        if self.calm && coming.len() > 1 {
            return Err(format!("{coming:?} come at the same time"));
        }
        let Some(db) = self.state.stateful_sets.get(DB) else { return Ok(()) };
        let observed = db.status.as_ref().and_then(|status| status.observed_generation);
        let wanted = self.db_replicas();
        if db.metadata.generation == observed && all.len() <= wanted {
            self.db.most = wanted;
        }
        Ok(())
    }
}

impl Judge {
    /// Of the nodes that were served, all but one are.
    fn look_at_agent(&mut self) -> Result<(), String> {
        let pods = self.state.pods.values().filter(|pod| owner(pod) == Some(("DaemonSet", AGENT)));
        let ready: BTreeSet<String> =
            pods.filter(|pod| is_active(pod) && is_ready(pod)).filter_map(made_for).map(str::to_owned).collect();
        let without: Vec<&String> = self.served.difference(&ready).collect();
        if self.calm && without.len() > UNAVAILABLE {
            return Err(format!("{without:?} are without {AGENT} at the same time"));
        }
        self.served.extend(ready);
        Ok(())
    }
}

impl Bounds {
    fn widen(&mut self, (most, least): (usize, usize)) {
        self.most = self.most.max(most);
        self.least = self.least.min(least);
    }
}

fn decode<K: DeserializeOwned>(event: &Event) -> K {
    serde_json::from_slice(&event.entry.value).expect("what is stored can be read")
}

fn set<K: DeserializeOwned>(all: &mut BTreeMap<String, K>, event: &Event, name: String) {
    match event.kind {
        EventKind::Deleted => all.remove(&name),
        _ => all.insert(name, decode(event)),
    };
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A pod in a line.
fn tell(pod: &Pod) -> String {
    let mut words = vec![pod.metadata.name.clone().unwrap_or_default()];
    words.push(format!("image {}", image(pod)));
    words.extend(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
    words.extend(pod.status.as_ref().and_then(|status| status.phase.clone()));
    words.extend(is_ready(pod).then(|| "ready".to_owned()));
    words.extend(pod.metadata.deletion_timestamp.is_some().then(|| "goes".to_owned()));
    words.join(" ")
}

fn told_of_deployment(deployment: &Deployment) -> String {
    let status = deployment.status.clone().unwrap_or_default();
    let seen = (deployment.metadata.generation, status.observed_generation);
    let counts = (status.replicas, status.updated_replicas, status.available_replicas);
    format!(
        "asks for {:?}, generation {seen:?}, has {counts:?}",
        deployment.spec.as_ref().and_then(|spec| spec.replicas)
    )
}

fn told_of_set(set: &ReplicaSet) -> String {
    let status = set.status.clone().unwrap_or_default();
    let seen = (set.metadata.generation, status.observed_generation);
    let asks = set.spec.as_ref().and_then(|spec| spec.replicas);
    format!(
        "asks for {asks:?}, generation {seen:?}, has {:?}, available {:?}",
        status.replicas, status.available_replicas
    )
}

fn told_of_job(job: &Job) -> String {
    let status = job.status.clone().unwrap_or_default();
    let (completed, failed, active) = (status.completed_indexes, status.failed, status.active);
    let open = status.uncounted_terminated_pods.unwrap_or_default();
    format!("has {completed:?}, failed {failed:?}, active {active:?}, to count {:?} {:?}", open.succeeded, open.failed)
}

fn told_of_stateful_set(set: &StatefulSet) -> String {
    let status = set.status.clone().unwrap_or_default();
    let seen = (set.metadata.generation, status.observed_generation);
    format!(
        "asks for {:?}, generation {seen:?}, has {}",
        set.spec.as_ref().and_then(|spec| spec.replicas),
        status.replicas
    )
}
