//! A node's status, as upstream's kubelet writes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::phase::ConditionStatus;
use runtime::Image;
use serde_json::{Value, json};

use super::machine::{self, Identity};
use crate::config::{Config, NetworkState};
use crate::eviction::signals::Pressure;
use crate::health::Health;
use crate::shared::Machine;
use crate::time::api_time;

/// Amounts of resources, by name.
type Amounts = BTreeMap<String, Quantity>;

/// At most so many images are told, the largest first, with at most so many names each.
const IMAGES: (usize, usize) = (50, 5);
/// The conditions that the kubelet writes. Others stay as they are.
const OWN: [&str; 5] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready", "NetworkUnavailable"];

/// Computes the status, from the one that the API has: what others wrote there stays, and times of conditions move only
/// where something changed. Without `images`, those known stand.
///
/// Capacity that others have announced can be had by pods like any other (upstream: `MachineInfo` in
/// `pkg/kubelet/nodestatus/setters.go`): that is how extended resources come to be without a device plugin.
pub(super) fn compute(
    config: &Config,
    machine: &Machine,
    health: &Health,
    pressure: Pressure,
    images: Option<&[ContainerImage]>,
    old: &NodeStatus,
) -> NodeStatus {
    let mut capacity = old.capacity.clone().unwrap_or_default();
    // Until the runtime has answered, what is known from before stands.
    if machine.info.cpus > 0 {
        capacity.extend(amounts(config, machine));
    }
    let capacity = Some(capacity).filter(|capacity| !capacity.is_empty());
    let mut all_conditions = old.conditions.clone().unwrap_or_default();
    for own in conditions(config, machine, health, pressure, old) {
        match all_conditions.iter_mut().find(|known| known.type_ == own.type_) {
            Some(known) => *known = own,
            None => all_conditions.push(own),
        }
    }
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        allocatable: capacity.clone(),
        capacity,
        conditions: Some(all_conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
        }),
        images: images.map_or_else(|| old.images.clone(), |images| Some(images.to_vec())),
        node_info: Some(info(config, machine)),
        ..old.clone()
    }
}

/// Whether two statuses say the same, heartbeats aside.
pub(super) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status.images = status.images.filter(|images| !images.is_empty());
        (status.capacity, status.allocatable) = (None, None);
        status
    };
    let amounts = |a, b| amounts_patch(a, b).is_empty();
    amounts(&a.capacity, &b.capacity) && amounts(&a.allocatable, &b.allocatable) && still(a) == still(b)
}

/// The strategic merge patch that makes the status `old` be `new`. It names nothing that is others' own.
pub(super) fn patch(old: &NodeStatus, new: &NodeStatus) -> Value {
    let own = new.conditions.iter().flatten().filter(|condition| OWN.contains(&condition.type_.as_str()));
    let mut status = json!({ "conditions": own.collect::<Vec<_>>() });
    if old.addresses != new.addresses {
        // They are merged by their type, of which there may be several.
        let addresses = new.addresses.iter().flatten().map(|address| json!(address));
        status["addresses"] = std::iter::once(json!({ "$patch": "replace" })).chain(addresses).collect();
    }
    for (field, old, new) in
        [("capacity", &old.capacity, &new.capacity), ("allocatable", &old.allocatable, &new.allocatable)]
    {
        let amounts = amounts_patch(old, new);
        if !amounts.is_empty() {
            status[field] = json!(amounts);
        }
    }
    if old.daemon_endpoints != new.daemon_endpoints {
        status["daemonEndpoints"] = json!(new.daemon_endpoints);
    }
    if old.images != new.images {
        status["images"] = json!(new.images);
    }
    if old.node_info != new.node_info {
        status["nodeInfo"] = json!(new.node_info);
    }
    json!({ "status": status })
}

/// The amounts that differ, whichever way they are written; `None` for one that is no more.
fn amounts_patch<'a>(old: &'a Option<Amounts>, new: &'a Option<Amounts>) -> BTreeMap<&'a str, Option<&'a Quantity>> {
    let find = |amounts: &'a Option<Amounts>, name: &str| amounts.as_ref().and_then(|amounts| amounts.get(name));
    let names = old.iter().chain(new).flat_map(|amounts| amounts.keys());
    let pairs = names.map(|name| (name.as_str(), find(old, name), find(new, name)));
    pairs.filter(|(_, old, new)| !same_amount(*old, *new)).map(|(name, _, new)| (name, new)).collect()
}

fn same_amount(a: Option<&Quantity>, b: Option<&Quantity>) -> bool {
    let parse = |quantity: &Quantity| machinery::quantity::Quantity::try_from(quantity).ok();
    match (a, b) {
        (Some(a), Some(b)) => a == b || parse(a).is_some_and(|a| parse(b) == Some(a)),
        (a, b) => a.is_none() && b.is_none(),
    }
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

fn amounts(config: &Config, machine: &Machine) -> Amounts {
    let mut amounts: Amounts = [
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

/// The reasons of the events that tell of the difference between two statuses; what was not known before is one, too.
pub(crate) fn event_reasons(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let reason = |condition: &NodeCondition| match (condition.type_.as_str(), condition.status == ConditionStatus::True)
    {
        ("MemoryPressure", true) => Some("NodeHasInsufficientMemory"),
        ("MemoryPressure", false) => Some("NodeHasSufficientMemory"),
        ("DiskPressure", true) => Some("NodeHasDiskPressure"),
        ("DiskPressure", false) => Some("NodeHasNoDiskPressure"),
        ("PIDPressure", true) => Some("NodeHasInsufficientPID"),
        ("PIDPressure", false) => Some("NodeHasSufficientPID"),
        ("NetworkUnavailable", true) => Some("NodeNetworkUnavailable"),
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

fn conditions(
    config: &Config,
    machine: &Machine,
    health: &Health,
    pressure: Pressure,
    old: &NodeStatus,
) -> Vec<NodeCondition> {
    // The words are those of `pkg/kubelet/nodestatus/setters.go`.
    let condition = |type_: &'static str, is: bool, reasons: [&str; 2], messages: [&str; 2]| {
        let which = usize::from(is);
        (type_, ConditionStatus::from(is), reasons[which].to_owned(), messages[which].to_owned())
    };
    let known = !machine.info.name.is_empty();
    let ready = match health {
        Health::Down(why) | Health::Stuck(why) => {
            ("Ready", ConditionStatus::False, "KubeletNotReady".to_owned(), format!("container runtime is down: {why}"))
        }
        Health::Unknown if !known => (
            "Ready",
            ConditionStatus::False,
            "KubeletNotReady".to_owned(),
            "container runtime status check may not have completed yet".to_owned(),
        ),
        _ => ("Ready", ConditionStatus::True, "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned()),
    };
    let network = config.network.as_ref().and_then(|network| match &*network.borrow() {
        NetworkState::Unknown => None,
        NetworkState::Available => Some((
            "NetworkUnavailable",
            ConditionStatus::False,
            "ServiceNetworkReady".to_owned(),
            "cluster IPs work".to_owned(),
        )),
        NetworkState::Unavailable(why) => {
            Some(("NetworkUnavailable", ConditionStatus::True, "ServiceNetworkNotReady".to_owned(), why.clone()))
        }
    });
    let now = Timestamp::now();
    [
        condition(
            "MemoryPressure",
            pressure.memory,
            ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
            ["kubelet has sufficient memory available", "kubelet has insufficient memory available"],
        ),
        condition(
            "DiskPressure",
            pressure.disk,
            ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
            ["kubelet has no disk pressure", "kubelet has disk pressure"],
        ),
        condition(
            "PIDPressure",
            pressure.pids,
            ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
            ["kubelet has sufficient PID available", "kubelet has insufficient PID available"],
        ),
        ready,
    ]
    .into_iter()
    .chain(network)
    .map(|(type_, status, reason, message)| {
        let known = old.conditions.iter().flatten();
        let mut known = known.filter(|known| known.type_ == type_ && known.status == status);
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_string(),
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
        compute(&config, &machine, health, Pressure::default(), Some(&[]), old)
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
        assert_eq!(event_reasons(&NodeStatus::default(), &well), first);
        let down = check(&Health::Down("gone".to_owned()), &well);
        assert_eq!((event_reasons(&well, &down), event_reasons(&down, &down)), (vec!["NodeNotReady"], vec![]));
        assert_eq!(ready(&down), ("False".to_owned(), "container runtime is down: gone".to_owned()));
        assert!(!same(&well, &down));
        assert!(same(&well, &check(&Health::Well, &well)));
    }

    #[test]
    fn the_network_is_a_condition_once_it_is_known() {
        let (tell, network) = tokio::sync::watch::channel(NetworkState::Unknown);
        let mut config = Config::new("n", "10.0.0.1".parse().unwrap(), std::env::temp_dir());
        config.network = Some(network);
        let condition = |old: &NodeStatus| {
            let status = compute(&config, &Machine::default(), &Health::Well, Pressure::default(), Some(&[]), old);
            let mut conditions = status.conditions.clone().unwrap().into_iter();
            let condition = conditions.find(|condition| condition.type_ == "NetworkUnavailable");
            (condition.map(|condition| (condition.status, condition.message.unwrap())), status)
        };
        let (unknown, status) = condition(&NodeStatus::default());
        assert_eq!(unknown, None);
        tell.send_replace(NetworkState::Unavailable("no nft".to_owned()));
        let (unavailable, failed) = condition(&status);
        assert_eq!(unavailable, Some(("True".to_owned(), "no nft".to_owned())));
        assert_eq!(event_reasons(&status, &failed), ["NodeNetworkUnavailable"]);
        tell.send_replace(NetworkState::Available);
        let (available, restored) = condition(&failed);
        assert_eq!(available.map(|(status, _)| status).as_deref(), Some("False"));
        assert!(event_reasons(&failed, &restored).is_empty());
    }

    #[test]
    fn where_the_kubelet_is_served() {
        let mut config = Config::new("n", "10.0.0.1".parse().unwrap(), std::env::temp_dir());
        config.port = 10250;
        let status = |config: &Config, old: &NodeStatus| {
            compute(config, &Machine::default(), &Health::Well, Pressure::default(), Some(&[]), old)
        };
        let served = status(&config, &NodeStatus::default());
        assert_eq!(served.daemon_endpoints.clone().unwrap().kubelet_endpoint.unwrap().port, 10250);
        config.port = 0;
        let silent = status(&config, &served);
        assert_eq!(patch(&served, &silent)["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 0);
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

    fn amount(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn what_others_say_of_a_node_stays() {
        let well = check(&Health::Well, &NodeStatus::default());
        let mut known = well.clone();
        let foreign =
            NodeCondition { type_: "Foreign".to_owned(), status: "True".to_owned(), ..NodeCondition::default() };
        known.conditions.get_or_insert_default().insert(0, foreign.clone());
        known.capacity.get_or_insert_default().insert("example.com/dongle".to_owned(), amount("4"));
        // The API may write an amount in another way.
        known.capacity.get_or_insert_default().insert("memory".to_owned(), amount("8Gi"));
        known.allocatable.get_or_insert_default().insert("memory".to_owned(), amount("8Gi"));
        let status = check(&Health::Well, &known);
        assert_eq!(status.conditions.as_ref().unwrap()[0], foreign);
        assert_eq!(status.capacity.as_ref().unwrap()["example.com/dongle"].0, "4");
        assert!(!same(&known, &status));
        // What others wrote is not written again, and what they announce can be had.
        let patch = patch(&known, &status);
        assert_eq!(patch["status"]["allocatable"], json!({"example.com/dongle": "4"}));
        assert_eq!(patch["status"].get("capacity"), None);
        // Nobody tells of the network here.
        assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), OWN.len() - 1);
        // When it goes, it can be had no longer.
        let mut gone = status.clone();
        gone.capacity.get_or_insert_default().remove("example.com/dongle");
        let after = check(&Health::Well, &gone);
        assert!(!same(&gone, &after) && same(&after, &check(&Health::Well, &after)));
        assert_eq!(super::patch(&gone, &after)["status"]["allocatable"], json!({"example.com/dongle": null}));
    }

    #[test]
    fn what_others_take_from_a_node_comes_back() {
        let well = check(&Health::Well, &NodeStatus::default());
        let changes: [fn(&mut NodeStatus); 6] = [
            |status| {
                let conditions = status.conditions.iter_mut().flatten();
                conditions.filter(|known| known.type_ == "Ready").for_each(|ready| ready.status = "Unknown".to_owned());
            },
            |status| status.conditions.get_or_insert_default().retain(|known| known.type_ != "DiskPressure"),
            |status| drop(status.capacity.get_or_insert_default().insert("cpu".to_owned(), amount("400"))),
            |status| drop(status.allocatable.get_or_insert_default().remove("memory")),
            |status| status.addresses.get_or_insert_default().truncate(1),
            |status| status.node_info.get_or_insert_default().kubelet_version.clear(),
        ];
        for change in changes {
            let mut changed = well.clone();
            change(&mut changed);
            let status = check(&Health::Well, &changed);
            assert!(!same(&changed, &status), "{changed:?}");
            let conditions = |status: &NodeStatus| {
                let mut all = status.conditions.clone().unwrap_or_default();
                all.sort_by(|a, b| a.type_.cmp(&b.type_));
                all.into_iter().map(|condition| (condition.type_, condition.status)).collect::<Vec<_>>()
            };
            assert_eq!(conditions(&status), conditions(&well));
            let expect = NodeStatus { conditions: status.conditions.clone(), ..well.clone() };
            assert!(same(&status, &expect), "{status:?}");
        }
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
