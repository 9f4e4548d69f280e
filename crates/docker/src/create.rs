//! What a sandbox or a container is made from: the runtime's configuration in Docker's words.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig, NetworkingConfig, PortBinding, PortMap,
};
use runtime::{ContainerConfig, Error, Propagation, Resources, Sandbox, SandboxConfig, Seccomp, labels};

use crate::{network_name, pause};

/// Settings that hold for all containers of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) profile: String,
    /// The folder of the profile's state.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) host_port_address: IpAddr,
    pub(crate) log_max_size: String,
    pub(crate) log_max_files: u32,
    /// The node, where it is not the profile's first.
    pub(crate) node: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profile: String::new(),
            folder: None,
            host_port_address: Ipv4Addr::LOCALHOST.into(),
            log_max_size: "10m".to_owned(),
            log_max_files: 5,
            node: None,
        }
    }
}

/// Which network a sandbox is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Networking {
    /// The machine's.
    Host,
    /// One that its program makes, and that is connected afterwards, with this address.
    Own(Ipv4Addr),
    /// One that Docker makes and connects, with this address.
    Docker(Ipv4Addr),
}

/// Whether a kernel parameter belongs to a network.
pub(crate) fn of_network(sysctl: &str) -> bool {
    sysctl.starts_with("net.") || sysctl.starts_with("net/")
}

/// Upstream's value for sandboxes: they go last, for everything in the pod depends on them.
pub(crate) const SANDBOX_OOM_SCORE: i32 = -998;

/// A sandbox; `oom_score` as far as it is allowed.
pub(crate) fn sandbox(
    settings: &Settings,
    config: &SandboxConfig,
    networking: Networking,
    oom_score: i32,
) -> ContainerCreateBody {
    let (exposed, bindings) = ports(settings, config);
    let own = matches!(networking, Networking::Own(_));
    let network = network_name(&settings.profile);
    let mut labels = labels::of_sandbox(&settings.profile, config);
    let address = match networking {
        Networking::Own(address) | Networking::Docker(address) => Some(address),
        Networking::Host => None,
    };
    label(settings, address, &mut labels);
    // The parameters of a network that does not exist yet are set when it does.
    let sysctls: HashMap<String, String> = config
        .sysctls
        .iter()
        .filter(|(key, _)| !own || !of_network(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut security = vec!["no-new-privileges".to_owned()];
    if own {
        // What the program needs to make its network, and gives up right then.
        security.push("seccomp=unconfined".to_owned());
    }
    let host = HostConfig {
        network_mode: Some(match networking {
            Networking::Host | Networking::Own(_) => "host".to_owned(),
            Networking::Docker(_) => network.clone(),
        }),
        uts_mode: config.host_network.then(|| "host".to_owned()),
        ipc_mode: Some(if config.host_ipc { "host" } else { "shareable" }.to_owned()),
        pid_mode: config.host_pid.then(|| "host".to_owned()),
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        sysctls: (!sysctls.is_empty()).then_some(sysctls),
        oom_score_adj: Some(oom_score.into()),
        cap_add: own.then(|| ["SYS_ADMIN", "SETUID", "SETGID"].map(str::to_owned).to_vec()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        readonly_rootfs: Some(true),
        security_opt: Some(security),
        cpu_shares: Some(Resources::MIN_SHARES),
        init: Some(false),
        // It never writes anything.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    };
    let endpoint = match networking {
        Networking::Docker(address) => Some(EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some(address.to_string()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        }),
        Networking::Host | Networking::Own(_) => None,
    };
    ContainerCreateBody {
        hostname: (!config.host_network && !config.hostname.is_empty()).then(|| config.hostname.clone()),
        image: Some(pause::image().to_owned()),
        cmd: own.then(|| vec![pause::ISOLATE.to_owned()]),
        user: own.then(|| "0:0".to_owned()),
        labels: Some(labels.into_iter().collect()),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        networking_config: endpoint
            .map(|endpoint| NetworkingConfig { endpoints_config: Some(HashMap::from([(network, endpoint)])) }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// Adds what only this runtime knows; after all other labels, so that no pod claims another's.
fn label(settings: &Settings, address: Option<Ipv4Addr>, labels: &mut BTreeMap<String, String>) {
    let own = [
        (labels::NODE, settings.node.clone()),
        (labels::FOLDER, settings.folder.as_ref().map(|folder| folder.display().to_string())),
        (labels::SANDBOX_ADDRESS, address.map(|ip| ip.to_string())),
    ];
    for (key, value) in own {
        match value {
            Some(value) => labels.insert(key.to_owned(), value),
            None => labels.remove(key),
        };
    }
}

/// A container of a sandbox; `negative_oom_score` tells whether a negative score may be set.
pub(crate) fn container(
    settings: &Settings,
    sandbox: &Sandbox,
    config: &ContainerConfig,
    negative_oom_score: bool,
) -> Result<ContainerCreateBody, Error> {
    let of_sandbox = format!("container:{}", sandbox.id);
    let namespace = |host: bool| if host { "host" } else { &of_sandbox }.to_owned();
    let pid_mode = match &config.processes_of {
        _ if sandbox.host_pid || sandbox.share_process_namespace => Some(namespace(sandbox.host_pid)),
        target => target.as_ref().map(|target| format!("container:{target}")),
    };
    let resources = &config.resources;
    let mut labels = labels::of_container(&settings.profile, &sandbox.id, config);
    label(settings, None, &mut labels);
    let oom_score = config.oom_score_adj.map(|score| if negative_oom_score { score } else { score.max(0) });
    let host = HostConfig {
        network_mode: Some(of_sandbox.clone()),
        uts_mode: sandbox.host_network.then(|| "host".to_owned()),
        ipc_mode: Some(namespace(sandbox.host_ipc)),
        pid_mode,
        mounts: (!config.mounts.is_empty()).then(|| config.mounts.iter().map(mount).collect()),
        devices: (!config.devices.is_empty()).then(|| {
            config
                .devices
                .iter()
                .map(|device| DeviceMapping {
                    path_on_host: Some(device.host_path.to_string_lossy().into_owned()),
                    path_in_container: Some(device.container_path.to_string_lossy().into_owned()),
                    cgroup_permissions: Some(device.permissions.clone()),
                })
                .collect()
        }),
        group_add: (!config.supplemental_groups.is_empty())
            .then(|| config.supplemental_groups.iter().map(ToString::to_string).collect()),
        privileged: config.privileged.then_some(true),
        cap_add: non_empty(&config.capabilities_add),
        cap_drop: non_empty(&config.capabilities_drop),
        readonly_rootfs: config.read_only_root.then_some(true),
        security_opt: security(config),
        // Docker's own lists where there are none.
        masked_paths: config.unmasked_proc.then(Vec::new),
        readonly_paths: config.unmasked_proc.then(Vec::new),
        cpu_shares: resources.cpu_shares,
        cpu_quota: resources.cpu_quota_us,
        cpu_period: resources.cpu_quota_us.map(|_| resources.cpu_period_us.unwrap_or(Resources::PERIOD_US)),
        memory: resources.memory_limit_bytes,
        // Equal to the memory limit: no swap on top.
        memory_swap: resources.memory_limit_bytes,
        pids_limit: resources.pids_limit,
        oom_score_adj: oom_score.map(i64::from),
        init: Some(false),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), settings.log_max_size.clone()),
                ("max-file".to_owned(), settings.log_max_files.to_string()),
            ])),
        }),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(config.image.clone()),
        entrypoint: non_empty(&config.command),
        cmd: non_empty(&config.args),
        env: Some(environment(&config.env)),
        working_dir: config.working_dir.clone().filter(|dir| !dir.is_empty()),
        user: user(config)?,
        open_stdin: Some(config.stdin),
        stdin_once: Some(config.stdin_once),
        tty: Some(config.tty),
        stop_signal: config.stop_signal.clone(),
        labels: Some(labels.into_iter().collect()),
        // Health is the kubelet's business; the image's own check would only cost.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

fn ports(settings: &Settings, config: &SandboxConfig) -> (Vec<String>, PortMap) {
    let (mut exposed, mut bindings) = (Vec::new(), PortMap::new());
    // The host's own network has nothing to map.
    let mapped = config.ports.iter().filter(|port| !config.host_network && port.host_port != 0);
    for port in mapped {
        let key = format!("{}/{}", port.container_port, port.protocol.as_str());
        if !exposed.contains(&key) {
            exposed.push(key.clone());
        }
        let address = port.host_ip.unwrap_or(settings.host_port_address);
        bindings
            .entry(key)
            .or_default()
            .get_or_insert_default()
            .push(PortBinding { host_ip: Some(address.to_string()), host_port: Some(port.host_port.to_string()) });
    }
    (exposed, bindings)
}

fn mount(mount: &runtime::Mount) -> Mount {
    if mount.descriptor {
        return descriptor(mount);
    }
    Mount {
        target: Some(mount.container_path.to_string_lossy().into_owned()),
        source: Some(mount.host_path.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: bind_options(mount),
        ..Mount::default()
    }
}

fn bind_options(mount: &runtime::Mount) -> Option<MountBindOptions> {
    let propagation = match mount.propagation {
        Propagation::Private => None,
        Propagation::HostToContainer => Some(MountBindOptionsPropagationEnum::RSLAVE),
        Propagation::Bidirectional => Some(MountBindOptionsPropagationEnum::RSHARED),
    };
    // The daemon refuses it with any propagation but this.
    let private = Some(MountBindOptionsPropagationEnum::RPRIVATE);
    match (propagation, mount.recursive_read_only) {
        (None, false) => None,
        (propagation, false) => Some(MountBindOptions { propagation, ..MountBindOptions::default() }),
        (_, true) => Some(MountBindOptions {
            propagation: private,
            read_only_force_recursive: Some(true),
            ..MountBindOptions::default()
        }),
    }
}

/// A directory that this process has open. A bind mount is made from within the container's mount namespace, where the
/// kernel refuses a descriptor of another one; what a volume's driver mounts, the daemon mounts in its own. The volume
/// has no name, so it goes with the container.
fn descriptor(mount: &runtime::Mount) -> Mount {
    let device = mount.host_path.to_string_lossy().into_owned();
    let options = [("type", "none".to_owned()), ("o", "bind".to_owned()), ("device", device)];
    let driver = MountVolumeOptionsDriverConfig {
        name: Some("local".to_owned()),
        options: Some(options.map(|(key, value)| (key.to_owned(), value)).into()),
    };
    Mount {
        target: Some(mount.container_path.to_string_lossy().into_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(mount.read_only),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            driver_config: Some(driver),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

/// `NAME=value` without duplicates: of two, most programs would see the first, but the later one is meant.
fn environment(env: &[(String, String)]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut list: Vec<String> =
        env.iter().rev().filter(|(name, _)| seen.insert(name)).map(|(name, value)| format!("{name}={value}")).collect();
    list.reverse();
    list
}

fn user(config: &ContainerConfig) -> Result<Option<String>, Error> {
    match (config.user, config.group) {
        (Some(user), Some(group)) => Ok(Some(format!("{user}:{group}"))),
        (Some(user), None) => Ok(Some(user.to_string())),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::Invalid("runAsGroup is specified without a runAsUser".to_owned())),
    }
}

fn security(config: &ContainerConfig) -> Option<Vec<String>> {
    let mut options = Vec::new();
    if config.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &config.seccomp {
        Seccomp::RuntimeDefault => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(json) => options.push(format!("seccomp={json}")),
    }
    options.extend(config.app_armor.iter().map(|profile| format!("apparmor={profile}")));
    options.extend(config.se_linux.iter().map(|label| format!("label={label}")));
    (!options.is_empty()).then_some(options)
}

fn non_empty(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

#[cfg(test)]
mod tests {
    use runtime::{PortMapping, Protocol};
    use serde_json::{Value, json};

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);

    fn settings() -> Settings {
        Settings { profile: "p".to_owned(), ..Settings::default() }
    }

    /// What Docker is sent, at a JSON pointer.
    fn check(body: &ContainerCreateBody, expect: &[(&str, Value)]) {
        let body = serde_json::to_value(body).unwrap();
        for (pointer, value) in expect {
            assert_eq!(body.pointer(pointer).unwrap_or(&Value::Null), value, "{pointer}");
        }
    }

    #[test]
    fn sandboxes() {
        let mut config = SandboxConfig {
            hostname: "web".to_owned(),
            ports: vec![PortMapping { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp }],
            sysctls: [("net.core.somaxconn".to_owned(), "1024".to_owned())].into(),
            ..SandboxConfig::default()
        };
        let binding = json!([{ "HostIp": "127.0.0.1", "HostPort": "8080" }]);
        check(
            &sandbox(&settings(), &config, Networking::Docker(ADDRESS), -998),
            &[
                ("/Hostname", json!("web")),
                ("/Image", json!(pause::image())),
                ("/ExposedPorts/80~1tcp", json!({})),
                ("/HostConfig/NetworkMode", json!("coracle-p")),
                ("/HostConfig/IpcMode", json!("shareable")),
                ("/HostConfig/PidMode", Value::Null),
                ("/HostConfig/PortBindings/80~1tcp", binding),
                ("/HostConfig/Sysctls/net.core.somaxconn", json!("1024")),
                ("/HostConfig/OomScoreAdj", json!(-998)),
                ("/NetworkingConfig/EndpointsConfig/coracle-p/IPAMConfig/IPv4Address", json!("10.244.0.5")),
                ("/Labels/io.coracle.profile", json!("p")),
                ("/Labels/io.coracle.sandbox.address", json!("10.244.0.5")),
            ],
        );
        config.ports.clear();
        config.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
        check(
            &sandbox(&settings(), &config, Networking::Own(ADDRESS), 0),
            &[
                ("/Hostname", json!("web")),
                ("/Cmd", json!(["isolate"])),
                ("/User", json!("0:0")),
                ("/HostConfig/NetworkMode", json!("host")),
                ("/HostConfig/UTSMode", Value::Null),
                ("/HostConfig/Sysctls", json!({ "kernel.shm_rmid_forced": "1" })),
                ("/HostConfig/CapAdd", json!(["SYS_ADMIN", "SETUID", "SETGID"])),
                ("/NetworkingConfig", Value::Null),
                ("/Labels/io.coracle.sandbox.address", json!("10.244.0.5")),
            ],
        );
        config.labels.insert(labels::SANDBOX_ADDRESS.to_owned(), "10.0.0.1".to_owned());
        config.host_network = true;
        config.host_pid = true;
        config.host_ipc = true;
        check(
            &sandbox(&settings(), &config, Networking::Host, 0),
            &[
                ("/Hostname", Value::Null),
                ("/HostConfig/NetworkMode", json!("host")),
                ("/HostConfig/UTSMode", json!("host")),
                ("/HostConfig/IpcMode", json!("host")),
                ("/HostConfig/PidMode", json!("host")),
                ("/HostConfig/PortBindings", Value::Null),
                ("/HostConfig/CapAdd", Value::Null),
                ("/Labels/io.coracle.sandbox.address", Value::Null),
            ],
        );
    }

    #[test]
    fn containers() {
        let sandbox = Sandbox { id: "s1".to_owned(), share_process_namespace: true, ..Sandbox::default() };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let config = ContainerConfig {
            image: "nginx".to_owned(),
            command: vec!["sh".to_owned()],
            env: vec![pair("A", "1"), pair("B", "2"), pair("A", "3")],
            user: Some(7),
            group: Some(8),
            mounts: vec![runtime::Mount {
                host_path: "/a:b".into(),
                descriptor: false,
                container_path: "/c".into(),
                read_only: true,
                recursive_read_only: false,
                propagation: Propagation::HostToContainer,
            }],
            resources: Resources::from_milli_cpu(Some(250), Some(500), Some(1 << 20)),
            oom_score_adj: Some(-997),
            seccomp: Seccomp::Unconfined,
            ..ContainerConfig::default()
        };
        let body = container(&settings(), &sandbox, &config, false).unwrap();
        check(
            &body,
            &[
                ("/Entrypoint", json!(["sh"])),
                ("/Cmd", Value::Null),
                ("/Env", json!(["B=2", "A=3"])),
                ("/User", json!("7:8")),
                ("/HostConfig/NetworkMode", json!("container:s1")),
                ("/HostConfig/IpcMode", json!("container:s1")),
                ("/HostConfig/PidMode", json!("container:s1")),
                ("/HostConfig/Mounts/0/Source", json!("/a:b")),
                ("/HostConfig/Mounts/0/ReadOnly", json!(true)),
                ("/HostConfig/Mounts/0/BindOptions/Propagation", json!("rslave")),
                ("/HostConfig/CpuShares", json!(256)),
                ("/HostConfig/CpuQuota", json!(50_000)),
                ("/HostConfig/CpuPeriod", json!(100_000)),
                ("/HostConfig/Memory", json!(1 << 20)),
                ("/HostConfig/MemorySwap", json!(1 << 20)),
                ("/HostConfig/OomScoreAdj", json!(0)),
                ("/HostConfig/SecurityOpt", json!(["seccomp=unconfined"])),
                ("/HostConfig/LogConfig/Config/max-size", json!("10m")),
                ("/Healthcheck/Test", json!(["NONE"])),
            ],
        );
        let allowed = container(&settings(), &sandbox, &config, true).unwrap();
        check(&allowed, &[("/HostConfig/OomScoreAdj", json!(-997))]);
    }

    #[test]
    fn what_a_pod_is_protected_by() {
        let config = ContainerConfig {
            app_armor: Some("k8s-nginx".to_owned()),
            se_linux: vec!["level:s0".to_owned()],
            unmasked_proc: true,
            resources: Resources { pids_limit: Some(7), ..Resources::default() },
            mounts: vec![runtime::Mount {
                host_path: "/h".into(),
                descriptor: false,
                container_path: "/c".into(),
                read_only: true,
                recursive_read_only: true,
                propagation: Propagation::Private,
            }],
            ..ContainerConfig::default()
        };
        let recursive = json!({ "Propagation": "rprivate", "ReadOnlyForceRecursive": true });
        check(
            &container(&settings(), &Sandbox::default(), &config, false).unwrap(),
            &[
                ("/HostConfig/SecurityOpt", json!(["apparmor=k8s-nginx", "label=level:s0"])),
                ("/HostConfig/MaskedPaths", json!([])),
                ("/HostConfig/ReadonlyPaths", json!([])),
                ("/HostConfig/PidsLimit", json!(7)),
                ("/HostConfig/Mounts/0/BindOptions", recursive),
            ],
        );
    }

    #[test]
    fn an_open_directory_is_a_volume_without_a_name() {
        let config = ContainerConfig {
            mounts: vec![runtime::Mount {
                host_path: "/proc/7/fd/3".into(),
                descriptor: true,
                container_path: "/c".into(),
                read_only: true,
                recursive_read_only: false,
                propagation: Propagation::Private,
            }],
            ..ContainerConfig::default()
        };
        check(
            &container(&settings(), &Sandbox::default(), &config, false).unwrap(),
            &[
                ("/HostConfig/Mounts/0/Type", json!("volume")),
                ("/HostConfig/Mounts/0/Source", Value::Null),
                ("/HostConfig/Mounts/0/Target", json!("/c")),
                ("/HostConfig/Mounts/0/ReadOnly", json!(true)),
                ("/HostConfig/Mounts/0/VolumeOptions/NoCopy", json!(true)),
                (
                    "/HostConfig/Mounts/0/VolumeOptions/DriverConfig",
                    json!({ "Name": "local", "Options": { "type": "none", "o": "bind", "device": "/proc/7/fd/3" } }),
                ),
            ],
        );
    }

    #[test]
    fn a_group_needs_a_user() {
        let config = ContainerConfig { group: Some(1), ..ContainerConfig::default() };
        assert!(container(&settings(), &Sandbox::default(), &config, true).is_err());
    }
}
