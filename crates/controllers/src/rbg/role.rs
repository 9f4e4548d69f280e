//! What a RoleBasedGroup asks for, read from its JSON, and whether its roles can depend on each other as they say.

use std::collections::{BTreeMap, BTreeSet};

use machinery::patch::strategic_merge_patch;
use serde_json::{Value, json};

const POD_TEMPLATE: &str = "io.k8s.api.core.v1.PodTemplateSpec";

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

/// One role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role<'a>(pub(crate) &'a Value);

/// The roles of a group.
pub(crate) fn roles(spec: &Value) -> Vec<Role<'_>> {
    spec["roles"].as_array().map(|roles| roles.iter().map(Role).collect()).unwrap_or_default()
}

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

    /// What runs its Pods; the error names a kind that cannot.
    pub(crate) fn workload(self) -> Result<Workload, String> {
        // The later version says it by the pattern of the role.
        if self.0["leaderWorkerPattern"].is_object() {
            return Ok(Workload::LeaderWorkerSet);
        }
        let workload = &self.0["workload"];
        match workload["kind"].as_str().unwrap_or("StatefulSet") {
            "Deployment" => Ok(Workload::Deployment),
            "StatefulSet" => Ok(Workload::StatefulSet),
            "LeaderWorkerSet" => Ok(Workload::LeaderWorkerSet),
            other => Err(format!("role {:?}: workload {other} is not supported", self.name())),
        }
    }

    /// Whether it may be scaled by a scaling adapter.
    pub(crate) fn has_adapter(self) -> bool {
        self.0["scalingAdapter"]["enable"] == true
    }

    /// Whether a restarted Pod of this role makes the whole group start anew.
    pub(crate) fn recreates_group(self) -> bool {
        self.0["restartPolicy"] == "RecreateRBGOnPodRestart"
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
        let name = places.iter().find_map(|place| place["templateRef"]["name"].as_str());
        let Some(name) = name else {
            return Err(format!("role {:?}: template or templateRef must be set", self.name()));
        };
        let mut known = spec["roleTemplates"].as_array().into_iter().flatten();
        let Some(found) = known.find(|template| template["name"] == name) else {
            return Err(format!("role {:?}: roleTemplates has no template {name:?}", self.name()));
        };
        patched(&found["template"], &self.0["templatePatch"])
            .map_err(|error| format!("role {:?}: templatePatch: {error}", self.name()))
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

/// How many Pods the whole group has.
pub(crate) fn group_size(spec: &Value) -> i64 {
    roles(spec).iter().map(|role| role.replicas() * role.size()).sum()
}

/// The file by which Pods of a group find each other, `config.yaml`: JSON is YAML, so what is quoted here is read there.
pub(crate) fn config(name: &str, spec: &Value) -> String {
    use std::fmt::Write as _;
    let quote = |text: &str| Value::from(text).to_string();
    let roles = roles(spec);
    let mut text = format!("group:\n  name: {}\n  roles:\n", quote(name));
    // Writing to a String cannot fail.
    for role in &roles {
        let _ = writeln!(text, "  - {}", quote(role.name()));
    }
    let _ = write!(text, "  size: {}\nroles:\n", roles.len());
    for role in &roles {
        let _ = writeln!(text, "  {}:", quote(role.name()));
        let workload = format!("{name}-{}", role.name());
        let ports = role.0["servicePorts"].as_array().cloned().unwrap_or_default();
        text.push_str(if role.replicas() == 0 { "    instances: []\n" } else { "    instances:\n" });
        for index in 0..role.replicas() {
            let address = format!("{workload}-{index}.{}", service_name(name, role.name()));
            let _ = writeln!(text, "    - address: {}", quote(&address));
            if !ports.is_empty() {
                text.push_str("      ports:\n");
            }
            for port in &ports {
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

/// The name of a role's headless service. A name of a service may not begin with a digit.
pub(crate) fn service_name(group: &str, role: &str) -> String {
    let digit = group.starts_with(|first: char| first.is_ascii_digit());
    format!("{}{group}-{role}", if digit { "s-" } else { "" })
}

/// Ports of a role's service.
pub(crate) fn ports(role: Role<'_>) -> Value {
    let ports = role.0["servicePorts"].as_array().cloned().unwrap_or_default();
    if ports.is_empty() { Value::Null } else { json!(ports) }
}
