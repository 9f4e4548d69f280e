//! Job plans with chance and faults.
//!
//! Pods end, fail, and are deleted by anybody at any time; requests fail in the middle of a plan; the controller restarts.
//! Checked after every step: never more Pods at once than asked for; and in the end: each Pod was counted exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, from_value, json};

use super::{Chance, Log};
use crate::job::plan::{self, condition, plan};
use crate::job::pod as of;
use crate::owner::Owner;
use crate::{meta, pods};

const NAME: &str = "pi";
const PARALLELISM: usize = 3;

struct Cluster {
    chance: Chance,
    clock: Timestamp,
    job: Log<Job>,
    pods: Log<Pod>,
    waits: bool,
    serial: usize,
    faults: bool,
    /// UIDs of Pods that succeeded, failed by themselves, and were thrown away by the controller.
    succeeded: BTreeSet<String>,
    created: BTreeSet<String>,
    discarded: BTreeSet<String>,
}

impl Cluster {
    fn new(seed: u64, mode: &str, spec: &Value) -> Self {
        let mut whole = json!({
            "parallelism": PARALLELISM, "completions": 8, "backoffLimit": 1000, "completionMode": mode,
            "selector": { "matchLabels": { "job": NAME } }, "podReplacementPolicy": "TerminatingOrFailed",
            "template": {
                "metadata": { "labels": { "job": NAME } },
                "spec": { "containers": [{ "name": "c" }], "restartPolicy": "Never" },
            },
        });
        for (key, value) in spec.as_object().expect("members") {
            whole[key] = value.clone();
        }
        let job =
            json!({ "metadata": { "name": NAME, "namespace": "ns", "uid": "job", "generation": 1 }, "spec": whole });
        let mut cluster = Self {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            clock: "2026-01-01T00:00:00Z".parse().expect("time"),
            job: Log::new(),
            pods: Log::new(),
            waits: false,
            serial: 0,
            faults: true,
            succeeded: BTreeSet::new(),
            created: BTreeSet::new(),
            discarded: BTreeSet::new(),
        };
        cluster.job.write(|all| {
            all.insert(NAME.to_owned(), Arc::new(from_value(job).expect("job")));
        });
        cluster
    }

    fn step(&mut self) {
        self.clock = meta::plus_seconds(self.clock, 20);
        match self.chance.below(6) {
            0 => self.job.advance(&mut self.chance),
            1 => self.pods.advance(&mut self.chance),
            2 => self.sync(),
            3 if self.faults && self.chance.one_in(20) => {
                self.job.shown = self.job.states.len() - 1;
                self.pods.shown = self.pods.states.len() - 1;
                self.waits = false;
            }
            _ => self.kubelet(),
        }
    }

    /// A request that may fail, and ends the plan with it.
    fn fails(&mut self) -> bool {
        self.faults && self.chance.one_in(10)
    }

    fn sync(&mut self) {
        if self.waits && !(self.job.is_current() && self.pods.is_current()) {
            return;
        }
        let Some(job) = self.job.view().get(NAME).cloned() else { return };
        self.waits = true;
        let pods: Vec<_> = self.pods.view().values().cloned().collect();
        let plan = plan(&job, &pods, &Owner::of(&*job), self.clock);
        for pod in &plan.delete_uncounted {
            self.remove_finalizers(pod);
            self.discarded.insert(meta::uid(&**pod).to_owned());
        }
        for pod in plan.delete_uncounted.iter().chain(&plan.delete) {
            self.delete(meta::name(&**pod));
        }
        for mut pod in plan.create {
            if self.fails() {
                break;
            }
            self.serial += 1;
            let name = format!("{NAME}-{}", self.serial);
            pod.metadata.name = Some(name.clone());
            pod.metadata.uid = Some(name.clone());
            pod.metadata.creation_timestamp = Some(meta::seconds(self.clock));
            pod.status = from_value(json!({ "phase": "Pending" })).ok();
            self.created.insert(name.clone());
            self.pods.write(|all| {
                all.insert(name, Arc::new(pod));
            });
        }
        if self.fails() {
            return;
        }
        if job.status.as_ref() != Some(&plan.status) {
            self.job.edit(NAME, |job| job.status = Some(plan.status.clone()));
        }
        for pod in &plan.remove_finalizers {
            if self.fails() {
                return;
            }
            self.remove_finalizers(pod);
        }
    }

    fn remove_finalizers(&mut self, pod: &Pod) {
        self.pods.edit(meta::name(pod), |pod| {
            pod.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != of::TRACKING);
        });
    }

    fn delete(&mut self, name: &str) {
        let clock = self.clock;
        self.pods.edit(name, |pod| {
            pod.metadata.deletion_timestamp.get_or_insert(meta::seconds(clock));
        });
    }

    fn kubelet(&mut self) {
        let all: Vec<_> = self.pods.now().values().cloned().collect();
        if all.is_empty() {
            return;
        }
        let pod = &all[self.chance.below(all.len())];
        let name = meta::name(&**pod).to_owned();
        if meta::is_deleting(&**pod) && !of::is_tracked(pod) {
            return self.pods.write(|all| {
                all.remove(&name);
            });
        }
        if pods::is_finished(pod) {
            // Somebody cleans up.
            if self.faults && self.chance.one_in(4) {
                self.delete(&name);
            }
            return;
        }
        let phase = match if self.faults { self.chance.below(6) } else { 5 } {
            0 => "Failed",
            1 => return self.delete(&name),
            2 => "Running",
            // One that is deleted does not succeed any more: that is what counts it as failed before its end.
            _ if meta::is_deleting(&**pod) => "Failed",
            _ => "Succeeded",
        };
        if phase == "Succeeded" {
            self.succeeded.insert(name.clone());
        }
        self.pods.edit(&name, |pod| pod.status = from_value(json!({ "phase": phase })).ok());
    }

    fn run(&mut self) {
        for step in 0..60_000 {
            self.step();
            let active = self.pods.now().values().filter(|pod| pods::is_active(pod)).count();
            assert!(active <= PARALLELISM, "{active} at once");
            if step == 3_000 {
                self.faults = false;
            }
            if plan::is_finished(&self.job.now()[NAME]) {
                return;
            }
        }
        panic!("no end: {:#?}\n{:#?}", self.job.now(), self.pods.now());
    }
}

#[test]
fn each_pod_is_counted_exactly_once() {
    for seed in 1..=80 {
        let mut cluster = Cluster::new(seed, "NonIndexed", &json!({}));
        cluster.run();
        let status = cluster.job.now()[NAME].status.clone().expect("status");
        let count = |set: &BTreeSet<String>| i32::try_from(set.len()).expect("few");
        assert_eq!(status.succeeded.unwrap_or_default(), count(&cluster.succeeded), "seed {seed}");
        let others = count(&cluster.created) - count(&cluster.succeeded) - count(&cluster.discarded);
        assert_eq!(status.failed.unwrap_or_default(), others, "seed {seed}");
        assert!(condition(&cluster.job.now()[NAME], "Complete").is_some(), "seed {seed}");
    }
}

#[test]
fn each_index_succeeds_once_and_limits_hold() {
    for seed in 1..=80 {
        let mut cluster = Cluster::new(seed, "Indexed", &json!({}));
        cluster.run();
        let status = cluster.job.now()[NAME].status.clone().expect("status");
        assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(8), Some("0-7")), "seed {seed}");
        let mut strict = Cluster::new(seed, "NonIndexed", &json!({ "backoffLimit": 2 }));
        strict.run();
        let job = strict.job.now()[NAME].clone();
        let failed = job.status.as_ref().and_then(|status| status.failed).unwrap_or_default();
        // It ends as failed exactly when more failed than it allows.
        assert_eq!(condition(&job, "Failed").is_some(), failed > 2, "seed {seed}: {failed}");
    }
}
