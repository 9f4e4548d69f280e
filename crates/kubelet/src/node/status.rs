//! A node's status, as upstream's kubelet writes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::Image;

use super::machine::{self, Identity};
use crate::cache::Health;
use crate::config::Config;
use crate::shared::Machine;
use crate::time::api_time;

/// At most so many images are told, the largest first, with at most so many names each.
const IMAGES: (usize, usize) = (50, 5);
/// Below this much available memory the node is under pressure.
const MEMORY: u64 = 100 << 20;
/// Below this much of the disk that holds pods, in bytes and in inodes, the node is under pressure. Upstream's tenth of the
/// disk is for servers: a laptop's disk is often that full, and has tens of gigabytes left then. kind and minikube switch
/// the thresholds off altogether.
const DISK: (u64, u64) = (1 << 30, 10_000);

/// Computes the status; times of conditions are taken from `old` where nothing changed.
pub(super) fn compute(
    config: &Config,
    machine: &Machine,
    health: &Health,
    images: &[ContainerImage],
    old: &NodeStatus,
) -> NodeStatus {
    let amounts = amounts(config, machine);
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        // Until the runtime has answered, what is known from before stands.
        capacity: match machine.info.cpus {
            0 => old.capacity.clone(),
            _ => Some(amounts.clone()),
        },
        allocatable: match machine.info.cpus {
            0 => old.allocatable.clone(),
            _ => Some(amounts),
        },
        conditions: Some(conditions(config, machine, health, old)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            // No port of its own: the API server asks in-process.
            kubelet_endpoint: Some(DaemonEndpoint { port: 0 }),
        }),
        images: Some(images.to_vec()).filter(|images| !images.is_empty()),
        node_info: Some(info(config, machine)),
        ..NodeStatus::default()
    }
}

/// Whether two statuses say the same, heartbeats aside.
pub(super) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(a) == still(b)
}

/// The images of the machine, as a node tells them.
pub(super) fn images(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images
        .into_iter()
        .filter_map(|image| {
            let names = image.repo_digests.into_iter().chain(image.repo_tags);
            let names: Vec<String> = names.filter(|name| !name.contains("<none>")).take(IMAGES.1).collect();
            (!names.is_empty())
                .then(|| ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() })
        })
        .take(IMAGES.0)
        .collect()
}

fn amounts(config: &Config, machine: &Machine) -> BTreeMap<String, Quantity> {
    let mut amounts: BTreeMap<String, Quantity> = [
        ("cpu", machine.info.cpus.to_string()),
        ("memory", format!("{}Ki", machine.info.memory_bytes / 1024)),
        ("ephemeral-storage", format!("{}Ki", machine.storage / 1024)),
        ("pods", config.max_pods.to_string()),
        ("hugepages-1Gi", "0".to_owned()),
        ("hugepages-2Mi", "0".to_owned()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect();
    for (name, amount) in &config.capacity {
        amounts.insert(name.clone(), Quantity(amount.clone()));
    }
    amounts
}

fn info(config: &Config, machine: &Machine) -> NodeSystemInfo {
    let identity = Identity::read();
    let info = &machine.info;
    let or = |text: &str, other: &str| match text.is_empty() {
        true => other.to_owned(),
        false => text.to_owned(),
    };
    NodeSystemInfo {
        architecture: or(&info.architecture, machine::architecture()),
        boot_id: identity.boot_id,
        container_runtime_version: format!("{}://{}", or(&info.name, "unknown"), info.version),
        kernel_version: info.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: config.kubelet_version.clone(),
        machine_id: identity.machine_id,
        operating_system: "linux".to_owned(),
        os_image: info.os_image.clone(),
        system_uuid: identity.system_uuid,
        swap: None,
    }
}

/// What happened between two statuses, as the reasons of events: what was not known before is news, too.
pub(crate) fn news(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let reason = |condition: &NodeCondition| match (condition.type_.as_str(), condition.status == "True") {
        ("MemoryPressure", true) => Some("NodeHasInsufficientMemory"),
        ("MemoryPressure", false) => Some("NodeHasSufficientMemory"),
        ("DiskPressure", true) => Some("NodeHasDiskPressure"),
        ("DiskPressure", false) => Some("NodeHasNoDiskPressure"),
        ("PIDPressure", true) => Some("NodeHasInsufficientPID"),
        ("PIDPressure", false) => Some("NodeHasSufficientPID"),
        ("Ready", true) => Some("NodeReady"),
        ("Ready", false) => Some("NodeNotReady"),
        _ => None,
    };
    let as_before = |condition: &NodeCondition| {
        let mut known = old.conditions.iter().flatten();
        known.any(|known| known.type_ == condition.type_ && known.status == condition.status)
    };
    new.conditions.iter().flatten().filter(|condition| !as_before(condition)).filter_map(reason).collect()
}

fn conditions(config: &Config, machine: &Machine, health: &Health, old: &NodeStatus) -> Vec<NodeCondition> {
    let short_memory = machine::memory_available().is_some_and(|available| available < MEMORY);
    // A file system without a fixed number of inodes counts none at all.
    let short_disk = machine::disk(&config.state_dir)
        .is_some_and(|[bytes, _, inodes, all_inodes]| bytes < DISK.0 || (all_inodes > 0 && inodes < DISK.1));
    let pressure = |type_: &'static str, short: bool, what: &str, word: &str| {
        let status = if short { "True" } else { "False" };
        (type_, status, format!("KubeletHas{what}"), format!("kubelet has {word}"))
    };
    let memory = match short_memory {
        true => ("InsufficientMemory", "insufficient memory available"),
        false => ("SufficientMemory", "sufficient memory available"),
    };
    let disk = match short_disk {
        true => pressure("DiskPressure", true, "DiskPressure", "disk pressure"),
        false => pressure("DiskPressure", false, "NoDiskPressure", "no disk pressure"),
    };
    let known = !machine.info.name.is_empty();
    let ready = match health {
        Health::Down(why) => {
            ("Ready", "False", "KubeletNotReady".to_owned(), format!("container runtime is down: {why}"))
        }
        Health::Unknown if !known => (
            "Ready",
            "False",
            "KubeletNotReady".to_owned(),
            "container runtime status check may not have completed yet".to_owned(),
        ),
        _ => ("Ready", "True", "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned()),
    };
    let now = Timestamp::now();
    [
        pressure("MemoryPressure", short_memory, memory.0, memory.1),
        disk,
        pressure("PIDPressure", false, "SufficientPID", "sufficient PID available"),
        ready,
    ]
    .into_iter()
    .map(|(type_, status, reason, message)| {
        let known = old.conditions.iter().flatten();
        let mut known = known.filter(|known| known.type_ == type_ && known.status == status);
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason),
            message: Some(message),
            last_heartbeat_time: Some(api_time(now)),
            last_transition_time: known
                .next()
                .and_then(|known| known.last_transition_time.clone())
                .or_else(|| Some(api_time(now))),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(health: &Health, old: &NodeStatus) -> NodeStatus {
        let config = Config::new("n", "10.0.0.1".parse().unwrap(), std::env::temp_dir());
        let machine = Machine {
            info: runtime::RuntimeInfo {
                name: "docker".to_owned(),
                version: "20.10.24".to_owned(),
                cpus: 4,
                memory_bytes: 8 << 30,
                ..runtime::RuntimeInfo::default()
            },
            storage: 1 << 30,
        };
        compute(&config, &machine, health, &[], old)
    }

    fn ready(status: &NodeStatus) -> (String, String) {
        let conditions = status.conditions.clone().unwrap();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let ready = ready.unwrap();
        (ready.status, ready.message.unwrap())
    }

    #[test]
    fn readiness_follows_the_runtime() {
        let well = check(&Health::Well, &NodeStatus::default());
        assert_eq!(ready(&well), ("True".to_owned(), "kubelet is posting ready status".to_owned()));
        let first = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"];
        assert_eq!(news(&NodeStatus::default(), &well), first);
        let down = check(&Health::Down("gone".to_owned()), &well);
        assert_eq!((news(&well, &down), news(&down, &down)), (vec!["NodeNotReady"], vec![]));
        assert_eq!(ready(&down), ("False".to_owned(), "container runtime is down: gone".to_owned()));
        assert!(!same(&well, &down));
        assert!(same(&well, &check(&Health::Well, &well)));
    }

    #[test]
    fn capacity() {
        let status = check(&Health::Well, &NodeStatus::default());
        let capacity = status.capacity.unwrap();
        assert_eq!(capacity["cpu"].0, "4");
        assert_eq!(capacity["memory"].0, "8388608Ki");
        assert_eq!(capacity["pods"].0, "110");
        let version = status.node_info.unwrap().container_runtime_version;
        assert_eq!(version, "docker://20.10.24");
    }

    #[test]
    fn images_by_size_without_the_nameless() {
        let image = |id: &str, size, tag: &str| Image {
            id: id.to_owned(),
            size,
            repo_tags: vec![tag.to_owned()],
            ..Image::default()
        };
        let images = images(vec![image("a", 1, "a:1"), image("b", 2, "b:1"), image("c", 3, "<none>:<none>")]);
        let names: Vec<String> = images.into_iter().flat_map(|image| image.names.unwrap()).collect();
        assert_eq!(names, ["b:1", "a:1"]);
    }
}
