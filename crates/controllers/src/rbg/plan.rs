//! What a RoleBasedGroup needs: the workloads of its roles, in the order of their dependencies, and its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use informer::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::make;
use super::role::{self, Role, Workload};
use crate::meta;
use crate::owner::Owner;

/// How the workload of a role stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// How many replicas there are.
    pub(crate) replicas: i64,
    /// How many are ready.
    pub(crate) ready: i64,
    /// How many are of the present template.
    pub(crate) updated: i64,
    /// Whether its controller has seen what it is asked for.
    pub(crate) settled: bool,
}

/// What a plan is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The workloads that are there, by role.
    pub(crate) workloads: BTreeMap<String, State>,
    /// The scaling adapters that are there, by role: what each asks for, and its status.
    pub(crate) adapters: BTreeMap<String, (Option<i64>, Value)>,
    /// All Pods of the group.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The group's `apiVersion`.
    pub(crate) api_version: String,
}

/// What is to be done for a RoleBasedGroup, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Roles whose adapters ask for another number: their places in the list, and the numbers. Then nothing else.
    pub(crate) scale: Vec<(usize, i64)>,
    /// Pods to delete, for the group starts anew.
    pub(crate) restart: Vec<Arc<Pod>>,
    /// Objects to apply.
    pub(crate) apply: Vec<Value>,
    /// Status of adapters, by name.
    pub(crate) adapters: Vec<(String, Value)>,
    /// The status before any of this shows.
    pub(crate) status: Value,
    /// What there is to tell.
    pub(crate) events: Vec<(EventType, &'static str, String)>,
}

/// Decides what the group `owner`, with this specification and status, needs.
pub(crate) fn plan(
    snapshot: &Snapshot,
    owner: &Owner,
    generation: i64,
    spec: &Value,
    status: &Value,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let roles = role::roles(spec);
    let mut conditions = Conditions { list: status["conditions"].as_array().cloned().unwrap_or_default(), now };
    let order = match role::in_order(&roles) {
        Ok(order) => order,
        Err(message) => {
            conditions.set("Ready", false, "InvalidRoleDependency", &message);
            plan.events.push((EventType::Warning, "InvalidRoleDependency", message));
            plan.status = finish(snapshot, generation, &roles, conditions);
            return plan;
        }
    };
    for (place, role) in roles.iter().enumerate().filter(|(_, role)| role.has_adapter()) {
        let asked = snapshot.adapters.get(role.name()).and_then(|(asked, _)| *asked);
        plan.scale.extend(asked.filter(|asked| *asked != role.replicas()).map(|asked| (place, asked)));
    }
    if !plan.scale.is_empty() {
        plan.status = status.clone();
        return plan;
    }
    plan.apply.push(make::config_map(owner, spec));
    plan.apply.extend(make::pod_group(owner, spec));
    let is_ready = |name: &str| roles.iter().any(|role| role.name() == name && self::is_ready(snapshot, *role));
    let mut waiting = Vec::new();
    let mut wrong = None;
    for role in &order {
        let exists = snapshot.workloads.contains_key(role.name());
        let missing: Vec<_> = role.dependencies().into_iter().filter(|name| !is_ready(name)).collect();
        if !exists && !missing.is_empty() {
            let message = format!("Dependencies of role {:?} are not ready: {}", role.name(), missing.join(", "));
            plan.events.push((EventType::Normal, "DependencyNotMet", message));
            waiting.push(format!("{} waits for {}", role.name(), missing.join(", ")));
            continue;
        }
        match make::workload(owner, spec, *role) {
            Ok(workload) => {
                if role.workload() != Ok(Workload::Deployment) {
                    plan.apply.push(make::service(owner, *role));
                }
                plan.apply.push(workload);
            }
            Err(message) => wrong = Some(message),
        }
        if role.has_adapter() {
            plan.adapt(snapshot, owner, *role, now);
        }
        if !is_ready(role.name()) {
            let state = snapshot.workloads.get(role.name()).copied().unwrap_or_default();
            waiting.push(format!("{} ({}/{} ready)", role.name(), state.ready, role.replicas()));
        }
    }
    plan.restart(snapshot, &roles, waiting.is_empty(), &mut conditions);
    if let Some(message) = wrong {
        conditions.set("Ready", false, "InvalidRole", &message);
        plan.events.push((EventType::Warning, "FailedReconcileWorkload", message));
    } else if waiting.is_empty() {
        if conditions.set("Ready", true, "AllRolesReady", "All roles are ready") {
            plan.events.push((EventType::Normal, "Succeed", "All roles are ready".to_owned()));
        }
    } else {
        conditions.set("Ready", false, "RolesNotReady", &format!("Roles are not ready: {}", waiting.join("; ")));
    }
    plan.status = finish(snapshot, generation, &roles, conditions);
    plan
}

fn is_ready(snapshot: &Snapshot, role: Role<'_>) -> bool {
    let state = snapshot.workloads.get(role.name()).copied().unwrap_or_default();
    let wanted = role.replicas();
    snapshot.workloads.contains_key(role.name()) && state.settled && state.ready >= wanted && state.updated >= wanted
}

fn finish(snapshot: &Snapshot, generation: i64, roles: &[Role<'_>], conditions: Conditions) -> Value {
    let state = |role: &Role<'_>| {
        let state = snapshot.workloads.get(role.name()).copied().unwrap_or_default();
        json!({
            "name": role.name(), "replicas": role.replicas(), "readyReplicas": state.ready, "updatedReplicas": state.updated,
        })
    };
    let states: Vec<Value> = roles.iter().map(state).collect();
    json!({ "observedGeneration": generation, "conditions": conditions.list, "roleStatuses": states })
}

impl Plan {
    fn adapt(&mut self, snapshot: &Snapshot, owner: &Owner, role: Role<'_>, now: Timestamp) {
        let Some((asked, status)) = snapshot.adapters.get(role.name()) else {
            return self.apply.push(make::adapter(owner, &snapshot.api_version, role));
        };
        let mut new = json!({
            "phase": "Bound", "replicas": role.replicas(), "selector": make::selector_text(owner, role),
        });
        let scaled = asked.is_some() && status["replicas"].as_i64().is_some_and(|before| before != role.replicas());
        new["lastScaleTime"] = if scaled { json!(meta::seconds(now)) } else { status["lastScaleTime"].clone() };
        if new["lastScaleTime"].is_null()
            && let Some(members) = new.as_object_mut()
        {
            members.remove("lastScaleTime");
        }
        if new != *status {
            self.adapters.push((make::workload_name(owner, role), new));
        }
    }

    /// A Pod that restarted takes the whole group with it, if its role says so: once, until all is ready again.
    fn restart(&mut self, snapshot: &Snapshot, roles: &[Role<'_>], all_ready: bool, conditions: &mut Conditions) {
        let of_role = |pod: &Pod, role: &Role<'_>| {
            let labels = pod.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(make::ROLE_LABEL)).is_some_and(|name| name == role.name())
        };
        let restarted = snapshot.pods.iter().find(|pod| {
            let status = pod.status.clone().unwrap_or_default();
            let restarts: i32 = status.container_statuses.iter().flatten().map(|one| one.restart_count).sum();
            let ends_group = roles.iter().any(|role| role.recreates_group() && of_role(pod, role));
            restarts > 0 && ends_group && !meta::is_deleting(&***pod)
        });
        match restarted {
            Some(pod) => {
                let message = format!("Pod {} restarted: the group starts anew", meta::name(&**pod));
                conditions.set("RestartInProgress", true, "PodRestarted", &message);
                self.events.push((EventType::Normal, "RecreateRBG", message));
                self.restart = snapshot.pods.iter().filter(|pod| !meta::is_deleting(&***pod)).cloned().collect();
            }
            None if all_ready && conditions.has("RestartInProgress") => {
                conditions.set("RestartInProgress", false, "RestartCompleted", "The group has started anew");
            }
            None => {}
        }
    }
}

/// The conditions of a status.
struct Conditions {
    list: Vec<Value>,
    now: Timestamp,
}

impl Conditions {
    fn has(&self, type_: &str) -> bool {
        self.list.iter().any(|known| known["type"] == type_ && known["status"] == "True")
    }

    /// Sets a condition; true if its status changed.
    fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) -> bool {
        let word = if status { "True" } else { "False" };
        let old = self.list.iter().find(|known| known["type"] == type_);
        let same = old.filter(|known| known["status"] == word).map(|known| known["lastTransitionTime"].clone());
        let changed = same.is_none();
        let since = same.unwrap_or_else(|| json!(meta::seconds(self.now)));
        let new = json!({
            "type": type_, "status": word, "reason": reason, "message": message, "lastTransitionTime": since,
        });
        match self.list.iter_mut().find(|known| known["type"] == type_) {
            Some(known) => *known = new,
            None => self.list.push(new),
        }
        changed
    }
}
