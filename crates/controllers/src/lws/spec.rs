//! What a LeaderWorkerSet asks for, read from its JSON, with the published defaults.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::int_or_string;
use serde_json::{Value, json};

/// A LeaderWorkerSet's `spec`, or that part of it which a revision keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec<'a>(pub(crate) &'a Value);

impl<'a> Spec<'a> {
    fn template(self) -> &'a Value {
        &self.0["leaderWorkerTemplate"]
    }

    /// How many groups.
    pub(crate) fn replicas(self) -> i32 {
        number(&self.0["replicas"]).unwrap_or(1).max(0)
    }

    /// How many Pods in each, the leader included.
    pub(crate) fn size(self) -> i32 {
        number(&self.template()["size"]).unwrap_or(1).max(1)
    }

    /// The leader's template: the workers' one, if it has none of its own.
    pub(crate) fn leader_template(self) -> &'a Value {
        match &self.template()["leaderTemplate"] {
            Value::Null => self.worker_template(),
            own => own,
        }
    }

    /// The workers' template.
    pub(crate) fn worker_template(self) -> &'a Value {
        &self.template()["workerTemplate"]
    }

    /// Whether a Pod that restarts takes its group with it.
    pub(crate) fn recreates_group(self) -> bool {
        matches!(self.template()["restartPolicy"].as_str(), None | Some("RecreateGroupOnPodRestart"))
    }

    /// Whether that happens only once all Pods of the group have started.
    pub(crate) fn recreates_after_start(self) -> bool {
        self.template()["restartPolicy"] == "RecreateGroupAfterStart"
    }

    /// Whether workers wait until their leader is ready.
    pub(crate) fn leader_first(self) -> bool {
        self.0["startupPolicy"] == "LeaderReady"
    }

    /// Whether each group has a subdomain of its own.
    pub(crate) fn own_subdomains(self) -> bool {
        self.0["networkConfig"]["subdomainPolicy"] == "UniquePerReplica"
    }

    /// The policy for subgroups: how they count, and their size.
    pub(crate) fn subgroups(self) -> Option<(&'a str, i32)> {
        let policy = &self.template()["subGroupPolicy"];
        let size = number(&policy["subGroupSize"])?;
        Some((policy["subGroupPolicyType"].as_str().unwrap_or("LeaderWorker"), size))
    }

    /// Claims for the leaders, and what becomes of them.
    pub(crate) fn claims(self) -> (&'a Value, &'a Value) {
        (&self.template()["volumeClaimTemplates"], &self.template()["persistentVolumeClaimRetentionPolicy"])
    }

    fn rolling(self) -> &'a Value {
        &self.0["rolloutStrategy"]["rollingUpdateConfiguration"]
    }

    /// Groups below this one are not updated.
    pub(crate) fn partition(self) -> i32 {
        number(&self.rolling()["partition"]).unwrap_or_default()
    }

    /// The bounds of a rollout in groups: how many may be unavailable, and how many there may be beyond `replicas`.
    pub(crate) fn bounds(self) -> (i32, i32) {
        let replicas = self.replicas();
        let scaled = |value: &Value, up: bool| {
            let value: IntOrString = serde_json::from_value(value.clone()).ok()?;
            int_or_string::scaled(&value, replicas, up).ok()
        };
        let surge = scaled(&self.rolling()["maxSurge"], true).unwrap_or_default().clamp(0, replicas);
        let unavailable = scaled(&self.rolling()["maxUnavailable"], false).unwrap_or(1).max(0);
        // With neither, no rollout could ever begin.
        (if surge == 0 { unavailable.max(1) } else { unavailable }, surge)
    }

    /// What a revision keeps: that which makes Pods different.
    pub(crate) fn content(self) -> Value {
        let mut template = self.template().clone();
        if let Value::Object(members) = &mut template {
            members.insert("$patch".to_owned(), "replace".into());
        }
        json!({ "spec": { "leaderWorkerTemplate": template, "networkConfig": self.0["networkConfig"] } })
    }
}

/// A whole number of 32 bits.
pub(crate) fn number(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok())
}
