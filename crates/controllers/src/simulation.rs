//! Plans against a model of a cluster, with chance and faults: here those of Deployments and ReplicaSets, in files of
//! their own the other workloads.
//!
//! The model has what makes real controllers err: each sees only a prefix of what happened, and how long that prefix is
//! is chance. Every history is a function of its seed. Checked after every step: never more Pods than the surge allows,
//! never fewer available Pods than promised (as long as nothing breaks by itself); and in the end, all is as asked.

mod daemonset;
mod job;
mod statefulset;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use machinery::selector::LabelSelector;
use serde_json::{Value, from_value, json};

use crate::deployment::plan::{self as deployments, RolloutStep};
use crate::expectations::Pending;
use crate::owner::Owner;
use crate::replicaset::plan as sets;
use crate::{meta, pods};

/// xorshift: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// All states that the objects of one kind were in, and how far an informer has come.
struct Log<K> {
    states: Vec<BTreeMap<String, Arc<K>>>,
    shown: usize,
}

impl<K: Clone> Log<K> {
    fn new() -> Self {
        Self { states: vec![BTreeMap::new()], shown: 0 }
    }

    fn now(&self) -> &BTreeMap<String, Arc<K>> {
        self.states.last().expect("a state")
    }

    fn view(&self) -> &BTreeMap<String, Arc<K>> {
        &self.states[self.shown]
    }

    fn is_current(&self) -> bool {
        self.shown + 1 == self.states.len()
    }

    fn write(&mut self, change: impl FnOnce(&mut BTreeMap<String, Arc<K>>)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
        // What everybody has seen is history.
        if self.shown > 64 {
            self.states.drain(..self.shown);
            self.shown = 0;
        }
    }

    fn edit(&mut self, name: &str, change: impl FnOnce(&mut K)) {
        self.write(|all| {
            if let Some(object) = all.get_mut(name) {
                change(Arc::make_mut(object));
            }
        });
    }

    fn advance(&mut self, chance: &mut Chance) {
        self.shown += chance.below(self.states.len() - self.shown);
    }
}

struct Cluster {
    chance: Chance,
    clock: Timestamp,
    deployments: Log<Deployment>,
    sets: Log<ReplicaSet>,
    pods: Log<Pod>,
    /// Pods that the ReplicaSet controller has created and deleted: its expectations.
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// The Deployment controller waits until it sees what it has written.
    wait_for: Option<(usize, usize)>,
    serial: usize,
    faults: bool,
}

const NAME: &str = "web";

/// A number, or a percentage.
fn margin(text: &str) -> Value {
    text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number))
}

impl Cluster {
    fn new(seed: u64, replicas: i32, surge: &str, unavailable: &str, strategy: &str, faults: bool) -> Self {
        let strategy = match strategy {
            "Recreate" => json!({ "type": "Recreate" }),
            _ => {
                json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": margin(surge), "maxUnavailable": margin(unavailable) } })
            }
        };
        let deployment: Deployment = from_value(json!({
            "metadata": { "name": NAME, "namespace": "ns", "uid": "d", "generation": 1 },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": NAME } }, "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": 600, "strategy": strategy,
                "template": { "metadata": { "labels": { "app": NAME } }, "spec": { "containers": [{ "name": "c", "image": "0" }] } },
            },
        }))
        .expect("deployment");
        let mut cluster = Self {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            clock: "2026-01-01T00:00:00Z".parse().expect("time"),
            deployments: Log::new(),
            sets: Log::new(),
            pods: Log::new(),
            created: BTreeSet::new(),
            deleted: BTreeSet::new(),
            wait_for: None,
            serial: 0,
            faults,
        };
        cluster.deployments.write(|all| {
            all.insert(NAME.to_owned(), Arc::new(deployment));
        });
        cluster
    }

    fn user(&mut self, change: impl FnOnce(&mut k8s_openapi::api::apps::v1::DeploymentSpec)) {
        self.deployments.edit(NAME, |deployment| {
            change(deployment.spec.as_mut().expect("spec"));
            deployment.metadata.generation = deployment.metadata.generation.map(|generation| generation + 1);
        });
    }

    fn set_image(&mut self, image: usize) {
        self.user(|spec| {
            let pod = spec.template.spec.as_mut().expect("pod");
            pod.containers[0].image = Some(image.to_string());
        });
    }

    fn step(&mut self) {
        self.clock = meta::plus_seconds(self.clock, 1);
        match self.chance.below(7) {
            0 => self.deployments.advance(&mut self.chance),
            1 => self.sets.advance(&mut self.chance),
            2 => self.watch_pods(),
            3 => self.sync_deployment(),
            4 => self.sync_set(),
            _ => self.kubelet(),
        }
    }

    /// The informer of Pods goes on, event by event: each strikes out what it shows.
    fn watch_pods(&mut self) {
        let before = self.pods.shown;
        self.pods.advance(&mut self.chance);
        for state in &self.pods.states[before..=self.pods.shown] {
            self.created.retain(|name| !state.contains_key(name));
            let waits = |name: &String| state.get(name).is_some_and(|pod| !meta::is_deleting(&**pod));
            self.deleted.retain(waits);
        }
    }

    fn sync_deployment(&mut self) {
        let seen = |wait: &(usize, usize)| {
            self.deployments.shown >= wait.0.min(self.deployments.states.len() - 1)
                && self.sets.shown >= wait.1.min(self.sets.states.len() - 1)
        };
        if self.wait_for.as_ref().is_some_and(|wait| !seen(wait)) {
            // Indices move when history is dropped: waiting for the present is always enough.
            if !(self.deployments.is_current() && self.sets.is_current()) {
                return;
            }
        }
        let Some(deployment) = self.deployments.view().get(NAME).cloned() else {
            return;
        };
        let owned: Vec<_> = self.sets.view().values().cloned().collect();
        let mut running = BTreeMap::new();
        for pod in self.pods.view().values().filter(|pod| !pods::is_finished(pod)) {
            if let Some(owner) = meta::controller_of(&pod.metadata) {
                *running.entry(owner.uid.clone()).or_default() += 1;
            }
        }
        let snapshot = deployments::Snapshot { sets: owned, running };
        let plan = deployments::plan(&snapshot, &deployment, self.clock);
        let wrote = !plan.actions.is_empty();
        for action in plan.actions {
            self.apply(action);
        }
        if wrote {
            self.wait_for = Some((self.deployments.states.len() - 1, self.sets.states.len() - 1));
        }
    }

    fn apply(&mut self, action: RolloutStep) {
        let clock = self.clock;
        match action {
            RolloutStep::Create(mut rs) => {
                let name = meta::name(&*rs).to_owned();
                assert!(!self.sets.now().contains_key(&name), "created twice: {name}");
                rs.metadata.uid = Some(format!("uid-{name}"));
                rs.metadata.generation = Some(1);
                rs.metadata.creation_timestamp = Some(meta::seconds(clock));
                self.sets.write(|all| {
                    all.insert(name, Arc::new(*rs));
                });
            }
            RolloutStep::Update(update) => self.sets.edit(&update.name, |rs| {
                rs.metadata.annotations.get_or_insert_default().extend(update.annotations);
                if let (Some((_, size)), Some(spec)) = (update.scale, rs.spec.as_mut()) {
                    spec.replicas = Some(size);
                    rs.metadata.generation = rs.metadata.generation.map(|generation| generation + 1);
                }
            }),
            RolloutStep::Delete(rs) => self.sets.write(|all| {
                all.remove(meta::name(&*rs));
            }),
            RolloutStep::SetRevision(revision) => self.deployments.edit(NAME, |deployment| {
                let annotations = deployment.metadata.annotations.get_or_insert_default();
                let key = "deployment.kubernetes.io/revision";
                let number = |text: &String| text.parse::<i64>().expect("a number");
                let before = annotations.insert(key.to_owned(), revision.clone());
                assert!(before.as_ref().map(number) < Some(number(&revision)), "the revision went back");
            }),
            RolloutStep::UpdateStatus(status) => {
                self.deployments.edit(NAME, |deployment| deployment.status = Some(*status));
            }
            RolloutStep::Warn { reason, message } => panic!("{reason}: {message}"),
        }
    }

    fn sync_set(&mut self) {
        let all: Vec<_> = self.sets.view().values().cloned().collect();
        if all.is_empty() {
            return;
        }
        let rs = &all[self.chance.below(all.len())];
        let selector = LabelSelector::from_object(rs.spec.as_ref().map(|spec| &spec.selector)).expect("selector");
        let pods: Vec<_> = self.pods.view().values().cloned().collect();
        let prefix = sets::prefix(rs);
        let own = |names: &BTreeSet<String>| names.iter().filter(|name| name.starts_with(&prefix)).cloned().collect();
        let pending = Pending { present: own(&self.created), changed: BTreeSet::new(), gone: own(&self.deleted) };
        let snapshot = sets::Snapshot { related: pods.clone(), pods, pending };
        let plan = sets::plan(&snapshot, rs, &selector, self.clock);
        assert!(plan.adopt.is_empty() && plan.release.is_empty());
        for _ in 0..plan.create {
            self.serial += 1;
            let name = format!("{prefix}{}", self.serial);
            let mut pod = sets::pod(rs, &Owner::of(&**rs));
            pod.metadata.name = Some(name.clone());
            pod.metadata.uid = Some(name.clone());
            self.created.insert(name.clone());
            self.pods.write(|all| {
                all.insert(name, Arc::new(pod));
            });
        }
        for pod in &plan.delete {
            let name = meta::name(&**pod);
            self.deleted.insert(name.to_owned());
            let clock = self.clock;
            self.pods.edit(name, |pod| pod.metadata.deletion_timestamp = Some(meta::seconds(clock)));
        }
        let status = sets::status(rs, &plan.counts, None, self.clock);
        let name = meta::name(&**rs).to_owned();
        // As the API server: what is right by the copy that was read is not written, and what was changed since refused.
        let is_current = self.sets.now().get(&name).is_some_and(|now| Arc::ptr_eq(now, rs));
        if is_current && rs.status.as_ref() != Some(&status) {
            self.sets.edit(&name, |rs| rs.status = Some(status));
        }
    }

    /// One Pod gets ready, ends or, if faults are on, breaks.
    fn kubelet(&mut self) {
        let all: Vec<_> = self.pods.now().values().cloned().collect();
        if all.is_empty() {
            return;
        }
        let pod = &all[self.chance.below(all.len())];
        let name = meta::name(&**pod).to_owned();
        if meta::is_deleting(&**pod) {
            return self.pods.write(|all| {
                all.remove(&name);
            });
        }
        let breaks = self.faults && self.chance.one_in(4);
        if breaks && self.chance.one_in(2) {
            return self.pods.write(|all| {
                all.remove(&name);
            });
        }
        let ready = !breaks;
        if pods::is_ready(pod) == ready && pods::phase(pod) != pods::PodPhase::Unset {
            return;
        }
        let clock = self.clock;
        self.pods.edit(&name, |pod| {
            pod.status = from_value(json!({
                "phase": "Running",
                "conditions": [{
                    "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": meta::seconds(clock),
                }],
            }))
            .expect("status");
            pod.spec.get_or_insert_default().node_name = Some("n".to_owned());
        });
    }

    fn active(&self) -> usize {
        self.pods.now().values().filter(|pod| pods::is_active(pod)).count()
    }

    fn available(&self) -> usize {
        let available = |pod: &&Arc<Pod>| pods::is_active(pod) && pods::is_ready(pod);
        self.pods.now().values().filter(available).count()
    }

    /// Whether everything is as the Deployment asks and everybody has seen it.
    fn has_converged(&self) -> bool {
        let deployment = &self.deployments.now()[NAME];
        let spec = deployment.spec.as_ref().expect("spec");
        let wanted = spec.replicas.unwrap_or(1);
        let image = &spec.template.spec.as_ref().expect("pod").containers[0].image;
        let status = deployment.status.clone().unwrap_or_default();
        let complete = status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"));
        let right = |pod: &Arc<Pod>| pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image == *image);
        let count = usize::try_from(wanted).expect("wanted");
        self.pods.now().len() == count
            && self.available() == count
            && self.pods.now().values().all(right)
            && status.updated_replicas.unwrap_or_default() == wanted
            && status.available_replicas.unwrap_or_default() == wanted
            && status.observed_generation == deployment.metadata.generation
            && complete
    }

    /// Goes on until all is as asked, checking `invariant` after each step.
    fn converge(&mut self, invariant: impl Fn(&Self)) {
        for _ in 0..60_000 {
            self.step();
            invariant(self);
            if self.has_converged() {
                return;
            }
        }
        panic!("no end: {:#?}\n{:#?}", self.deployments.now(), self.pods.now().keys());
    }
}

#[test]
fn rollouts_keep_their_promises_whatever_the_informers_show() {
    for seed in 1..=60 {
        let shapes = [
            (10, "3", "2", 13, 8),
            (4, "25%", "25%", 5, 3),
            (1, "1", "0", 2, 1),
            (5, "0", "1", 5, 4),
            (3, "100%", "0", 6, 3),
        ];
        let (replicas, surge, unavailable, max, min) = shapes[usize::try_from(seed).expect("seed") % shapes.len()];
        let mut cluster = Cluster::new(seed, replicas, surge, unavailable, "RollingUpdate", false);
        cluster.converge(|cluster| assert!(cluster.active() <= max, "seed {seed}"));
        for image in 1..=3 {
            cluster.set_image(image);
            // Sometimes the next change comes before the last is through.
            for _ in 0..cluster.chance.below(400) {
                cluster.step();
                assert!(cluster.active() <= max, "seed {seed}: {} of {max}", cluster.active());
                assert!(cluster.available() >= min, "seed {seed}: {} of {min}", cluster.available());
            }
        }
        cluster.converge(|cluster| {
            assert!(cluster.active() <= max, "seed {seed}: {} of {max}", cluster.active());
            assert!(cluster.available() >= min, "seed {seed}: {} of {min}", cluster.available());
        });
    }
}

#[test]
fn faults_never_break_the_surge_and_are_overcome() {
    for seed in 1..=40 {
        let mut cluster = Cluster::new(seed, 6, "2", "1", "RollingUpdate", true);
        for image in 1..=2 {
            for _ in 0..500 {
                cluster.step();
                assert!(cluster.active() <= 8, "seed {seed}: {}", cluster.active());
            }
            cluster.set_image(image);
        }
        cluster.faults = false;
        cluster.converge(|cluster| assert!(cluster.active() <= 8, "seed {seed}"));
    }
}

#[test]
fn scaling_and_pausing_at_any_time_end_well() {
    for seed in 1..=40 {
        let mut cluster = Cluster::new(seed, 4, "25%", "25%", "RollingUpdate", true);
        for change in 1..=6 {
            for _ in 0..cluster.chance.below(300) {
                cluster.step();
            }
            match cluster.chance.below(3) {
                0 => cluster.set_image(change),
                1 => {
                    let replicas = i32::try_from(cluster.chance.below(12)).expect("few");
                    cluster.user(|spec| spec.replicas = Some(replicas));
                }
                _ => {
                    let paused = cluster.chance.one_in(2);
                    cluster.user(|spec| spec.paused = Some(paused));
                }
            }
        }
        cluster.user(|spec| spec.paused = None);
        cluster.faults = false;
        cluster.converge(|_| {});
    }
}

#[test]
fn recreate_never_runs_two_versions() {
    for seed in 1..=40 {
        let mut cluster = Cluster::new(seed, 3, "", "", "Recreate", false);
        cluster.converge(|_| {});
        for image in 1..=2 {
            cluster.set_image(image);
            cluster.converge(|cluster| {
                let image = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
                let images: BTreeSet<_> = cluster.pods.now().values().map(image).collect();
                assert!(images.len() <= 1, "seed {seed}: {images:?}");
            });
        }
    }
}
