//! What Docker tells about containers, in the runtime's words.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{
    ContainerInspectResponse, ContainerState as DockerState, ContainerSummary, ContainerSummaryStateEnum,
    EndpointSettings,
};
use jiff::Timestamp;
use runtime::{Container, ContainerState, PodIdentity, Sandbox, TerminationReason, labels};

use crate::veth;

/// A container from an inspection; `image_id` as a pod's status names it.
pub(crate) fn container(found: ContainerInspectResponse, image_id: String) -> Container {
    let created = found.created.as_deref().and_then(time);
    let config = found.config.unwrap_or_default();
    let all = config.labels.unwrap_or_default();
    let (given, annotations) = labels::split(&all);
    Container {
        id: found.id.unwrap_or_default(),
        sandbox_id: label(&all, labels::SANDBOX_ID),
        pod: pod(&all),
        name: label(&all, labels::CONTAINER_NAME),
        attempt: attempt(&all),
        hash: label(&all, labels::CONTAINER_HASH),
        image: config.image.unwrap_or_default(),
        image_id,
        created,
        state: state(&found.state.unwrap_or_default(), created),
        tty: config.tty.unwrap_or_default(),
        labels: given,
        annotations,
    }
}

/// A container's state. One that could not be started is left "created" by Docker, with an exit code: it counts as exited
/// when it was created, as upstream has it.
pub(crate) fn state(state: &DockerState, created: Option<Timestamp>) -> ContainerState {
    let started = state.started_at.as_deref().and_then(time);
    let exit_code = i32::try_from(state.exit_code.unwrap_or_default()).unwrap_or(-1);
    let message = state.error.clone().unwrap_or_default();
    if state.running.unwrap_or_default() {
        return ContainerState::Running { started: started.or(created).unwrap_or_default() };
    }
    if let Some(finished) = state.finished_at.as_deref().and_then(time) {
        let reason = match state.oom_killed {
            Some(true) => TerminationReason::OomKilled,
            _ => TerminationReason::of(exit_code),
        };
        return ContainerState::Exited { exit_code, reason, message, started, finished };
    }
    if exit_code != 0 || !message.is_empty() {
        return ContainerState::Exited {
            exit_code,
            reason: TerminationReason::ContainerCannotRun,
            message,
            started: None,
            finished: created.unwrap_or_default(),
        };
    }
    ContainerState::Created
}

/// A sandbox from the list of containers, which tells all about it.
pub(crate) fn sandbox(found: &ContainerSummary) -> Sandbox {
    let none = HashMap::new();
    let all = found.labels.as_ref().unwrap_or(&none);
    let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let address = address(all);
    let mode = found.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
    // One that is to be connected here counts once it is.
    let connected = address.is_none_or(|address| mode != Some("host") || veth::connected(address));
    let ready = runs(found) && connected;
    let ips = match address {
        Some(address) => vec![address.into()],
        None => addresses(networks),
    };
    Sandbox {
        id: found.id.clone().unwrap_or_default(),
        created: found.created.and_then(|seconds| Timestamp::from_second(seconds).ok()),
        ready,
        ips: if ready { ips } else { Vec::new() },
        ..sandbox_of_labels(all)
    }
}

/// Whether the list shows it running.
pub(crate) fn runs(found: &ContainerSummary) -> bool {
    found.state == Some(ContainerSummaryStateEnum::RUNNING)
}

/// The address that a sandbox was given, from its labels. One that an older coracle made has none there.
pub(crate) fn address(all: &HashMap<String, String>) -> Option<Ipv4Addr> {
    all.get(labels::SANDBOX_ADDRESS)?.parse().ok()
}

/// What the labels of a sandbox tell about it.
pub(crate) fn sandbox_of_labels(all: &HashMap<String, String>) -> Sandbox {
    let shared = label(all, labels::SANDBOX_NAMESPACES);
    let shares = |name: &str| shared.split(',').any(|shared| shared == name);
    let (given, annotations) = labels::split(all);
    Sandbox {
        pod: pod(all),
        attempt: attempt(all),
        host_network: shares("hostNetwork"),
        host_pid: shares("hostPID"),
        host_ipc: shares("hostIPC"),
        share_process_namespace: shares("sharePID"),
        labels: given,
        annotations,
        ..Sandbox::default()
    }
}

/// The addresses of a container on its networks, IPv4 first.
pub(crate) fn addresses(networks: Option<&HashMap<String, EndpointSettings>>) -> Vec<IpAddr> {
    let endpoints: Vec<&EndpointSettings> = networks.into_iter().flatten().map(|(_, e)| e).collect();
    let v4 = endpoints.iter().filter_map(|e| e.ip_address.as_deref());
    let v6 = endpoints.iter().filter_map(|e| e.global_ipv6_address.as_deref());
    v4.chain(v6).filter_map(|text| text.parse().ok()).collect()
}

/// Which pod something belongs to.
pub(crate) fn pod(all: &HashMap<String, String>) -> PodIdentity {
    PodIdentity {
        namespace: label(all, labels::POD_NAMESPACE),
        name: label(all, labels::POD_NAME),
        uid: label(all, labels::POD_UID),
    }
}

pub(crate) fn label(all: &HashMap<String, String>, key: &str) -> String {
    all.get(key).cloned().unwrap_or_default()
}

fn attempt(all: &HashMap<String, String>) -> u32 {
    all.get(labels::RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// A time of Docker's; `0001-01-01T00:00:00Z` stands for none.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &str = "0001-01-01T00:00:00Z";
    const THEN: &str = "2026-11-23T06:36:43.123456789Z";

    fn docker(running: bool, code: i64, error: &str, started: &str, finished: &str) -> DockerState {
        DockerState {
            running: Some(running),
            exit_code: Some(code),
            error: Some(error.to_owned()),
            started_at: Some(started.to_owned()),
            finished_at: Some(finished.to_owned()),
            ..DockerState::default()
        }
    }

    fn exited(code: i32, reason: TerminationReason, message: &str, ran: bool) -> ContainerState {
        ContainerState::Exited {
            exit_code: code,
            reason,
            message: message.to_owned(),
            started: ran.then(|| time(THEN)).flatten(),
            finished: time(THEN).unwrap(),
        }
    }

    #[test]
    fn states_and_reasons() {
        let mut oom = docker(false, 137, "", THEN, THEN);
        oom.oom_killed = Some(true);
        let cases = [
            (docker(false, 0, "", NEVER, NEVER), ContainerState::Created),
            (docker(true, 0, "", THEN, NEVER), ContainerState::Running { started: time(THEN).unwrap() }),
            (docker(false, 0, "", THEN, THEN), exited(0, TerminationReason::Completed, "", true)),
            (docker(false, 3, "", THEN, THEN), exited(3, TerminationReason::Error, "", true)),
            (oom, exited(137, TerminationReason::OomKilled, "", true)),
            (
                docker(false, 127, "not found", NEVER, NEVER),
                exited(127, TerminationReason::ContainerCannotRun, "not found", false),
            ),
        ];
        for (found, expect) in cases {
            assert_eq!(state(&found, time(THEN)), expect, "{found:?}");
        }
    }

    #[test]
    fn addresses_of_all_networks() {
        let endpoint = |v4: &str, v6: &str| EndpointSettings {
            ip_address: Some(v4.to_owned()),
            global_ipv6_address: Some(v6.to_owned()),
            ..EndpointSettings::default()
        };
        let networks = HashMap::from([("n".to_owned(), endpoint("10.0.0.2", "fd00::2"))]);
        let expect: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(addresses(Some(&networks)), expect);
        let none = HashMap::from([("host".to_owned(), endpoint("", ""))]);
        assert!(addresses(Some(&none)).is_empty() && addresses(None).is_empty());
    }
}
