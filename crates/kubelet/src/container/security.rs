//! Who a container runs as, and what it may do.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSpec, SELinuxOptions, SeccompProfile};
use runtime::{ContainerConfig, Image, Seccomp};

use super::error::ConfigError;

/// The longest seccomp profile, in bytes: a hundred times what Docker's own takes.
const LONGEST_PROFILE: u64 = 1 << 20;

/// What settings depend on beside the pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine<'a> {
    /// The pod, as messages name it.
    pub(super) pod: &'a str,
    /// Where seccomp profiles of the machine are.
    pub(super) seccomp_profiles: &'a Path,
    /// Whether AppArmor confines containers.
    pub(super) app_armor: bool,
}

/// Writes the security settings into `config`. Blocks: a seccomp profile is read.
pub(super) fn apply(
    spec: &PodSpec,
    container: &Container,
    image: &Image,
    machine: Machine<'_>,
    config: &mut ContainerConfig,
) -> Result<(), ConfigError> {
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let pod = machine.pod;

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
    if of_pod.supplemental_groups_policy.as_deref() == Some("Strict") {
        strict_groups(image, config)?;
    }

    config.privileged = own.privileged == Some(true);
    config.read_only_root = own.read_only_root_filesystem == Some(true);
    config.no_new_privileges = own.allow_privilege_escalation == Some(false) && !config.privileged;
    let capabilities = own.capabilities.unwrap_or_default();
    config.capabilities_add = capabilities.add.unwrap_or_default();
    config.capabilities_drop = capabilities.drop.unwrap_or_default();

    let profile = own.seccomp_profile.or(of_pod.seccomp_profile);
    config.seccomp = match profile {
        _ if config.privileged => Seccomp::Unconfined,
        Some(profile) => seccomp(&profile, machine.seccomp_profiles)?,
        // Upstream's default is no filter; the runtime's own is the safer one, and what Docker's users expect.
        None => Seccomp::RuntimeDefault,
    };
    config.app_armor = app_armor(own.app_armor_profile.or(of_pod.app_armor_profile), machine.app_armor)?;
    config.se_linux = se_linux(own.se_linux_options.or(of_pod.se_linux_options));
    config.unmasked_proc = own.proc_mount.as_deref() == Some("Unmasked");
    Ok(())
}

/// Makes sure that a container has no groups but those of its specification. The runtime adds those of the image's
/// `/etc/group` to a user that comes without a group, and to no other.
fn strict_groups(image: &Image, config: &mut ContainerConfig) -> Result<(), String> {
    let of_image = config.user.is_none() && image.user.contains(':');
    if config.group.is_some() || of_image {
        return Ok(());
    }
    if config.user.or(image.uid()) == Some(0) {
        (config.user, config.group) = (Some(0), Some(0));
        return Ok(());
    }
    Err("supplementalGroupsPolicy Strict cannot be enforced without runAsGroup: the group of the user is in the image"
        .to_owned())
}

/// The profile by the runtime's name for it.
fn app_armor(profile: Option<AppArmorProfile>, enabled: bool) -> Result<Option<String>, String> {
    let Some(profile) = profile else { return Ok(None) };
    match profile.type_.as_str() {
        // There is nothing to be free of.
        "Unconfined" => Ok(enabled.then(|| "unconfined".to_owned())),
        _ if !enabled => Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned()),
        "Localhost" => Ok(profile.localhost_profile),
        _ => Ok(None),
    }
}

/// The labels that are set. A machine without SELinux has none.
fn se_linux(options: Option<SELinuxOptions>) -> Vec<String> {
    let SELinuxOptions { level, role, type_, user } = options.unwrap_or_default();
    let all = [("user", user), ("role", role), ("type", type_), ("level", level)];
    let set = all.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    set.map(|(name, value)| format!("{name}:{value}")).collect()
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

    /// An image on a machine without AppArmor.
    const NO_APP_ARMOR: &str = "7:7";

    #[allow(clippy::needless_pass_by_value)] // Cases read best with `json!` in place.
    fn check(of_pod: Value, own: Value, user: &str) -> Result<ContainerConfig, String> {
        let container: Container = serde_json::from_value(json!({"name": "c", "securityContext": own})).unwrap();
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "securityContext": of_pod})).unwrap();
        let image = Image { user: user.to_owned(), ..Image::default() };
        let mut config = ContainerConfig::default();
        let machine =
            Machine { pod: "p_ns(u)", seccomp_profiles: Path::new("/no/such/folder"), app_armor: user != NO_APP_ARMOR };
        let applied = apply(&spec, &container, &image, machine, &mut config);
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
    fn groups_of_the_image_are_left_out_or_it_is_said() {
        let strict = |more: Value| {
            let mut context = json!({"supplementalGroupsPolicy": "Strict", "supplementalGroups": [4]});
            context.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            context
        };
        for (of_pod, user, expect) in [
            (json!({"runAsUser": 5, "runAsGroup": 6}), "", Some((Some(5), Some(6)))),
            (json!({"runAsGroup": 6}), "1000", Some((Some(1000), Some(6)))),
            (json!({}), "", Some((Some(0), Some(0)))),
            (json!({}), "1000:1000", Some((None, None))),
            (json!({"runAsUser": 5}), "1000:1000", None),
            (json!({}), "1000", None),
            (json!({}), "nginx", None),
        ] {
            match (check(strict(of_pod.clone()), json!({}), user), expect) {
                (Ok(config), Some(expect)) => assert_eq!((config.user, config.group), expect, "{of_pod} {user}"),
                (Err(error), None) => {
                    assert!(error.contains("Strict cannot be enforced without runAsGroup"), "{error}");
                }
                (found, _) => panic!("{of_pod} {user}: {found:?}"),
            }
            assert!(check(of_pod, json!({}), user).is_ok());
        }
    }

    #[test]
    fn profiles_and_labels() {
        let config = |of_pod: Value, own: Value| check(of_pod, own, "");
        let local = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "k8s-nginx"}});
        let unconfined = json!({"appArmorProfile": {"type": "Unconfined"}});
        let default = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
        assert_eq!(config(local.clone(), json!({})).unwrap().app_armor.as_deref(), Some("k8s-nginx"));
        assert_eq!(config(local.clone(), unconfined.clone()).unwrap().app_armor.as_deref(), Some("unconfined"));
        assert_eq!(config(local.clone(), default.clone()).unwrap().app_armor, None);
        for context in [local, default] {
            let error = check(context, json!({}), NO_APP_ARMOR).unwrap_err();
            assert_eq!(error, "Cannot enforce AppArmor: AppArmor is not enabled on the host");
        }
        assert_eq!(check(unconfined, json!({}), NO_APP_ARMOR).unwrap().app_armor, None);
        let labels = json!({"seLinuxOptions": {"level": "s0:c1,c2", "type": "spc_t", "user": ""}});
        assert_eq!(config(labels.clone(), json!({})).unwrap().se_linux, ["type:spc_t", "level:s0:c1,c2"]);
        let own = json!({"seLinuxOptions": {"level": "s0"}});
        assert_eq!(config(labels, own).unwrap().se_linux, ["level:s0"]);
        assert!(config(json!({}), json!({"procMount": "Unmasked"})).unwrap().unmasked_proc);
        assert!(!config(json!({}), json!({"procMount": "Default"})).unwrap().unmasked_proc);
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
