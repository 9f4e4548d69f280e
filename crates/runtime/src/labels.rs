//! Names and labels of sandboxes and containers: the conventions of the kubelet's Docker shim, so that `docker ps` and
//! tools built for it read well, plus the profile.

use std::collections::BTreeMap;

use crate::{ContainerConfig, PodIdentity, SandboxConfig};

/// Name of the pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Uid of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the container in the pod's specification; `POD` for a sandbox.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Hash of the specification the container was made from.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// How many containers of this name came before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// [`TYPE_SANDBOX`] or [`TYPE_CONTAINER`].
pub const TYPE: &str = "io.kubernetes.docker.type";
/// Id of the sandbox a container belongs to.
pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
/// Value of [`TYPE`] for sandboxes.
pub const TYPE_SANDBOX: &str = "podsandbox";
/// Value of [`TYPE`] for containers.
pub const TYPE_CONTAINER: &str = "container";
/// The profile (cluster) that made it; nothing without this label is ever touched.
pub const PROFILE: &str = "io.coracle.profile";
/// The folder of the cluster's state, which tells it from a cluster of the same name in another home.
pub const FOLDER: &str = "io.coracle.folder";
/// What the containers of a sandbox share, as a comma-separated list of `hostNetwork`, `hostPID`, `hostIPC`, `sharePID`.
pub const SANDBOX_NAMESPACES: &str = "io.coracle.sandbox.namespaces";
/// Address of a sandbox in the pod network.
pub const SANDBOX_ADDRESS: &str = "io.coracle.sandbox.address";
/// The node it belongs to, where that is not the profile's first.
pub const NODE: &str = "io.coracle.node";
/// The profile of a container that changes the machine's network, in place of [`PROFILE`]: it belongs to no pod.
pub const HELPER: &str = "io.coracle.helper";
/// Prefix of labels that carry annotations, which Docker does not have.
pub const ANNOTATION_PREFIX: &str = "annotation.";

const OWN: [&str; 14] = [
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    CONTAINER_NAME,
    CONTAINER_HASH,
    RESTART_COUNT,
    TYPE,
    SANDBOX_ID,
    PROFILE,
    FOLDER,
    SANDBOX_NAMESPACES,
    SANDBOX_ADDRESS,
    NODE,
    HELPER,
];

/// `k8s_POD_NAME_NAMESPACE_UID_ATTEMPT`.
#[must_use]
pub fn sandbox_name(pod: &PodIdentity, attempt: u32) -> String {
    container_name("POD", pod, attempt)
}

/// `k8s_CONTAINER_NAME_NAMESPACE_UID_ATTEMPT`.
#[must_use]
pub fn container_name(container: &str, pod: &PodIdentity, attempt: u32) -> String {
    let PodIdentity { namespace, name, uid } = pod;
    format!("k8s_{container}_{name}_{namespace}_{uid}_{attempt}")
}

/// All labels of a sandbox.
#[must_use]
pub fn of_sandbox(profile: &str, config: &SandboxConfig) -> BTreeMap<String, String> {
    let mut labels =
        common(profile, &config.pod, "POD", config.attempt, TYPE_SANDBOX, &config.labels, &config.annotations);
    let shared: Vec<&str> = [
        (config.host_network, "hostNetwork"),
        (config.host_pid, "hostPID"),
        (config.host_ipc, "hostIPC"),
        (config.share_process_namespace, "sharePID"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    if !shared.is_empty() {
        labels.insert(SANDBOX_NAMESPACES.to_owned(), shared.join(","));
    }
    labels
}

/// All labels of a container.
#[must_use]
pub fn of_container(profile: &str, sandbox_id: &str, config: &ContainerConfig) -> BTreeMap<String, String> {
    let mut labels =
        common(profile, &config.pod, &config.name, config.attempt, TYPE_CONTAINER, &config.labels, &config.annotations);
    labels.insert(SANDBOX_ID.to_owned(), sandbox_id.to_owned());
    labels.insert(CONTAINER_HASH.to_owned(), config.hash.clone());
    labels
}

/// Splits labels into those given by the caller and the annotations; drops the ones of this module.
#[must_use]
pub fn split<'a>(
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut given, mut annotations) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in labels {
        if let Some(key) = key.strip_prefix(ANNOTATION_PREFIX) {
            annotations.insert(key.to_owned(), value.clone());
        } else if !OWN.contains(&key.as_str()) {
            given.insert(key.clone(), value.clone());
        }
    }
    (given, annotations)
}

fn common(
    profile: &str,
    pod: &PodIdentity,
    container: &str,
    attempt: u32,
    kind: &str,
    given: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let own = [
        (PROFILE, profile.to_owned()),
        (POD_NAME, pod.name.clone()),
        (POD_NAMESPACE, pod.namespace.clone()),
        (POD_UID, pod.uid.clone()),
        (CONTAINER_NAME, container.to_owned()),
        (RESTART_COUNT, attempt.to_string()),
        (TYPE, kind.to_owned()),
    ];
    // Ours come last: a pod's own labels cannot claim another profile or pod.
    given
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(annotations.iter().map(|(key, value)| (format!("{ANNOTATION_PREFIX}{key}"), value.clone())))
        .chain(own.into_iter().map(|(key, value)| (key.to_owned(), value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodIdentity {
        PodIdentity { namespace: "default".to_owned(), name: "web".to_owned(), uid: "u1".to_owned() }
    }

    #[test]
    fn names() {
        assert_eq!(sandbox_name(&pod(), 1), "k8s_POD_web_default_u1_1");
        assert_eq!(container_name("nginx", &pod(), 0), "k8s_nginx_web_default_u1_0");
    }

    #[test]
    fn own_labels_win_and_given_ones_come_back() {
        let config = ContainerConfig {
            pod: pod(),
            name: "nginx".to_owned(),
            attempt: 3,
            hash: "abc".to_owned(),
            labels: [(PROFILE.to_owned(), "theirs".to_owned()), ("app".to_owned(), "x".to_owned())].into(),
            annotations: [("note".to_owned(), "y".to_owned())].into(),
            ..ContainerConfig::default()
        };
        let labels = of_container("mine", "sandbox", &config);
        assert_eq!(labels[PROFILE], "mine");
        assert_eq!(labels[RESTART_COUNT], "3");
        assert_eq!(labels[SANDBOX_ID], "sandbox");
        assert_eq!(labels[TYPE], TYPE_CONTAINER);
        let (given, annotations) = split(&labels);
        assert_eq!(given, [("app".to_owned(), "x".to_owned())].into());
        assert_eq!(annotations, [("note".to_owned(), "y".to_owned())].into());
    }

    #[test]
    fn sandbox_records_what_it_shares() {
        let config =
            SandboxConfig { pod: pod(), host_network: true, share_process_namespace: true, ..SandboxConfig::default() };
        let labels = of_sandbox("p", &config);
        assert_eq!(labels[SANDBOX_NAMESPACES], "hostNetwork,sharePID");
        assert_eq!(labels[CONTAINER_NAME], "POD");
        assert!(!of_sandbox("p", &SandboxConfig::default()).contains_key(SANDBOX_NAMESPACES));
    }
}
