//! Ephemeral containers: they have the fields of any container, and a type of their own.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer};

/// The container that an ephemeral one is, but for whose processes it wants to see.
#[must_use]
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let source = ephemeral.clone();
    Container {
        args: source.args,
        command: source.command,
        env: source.env,
        env_from: source.env_from,
        image: source.image,
        image_pull_policy: source.image_pull_policy,
        lifecycle: source.lifecycle,
        liveness_probe: source.liveness_probe,
        name: source.name,
        ports: source.ports,
        readiness_probe: source.readiness_probe,
        resize_policy: source.resize_policy,
        resources: source.resources,
        restart_policy: source.restart_policy,
        restart_policy_rules: source.restart_policy_rules,
        security_context: source.security_context,
        startup_probe: source.startup_probe,
        stdin: source.stdin,
        stdin_once: source.stdin_once,
        termination_message_path: source.termination_message_path,
        termination_message_policy: source.termination_message_policy,
        tty: source.tty,
        volume_devices: source.volume_devices,
        volume_mounts: source.volume_mounts,
        working_dir: source.working_dir,
    }
}
