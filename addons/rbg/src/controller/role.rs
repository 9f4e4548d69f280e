//! What a RoleBasedGroup asks for, and whether its roles can depend on each other as they say.
//!
//! An object is read as it was written: one of v1alpha1 has workloads and policies as fields, one of v1alpha2 has patterns
//! and annotations for them.

use std::collections::{BTreeMap, BTreeSet};

use controllers::applier;
use controllers::owner::Owner;
use kube::api::ApiResource;
use machinery::int_or_string;
use machinery::patch::strategic_merge_patch;
use serde_json::Value;

use crate::api::v1alpha1::{self, VolcanoScheduling};
use crate::api::v1alpha2::{self, LeaderWorkerPattern, RestartPolicyType, RoleBasedGroup, RoleBasedGroupSpec};
use crate::api::{RoleBasedGroupStatus, RollingUpdate};

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
    pub(crate) object: &'a RoleBasedGroup,
}

/// Which kind of PodGroup a group's Pods are scheduled by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Gang {
    /// That of the scheduler plugins, with the seconds that Pods wait for each other.
    Plugins(i32),
    /// Volcano's, with what else is to be said there.
    Volcano(VolcanoScheduling),
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
    pub(crate) fn spec(self) -> &'a RoleBasedGroupSpec {
        &self.object.spec
    }

    /// Its status.
    pub(crate) fn status(self) -> Option<&'a RoleBasedGroupStatus> {
        self.object.status.as_ref()
    }

    /// Its roles.
    pub(crate) fn roles(self) -> Vec<Role<'a>> {
        self.spec().roles.iter().map(Role).collect()
    }

    fn annotation(self, key: &str) -> Option<&'a str> {
        self.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// How its Pods are scheduled together, if they are.
    pub(crate) fn gang(self) -> Option<Gang> {
        let wait = |seconds: Option<i32>| Gang::Plugins(seconds.filter(|seconds| *seconds > 0).unwrap_or(60));
        if let Some(policy) = &self.spec().earlier.pod_group_policy {
            if let Some(plugins) = &policy.kube_scheduling {
                return Some(wait(Some(plugins.schedule_timeout_seconds)));
            }
            if let Some(volcano) = &policy.volcano_scheduling {
                return Some(Gang::Volcano(volcano.clone()));
            }
        }
        if self.annotation(GANG) != Some("true") {
            return None;
        }
        // Upstream is told by a flag which scheduler there is. Here there are both, and who names what is Volcano's means it.
        let named = |key| self.annotation(key).map(str::to_owned);
        let volcano = VolcanoScheduling { queue: named(VOLCANO_QUEUE), priority_class_name: named(VOLCANO_PRIORITY) };
        if volcano == VolcanoScheduling::default() {
            return Some(wait(self.annotation(GANG_TIMEOUT).and_then(|text| text.parse().ok())));
        }
        Some(Gang::Volcano(volcano))
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
pub(crate) struct Role<'a>(pub(crate) &'a v1alpha2::Role);

impl<'a> Role<'a> {
    /// Its name.
    pub(crate) fn name(self) -> &'a str {
        &self.0.base.name
    }

    /// How many there are to be.
    pub(crate) fn replicas(self) -> i32 {
        self.0.base.replicas.max(0)
    }

    /// The roles that must be ready before.
    pub(crate) fn dependencies(self) -> impl Iterator<Item = &'a str> {
        self.0.base.dependencies.iter().flatten().map(String::as_str)
    }

    /// What runs its Pods; the error names what cannot.
    pub(crate) fn workload(self) -> Result<Workload, String> {
        let no = |what: &str| Err(format!("role {:?}: {what} is not supported", self.name()));
        if self.0.custom_components_pattern.is_some() || self.0.earlier.components.is_some() {
            return no("a pattern of components");
        }
        // The later version says it by an annotation, `GROUP/VERSION/KIND`, or by the pattern of the role.
        let annotation = self.0.base.annotations.as_ref().and_then(|annotations| annotations.get(WORKLOAD_TYPE));
        let named = annotation.and_then(|text| text.rsplit('/').next());
        let earlier = self.0.earlier.workload.as_ref().map(|workload| workload.kind.as_str());
        let later = if self.0.leader_worker_pattern.is_some() { "LeaderWorkerSet" } else { "StatefulSet" };
        match named.or(earlier).unwrap_or(later) {
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
        self.0.base.service_ports.as_deref().unwrap_or_default()
    }

    /// The bounds of its rolling updates.
    pub(crate) fn rolling_update(self) -> Option<&'a RollingUpdate> {
        self.0.base.rollout_strategy.as_ref()?.rolling_update.as_ref()
    }

    /// What its instances with a lower index than this keep: the old template.
    pub(crate) fn partition(self) -> i32 {
        let partition = self.rolling_update().map(|rolling| &rolling.partition);
        let scaled = partition.and_then(|partition| int_or_string::scaled(partition, self.replicas(), true).ok());
        scaled.unwrap_or_default()
    }

    /// Whether it may be scaled by a scaling adapter.
    pub(crate) fn has_adapter(self) -> bool {
        self.0.base.scaling_adapter.as_ref().is_some_and(|adapter| adapter.enable)
    }

    /// Whether a restarted Pod of this role makes the whole group start anew.
    pub(crate) fn recreates_group(self) -> bool {
        self.0.earlier.restart_policy == Some(v1alpha1::RestartPolicy::RecreateRBGOnPodRestart)
    }

    /// Whether a restarted Pod takes the other Pods of its instance with it.
    pub(crate) fn recreates_instance(self) -> bool {
        let earlier = self.0.earlier.restart_policy;
        let policy = self.pattern().and_then(|pattern| pattern.restart_policy.as_ref());
        let later = policy.and_then(|policy| policy.type_);
        earlier.is_none_or(|policy| policy == v1alpha1::RestartPolicy::RecreateRoleInstanceOnPodRestart)
            && later.is_none_or(|policy| policy == RestartPolicyType::RecreateRoleInstanceOnPodRestart)
    }

    fn pattern(self) -> Option<&'a LeaderWorkerPattern> {
        self.0.leader_worker_pattern.as_ref()
    }

    /// How the templates of leaders and of workers differ from that of the role.
    pub(crate) fn leader_and_worker_patches(self) -> [Option<&'a Value>; 2] {
        match &self.0.earlier.leader_worker_set {
            Some(set) => [set.patch_leader_template.as_ref(), set.patch_worker_template.as_ref()],
            None => [
                self.pattern().and_then(|pattern| pattern.leader_template_patch.as_ref()),
                self.pattern().and_then(|pattern| pattern.worker_template_patch.as_ref()),
            ],
        }
    }

    /// How many Pods one replica has.
    pub(crate) fn size(self) -> i32 {
        if self.workload() != Ok(Workload::LeaderWorkerSet) {
            return 1;
        }
        let earlier = self.0.earlier.leader_worker_set.as_ref().map(|set| set.size);
        earlier.or(self.pattern().map(|pattern| pattern.size)).unwrap_or(1).max(1)
    }

    /// The template of its Pods: its own, or one of the group's with what the role changes in it.
    pub(crate) fn template(self, spec: &RoleBasedGroupSpec) -> Result<Value, String> {
        let (earlier, alone) = (&self.0.earlier, self.0.standalone_pattern.as_ref());
        let own = earlier.template.as_ref();
        let own = own.or(alone.and_then(|pattern| pattern.template.as_ref()));
        if let Some(own) = own.or(self.pattern().and_then(|pattern| pattern.template.as_ref())) {
            return Ok(own.clone());
        }
        let later = alone.and_then(|pattern| pattern.template_ref.as_ref());
        let later = later.or(self.pattern().and_then(|pattern| pattern.template_ref.as_ref()));
        let name = earlier.template_ref.as_ref().map(|reference| &reference.name);
        let Some(name) = name.or(later.map(|reference| &reference.name)) else {
            return Err(format!("role {:?}: template or templateRef must be set", self.name()));
        };
        let Some(found) = spec.role_templates.iter().flatten().find(|template| template.name == *name) else {
            return Err(format!("role {:?}: roleTemplates has no template {name:?}", self.name()));
        };
        let patch = later.and_then(|reference| reference.patch.as_ref()).or(earlier.template_patch.as_ref());
        patched(&found.template, patch).map_err(|error| format!("role {:?}: templatePatch: {error}", self.name()))
    }
}

/// A Pod template with a strategic merge patch applied.
pub(crate) fn patched(template: &Value, patch: Option<&Value>) -> Result<Value, String> {
    let Some(patch) = patch else { return Ok(template.clone()) };
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
