//! The checks of the Pod Security Standards (`staging/src/k8s.io/pod-security-admission/policy`), one row each in [`CHECKS`].
//! A check and its revisions are functions in [`baseline`] or [`restricted`].

mod baseline;
mod restricted;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ContainerPort, Lifecycle, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SecurityContext,
};

use super::policy::{Level, LevelVersion, Version};
use crate::common::list;

pub(super) use baseline::{SECCOMP_CONTAINER, SECCOMP_POD};

/// A check of a pod, with what is wrong with it.
type CheckPod = fn(&PodView<'_>) -> Option<Violation>;

/// One row of the standards.
struct Check {
    /// Upstream's name of the check, in whose order the messages come.
    id: &'static str,
    /// The least strict level at which it is made.
    level: Level,
    /// What is checked, by the minor version from which on, the oldest first.
    revisions: &'static [(i64, CheckPod)],
    /// The check of the level below that it takes the place of, so that no pod is told the same thing twice.
    overrides: Option<&'static str>,
}

impl Check {
    const fn baseline(id: &'static str, revisions: &'static [(i64, CheckPod)]) -> Self {
        Self { id, level: Level::Baseline, revisions, overrides: None }
    }

    const fn restricted(
        id: &'static str,
        revisions: &'static [(i64, CheckPod)],
        overrides: Option<&'static str>,
    ) -> Self {
        Self { id, level: Level::Restricted, revisions, overrides }
    }

    /// What is checked in a version, if anything.
    fn at(&self, version: Version) -> Option<CheckPod> {
        let revision = self.revisions.iter().rev().find(|(since, _)| Version::Minor(*since) <= version);
        revision.map(|(_, check)| *check)
    }
}

/// The checks as of Kubernetes 1.36: those of `baseline` first, then by name, as upstream's `registry.go` sorts them.
///
/// Since 1.25 upstream excuses pods with `os.name: windows` from three of them, and since 1.35 those with `hostUsers: false`
/// from three more, because its kubelet runs neither without Windows, or a user namespace. Here both are run on Linux by the
/// node's own users (`docs/pods.md`), so neither is excused.
static CHECKS: [Check; 18] = [
    Check::baseline("appArmorProfile", &[(0, baseline::app_armor_profile)]),
    Check::baseline("capabilities_baseline", &[(0, baseline::capabilities)]),
    Check::baseline("hostNamespaces", &[(0, baseline::host_namespaces)]),
    Check::baseline("hostPathVolumes", &[(0, baseline::host_path_volumes)]),
    Check::baseline("hostPorts", &[(0, baseline::host_ports)]),
    Check::baseline("hostProbesAndHostLifecycle", &[(34, baseline::host_probes_and_host_lifecycle)]),
    Check::baseline("privileged", &[(0, baseline::privileged)]),
    Check::baseline("procMount", &[(0, baseline::proc_mount)]),
    Check::baseline("seLinuxOptions", &[(0, baseline::se_linux_options_1_0), (31, baseline::se_linux_options_1_31)]),
    Check::baseline("seccompProfile_baseline", &[(0, baseline::seccomp_annotations), (19, baseline::seccomp_profile)]),
    Check::baseline(
        "sysctls",
        &[
            (0, baseline::sysctls_1_0),
            (27, baseline::sysctls_1_27),
            (29, baseline::sysctls_1_29),
            (32, baseline::sysctls_1_32),
        ],
    ),
    Check::baseline("windowsHostProcess", &[(0, baseline::windows_host_process)]),
    Check::restricted("allowPrivilegeEscalation", &[(8, restricted::privilege_escalation)], None),
    Check::restricted("capabilities_restricted", &[(22, restricted::capabilities)], Some("capabilities_baseline")),
    Check::restricted("restrictedVolumes", &[(0, restricted::volumes)], Some("hostPathVolumes")),
    Check::restricted("runAsNonRoot", &[(0, restricted::run_as_non_root)], None),
    Check::restricted("runAsUser", &[(23, restricted::run_as_user)], None),
    Check::restricted(
        "seccompProfile_restricted",
        &[(19, restricted::seccomp_profile)],
        Some("seccompProfile_baseline"),
    ),
];

/// Checks a pod against a level of the standards.
pub(super) fn evaluate(standard: LevelVersion, pod: &PodView<'_>) -> Vec<Violation> {
    let LevelVersion { level, version } = standard;
    let made = |check: &&Check| check.level <= level && check.at(version).is_some();
    let overridden = |id: &str| CHECKS.iter().filter(made).any(|check| check.overrides == Some(id));
    let checks = CHECKS.iter().filter(made).filter(|check| !overridden(check.id));
    checks.filter_map(|check| check.at(version)?(pod)).collect()
}

/// What is wrong with a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// In a few words, of many pods at once.
    reason: &'static str,
    /// Where in the pod it is, and what is to be done.
    detail: String,
}

/// Violations as the message about one pod: `privileged (container "c" must not set …), hostPort (…)`.
pub(super) fn details(violations: &[Violation]) -> String {
    let all = violations.iter().map(|violation| format!("{} ({})", violation.reason, violation.detail));
    all.collect::<Vec<_>>().join(", ")
}

/// Violations as the message about many pods: `privileged, hostPort`.
pub(super) fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ")
}

/// A pod or a template of pods, as the checks look at it.
#[derive(Clone, Copy)]
pub(super) struct PodView<'a> {
    pub(super) annotations: &'a Option<BTreeMap<String, String>>,
    pub(super) spec: &'a PodSpec,
}

impl<'a> PodView<'a> {
    /// What a workload makes pods of, unless it has no specification.
    pub(super) fn of_template(template: &'a PodTemplateSpec) -> Option<Self> {
        let annotations = template.metadata.as_ref().map_or(&None, |meta| &meta.annotations);
        template.spec.as_ref().map(|spec| Self { annotations, spec })
    }

    fn context(&self) -> Option<&'a PodSecurityContext> {
        self.spec.security_context.as_ref()
    }

    /// All containers: of initialisation, ordinary, ephemeral (`visitor.go`).
    fn containers(&self) -> impl Iterator<Item = ContainerView<'a>> {
        let ordinary = list(&self.spec.init_containers).iter().chain(&self.spec.containers);
        let ordinary = ordinary.map(|container| ContainerView {
            name: &container.name,
            context: container.security_context.as_ref(),
            ports: list(&container.ports),
            lifecycle: container.lifecycle.as_ref(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe],
        });
        ordinary.chain(list(&self.spec.ephemeral_containers).iter().map(|container| ContainerView {
            name: &container.name,
            context: container.security_context.as_ref(),
            ports: list(&container.ports),
            lifecycle: container.lifecycle.as_ref(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe],
        }))
    }

    /// The names of the containers of which something is true.
    fn containers_that(&self, bad: impl FnMut(&ContainerView<'a>) -> bool) -> Vec<&'a str> {
        self.containers().filter(bad).map(|container| container.name).collect()
    }
}

/// A container of any list, as the checks look at it.
struct ContainerView<'a> {
    name: &'a str,
    context: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    lifecycle: Option<&'a Lifecycle>,
    probes: [&'a Option<Probe>; 3],
}

/// `container "a"`, `containers "a", "b"`.
fn containers_named(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

/// `pod`, `containers "a", "b"`, `pod and container "a"`; empty when it is neither.
fn setters(pod: bool, containers: &[&str]) -> String {
    let mut setters = if pod { "pod".to_owned() } else { String::new() };
    if !containers.is_empty() {
        setters.push_str(if pod { " and " } else { "" });
        setters.push_str(&containers_named(containers));
    }
    setters
}

fn plural(count: usize, one: &'static str, several: &'static str) -> &'static str {
    if count == 1 { one } else { several }
}

/// `"a", "b"`, not escaped.
fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

/// As [`quoted`], of a set.
fn quoted_set(items: &BTreeSet<&str>) -> String {
    quoted(&items.iter().collect::<Vec<_>>())
}
