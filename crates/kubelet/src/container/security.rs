//! Who a container runs as, and what it may do.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use runtime::{ContainerConfig, Image, Seccomp};

use super::error::ConfigError;

/// The longest seccomp profile, in bytes: a hundred times what Docker's own takes.
const LONGEST_PROFILE: u64 = 1 << 20;

/// Writes the security settings into `config`. Blocks: a seccomp profile is read, from below `seccomp_profiles`.
pub(super) fn apply(
    spec: &PodSpec,
    container: &Container,
    image: &Image,
    pod: &str,
    seccomp_profiles: &Path,
    config: &mut ContainerConfig,
) -> Result<(), ConfigError> {
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
        Some(profile) => seccomp(&profile, seccomp_profiles)?,
        // Upstream's default is no filter; the runtime's own is the safer one, and what Docker's users expect.
        None => Seccomp::RuntimeDefault,
    };
    Ok(())
}

fn seccomp(profile: &SeccompProfile, profiles: &Path) -> Result<Seccomp, ConfigError> {
    match profile.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            // Upstream: `pkg/kubelet/kuberuntime/helpers.go`, `fieldSeccompProfile`.
            let local = profile.localhost_profile.as_deref().filter(|local| !local.is_empty());
            let local = local.ok_or("localhostProfile must be set if seccompProfile type is Localhost.")?;
            let text = read_profile(profiles, Path::new(local));
            text.map(Seccomp::Profile).map_err(|error| {
                // In upstream the runtime reads the file, and says these words.
                let path = profiles.join(local);
                let path = path.display();
                let why = match error.kind() {
                    io::ErrorKind::NotFound => format!("open {path}: no such file or directory"),
                    _ => error.to_string(),
                };
                ConfigError::Create(format!("cannot load seccomp profile \"{path}\": {why}"))
            })
        }
        _ => Ok(Seccomp::RuntimeDefault),
    }
}

fn read_profile(profiles: &Path, local: &Path) -> io::Result<String> {
    let text = hostfs::read_beneath(profiles, local, LONGEST_PROFILE)?;
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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
        let profiles = Path::new("/no/such/folder");
        let applied = apply(&spec, &container, &image, "p_ns(u)", profiles, &mut config);
        applied.map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_local_profile_is_a_file_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let profiles = folder.path().join("seccomp");
        std::fs::create_dir_all(profiles.join("sub")).unwrap();
        std::fs::write(folder.path().join("outside.json"), "{}").unwrap();
        std::fs::write(profiles.join("sub/deny.json"), r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#).unwrap();
        std::fs::write(profiles.join("binary"), [0xff]).unwrap();
        let sparse = std::fs::File::create(profiles.join("sparse")).unwrap();
        sparse.set_len(4 << 30).unwrap();
        std::os::unix::fs::symlink("/dev/zero", profiles.join("zero")).unwrap();
        for (local, expect) in [
            ("sub/deny.json", Ok(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#)),
            ("none.json", Err("no such file or directory")),
            ("dev/zero", Err("no such file or directory")),
            ("zero", Err("leads out of its directory")),
            ("/dev/zero", Err("leads out of its directory")),
            ("../outside.json", Err("leads out of its directory")),
            ("sub", Err("not a regular file")),
            ("sparse", Err("longer than 1048576 bytes")),
            ("binary", Err("invalid utf-8")),
        ] {
            let profile = json!({"type": "Localhost", "localhostProfile": local});
            let found = seccomp(&serde_json::from_value(profile).unwrap(), &profiles);
            match (found, expect) {
                (Ok(Seccomp::Profile(text)), Ok(expect)) => assert_eq!(text, expect),
                (Err(ConfigError::Create(message)), Err(part)) => {
                    assert!(message.starts_with("cannot load seccomp profile \""), "{message}");
                    assert!(message.contains(part), "{local}: {message}");
                }
                (found, _) => panic!("{local}: {found:?}"),
            }
        }
        let none = serde_json::from_value(json!({"type": "Localhost"})).unwrap();
        assert!(matches!(seccomp(&none, &profiles), Err(ConfigError::Config(_))));
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
