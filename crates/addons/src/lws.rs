//! LeaderWorkerSet: leaderworkerset.x-k8s.io/v1.

use serde_json::Value;

use crate::schema::{
    Names, Version, about, age, column, conditions, count_or_percent, definition, free, integer, list, object, one_of,
    rule_at, status_and_scale, string, with,
};

const NAMES: Names = Names {
    group: "leaderworkerset.x-k8s.io",
    kind: "LeaderWorkerSet",
    plural: "leaderworkersets",
    short: &["lws"],
    scope: "Namespaced",
};

/// The definitions of the addon.
pub(crate) fn definitions() -> Vec<Value> {
    let version = Version {
        name: "v1",
        storage: true,
        description: "Groups of pods, each of a leader and its workers, replicated as one.",
        spec: spec(),
        status: status(),
        subresources: status_and_scale(Some(".status.hpaPodSelector")),
        columns: vec![
            column("Ready", "integer", ".status.readyReplicas"),
            column("Desired", "integer", ".spec.replicas"),
            column("Up-to-date", "integer", ".status.updatedReplicas"),
            age("Age"),
        ],
    };
    vec![definition(&NAMES, vec![version])]
}

fn spec() -> Value {
    let rolling = object(
        &[],
        [
            (
                "partition",
                about(
                    "Groups below this index keep the old template.",
                    with(with(integer(), "default", 0), "minimum", 0),
                ),
            ),
            (
                "maxUnavailable",
                about("Groups that may be missing during an update.", with(count_or_percent(), "default", 1)),
            ),
            (
                "maxSurge",
                about(
                    "Groups that there may be beyond replicas during an update.",
                    with(count_or_percent(), "default", 0),
                ),
            ),
        ],
    );
    // Words and places of these rules are those of upstream's webhook.
    let none = |field: &str| format!("(has(self.{field}) && (self.{field} == 0 || self.{field} == '0%'))");
    let rolling = rule_at(
        rolling,
        &format!("!({} && {})", none("maxUnavailable"), none("maxSurge")),
        "must not be 0 when `maxSurge` is 0",
        ".maxUnavailable",
    );
    let rollout = object(
        &["type"],
        [
            ("type", with(one_of(&["RollingUpdate"]), "default", "RollingUpdate")),
            ("rollingUpdateConfiguration", rolling),
        ],
    );
    let network = object(
        &["subdomainPolicy"],
        [(
            "subdomainPolicy",
            about("One headless service for all groups, or one for each.", one_of(&["Shared", "UniquePerReplica"])),
        )],
    );
    object(
        &["leaderWorkerTemplate"],
        [
            ("replicas", about("The number of groups.", with(with(integer(), "default", 1), "minimum", 0))),
            ("leaderWorkerTemplate", template()),
            ("rolloutStrategy", about("How groups get a new template.", rollout)),
            (
                "startupPolicy",
                about(
                    "When workers start: once their leader is created, or once it is ready.",
                    with(one_of(&["LeaderCreated", "LeaderReady"]), "default", "LeaderCreated"),
                ),
            ),
            ("networkConfig", network),
        ],
    )
}

fn template() -> Value {
    let restart = one_of(&["Default", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]);
    let sub_group = object(
        &[],
        [
            ("subGroupPolicyType", with(one_of(&["LeaderWorker", "LeaderExcluded"]), "default", "LeaderWorker")),
            ("subGroupSize", with(integer(), "minimum", 1)),
        ],
    );
    let retention =
        object(&[], [("whenDeleted", one_of(&["Retain", "Delete"])), ("whenScaled", one_of(&["Retain", "Delete"]))]);
    let template = object(
        &["workerTemplate"],
        [
            ("leaderTemplate", about("The pod template of leaders; that of the workers where there is none.", free())),
            ("workerTemplate", about("The pod template of workers.", free())),
            (
                "size",
                about(
                    "The number of pods in a group, its leader included.",
                    with(with(integer(), "default", 1), "minimum", 1),
                ),
            ),
            (
                "restartPolicy",
                about(
                    "What becomes of a group when one of its pods fails.",
                    with(restart, "default", "RecreateGroupOnPodRestart"),
                ),
            ),
            ("subGroupPolicy", sub_group),
            ("volumeClaimTemplates", list(free())),
            ("persistentVolumeClaimRetentionPolicy", retention),
        ],
    );
    let group = |rule: &str| format!("!has(self.subGroupPolicy) || !has(self.subGroupPolicy.subGroupSize) || {rule}");
    let template = rule_at(
        template,
        &group("self.subGroupPolicy.subGroupSize <= self.size"),
        "subGroupSize cannot be larger than size",
        ".subGroupPolicy.subGroupSize",
    );
    rule_at(
        template,
        &group(
            "self.subGroupPolicy.subGroupSize > self.size || (self.size - 1) % self.subGroupPolicy.subGroupSize == 0 || \
             self.subGroupPolicy.subGroupPolicyType != 'LeaderExcluded' && self.size % self.subGroupPolicy.subGroupSize \
             == 0",
        ),
        "size or size - 1 must be divisible by subGroupSize",
        ".subGroupPolicy.subGroupSize",
    )
}

fn status() -> Value {
    object(
        &[],
        [
            ("conditions", conditions()),
            ("replicas", integer()),
            ("readyReplicas", integer()),
            ("updatedReplicas", integer()),
            ("hpaPodSelector", string()),
            ("observedGeneration", with(integer(), "format", "int64")),
        ],
    )
}
