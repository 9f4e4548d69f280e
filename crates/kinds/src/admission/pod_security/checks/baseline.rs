//! The checks of the level `baseline`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{LifecycleHandler, Probe, SELinuxOptions};
use machinery::field::quote;

use super::{PodView, Violation, containers_named, plural, quoted, quoted_set, setters};
use crate::common::{entries, entry, list, text};

/// What may be added to the capabilities of a container.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// The types of SELinux that a container may have; the last one from v1.31 on.
const SE_LINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// The sysctls that are kept apart by pod, the oldest five first; then one of v1.27, four of v1.29, two of v1.32.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
/// AppArmor profiles before there was a field.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Seccomp profiles before there was a field: of the pod, and of a container.
pub(in crate::admission::pod_security) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(in crate::admission::pod_security) const SECCOMP_CONTAINER: &str =
    "container.seccomp.security.alpha.kubernetes.io/";

/// No AppArmor profile but the runtime's and those of the node.
pub(super) fn app_armor_profile(pod: &PodView<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let is_bad = |kind: &str| !matches!(kind, "RuntimeDefault" | "Localhost");
    let of_pod = pod.context().and_then(|context| context.app_armor_profile.as_ref());
    let of_pod = of_pod.filter(|profile| is_bad(&profile.type_));
    types.extend(of_pod.map(|profile| profile.type_.as_str()));
    let containers = pod.containers_that(|container| {
        let profile = container.context.and_then(|context| context.app_armor_profile.as_ref());
        let profile = profile.filter(|profile| is_bad(&profile.type_));
        types.extend(profile.map(|profile| profile.type_.as_str()));
        profile.is_some()
    });
    let is_fine = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations = entries(pod.annotations).filter(|(key, value)| key.starts_with(APP_ARMOR) && !is_fine(value));
    let annotations: Vec<String> = annotations.map(|(key, value)| format!("{key}={}", quote(value))).collect();

    let mut culprits = setters(of_pod.is_some(), &containers);
    if !annotations.is_empty() {
        culprits.push_str(if culprits.is_empty() { "" } else { " and " });
        culprits.push_str(plural(annotations.len(), "annotation", "annotations"));
    }
    if culprits.is_empty() {
        return None;
    }
    let values: Vec<&str> = types.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    Some(Violation {
        reason: plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles"),
        detail: format!("{culprits} must not set AppArmor profile type to {}", quoted(&values)),
    })
}

/// No capabilities beyond those that containers have by default, and not `NET_RAW`.
pub(super) fn capabilities(pod: &PodView<'_>) -> Option<Violation> {
    let (containers, added) = adding_beyond(pod, &CAPABILITIES);
    (!containers.is_empty())
        .then(|| Violation { reason: "non-default capabilities", detail: must_not_add(&containers, &added) })
}

/// The containers that add other capabilities than these, and which.
pub(super) fn adding_beyond<'a>(pod: &PodView<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut beyond = BTreeSet::new();
    let containers = pod.containers_that(|container| {
        let capabilities = container.context.and_then(|context| context.capabilities.as_ref());
        let added = capabilities.map_or(&[][..], |capabilities| list(&capabilities.add));
        let mut bad = added.iter().map(String::as_str).filter(|name| !allowed.contains(name)).peekable();
        let adds = bad.peek().is_some();
        beyond.extend(bad);
        adds
    });
    (containers, beyond)
}

pub(super) fn must_not_add(containers: &[&str], added: &BTreeSet<&str>) -> String {
    format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers_named(containers),
        quoted_set(added)
    )
}

/// No namespaces of the node.
pub(super) fn host_namespaces(pod: &PodView<'_>) -> Option<Violation> {
    let spec = pod.spec;
    let shared = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let shared = shared.into_iter().filter(|(_, shared)| *shared == Some(true));
    let shared: Vec<String> = shared.map(|(name, _)| format!("{name}=true")).collect();
    (!shared.is_empty()).then(|| Violation { reason: "host namespaces", detail: shared.join(", ") })
}

/// No directories of the node.
pub(super) fn host_path_volumes(pod: &PodView<'_>) -> Option<Violation> {
    let volumes = list(&pod.spec.volumes).iter().filter(|volume| volume.host_path.is_some());
    let volumes: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    (!volumes.is_empty()).then(|| Violation {
        reason: "hostPath volumes",
        detail: format!("{} {}", plural(volumes.len(), "volume", "volumes"), quoted(&volumes)),
    })
}

/// No ports of the node.
pub(super) fn host_ports(pod: &PodView<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let containers = pod.containers_that(|container| {
        let mut host_ports =
            container.ports.iter().filter_map(|port| port.host_port.filter(|port| *port != 0)).peekable();
        let uses = host_ports.peek().is_some();
        // Upstream sorts them as texts.
        ports.extend(host_ports.map(|port| port.to_string()));
        uses
    });
    (!containers.is_empty()).then(|| Violation {
        reason: "hostPort",
        detail: format!(
            "{} {} {} {}",
            containers_named(&containers),
            plural(containers.len(), "uses", "use"),
            plural(ports.len(), "hostPort", "hostPorts"),
            ports.into_iter().collect::<Vec<_>>().join(", ")
        ),
    })
}

/// No probes and hooks that the kubelet sends elsewhere than to the pod.
pub(super) fn host_probes_and_host_lifecycle(pod: &PodView<'_>) -> Option<Violation> {
    let mut hosts = BTreeSet::new();
    let containers = pod.containers_that(|container| {
        let before = container.probes.into_iter().flatten().flat_map(hosts_of_probe);
        let hooks = container.lifecycle.map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
        let hooks = hooks.into_iter().flatten().flatten().flat_map(hosts_of_handler);
        let mut bad = before.chain(hooks).filter(|host| !host.is_empty()).peekable();
        let uses = bad.peek().is_some();
        hosts.extend(bad);
        uses
    });
    let containers: BTreeSet<&str> = containers.into_iter().collect();
    let containers: Vec<&str> = containers.into_iter().collect();
    (!containers.is_empty()).then(|| Violation {
        reason: "probe or lifecycle host",
        detail: format!(
            "{} {} {} {}",
            containers_named(&containers),
            plural(containers.len(), "uses", "use"),
            plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
            quoted_set(&hosts)
        ),
    })
}

fn hosts_of_probe(probe: &Probe) -> [&str; 2] {
    [
        probe.http_get.as_ref().map_or("", |get| text(&get.host)),
        probe.tcp_socket.as_ref().map_or("", |socket| text(&socket.host)),
    ]
}

fn hosts_of_handler(handler: &LifecycleHandler) -> [&str; 2] {
    [
        handler.http_get.as_ref().map_or("", |get| text(&get.host)),
        handler.tcp_socket.as_ref().map_or("", |socket| text(&socket.host)),
    ]
}

/// No privileged containers.
pub(super) fn privileged(pod: &PodView<'_>) -> Option<Violation> {
    let containers =
        pod.containers_that(|container| container.context.is_some_and(|context| context.privileged == Some(true)));
    (!containers.is_empty()).then(|| Violation {
        reason: "privileged",
        detail: format!("{} must not set securityContext.privileged=true", containers_named(&containers)),
    })
}

/// No `/proc` without its masks.
pub(super) fn proc_mount(pod: &PodView<'_>) -> Option<Violation> {
    let mut mounts = BTreeSet::new();
    let containers = pod.containers_that(|container| {
        let mount = container.context.and_then(|context| context.proc_mount.as_deref());
        let mount = mount.filter(|mount| *mount != "Default");
        mounts.extend(mount);
        mount.is_some()
    });
    (!containers.is_empty()).then(|| Violation {
        reason: "procMount",
        detail: format!(
            "{} must not set securityContext.procMount to {}",
            containers_named(&containers),
            quoted_set(&mounts)
        ),
    })
}

pub(super) fn se_linux_options_1_0(pod: &PodView<'_>) -> Option<Violation> {
    se_linux_options(pod, &SE_LINUX_TYPES[..4])
}

pub(super) fn se_linux_options_1_31(pod: &PodView<'_>) -> Option<Violation> {
    se_linux_options(pod, &SE_LINUX_TYPES)
}

/// No SELinux user or role, and no type but those of containers.
fn se_linux_options(pod: &PodView<'_>, allowed: &[&str]) -> Option<Violation> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |options: &SELinuxOptions| {
        let kind = text(&options.type_);
        let bad_type = !allowed.contains(&kind);
        if bad_type {
            types.insert(kind.to_owned());
        }
        let (sets_user, sets_role) = (!text(&options.user).is_empty(), !text(&options.role).is_empty());
        user |= sets_user;
        role |= sets_role;
        bad_type || sets_user || sets_role
    };
    let of_pod = pod.context().and_then(|context| context.se_linux_options.as_ref()).is_some_and(&mut is_bad);
    let containers = pod.containers_that(|container| {
        container.context.and_then(|context| context.se_linux_options.as_ref()).is_some_and(&mut is_bad)
    });
    if !of_pod && containers.is_empty() {
        return None;
    }
    let types: Vec<String> = types.into_iter().collect();
    let mut bad = Vec::new();
    if !types.is_empty() {
        bad.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(&types)));
    }
    bad.extend(user.then(|| "user may not be set".to_owned()));
    bad.extend(role.then(|| "role may not be set".to_owned()));
    let setters = setters(of_pod, &containers);
    Some(Violation {
        reason: "seLinuxOptions",
        detail: format!("{setters} set forbidden securityContext.seLinuxOptions: {}", bad.join("; ")),
    })
}

/// No seccomp profile but the runtime's and those of the node, by the annotations that came before the field.
pub(super) fn seccomp_annotations(pod: &PodView<'_>) -> Option<Violation> {
    let is_fine =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let keys = pod.containers().map(|container| format!("{SECCOMP_CONTAINER}{}", container.name));
    let keys: BTreeSet<String> = keys.chain([SECCOMP_POD.to_owned()]).collect();
    let set = keys.iter().filter_map(|key| entry(pod.annotations, key).map(|value| (key, value)));
    let bad = set.filter(|(_, value)| !is_fine(value)).map(|(key, value)| format!("{key}={}", quote(value)));
    let bad: Vec<String> = bad.collect();
    (!bad.is_empty()).then(|| Violation {
        reason: "seccompProfile",
        detail: format!("forbidden {} {}", plural(bad.len(), "annotation", "annotations"), bad.join(", ")),
    })
}

/// The same, by the field.
pub(super) fn seccomp_profile(pod: &PodView<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let of_pod = pod.context().and_then(|context| context.seccomp_profile.as_ref());
    let of_pod = of_pod.filter(|profile| !is_seccomp_type(&profile.type_));
    types.extend(of_pod.map(|profile| profile.type_.as_str()));
    let containers = pod.containers_that(|container| {
        let profile = container.context.and_then(|context| context.seccomp_profile.as_ref());
        let profile = profile.filter(|profile| !is_seccomp_type(&profile.type_));
        types.extend(profile.map(|profile| profile.type_.as_str()));
        profile.is_some()
    });
    let setters = setters(of_pod.is_some(), &containers);
    (!setters.is_empty()).then(|| Violation {
        reason: "seccompProfile",
        detail: format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted_set(&types)),
    })
}

/// Whether a seccomp profile of that type confines a container.
pub(super) fn is_seccomp_type(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

pub(super) fn sysctls_1_0(pod: &PodView<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..5])
}

pub(super) fn sysctls_1_27(pod: &PodView<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..6])
}

pub(super) fn sysctls_1_29(pod: &PodView<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..10])
}

pub(super) fn sysctls_1_32(pod: &PodView<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS)
}

/// No sysctls but those that are kept apart by pod.
fn sysctls(pod: &PodView<'_>, allowed: &[&str]) -> Option<Violation> {
    let set = pod.context().map_or(&[][..], |context| list(&context.sysctls));
    let bad = set.iter().map(|sysctl| sysctl.name.as_str()).filter(|name| !allowed.contains(name));
    let bad: Vec<&str> = bad.collect();
    (!bad.is_empty()).then(|| Violation { reason: "forbidden sysctls", detail: bad.join(", ") })
}

/// No processes of the node itself, on Windows.
pub(super) fn windows_host_process(pod: &PodView<'_>) -> Option<Violation> {
    let of_pod = pod.context().and_then(|context| context.windows_options.as_ref());
    let of_pod = of_pod.is_some_and(|options| options.host_process == Some(true));
    let containers = pod.containers_that(|container| {
        let options = container.context.and_then(|context| context.windows_options.as_ref());
        options.is_some_and(|options| options.host_process == Some(true))
    });
    let setters = setters(of_pod, &containers);
    (!setters.is_empty()).then(|| Violation {
        reason: "hostProcess",
        detail: format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    })
}
