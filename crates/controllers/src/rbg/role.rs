//! What a RoleBasedGroup asks for, read from its JSON, and whether its roles can depend on each other as they say.
//!
//! An object is read as it was written: one of v1alpha1 has workloads and policies as fields, one of v1alpha2 has patterns
//! and annotations for them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ApiResource, DynamicObject};
use machinery::int_or_string;
use machinery::patch::strategic_merge_patch;
use serde_json::Value;

use crate::applier;
use crate::owner::Owner;

const POD_TEMPLATE: &str = "io.k8s.api.core.v1.PodTemplateSpec";
/// By this annotation a role of v1alpha2 says what runs its Pods.
const WORKLOAD_TYPE: &str = "rbg.workloads.x-k8s.io/role-workload-type";
const GANG: &str = "rbg.workloads.x-k8s.io/group-gang-scheduling";
const GANG_TIMEOUT: &str = "rbg.workloads.x-k8s.io/group-gang-scheduling-timeout";
const VOLCANO_QUEUE: &str = "rbg.workloads.x-k8s.io/group-gang-scheduling-volcano-queue";
const VOLCANO_PRIORITY: &str = "rbg.workloads.x-k8s.io/group-gang-scheduling-volcano-priority";
/// The annotation of a group that wants a topology domain for itself, in either version.
pub(crate) const EXCLUSIVE: [&str; 2] =
    ["rbg.workloads.x-k8s.io/group-exclusive-topology", "rolebasedgroup.workloads.x-k8s.io/exclusive-topology"];

/// A group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group<'a> {
    /// It as the owner of what it is made of.
    pub(crate) owner: &'a Owner,
    /// All of it.
    pub(crate) object: &'a DynamicObject,
}

/// Which kind of PodGroup a group's Pods are scheduled by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Gang {
    /// That of the scheduler plugins, with the seconds that Pods wait for each other.
    Plugins(i64),
    /// Volcano's, with what else is to be said there.
    Volcano(Value),
}

impl<'a> Group<'a> {
    /// Its name.
    pub(crate) fn name(self) -> &'a str {
        self.owner.name()
    }

    /// Its namespace.
    pub(crate) fn namespace(self) -> &'a str {
        &self.owner.key.namespace
    }

    /// What it asks for.
    pub(crate) fn spec(self) -> &'a Value {
        &self.object.data["spec"]
    }

    /// Its status.
    pub(crate) fn status(self) -> &'a Value {
        &self.object.data["status"]
    }

    /// The number of what it asks for.
    pub(crate) fn generation(self) -> i64 {
        self.object.metadata.generation.unwrap_or_default()
    }

    /// Its roles.
    pub(crate) fn roles(self) -> Vec<Role<'a>> {
        self.spec()["roles"].as_array().map(|roles| roles.iter().map(Role).collect()).unwrap_or_default()
    }

    fn annotation(self, key: &str) -> Option<&'a str> {
        self.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// How its Pods are scheduled together, if they are.
    pub(crate) fn gang(self) -> Option<Gang> {
        let policy = &self.spec()["podGroupPolicy"];
        let wait = |seconds: Option<i64>| Gang::Plugins(seconds.filter(|seconds| *seconds > 0).unwrap_or(60));
        if policy["kubeScheduling"].is_object() {
            return Some(wait(policy["kubeScheduling"]["scheduleTimeoutSeconds"].as_i64()));
        }
        if policy["volcanoScheduling"].is_object() {
            return Some(Gang::Volcano(policy["volcanoScheduling"].clone()));
        }
        if self.annotation(GANG) != Some("true") {
            return None;
        }
        // Upstream is told by a flag which scheduler there is. Here there are both, and who names what is Volcano's means it.
        let volcano = [("queue", VOLCANO_QUEUE), ("priorityClassName", VOLCANO_PRIORITY)];
        let named = volcano.iter().filter_map(|(field, key)| Some(((*field).to_owned(), self.annotation(key)?.into())));
        let named: serde_json::Map<String, Value> = named.collect();
        if named.is_empty() {
            return Some(wait(self.annotation(GANG_TIMEOUT).and_then(|text| text.parse().ok())));
        }
        Some(Gang::Volcano(named.into()))
    }

    /// The node label of which it wants one value for itself.
    pub(crate) fn exclusive_topology(self) -> Option<&'a str> {
        EXCLUSIVE.iter().find_map(|key| self.annotation(key))
    }

    /// The file by which its Pods find each other, `config.yaml`: JSON is YAML, so what is quoted here is read there. Only
    /// roles whose Pods have names are in it.
    pub(crate) fn config(self) -> String {
        use std::fmt::Write as _;
        let quote = |text: &str| Value::from(text).to_string();
        let mut roles = self.roles();
        roles.retain(|role| role.workload().is_ok_and(Workload::names_pods));
        let mut text = format!("group:\n  name: {}\n", quote(self.name()));
        text.push_str(if roles.is_empty() { "  roles: []\n" } else { "  roles:\n" });
        // Writing to a String cannot fail.
        for role in &roles {
            let _ = writeln!(text, "  - {}", quote(role.name()));
        }
        let _ = writeln!(text, "  size: {}", roles.len());
        text.push_str(if roles.is_empty() { "roles: {}\n" } else { "roles:\n" });
        for role in &roles {
            let _ = writeln!(text, "  {}:", quote(role.name()));
            let (workload, service) = (role.workload_name(self), role.service_name(self));
            let ports = role.ports();
            text.push_str(if role.replicas() == 0 { "    instances: []\n" } else { "    instances:\n" });
            for index in 0..role.replicas() {
                let _ = writeln!(text, "    - address: {}", quote(&format!("{workload}-{index}.{service}")));
                if !ports.is_empty() {
                    text.push_str("      ports:\n");
                }
                for port in ports {
                    let number = port["port"].as_i64().unwrap_or_default();
                    let key = match port["name"].as_str() {
                        Some(name) => name.to_lowercase().replace('-', "_"),
                        None => format!("port{number}"),
                    };
                    let _ = writeln!(text, "        {}: {number}", quote(&key));
                }
            }
            let _ = writeln!(text, "    size: {}", role.replicas());
        }
        text
    }
}

/// What runs a role's Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 StatefulSet: what a role has that does not say.
    StatefulSet,
    /// leaderworkerset.x-k8s.io/v1 LeaderWorkerSet.
    LeaderWorkerSet,
}

impl Workload {
    /// Its kind.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::LeaderWorkerSet => "LeaderWorkerSet",
        }
    }

    /// Its group and version.
    pub(crate) const fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "apps/v1",
            Self::LeaderWorkerSet => "leaderworkerset.x-k8s.io/v1",
        }
    }

    /// The same in one.
    pub(crate) fn resource(self) -> ApiResource {
        applier::resource(self.api_version(), self.kind())
    }

    /// Whether its Pods have names that stay.
    pub(crate) const fn names_pods(self) -> bool {
        !matches!(self, Self::Deployment)
    }
}

/// One role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role<'a>(pub(crate) &'a Value);

impl<'a> Role<'a> {
    /// Its name.
    pub(crate) fn name(self) -> &'a str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// How many there are to be.
    pub(crate) fn replicas(self) -> i64 {
        self.0["replicas"].as_i64().unwrap_or(1).max(0)
    }

    /// The roles that must be ready before.
    pub(crate) fn dependencies(self) -> Vec<&'a str> {
        self.0["dependencies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// What runs its Pods; the error names what cannot.
    pub(crate) fn workload(self) -> Result<Workload, String> {
        let no = |what: &str| Err(format!("role {:?}: {what} is not supported", self.name()));
        if self.0["customComponentsPattern"].is_object() || self.0["components"].is_array() {
            return no("a pattern of components");
        }
        // The later version says it by an annotation, `GROUP/VERSION/KIND`, or by the pattern of the role.
        let named = self.0["annotations"][WORKLOAD_TYPE].as_str().and_then(|text| text.rsplit('/').next());
        let later = if self.0["leaderWorkerPattern"].is_object() { "LeaderWorkerSet" } else { "StatefulSet" };
        match named.or(self.0["workload"]["kind"].as_str()).unwrap_or(later) {
            // Upstream's own kind of that version: what it does with such roles, the others do here.
            "RoleInstanceSet" if later == "LeaderWorkerSet" => Ok(Workload::LeaderWorkerSet),
            "StatefulSet" | "RoleInstanceSet" => Ok(Workload::StatefulSet),
            "Deployment" => Ok(Workload::Deployment),
            "LeaderWorkerSet" => Ok(Workload::LeaderWorkerSet),
            other => no(&format!("workload {other}")),
        }
    }

    /// The name of its workload. Upstream: what a name may not have is cut off.
    pub(crate) fn workload_name(self, group: Group<'_>) -> String {
        cut(format!("{}-{}", group.name(), self.name()))
    }

    /// The name of its headless service. A name of a service may not begin with a digit, hence the letter.
    pub(crate) fn service_name(self, group: Group<'_>) -> String {
        cut(format!("s-{}-{}", group.name(), self.name()))
    }

    /// The ports of its service.
    pub(crate) fn ports(self) -> &'a [Value] {
        self.0["servicePorts"].as_array().map_or(&[], Vec::as_slice)
    }

    /// What its instances with a lower index than this keep: the old template.
    pub(crate) fn partition(self) -> Option<i32> {
        let value = &self.0["rolloutStrategy"]["rollingUpdate"]["partition"];
        let value: IntOrString = serde_json::from_value(value.clone()).ok()?;
        int_or_string::scaled(&value, i32::try_from(self.replicas()).unwrap_or(i32::MAX), true).ok()
    }

    /// Whether it may be scaled by a scaling adapter.
    pub(crate) fn has_adapter(self) -> bool {
        self.0["scalingAdapter"]["enable"] == true
    }

    /// Whether a restarted Pod of this role makes the whole group start anew.
    pub(crate) fn recreates_group(self) -> bool {
        self.0["restartPolicy"] == "RecreateRBGOnPodRestart"
    }

    /// Whether a restarted Pod takes the other Pods of its instance with it.
    pub(crate) fn recreates_instance(self) -> bool {
        let policy = [&self.0["restartPolicy"], &self.0["leaderWorkerPattern"]["restartPolicy"]["type"]];
        policy.into_iter().all(|policy| policy.is_null() || policy == "RecreateRoleInstanceOnPodRestart")
    }

    /// What there is to say of leader and workers: their number and how their templates differ.
    pub(crate) fn leader_worker(self) -> &'a Value {
        match &self.0["leaderWorkerSet"] {
            Value::Null => &self.0["leaderWorkerPattern"],
            known => known,
        }
    }

    /// How many Pods one replica has.
    pub(crate) fn size(self) -> i64 {
        match self.workload() {
            Ok(Workload::LeaderWorkerSet) => self.leader_worker()["size"].as_i64().unwrap_or(1).max(1),
            _ => 1,
        }
    }

    /// The template of its Pods: its own, or one of the group's with what the role changes in it.
    pub(crate) fn template(self, spec: &Value) -> Result<Value, String> {
        let places = [self.0, &self.0["standalonePattern"], &self.0["leaderWorkerPattern"]];
        if let Some(own) = places.iter().map(|place| &place["template"]).find(|template| template.is_object()) {
            return Ok(own.clone());
        }
        let reference = places.iter().map(|place| &place["templateRef"]).find(|reference| reference.is_object());
        let Some((name, reference)) = reference.and_then(|reference| Some((reference["name"].as_str()?, reference)))
        else {
            return Err(format!("role {:?}: template or templateRef must be set", self.name()));
        };
        let mut known = spec["roleTemplates"].as_array().into_iter().flatten();
        let Some(found) = known.find(|template| template["name"] == name) else {
            return Err(format!("role {:?}: roleTemplates has no template {name:?}", self.name()));
        };
        let patch = if reference["patch"].is_object() { &reference["patch"] } else { &self.0["templatePatch"] };
        patched(&found["template"], patch).map_err(|error| format!("role {:?}: templatePatch: {error}", self.name()))
    }
}

/// A Pod template with a strategic merge patch applied.
pub(crate) fn patched(template: &Value, patch: &Value) -> Result<Value, String> {
    if !patch.is_object() {
        return Ok(template.clone());
    }
    strategic_merge_patch(template, patch, POD_TEMPLATE).map_err(|error| error.to_string())
}

/// The roles in the order in which they can start.
///
/// # Errors
/// A sentence that names the role which depends on itself, on nobody, or has another's name.
pub(crate) fn in_order<'a>(roles: &[Role<'a>]) -> Result<Vec<Role<'a>>, String> {
    let mut by_name = BTreeMap::new();
    for role in roles {
        if by_name.insert(role.name(), *role).is_some() {
            return Err(format!("role {:?} is there twice", role.name()));
        }
    }
    let mut order = Vec::new();
    let mut done = BTreeSet::new();
    for role in roles {
        visit(*role, &by_name, &mut done, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn visit<'a>(
    role: Role<'a>,
    by_name: &BTreeMap<&'a str, Role<'a>>,
    done: &mut BTreeSet<&'a str>,
    path: &mut Vec<&'a str>,
    order: &mut Vec<Role<'a>>,
) -> Result<(), String> {
    if done.contains(role.name()) {
        return Ok(());
    }
    path.push(role.name());
    if let Some(first) = path.iter().position(|name| *name == role.name()).filter(|first| first + 1 < path.len()) {
        return Err(format!("role {:?} depends on itself: {}", role.name(), path[first..].join(" -> ")));
    }
    for name in role.dependencies() {
        let Some(next) = by_name.get(name) else {
            return Err(format!("role {:?} depends on {name:?}, which is no role of the group", role.name()));
        };
        visit(*next, by_name, done, path, order)?;
    }
    path.pop();
    done.insert(role.name());
    order.push(role);
    Ok(())
}

/// Names of 63 characters are the longest that there may be.
fn cut(name: String) -> String {
    if name.len() <= 63 {
        return name;
    }
    name.chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
}
