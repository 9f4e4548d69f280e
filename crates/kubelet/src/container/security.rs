//! Who a container runs as, and what it may do.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use runtime::{ContainerConfig, Image, Seccomp};

/// Writes the security settings into `config`. The error is the message of `CreateContainerConfigError`.
pub(super) fn apply(
    spec: &PodSpec,
    container: &Container,
    image: &Image,
    pod: &str,
    config: &mut ContainerConfig,
) -> Result<(), String> {
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();

    let user = own.run_as_user.or(of_pod.run_as_user);
    let group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        non_root(user, image, pod, &container.name)?;
    }
    // The runtime takes a group only together with a user.
    config.user = user.or(group.and_then(|_| image.uid()));
    config.group = group.filter(|_| config.user.is_some());
    let mut groups = of_pod.supplemental_groups.unwrap_or_default();
    groups.extend(of_pod.fs_group);
    config.supplemental_groups = groups;

    config.privileged = own.privileged == Some(true);
    config.read_only_root = own.read_only_root_filesystem == Some(true);
    config.no_new_privileges = own.allow_privilege_escalation == Some(false) && !config.privileged;
    let capabilities = own.capabilities.unwrap_or_default();
    config.capabilities_add = capabilities.add.unwrap_or_default();
    config.capabilities_drop = capabilities.drop.unwrap_or_default();

    let profile = own.seccomp_profile.or(of_pod.seccomp_profile);
    config.seccomp = match profile {
        _ if config.privileged => Seccomp::Unconfined,
        Some(profile) => match profile.type_.as_str() {
            "Unconfined" => Seccomp::Unconfined,
            "Localhost" => {
                let path = profile.localhost_profile.unwrap_or_default();
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| format!("cannot load seccomp profile \"{path}\": {error}"))?;
                Seccomp::Profile(text)
            }
            _ => Seccomp::RuntimeDefault,
        },
        // Upstream's default is no filter; the runtime's own is the safer one, and what Docker's users expect.
        None => Seccomp::RuntimeDefault,
    };
    Ok(())
}

fn non_root(user: Option<i64>, image: &Image, pod: &str, container: &str) -> Result<(), String> {
    let place = format!("(pod: \"{pod}\", container: {container})");
    match user {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => Ok(()),
        None => match image.uid() {
            Some(0) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
            Some(_) => Ok(()),
            None => {
                let user = image.user.split(':').next().unwrap_or_default();
                Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
                ))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[allow(clippy::needless_pass_by_value)] // Cases read best with `json!` in place.
    fn check(of_pod: Value, own: Value, user: &str) -> Result<ContainerConfig, String> {
        let container: Container = serde_json::from_value(json!({"name": "c", "securityContext": own})).unwrap();
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "securityContext": of_pod})).unwrap();
        let image = Image { user: user.to_owned(), ..Image::default() };
        let mut config = ContainerConfig::default();
        apply(&spec, &container, &image, "p_ns(u)", &mut config).map(|()| config)
    }

    #[test]
    fn users_and_groups() {
        let config = check(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            json!({"runAsUser": 5}),
            "",
        )
        .unwrap();
        assert_eq!((config.user, config.group), (Some(5), Some(2)));
        assert_eq!(config.supplemental_groups, [4, 3]);
        let config = check(json!({"runAsGroup": 2}), json!({}), "1000").unwrap();
        assert_eq!((config.user, config.group), (Some(1000), Some(2)));
    }

    #[test]
    fn non_root_is_verified() {
        let non_root = json!({"runAsNonRoot": true});
        for (own, user, error) in [
            (json!({}), "1000", None),
            (json!({"runAsUser": 7}), "", None),
            (json!({}), "", Some("container has runAsNonRoot and image will run as root")),
            (json!({}), "nginx", Some("image has non-numeric user (nginx), cannot verify user is non-root")),
            (
                json!({"runAsUser": 0}),
                "1000",
                Some("container's runAsUser breaks non-root policy (pod: \"p_ns(u)\", container: c)"),
            ),
        ] {
            let result = check(non_root.clone(), own, user);
            match error {
                None => assert!(result.is_ok()),
                Some(part) => assert!(result.unwrap_err().contains(part), "{part}"),
            }
        }
    }

    #[test]
    fn privileges() {
        let config = check(
            json!({}),
            json!({"privileged": true, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}),
            "",
        )
        .unwrap();
        assert!(config.privileged && config.read_only_root && !config.no_new_privileges);
        assert_eq!(config.capabilities_add, ["NET_ADMIN"]);
        assert_eq!(config.capabilities_drop, ["ALL"]);
        assert_eq!(config.seccomp, Seccomp::Unconfined);
    }
}
