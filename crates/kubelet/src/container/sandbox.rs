//! A pod's sandbox, as the runtime is asked for it. Pure.

use k8s_openapi::api::core::v1::PodSpec;
use runtime::{PortMapping, Protocol, RuntimeInfo, SandboxConfig};

use super::files::{domain, kernel_name};
use crate::types::desired::DesiredPod;

/// How to make the sandbox of a pod, in a cluster of this domain.
pub(crate) fn config(desired: &DesiredPod, attempt: u32, cluster_domain: &str) -> SandboxConfig {
    let empty = PodSpec::default();
    let spec = desired.spec().unwrap_or(&empty);
    let host_network = spec.host_network == Some(true);
    let sysctls = spec
        .security_context
        .iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|sysctl| (normalized(&sysctl.name), sysctl.value.clone()))
        .collect();
    let domain = domain(spec, &desired.identity.namespace, cluster_domain);
    SandboxConfig {
        pod: desired.identity.clone(),
        attempt,
        hostname: kernel_name(spec, &desired.identity.name, domain.as_deref()),
        host_network,
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_process_namespace: spec.share_process_namespace == Some(true),
        ports: match host_network {
            true => Vec::new(),
            false => ports(spec),
        },
        sysctls,
        labels: desired.pod.metadata.labels.clone().unwrap_or_default(),
        ..SandboxConfig::default()
    }
}

/// Why no sandbox is made for a pod: its processes would have more rights on the machine than it asks for. (Upstream:
/// `pkg/kubelet/userns/userns_manager.go`.)
pub(crate) fn refusal(desired: &DesiredPod, runtime: &RuntimeInfo) -> Option<&'static str> {
    let own_users = desired.spec().is_some_and(|spec| spec.host_users == Some(false));
    (own_users && !runtime.user_namespaces).then_some(
        "hostUsers: false cannot be enforced, for the Docker daemon has no user namespaces: start it with --userns-remap, \
         or remove the field",
    )
}

/// The name with dots: `net/ipv4/tcp_rmem` is another way to write it (sysctl(8)).
pub(crate) fn normalized(sysctl: &str) -> String {
    match sysctl.find(['.', '/']) {
        Some(at) if sysctl.as_bytes()[at] == b'/' => sysctl
            .chars()
            .map(|letter| match letter {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => sysctl.to_owned(),
    }
}

fn ports(spec: &PodSpec) -> Vec<PortMapping> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|init| init.restart_policy.as_deref() == Some("Always"));
    sidecars
        .chain(&spec.containers)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(PortMapping {
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                host_port: u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect()
}
