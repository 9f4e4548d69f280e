//! PodGroups: scheduling.x-k8s.io/v1alpha1 of the scheduler plugins, scheduling.volcano.sh/v1beta1 of Volcano with its Queue.

use serde_json::{Value, json};

use crate::schema::{
    Names, Version, about, age, boolean, column, definition, integer, list, map, object, resources, status, string,
    time, with,
};

const MEMBERS: &str = "So many pods are scheduled together, or none of them.";
const RESOURCES: &str = "What all of them need together.";

/// The definitions of the addon.
pub(crate) fn definitions() -> Vec<Value> {
    vec![pod_group(), volcano_pod_group(), queue()]
}

fn pod_group() -> Value {
    let names = Names {
        group: "scheduling.x-k8s.io",
        kind: "PodGroup",
        plural: "podgroups",
        short: &["pg", "pgs"],
        scope: "Namespaced",
    };
    let spec = object(
        &[],
        [
            ("minMember", about(MEMBERS, integer())),
            ("minResources", about(RESOURCES, resources())),
            ("scheduleTimeoutSeconds", about("How long pods that have a place wait for the others.", integer())),
        ],
    );
    let seen = object(
        &[],
        [
            ("phase", string()),
            ("occupiedBy", about("The workload whose pods these are.", string())),
            ("running", integer()),
            ("succeeded", integer()),
            ("failed", integer()),
            ("scheduleStartTime", time()),
        ],
    );
    let version = Version {
        name: "v1alpha1",
        storage: true,
        description: "Pods that are scheduled together or not at all.",
        spec,
        status: seen,
        subresources: status(),
        columns: vec![
            column("Phase", "string", ".status.phase"),
            column("MinMember", "integer", ".spec.minMember"),
            column("Running", "string", ".status.running"),
            column("Succeeded", "string", ".status.succeeded"),
            column("Failed", "string", ".status.failed"),
            age("Age"),
        ],
    };
    definition(&names, vec![version])
}

fn volcano_pod_group() -> Value {
    let names = Names {
        group: "scheduling.volcano.sh",
        kind: "PodGroup",
        plural: "podgroups",
        short: &["pg", "podgroup-v1beta1"],
        scope: "Namespaced",
    };
    let spec = object(
        &[],
        [
            ("minMember", about(MEMBERS, integer())),
            ("minTaskMember", about("The same for each task, by its name.", map(integer()))),
            ("minResources", about(RESOURCES, resources())),
            ("queue", about("The queue in which the group waits.", with(string(), "default", "default"))),
            ("priorityClassName", string()),
        ],
    );
    let condition = object(
        &[],
        [
            ("type", string()),
            ("status", string()),
            ("reason", string()),
            ("message", string()),
            ("transitionID", string()),
            ("lastTransitionTime", time()),
        ],
    );
    let seen = object(
        &[],
        [
            ("phase", with(string(), "default", "Pending")),
            ("conditions", list(condition)),
            ("running", integer()),
            ("succeeded", integer()),
            ("failed", integer()),
        ],
    );
    let queue = with(column("QUEUE", "string", ".spec.queue"), "priority", 1);
    let version = Version {
        name: "v1beta1",
        storage: true,
        description: "Pods that are scheduled together or not at all.",
        spec,
        status: seen,
        subresources: status(),
        columns: vec![
            column("STATUS", "string", ".status.phase"),
            column("minMember", "integer", ".spec.minMember"),
            column("RUNNINGS", "integer", ".status.running"),
            age("AGE"),
            queue,
        ],
    };
    definition(&names, vec![version])
}

fn queue() -> Value {
    let names = Names {
        group: "scheduling.volcano.sh",
        kind: "Queue",
        plural: "queues",
        short: &["q", "queue-v1beta1"],
        scope: "Cluster",
    };
    let groups = || {
        object(
            &[],
            [
                ("requiredDuringSchedulingIgnoredDuringExecution", list(string())),
                ("preferredDuringSchedulingIgnoredDuringExecution", list(string())),
            ],
        )
    };
    let cluster = object(&[], [("name", string()), ("weight", integer()), ("capacity", resources())]);
    let spec = object(
        &[],
        [
            (
                "weight",
                about(
                    "What the queue may have while others want it too, in proportion to their weights.",
                    with(with(integer(), "default", 1), "minimum", 1),
                ),
            ),
            ("capability", about("What the groups of the queue may use at most.", resources())),
            (
                "reclaimable",
                about(
                    "Whether others may take back what the queue uses beyond its share. Nothing is taken back here.",
                    boolean(),
                ),
            ),
            ("guarantee", object(&[], [("resource", about("What is kept free for the queue.", resources()))])),
            ("extendClusters", list(cluster)),
            ("affinity", object(&[], [("nodeGroupAffinity", groups()), ("nodeGroupAntiAffinity", groups())])),
        ],
    );
    let reservation = object(&[], [("nodes", list(string())), ("resource", resources())]);
    let counts = ["unknown", "pending", "running", "inqueue", "completed"].map(|phase| (phase, integer()));
    let mut seen = object(&[], counts);
    seen["properties"]["state"] = string();
    seen["properties"]["reservation"] = reservation;
    seen["properties"]["allocated"] = resources();
    let version = Version {
        name: "v1beta1",
        storage: true,
        description: "A queue in which groups of pods wait for their turn.",
        spec: with(spec, "default", json!({})),
        status: seen,
        subresources: status(),
        columns: vec![age("AGE")],
    };
    definition(&names, vec![version])
}
