//! What a RoleBasedGroup needs: the workloads of its roles, in the order of their dependencies, and its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use controllers::meta;
use informer::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::make;
use super::role::{self, Group, Role};
use super::state::State;
use crate::api::{RoleBasedGroupScalingAdapterStatus, RoleBasedGroupStatus, RoleStatus};
use crate::conditions::Conditions;

const READY: &str = "Ready";
const RESTARTING: &str = "RestartInProgress";

/// What a plan is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The workloads that are there, by role.
    pub(crate) workloads: BTreeMap<String, State>,
    /// The scaling adapters that are there, by role: what each asks for, and its status.
    pub(crate) adapters: BTreeMap<String, (Option<i32>, RoleBasedGroupScalingAdapterStatus)>,
    /// All Pods of the group.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The `apiVersion` of adapters.
    pub(crate) api_version: String,
}

/// What is to be done for a RoleBasedGroup, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Roles whose adapters ask for another number: their places in the list, and the numbers. Then nothing else.
    pub(crate) scale: Vec<(usize, i32)>,
    /// The status before any of this shows.
    pub(crate) status: RoleBasedGroupStatus,
    /// Workloads to delete by name, for the group starts anew. Then nothing else.
    pub(crate) restart: Vec<(String, State)>,
    /// Objects to apply.
    pub(crate) apply: Vec<Value>,
    /// Adapters to create: afterwards others say what they ask for.
    pub(crate) create: Vec<Value>,
    /// Status of adapters, by name.
    pub(crate) adapters: Vec<(String, RoleBasedGroupScalingAdapterStatus)>,
    /// What there is to tell.
    pub(crate) events: Vec<(EventType, &'static str, String)>,
}

/// Decides what `group` needs.
pub(crate) fn plan(snapshot: &Snapshot, group: Group<'_>, now: Timestamp) -> Plan {
    let known = group.status().and_then(|status| status.conditions.as_ref());
    let conditions = Conditions::new(&group.object.metadata, known, now);
    let mut planner = Planner { snapshot, group, roles: group.roles(), conditions, plan: Plan::default() };
    planner.decide();
    planner.finish()
}

/// Whether `group` still has what this object of it is for.
pub(crate) fn is_wanted(group: Group<'_>, kind: &str, name: &str) -> bool {
    let of_role = |wanted: &dyn Fn(&Role<'_>) -> bool| group.roles().iter().any(wanted);
    match kind {
        "Service" => {
            of_role(&|role| role.workload().is_ok_and(role::Workload::names_pods) && role.service_name(group) == name)
        }
        "PodGroup" => group.gang().is_some(),
        "RoleBasedGroupScalingAdapter" => of_role(&|role| role.has_adapter() && role.workload_name(group) == name),
        // What a role that cannot be run now was run by is left alone.
        _ => of_role(&|role| {
            role.workload_name(group) == name && role.workload().map_or(true, |workload| workload.kind() == kind)
        }),
    }
}

struct Planner<'a> {
    snapshot: &'a Snapshot,
    group: Group<'a>,
    roles: Vec<Role<'a>>,
    conditions: Conditions,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn tell(&mut self, type_: EventType, reason: &'static str, message: String) {
        self.plan.events.push((type_, reason, message));
    }

    fn decide(&mut self) {
        let order = match role::in_order(&self.roles) {
            Ok(order) => order,
            Err(message) => return self.refuse("InvalidRoleDependency", message),
        };
        if self.scale() || self.restart() {
            return;
        }
        self.tell_ignored();
        // What runs is not taken away because something that it depends on fails.
        let (started, waiting): (Vec<Role<'a>>, Vec<Role<'a>>) =
            order.into_iter().partition(|role| self.state(*role).is_some() || self.missing(*role).is_empty());
        let members = started.iter().map(|role| role.replicas().saturating_mul(role.size()));
        let members = members.fold(0, i32::saturating_add);
        self.plan.apply.push(make::config_map(self.group));
        self.plan.apply.extend(make::pod_group(self.group, members));
        let mut wrong = None;
        let mut unready = Vec::new();
        for role in started {
            if let Err(message) = self.start(role) {
                wrong.get_or_insert(message);
            }
            if !self.is_ready(role) {
                let ready = self.state(role).map_or(0, |state| state.ready);
                unready.push(format!("{} ({ready}/{} ready)", role.name(), role.replicas()));
            }
        }
        for role in waiting {
            let missing = self.missing(role).join(", ");
            unready.push(format!("{} waits for {missing}", role.name()));
            let message = format!("Dependencies of role {:?} are not ready: {missing}", role.name());
            self.tell(EventType::Normal, "DependencyNotMet", message);
        }
        if let Some(message) = wrong {
            return self.refuse("FailedReconcileWorkload", message);
        }
        if !unready.is_empty() {
            let message = format!("Roles are not ready: {}", unready.join("; "));
            self.conditions.set(READY, false, "RoleNotReady", &message);
            return;
        }
        let message = "All roles are ready";
        if self.conditions.set(READY, true, "AllRolesReady", message) {
            self.tell(EventType::Normal, "Succeed", message.to_owned());
        }
        if self.conditions.since(RESTARTING).is_some_and(|since| !self.has_pod_from_before(since)) {
            self.conditions.set(RESTARTING, false, "RBGRestartCompleted", "The group has started anew");
        }
    }

    /// Says what the group asks for and does not get: it runs without.
    fn tell_ignored(&mut self) {
        if self.group.spec().earlier.coordination.as_ref().is_some_and(|list| !list.is_empty()) {
            let message = "spec.coordination is not carried out: each role is updated by itself".to_owned();
            self.tell(EventType::Warning, "NotSupported", message);
        }
        let is_asked = |role: &Role<'_>| role.0.base.engine_runtimes.as_ref().is_some_and(|list| !list.is_empty());
        for role in self.roles.clone().into_iter().filter(is_asked) {
            let message = format!("role {:?}: engineRuntimes are not injected", role.name());
            self.tell(EventType::Warning, "NotSupported", message);
        }
    }

    /// Says what is wrong with the group as it is written.
    fn refuse(&mut self, reason: &'static str, message: String) {
        self.conditions.set(READY, false, reason, &message);
        self.tell(EventType::Warning, reason, message);
    }

    fn state(&self, role: Role<'_>) -> Option<&'a State> {
        self.snapshot.workloads.get(role.name())
    }

    fn is_ready(&self, role: Role<'_>) -> bool {
        self.state(role).is_some_and(|state| state.is_ready(role.replicas()))
    }

    /// The dependencies of a role that are not ready.
    fn missing(&self, role: Role<'a>) -> Vec<&'a str> {
        let is_ready = |name: &str| self.roles.iter().any(|role| role.name() == name && self.is_ready(*role));
        role.dependencies().filter(|name| !is_ready(name)).collect()
    }

    fn start(&mut self, role: Role<'a>) -> Result<(), String> {
        let workload = make::workload(self.group, role)?;
        if self.state(role).is_none() {
            let message = format!(
                "Creating {} {} of role {:?}",
                text(&workload["kind"]),
                role.workload_name(self.group),
                role.name()
            );
            self.tell(EventType::Normal, "SuccessfulCreate", message);
        }
        if role.workload()?.names_pods() {
            self.plan.apply.push(make::service(self.group, role));
        }
        self.plan.apply.push(workload);
        if role.has_adapter() {
            self.adapt(role);
        }
        Ok(())
    }

    /// Whether adapters ask for other numbers than the group: then these come first.
    fn scale(&mut self) -> bool {
        for (place, role) in self.roles.clone().into_iter().enumerate().filter(|(_, role)| role.has_adapter()) {
            let asked = self.snapshot.adapters.get(role.name()).and_then(|(asked, _)| *asked);
            if let Some(asked) = asked.filter(|asked| *asked != role.replicas()) {
                self.plan.scale.push((place, asked));
                let message = format!("Scaling role {:?} from {} to {asked} replicas", role.name(), role.replicas());
                self.tell(EventType::Normal, "SuccessfulScale", message);
            }
        }
        !self.plan.scale.is_empty()
    }

    fn adapt(&mut self, role: Role<'_>) {
        let Some((asked, status)) = self.snapshot.adapters.get(role.name()) else {
            return self.plan.create.push(make::adapter(self.group, &self.snapshot.api_version, role));
        };
        let scaled = asked.is_some() && status.replicas.is_some_and(|before| before != role.replicas());
        let new = RoleBasedGroupScalingAdapterStatus {
            phase: Some("Bound".to_owned()),
            replicas: Some(role.replicas()),
            ready_replicas: Some(self.state(role).map_or(0, |state| state.ready)),
            selector: Some(make::selector_text(self.group, role)),
            last_scale_time: if scaled {
                Some(meta::seconds(self.conditions.now))
            } else {
                status.last_scale_time.clone()
            },
            conditions: status.conditions.clone(),
        };
        if new != *status {
            self.plan.adapters.push((role.workload_name(self.group), new));
        }
    }

    /// A Pod that restarted takes the whole group with it, if its role says so. Upstream: its workloads are deleted, and
    /// made again in the order of their dependencies.
    fn restart(&mut self) -> bool {
        let old = |since: Timestamp| {
            let all =
                self.roles.iter().filter_map(|role| Some((role.workload_name(self.group), self.state(*role)?.clone())));
            all.filter(|(_, state)| state.created < since).collect()
        };
        if let Some(since) = self.conditions.since(RESTARTING) {
            self.plan.restart = old(since);
            return !self.plan.restart.is_empty();
        }
        let ends_group = |pod: &Pod| {
            let of_role = pod.metadata.labels.as_ref().and_then(|labels| labels.get(make::ROLE_LABEL));
            self.roles.iter().any(|role| role.recreates_group() && of_role.is_some_and(|name| name == role.name()))
        };
        let restarted = |pod: &&Arc<Pod>| restarts(pod) > 0 && ends_group(pod) && !meta::is_deleting(&***pod);
        let Some(pod) = self.snapshot.pods.iter().find(restarted) else { return false };
        let message = format!("Pod {} restarted: the group starts anew", meta::name(&**pod));
        self.plan.restart = old(self.conditions.now);
        self.conditions.set(RESTARTING, true, "RBGRestart", &message);
        self.conditions.set(READY, false, "RoleNotReady", &message);
        self.tell(EventType::Normal, "RecreateRBG", message);
        true
    }

    fn has_pod_from_before(&self, since: Timestamp) -> bool {
        self.snapshot.pods.iter().any(|pod| meta::created(&**pod) < since)
    }

    fn finish(mut self) -> Plan {
        if !self.plan.scale.is_empty() {
            self.plan.status = self.group.status().cloned().unwrap_or_default();
            return self.plan;
        }
        let status = |role: &Role<'_>| {
            let state = self.state(*role);
            let count = |of: fn(&State) -> i32| state.map_or(0, of);
            RoleStatus {
                name: role.name().to_owned(),
                replicas: count(|state| state.replicas),
                ready_replicas: count(|state| state.ready),
                updated_replicas: count(|state| state.updated),
            }
        };
        self.plan.status = RoleBasedGroupStatus {
            observed_generation: Some(self.group.object.metadata.generation.unwrap_or_default()),
            role_statuses: self.roles.iter().map(status).collect(),
            conditions: Some(self.conditions.list),
        };
        self.plan
    }
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.map(|container| container.restart_count).sum()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
