//! RoleBasedGroup, RoleBasedGroupSet and RoleBasedGroupScalingAdapter: workloads.x-k8s.io, v1alpha1 and v1alpha2.
//!
//! Objects are stored as v1alpha2. What only v1alpha1 has is kept all the same, since roles and specs keep what they do not
//! know: a role with a `workload` was written in v1alpha1, one without says by its pattern and annotations what it is.

use serde_json::{Value, json};

use crate::schema::{
    Names, Version, about, age, boolean, column, conditions, count_or_percent, definition, free, integer, list,
    list_by, map, object, one_of, rule, status as status_subresource, status_and_scale, string, time, with,
};

const KEEP: &str = "x-kubernetes-preserve-unknown-fields";
const ONE_TEMPLATE: &str = "template and templateRef are mutually exclusive";
const ONE_PATTERN: &str = "standalonePattern and leaderWorkerPattern are mutually exclusive";
const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

const fn names(kind: &'static str, plural: &'static str, short: &'static [&'static str]) -> Names {
    Names { group: "workloads.x-k8s.io", kind, plural, short, scope: "Namespaced" }
}

/// The definitions of the addon.
pub(crate) fn definitions() -> Vec<Value> {
    let both = |names: Names, make: fn(Api) -> Version| definition(&names, vec![make(Api::Second), make(Api::First)]);
    vec![
        both(names("RoleBasedGroup", "rolebasedgroups", &["rbg"]), group),
        both(names("RoleBasedGroupSet", "rolebasedgroupsets", &["rbgs"]), set),
        both(names("RoleBasedGroupScalingAdapter", "rolebasedgroupscalingadapters", &["rbgsa"]), adapter),
    ]
}

/// A version of the API.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    First,
    Second,
}

impl Api {
    const fn name(self) -> &'static str {
        match self {
            Self::First => "v1alpha1",
            Self::Second => "v1alpha2",
        }
    }
}

fn group(api: Api) -> Version {
    let role = object(
        &["name", "readyReplicas", "replicas", "updatedReplicas"],
        [("name", string()), ("readyReplicas", integer()), ("replicas", integer()), ("updatedReplicas", integer())],
    );
    let status = object(
        &["roleStatuses"],
        [
            ("observedGeneration", with(integer(), "format", "int64")),
            ("conditions", conditions()),
            ("roleStatuses", about("The state of each role.", list(role))),
        ],
    );
    Version {
        name: api.name(),
        storage: api == Api::Second,
        description: "An application of several roles, each a workload of its own.",
        spec: spec(api),
        status,
        subresources: status_subresource(),
        columns: vec![column("READY", "string", ".status.conditions[?(@.type=='Ready')].status"), age("AGE")],
    }
}

fn spec(api: Api) -> Value {
    let name = with(with(with(string(), "minLength", 1), "maxLength", 63), "pattern", NAME);
    let template = object(&["name", "template"], [("name", name), ("template", free())]);
    let roles = with(with(list_by("name", role(api)), "minItems", 1), KEEP, true);
    let mut spec = object(
        &["roles"],
        [
            ("roles", about("The parts of the application.", roles)),
            ("roleTemplates", about("Pod templates that roles share, by name.", list_by("name", template))),
        ],
    );
    if api == Api::First {
        spec["properties"]["podGroupPolicy"] =
            about("How all pods of the group are scheduled together.", pod_group_policy());
        spec["properties"]["coordination"] = about("How updates of roles keep pace with each other.", coordination());
    }
    with(spec, KEEP, true)
}

fn role(api: Api) -> Value {
    let rolling = object(
        &[],
        [
            ("type", string()),
            ("partition", with(count_or_percent(), "default", 0)),
            ("maxUnavailable", with(count_or_percent(), "default", 1)),
            ("maxSurge", with(count_or_percent(), "default", 0)),
            ("paused", boolean()),
            ("inPlaceUpdateStrategy", object(&[], [("gracePeriodSeconds", integer())])),
        ],
    );
    let rollout = object(
        &["type"],
        [("type", with(one_of(&["RollingUpdate"]), "default", "RollingUpdate")), ("rollingUpdate", rolling)],
    );
    let runtime = object(
        &["profileName"],
        [("profileName", string()), ("injectContainers", list(string())), ("containers", list(free()))],
    );
    let adapter = object(&[], [("enable", with(boolean(), "default", false)), ("labels", map(string()))]);
    let mut role = object(
        &["name", "replicas"],
        [
            ("name", about("The name of the role.", with(string(), "minLength", 1))),
            ("labels", map(string())),
            ("annotations", map(string())),
            (
                "replicas",
                about("How many instances of the role there are.", with(with(integer(), "default", 1), "minimum", 0)),
            ),
            ("rolloutStrategy", about("How instances get a new template.", rollout)),
            ("dependencies", about("Roles that must be ready before this one starts.", list(string()))),
            ("servicePorts", list(free())),
            ("engineRuntimes", list(runtime)),
            ("scalingAdapter", about("Whether the role can be scaled by itself.", adapter)),
            ("minReadySeconds", with(integer(), "default", 0)),
        ],
    );
    let (more, clash, message) = match api {
        Api::First => (first(), ["template", "templateRef"], ONE_TEMPLATE),
        Api::Second => (second(), ["standalonePattern", "leaderWorkerPattern"], ONE_PATTERN),
    };
    if let Some(properties) = role["properties"].as_object_mut() {
        properties.extend(more.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    }
    with(not_both(role, clash, message), KEEP, true)
}

/// Refuses two fields that say the same.
fn not_both(schema: Value, [one, other]: [&str; 2], message: &str) -> Value {
    rule(schema, &format!("!(has(self.{one}) && has(self.{other}))"), message)
}

/// What a role of v1alpha1 has: a workload and a template for it.
fn first() -> Vec<(&'static str, Value)> {
    let version = with(
        string(),
        "pattern",
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/v[0-9]+((alpha|beta)[0-9]+)?$",
    );
    let workload = object(
        &[],
        [("apiVersion", with(version, "default", "apps/v1")), ("kind", with(string(), "default", "StatefulSet"))],
    );
    let leader_worker = object(
        &[],
        [("size", with(integer(), "default", 1)), ("patchLeaderTemplate", free()), ("patchWorkerTemplate", free())],
    );
    vec![
        (
            "workload",
            about(
                "The kind of workload the role becomes: StatefulSet, Deployment or LeaderWorkerSet.",
                with(workload, "default", json!({ "apiVersion": "apps/v1", "kind": "StatefulSet" })),
            ),
        ),
        ("template", about("The pod template.", free())),
        ("templateRef", object(&["name"], [("name", string())])),
        ("templatePatch", free()),
        ("leaderWorkerSet", leader_worker),
        ("components", list(component())),
        ("restartPolicy", one_of(&["None", "RecreateRBGOnPodRestart", "RecreateRoleInstanceOnPodRestart"])),
    ]
}

/// What a role of v1alpha2 has: a pattern that says of how many pods an instance consists.
fn second() -> Vec<(&'static str, Value)> {
    let reference = || object(&["name"], [("name", string()), ("patch", free())]);
    let restart = || {
        let policy = object(
            &[],
            [
                ("type", one_of(&["None", "RecreateRoleInstanceOnPodRestart"])),
                ("baseDelaySeconds", with(with(integer(), "default", 30), "minimum", 0)),
                ("maxDelaySeconds", with(with(integer(), "default", 600), "minimum", 0)),
            ],
        );
        let message = "maxDelaySeconds must be greater than or equal to baseDelaySeconds";
        rule(policy, "self.maxDelaySeconds >= self.baseDelaySeconds", message)
    };
    let template = ["template", "templateRef"];
    let standalone = object(&[], [("template", free()), ("templateRef", reference())]);
    let standalone = not_both(standalone, template, ONE_TEMPLATE);
    let leader_worker = object(
        &[],
        [
            ("size", with(integer(), "default", 1)),
            ("template", free()),
            ("templateRef", reference()),
            ("leaderTemplatePatch", free()),
            ("workerTemplatePatch", free()),
            ("sharedServiceSelection", one_of(&["All", "LeaderOnly"])),
            ("restartPolicy", restart()),
        ],
    );
    let leader_worker = not_both(leader_worker, template, ONE_TEMPLATE);
    let components = object(&[], [("components", list(component())), ("restartPolicy", restart())]);
    vec![
        ("standalonePattern", about("An instance is a pod.", standalone)),
        ("leaderWorkerPattern", about("An instance is a leader and its workers.", leader_worker)),
        ("customComponentsPattern", about("An instance is several components.", components)),
        ("podManagementPolicy", with(one_of(&["Parallel", "OrderedReady"]), "default", "Parallel")),
    ]
}

fn component() -> Value {
    object(
        &["name", "template"],
        [
            ("name", string()),
            ("size", integer()),
            ("serviceName", string()),
            ("labels", map(string())),
            ("annotations", map(string())),
            ("template", free()),
        ],
    )
}

fn pod_group_policy() -> Value {
    let plugins = object(&[], [("scheduleTimeoutSeconds", with(integer(), "default", 60))]);
    let volcano = object(&[], [("priorityClassName", string()), ("queue", string())]);
    object(&[], [("kubeScheduling", plugins), ("volcanoScheduling", volcano)])
}

fn coordination() -> Value {
    let percent = || with(string(), "pattern", "^([0-9]|[1-9][0-9]|100)%$");
    let rolling = object(&[], [("maxSkew", percent()), ("partition", percent()), ("maxUnavailable", percent())]);
    let strategy = object(&[], [("rollingUpdate", rolling)]);
    let item = object(&["name", "roles"], [("name", string()), ("roles", list(string())), ("strategy", strategy)]);
    list_by("name", item)
}

fn set(api: Api) -> Version {
    let mut fields = vec![("replicas", about("The number of groups.", with(integer(), "default", 1)))];
    match api {
        Api::First => fields.push(("template", about("What each group is.", spec(api)))),
        Api::Second => {
            let template =
                object(&["spec"], [("labels", map(string())), ("annotations", map(string())), ("spec", spec(api))]);
            let rollout = object(
                &[],
                [
                    ("type", with(one_of(&["Recreate", "InPlaceUpdate"]), "default", "InPlaceUpdate")),
                    ("partition", with(count_or_percent(), "default", 0)),
                    ("maxUnavailable", with(count_or_percent(), "default", 1)),
                    ("maxSurge", with(count_or_percent(), "default", 0)),
                ],
            );
            fields.push(("groupTemplate", about("What each group is.", template)));
            fields.push(("rolloutStrategy", about("How groups get a new template.", rollout)));
        }
    }
    let counts = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "updatedReadyReplicas",
        "expectedUpdatedReplicas",
    ];
    let mut status = object(&[], counts.map(|name| (name, integer())));
    status["properties"]["observedGeneration"] = with(integer(), "format", "int64");
    status["properties"]["currentRevision"] = string();
    status["properties"]["updateRevision"] = string();
    status["properties"]["conditions"] = conditions();
    Version {
        name: api.name(),
        storage: api == Api::Second,
        description: "Several RoleBasedGroups of the same kind.",
        spec: with(object(&[], fields), KEEP, true),
        status,
        subresources: status_and_scale(None),
        columns: vec![
            column("DESIRED", "string", ".status.replicas"),
            column("READY", "string", ".status.readyReplicas"),
            age("AGE"),
        ],
    }
}

fn adapter(api: Api) -> Version {
    let target = object(&["name", "role"], [("name", string()), ("role", string())]);
    let spec = object(
        &["scaleTargetRef"],
        [
            ("replicas", about("The number of instances the role is to have.", integer())),
            ("scaleTargetRef", about("The group and its role.", target)),
        ],
    );
    let status = object(
        &[],
        [
            ("phase", string()),
            ("replicas", integer()),
            ("readyReplicas", integer()),
            ("selector", string()),
            ("lastScaleTime", time()),
            ("conditions", conditions()),
        ],
    );
    Version {
        name: api.name(),
        storage: api == Api::Second,
        description: "The scale of one role of a RoleBasedGroup, for autoscalers.",
        spec,
        status,
        subresources: status_and_scale(Some(".status.selector")),
        columns: vec![
            column("PHASE", "string", ".status.phase"),
            column("REPLICAS", "integer", ".status.replicas"),
            column("READY_REPLICAS", "integer", ".status.readyReplicas"),
            age("AGE"),
        ],
    }
}
