//! StatefulSet plans with chance and faults.
//!
//! Checked after every step: Pods are created from the lowest ordinal up and updated from the highest down, one at a time
//! as long as nothing breaks by itself; never is there a Pod beyond what was ever asked for; and in the end, all is as
//! asked.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::{from_value, json};

use super::{Chance, Log};
use crate::owner::Owner;
use crate::statefulset::plan::{Revision, Snapshot, plan};
use crate::{history, meta, pods};

const NAME: &str = "db";

struct Cluster {
    chance: Chance,
    clock: Timestamp,
    set: Log<StatefulSet>,
    pods: Log<Pod>,
    /// The controller waits until it sees what it has written: the expectations.
    waits: bool,
    serial: usize,
    faults: bool,
}

fn template(image: usize) -> PodTemplateSpec {
    from_value(json!({
        "metadata": { "labels": { "app": NAME } }, "spec": { "containers": [{ "name": "c", "image": image.to_string() }] },
    }))
    .expect("template")
}

impl Cluster {
    fn new(seed: u64, replicas: i32, policy: &str, faults: bool) -> Self {
        let set = json!({
            "metadata": { "name": NAME, "namespace": "ns", "uid": "set", "generation": 1 },
            "spec": {
                "replicas": replicas, "serviceName": NAME, "podManagementPolicy": policy,
                "selector": { "matchLabels": { "app": NAME } }, "template": template(0),
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            },
        });
        let mut cluster = Self {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            clock: "2026-01-01T00:00:00Z".parse().expect("time"),
            set: Log::new(),
            pods: Log::new(),
            waits: false,
            serial: 0,
            faults,
        };
        cluster.set.write(|all| {
            all.insert(NAME.to_owned(), Arc::new(from_value(set).expect("set")));
        });
        cluster
    }

    fn user(&mut self, change: impl FnOnce(&mut StatefulSetSpec)) {
        self.set.edit(NAME, |set| {
            change(set.spec.as_mut().expect("spec"));
            set.metadata.generation = set.metadata.generation.map(|generation| generation + 1);
        });
    }

    fn image(template: &PodTemplateSpec) -> String {
        let image = template.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        image.expect("an image")
    }

    fn step(&mut self) {
        self.clock = meta::plus_seconds(self.clock, 1);
        match self.chance.below(6) {
            0 => self.set.advance(&mut self.chance),
            1 => self.pods.advance(&mut self.chance),
            2 => self.sync(),
            // The controller restarts: it forgets what it has written, and lists everything anew.
            3 if self.faults && self.chance.one_in(20) => {
                self.set.shown = self.set.states.len() - 1;
                self.pods.shown = self.pods.states.len() - 1;
                self.waits = false;
            }
            _ => self.kubelet(),
        }
    }

    fn sync(&mut self) {
        if self.waits && !(self.set.is_current() && self.pods.is_current()) {
            return;
        }
        self.waits = false;
        let Some(set) = self.set.view().get(NAME).cloned() else { return };
        let spec = set.spec.clone().expect("spec");
        // A revision for each image, named after it.
        let update = Revision { name: Self::image(&spec.template), template: spec.template.clone() };
        let named = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let current = named.map_or_else(
            || update.clone(),
            |name| Revision { template: template(name.parse().expect("a number")), name },
        );
        let pods: Vec<_> = self.pods.view().values().cloned().collect();
        let snapshot = Snapshot { pods, claims: Default::default(), current, update, collisions: 0 };
        let plan = plan(&snapshot, &set, &Owner::of(&*set), self.clock);
        let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
        if ordered {
            assert!(plan.create.len() <= 1, "several at once");
        }
        let wrote = !(plan.create.is_empty() && plan.delete.is_empty());
        for mut pod in plan.create {
            let name = meta::name(&pod).to_owned();
            // Its name is taken as long as the one before is there: the API refuses.
            if self.pods.now().contains_key(&name) || (self.faults && self.chance.one_in(8)) {
                continue;
            }
            if ordered && !self.faults {
                self.assert_all_ready_below(&name);
            }
            self.serial += 1;
            pod.metadata.uid = Some(self.serial.to_string());
            pod.status = from_value(json!({ "phase": "Pending" })).ok();
            self.pods.write(|all| {
                all.insert(name, Arc::new(pod));
            });
        }
        for pod in &plan.delete {
            let same = |now: &Arc<Pod>| meta::uid(&**now) == meta::uid(&**pod);
            if self.pods.now().get(meta::name(&**pod)).is_some_and(same) {
                let clock = self.clock;
                self.pods.edit(meta::name(&**pod), |pod| {
                    pod.metadata.deletion_timestamp.get_or_insert(meta::seconds(clock));
                });
            }
        }
        let old = self.set.now()[NAME].status.clone();
        if old.as_ref() != Some(&plan.status) {
            self.set.edit(NAME, |set| set.status = Some(plan.status.clone()));
            self.waits = true;
        }
        self.waits |= wrote;
    }

    fn assert_all_ready_below(&self, name: &str) {
        let ordinal = pods::ordinal(NAME, name).expect("an ordinal");
        for below in 0..ordinal {
            let pod = self.pods.now().get(&format!("{NAME}-{below}"));
            assert!(pod.is_some_and(|pod| pods::is_ready(pod)), "{name} before {below} is ready");
        }
    }

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
        let fate = if self.faults { self.chance.below(12) } else { 11 };
        let clock = self.clock;
        match fate {
            0 => self.pods.write(|all| {
                all.remove(&name);
            }),
            1 => self.pods.edit(&name, |pod| pod.status = from_value(json!({ "phase": "Failed" })).ok()),
            _ => self.pods.edit(&name, |pod| {
                if !pods::is_finished(pod) {
                    let ready =
                        json!({ "type": "Ready", "status": "True", "lastTransitionTime": meta::seconds(clock) });
                    pod.status = from_value(json!({ "phase": "Running", "conditions": [ready] })).ok();
                }
            }),
        }
    }

    fn unavailable(&self, of: i32) -> i32 {
        let well = |pod: &&Arc<Pod>| pods::is_active(pod) && pods::is_ready(pod);
        of - i32::try_from(self.pods.now().values().filter(well).count()).expect("few")
    }

    fn has_converged(&self) -> bool {
        let set = &self.set.now()[NAME];
        let spec = set.spec.as_ref().expect("spec");
        let replicas = spec.replicas.expect("replicas");
        let image = Self::image(&spec.template);
        let right = |pod: &Arc<Pod>| history::of_pod(pod) == Some(&image);
        let status = set.status.clone().unwrap_or_default();
        self.pods.now().len() == usize::try_from(replicas).expect("replicas")
            && self.unavailable(replicas) == 0
            && self.pods.now().values().all(right)
            && status.current_revision == Some(image)
            && status.updated_replicas.unwrap_or_default() == replicas
            && status.observed_generation == set.metadata.generation
    }

    fn converge(&mut self, invariant: impl Fn(&Self)) {
        for _ in 0..60_000 {
            self.step();
            invariant(self);
            if self.has_converged() {
                return;
            }
        }
        panic!("no end: {:#?}\n{:#?}", self.set.now(), self.pods.now());
    }
}

#[test]
fn ordinals_keep_their_order_whatever_the_informers_show() {
    for seed in 1..=60 {
        let mut cluster = Cluster::new(seed, 4, "OrderedReady", false);
        cluster.converge(|_| {});
        for image in 1..=2 {
            cluster.user(|spec| spec.template = template(image));
            cluster.converge(|cluster| {
                assert!(cluster.unavailable(4) <= 1, "seed {seed}: more than one is down");
                // What is updated is always the upper part.
                let image = image.to_string();
                let all = cluster.pods.now().values().filter(|pod| pods::is_active(pod));
                let updated: Vec<bool> = all.map(|pod| history::of_pod(pod) == Some(&image)).collect();
                assert!(updated.is_sorted(), "seed {seed}: {updated:?}");
            });
        }
    }
}

#[test]
fn scaling_and_faults_end_well() {
    for seed in 1..=60 {
        let policy = if seed % 2 == 0 { "Parallel" } else { "OrderedReady" };
        let mut cluster = Cluster::new(seed, 3, policy, true);
        let mut most = 3;
        for change in 1..=6 {
            for _ in 0..cluster.chance.below(300) {
                cluster.step();
                let within = |pod: &String| pods::ordinal(NAME, pod).is_some_and(|ordinal| ordinal < most);
                assert!(cluster.pods.now().keys().all(within), "seed {seed}");
            }
            if cluster.chance.one_in(2) {
                cluster.user(|spec| spec.template = template(change));
            } else {
                let replicas = i32::try_from(cluster.chance.below(7)).expect("few");
                most = most.max(replicas);
                cluster.user(|spec| spec.replicas = Some(replicas));
            }
        }
        cluster.faults = false;
        cluster.converge(|_| {});
    }
}
