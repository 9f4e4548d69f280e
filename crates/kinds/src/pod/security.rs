//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;

use crate::check::{Report, descending_path, optional_one_of};
use crate::common::list;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_RULE: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Validates the security context of a pod.
pub(super) fn validate_pod(errors: &mut ErrorList, path: &Path, context: &PodSecurityContext, spec: &PodSpec) {
    for (name, id) in
        [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)]
    {
        identity(errors, &path.child(name), id);
    }
    for (index, group) in list(&context.supplemental_groups).iter().enumerate() {
        identity(errors, &path.child("supplementalGroups").index(index), Some(*group));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        errors.invalid(
            &path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    sysctls(errors, &path.child("sysctls"), context, spec);
    optional_one_of(
        errors,
        &path.child("fsGroupChangePolicy"),
        &context.fs_group_change_policy,
        &["Always", "OnRootMismatch"],
    );
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    app_armor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
    optional_one_of(
        errors,
        &path.child("supplementalGroupsPolicy"),
        &context.supplemental_groups_policy,
        &["Merge", "Strict"],
    );
    optional_one_of(
        errors,
        &path.child("seLinuxChangePolicy"),
        &context.se_linux_change_policy,
        &["MountOption", "Recursive"],
    );
}

/// Validates the security context of a container; `host_users`: the pod has no user namespace of its own.
pub(super) fn validate_container(errors: &mut ErrorList, path: &Path, context: &SecurityContext, host_users: bool) {
    identity(errors, &path.child("runAsUser"), context.run_as_user);
    identity(errors, &path.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = &context.proc_mount {
        let path = path.child("procMount");
        if !["Default", "Unmasked"].contains(&mount.as_str()) {
            errors.not_supported(&path, mount, &["Default", "Unmasked"]);
        }
        if host_users && mount == "Unmasked" {
            errors.invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            errors.invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.capabilities.as_ref().map_or(&[][..], |capabilities| list(&capabilities.add));
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            errors.invalid(
                path,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    app_armor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
}

/// Validates what `hostUsers: false` excludes.
pub(super) fn validate_host_users(errors: &mut ErrorList, path: &Path, spec: &PodSpec) {
    if spec.host_users != Some(false) {
        return;
    }
    for (set, name) in [(spec.host_network, "hostNetwork"), (spec.host_pid, "HostPID"), (spec.host_ipc, "HostIPC")] {
        if set == Some(true) {
            errors.forbidden(&path.child(name), "when `pod.Spec.HostUsers` is false");
        }
    }
}

fn identity(errors: &mut ErrorList, path: &Path, id: Option<i64>) {
    if let Some(id) = id {
        errors.messages(path, id, validate::user_id(id));
    }
}

fn seccomp(errors: &mut ErrorList, path: &Path, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        kind if !PROFILES.contains(&kind) => errors.not_supported(&path.child("type"), kind, &PROFILES),
        _ => {}
    }
    let path = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => errors.required(&path, "must be set when seccomp type is Localhost"),
        (Some(local), true) => descending_path(errors, &path, local),
        (Some(_), false) => errors.invalid(&path, profile, "can only be set when seccomp type is Localhost"),
        (None, false) => {}
    }
}

fn app_armor(errors: &mut ErrorList, path: &Path, profile: Option<&AppArmorProfile>) {
    const LONGEST_PATH: usize = 4095;
    let Some(profile) = profile else { return };
    let local = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.required(&local, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&local, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.required(&local, "must be set when AppArmor type is Localhost");
            }
            if name.len() > LONGEST_PATH {
                errors.push(FieldError::too_long(&local, "", LONGEST_PATH));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&local, name, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => errors.not_supported(&path.child("type"), other, &PROFILES),
    }
}

fn sysctls(errors: &mut ErrorList, path: &Path, context: &PodSecurityContext, spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (index, sysctl) in list(&context.sysctls).iter().enumerate() {
        let path = path.index(index).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            errors.invalid(&path, name, SYSCTL_RULE);
        } else if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        // The kernel keeps these per namespace, so that a pod in the host's namespace would change the host.
        let dotted = name.replace('/', ".");
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if spec.host_ipc == Some(true) && is_ipc_sysctl(&dotted) {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_ipc_sysctl(name: &str) -> bool {
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

fn is_sysctl(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.len() <= 253
        && name.split(['.', '/']).map(str::as_bytes).all(|segment| {
            is_end(segment.first())
                && is_end(segment.last())
                && segment.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        })
}
