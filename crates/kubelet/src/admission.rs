//! Whether a pod that is bound to the node can be run on it at all (upstream: `pkg/kubelet/lifecycle/predicate.go` and the
//! other `PodAdmitHandler`s). One that cannot has failed, and says why. Pure.

mod predicate;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use machinery::well_known::OS;
use runtime::RuntimeInfo;

pub(crate) use predicate::{fits, is_about_labels};

use crate::container::sandbox::normalized;
use crate::eviction::rank::is_critical;
use crate::eviction::signals::Pressure;
use crate::types::failure::{EVICTED, Failure};
use crate::values::resources::qos_class;

/// The kernel parameters that belong to one pod alone, whatever it sets them to (upstream:
/// `pkg/kubelet/sysctl/safe_sysctls.go`). All others are refused unless the node is told to allow them.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Beginnings of the kernel parameters of which each pod has its own, so that a node can be told to allow them (upstream:
/// `sysctlPrefixNamespaces` and `sysctlNamespaces` in `k8s.io/component-helpers/node/util/sysctl/namespace.go`).
const NAMESPACED: [&str; 5] = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue.", "net."];

/// Checks a name of [`Config::allowed_unsafe_sysctls`](crate::Config), which may end in `*`; returns it with dots.
///
/// # Errors
/// In one line, what is wrong with it.
pub fn check_unsafe_sysctl(pattern: &str) -> Result<String, String> {
    let name = normalized(pattern);
    let prefix = name.strip_suffix('*').unwrap_or(&name);
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-/".contains(letter);
    if !prefix.chars().all(fits) || !is_namespaced(prefix) {
        return Err(
            "expected a kernel parameter of which each pod has its own, such as net.core.somaxconn, or several, such \
                    as net.ipv4.*: kernel.sem, kernel.shm*, kernel.msg*, fs.mqueue.*, net.*"
                .to_owned(),
        );
    }
    Ok(name)
}

fn is_namespaced(name: &str) -> bool {
    NAMESPACED.iter().any(|prefix| match *prefix {
        "kernel.sem" => name == "kernel.sem",
        prefix => name.starts_with(prefix),
    })
}

/// Whether a pod is admitted by a node that is short of this, on a runtime like that. `unsafe_sysctls` are allowed beside the
/// safe ones.
pub(crate) fn admit(
    pod: &Pod,
    pressure: Pressure,
    runtime: &RuntimeInfo,
    unsafe_sysctls: &[String],
) -> Result<(), Failure> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    under_pressure(spec, pressure)?;
    // Upstream: `rejectPodAdmissionBasedOnOSSelector`, which looks at the pod's own label.
    if pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS)).is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Failure::rejected("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Failure::rejected("PodOSNotSupported", message));
    }
    sysctls(spec, unsafe_sysctls)?;
    app_armor(spec, runtime)
}

/// Upstream: `Admit` in `pkg/kubelet/eviction/eviction_manager.go`.
fn under_pressure(spec: &PodSpec, pressure: Pressure) -> Result<(), Failure> {
    if pressure == Pressure::default() || is_critical(spec.priority.unwrap_or_default()) {
        return Ok(());
    }
    let only_memory = Pressure { memory: true, ..Pressure::default() };
    if pressure == only_memory
        && (qos_class(spec) != "BestEffort" || spec.tolerations.iter().flatten().any(tolerates_memory_pressure))
    {
        return Ok(());
    }
    let conditions = pressure.conditions().join(" ");
    Err(Failure::rejected(EVICTED, format!("The node had condition: [{conditions}]. ")))
}

fn tolerates_memory_pressure(toleration: &Toleration) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let effect = given(&toleration.effect).is_none_or(|effect| effect == "NoSchedule");
    let key = given(&toleration.key);
    let exists = toleration.operator.as_deref() == Some("Exists");
    effect
        && match key.as_deref() {
            None => exists,
            Some(key) => key == "node.kubernetes.io/memory-pressure" && (exists || given(&toleration.value).is_none()),
        }
}

/// Upstream: `pkg/kubelet/sysctl/allowlist.go`.
fn sysctls(spec: &PodSpec, unsafe_sysctls: &[String]) -> Result<(), Failure> {
    let context = spec.security_context.as_ref();
    for sysctl in context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten() {
        let name = normalized(&sysctl.name);
        let forbidden = |why: &str| {
            let message = format!("forbidden sysctl: sysctl {:?} {why}", sysctl.name);
            Err(Failure::rejected("SysctlForbidden", message))
        };
        let is_allowed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        };
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !unsafe_sysctls.iter().any(is_allowed) {
            return match is_namespaced(&name) {
                true => {
                    forbidden(&format!("not allowlisted (coracle start --allowed-unsafe-sysctls {name} allows it)"))
                }
                false => forbidden("not allowlisted"),
            };
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            return forbidden("not allowed with host net enabled");
        }
        if (name.starts_with("kernel.") || name.starts_with("fs.mqueue.")) && spec.host_ipc == Some(true) {
            return forbidden("not allowed with host ipc enabled");
        }
    }
    Ok(())
}

/// Upstream: `pkg/security/apparmor/validate.go`.
fn app_armor(spec: &PodSpec, runtime: &RuntimeInfo) -> Result<(), Failure> {
    let of_pod = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let own = containers.filter_map(|container| container.security_context.as_ref()?.app_armor_profile.as_ref());
    let is_required = of_pod.into_iter().chain(own).any(|profile| profile.type_ != "Unconfined");
    // Before the runtime has answered nothing is known of it.
    if !is_required || runtime.app_armor || runtime.name.is_empty() {
        return Ok(());
    }
    let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    Err(Failure::rejected("AppArmor", message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[allow(clippy::needless_pass_by_value)] // Cases read best with `json!` in place.
    fn check(spec: Value, pressure: Pressure, expect: Option<(&str, &str)>) {
        let mut spec = spec;
        spec["containers"] = spec.get("containers").cloned().unwrap_or_else(|| json!([{"name": "c"}]));
        let labels = spec.as_object_mut().unwrap().remove("labels");
        let pod = json!({"metadata": {"labels": labels}, "spec": spec});
        let spec: Pod = serde_json::from_value(pod).unwrap();
        let runtime = RuntimeInfo { name: "docker".to_owned(), ..RuntimeInfo::default() };
        let found = admit(&spec, pressure, &runtime, &[]).err();
        let found = found.as_ref().map(|failure| (failure.reason.as_ref(), failure.message.as_str()));
        assert_eq!(found, expect, "{spec:?}");
        if found.is_some_and(|(reason, _)| reason == "AppArmor") {
            let runtime = RuntimeInfo { app_armor: true, ..runtime };
            assert_eq!(admit(&spec, pressure, &runtime, &[]), Ok(()));
        }
    }

    #[test]
    fn under_pressure() {
        let memory = Pressure { memory: true, ..Pressure::default() };
        let disk = Pressure { disk: true, ..Pressure::default() };
        let burstable = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
        let low_on_memory = Some((EVICTED, "The node had condition: [MemoryPressure]. "));
        let low_on_disk = Some((EVICTED, "The node had condition: [DiskPressure]. "));
        check(json!({}), Pressure::default(), None);
        check(json!({}), memory, low_on_memory);
        check(burstable.clone(), memory, None);
        check(burstable, disk, low_on_disk);
        check(json!({"priority": 2_000_000_000}), disk, None);
        for (toleration, tolerated) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}), true),
            (json!({"key": "node.kubernetes.io/memory-pressure"}), true),
            (json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "node.kubernetes.io/disk-pressure", "operator": "Exists"}), false),
        ] {
            let spec = json!({"tolerations": [toleration]});
            check(spec.clone(), memory, if tolerated { None } else { low_on_memory });
            check(spec, disk, low_on_disk);
        }
        let both = Pressure { memory: true, ..disk };
        check(json!({}), both, Some((EVICTED, "The node had condition: [DiskPressure MemoryPressure]. ")));
    }

    #[test]
    fn kernel_parameters() {
        let spec = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        for name in SAFE_SYSCTLS {
            check(spec(name), Pressure::default(), None);
            check(spec(&name.replace('.', "/")), Pressure::default(), None);
        }
        for (name, way_out) in [
            ("kernel.msgmax", " (coracle start --allowed-unsafe-sysctls kernel.msgmax allows it)"),
            ("net/core/somaxconn", " (coracle start --allowed-unsafe-sysctls net.core.somaxconn allows it)"),
            ("vm.swappiness", ""),
            ("net.ipv4/tcp_rmem", " (coracle start --allowed-unsafe-sysctls net.ipv4/tcp_rmem allows it)"),
        ] {
            let message = format!("forbidden sysctl: sysctl {name:?} not allowlisted{way_out}");
            check(spec(name), Pressure::default(), Some(("SysctlForbidden", &message)));
        }
        let mut host = spec("net.ipv4.tcp_rmem");
        host["hostNetwork"] = json!(true);
        let message = "forbidden sysctl: sysctl \"net.ipv4.tcp_rmem\" not allowed with host net enabled";
        check(host, Pressure::default(), Some(("SysctlForbidden", message)));
        let mut host = spec("kernel.shm_rmid_forced");
        host["hostIPC"] = json!(true);
        let message = "forbidden sysctl: sysctl \"kernel.shm_rmid_forced\" not allowed with host ipc enabled";
        check(host, Pressure::default(), Some(("SysctlForbidden", message)));
    }

    #[test]
    fn unsafe_kernel_parameters_that_are_allowed() {
        let allowed = ["kernel.msgmax", "net/core/*"].map(|pattern| check_unsafe_sysctl(pattern).unwrap());
        let is_admitted = |name: &str, more: Value| {
            let mut spec = json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let spec: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            admit(&spec, Pressure::default(), &RuntimeInfo::default(), &allowed).is_ok()
        };
        assert!(is_admitted("kernel.msgmax", json!({})) && is_admitted("net.core.somaxconn", json!({})));
        assert!(is_admitted("net/core/somaxconn", json!({})) && !is_admitted("net.ipv4.tcp_mem", json!({})));
        assert!(!is_admitted("kernel.msgmax", json!({"hostIPC": true})));
        assert!(!is_admitted("net.core.somaxconn", json!({"hostNetwork": true})));
        for wrong in ["", "*", "vm.swappiness", "kernel.*", "kernel.semx", "net.ipv4.*.x", "net.a b"] {
            assert!(check_unsafe_sysctl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_machine_does_not_have() {
        let windows = Some(("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"));
        check(json!({"os": {"name": "windows"}}), Pressure::default(), windows);
        check(json!({"os": {"name": "linux"}}), Pressure::default(), None);
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        let labelled = Some(("PodOSSelectorNodeLabelDoesNotMatch", message));
        check(json!({"labels": {"kubernetes.io/os": "windows"}}), Pressure::default(), labelled);
        check(json!({"labels": {"kubernetes.io/os": "linux"}}), Pressure::default(), None);
        let app_armor = Some(("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"));
        let local = json!({"type": "Localhost", "localhostProfile": "p"});
        check(json!({"securityContext": {"appArmorProfile": local}}), Pressure::default(), app_armor);
        let container = |kind: &str| json!({"name": "c", "securityContext": {"appArmorProfile": {"type": kind}}});
        check(json!({"containers": [container("RuntimeDefault")]}), Pressure::default(), app_armor);
        check(json!({"containers": [container("Unconfined")]}), Pressure::default(), None);
    }
}
