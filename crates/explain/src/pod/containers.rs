//! The containers of a pod: their states, their order, and what the next one waits for.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod, PodSpec, Probe};
use machinery::age::rfc3339;

use crate::common::{last_seen, latest_event};
use crate::explanation::{Explanation, Step};
use crate::meta::name;
use crate::related::Related;
use crate::words::{after, ago, count, given, list, reason_and_message, written};

/// The longest time between two pulls of an image (kubelet: `pkg/kubelet/kubelet.go`, `imageBackOffPeriod` doubling to
/// `MaxImageBackOff`).
const LONGEST_PULL_BACK_OFF: i64 = 300;

/// `web (nginx:1)`.
pub(super) fn with_image(container: &Container) -> String {
    format!("{} ({})", container.name, container.image.as_deref().unwrap_or("no image"))
}

/// All that a pod's status has of its containers, in the order in which they start.
pub(super) fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten())
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn status_of<'a>(pod: &'a Pod, container: &Container) -> Option<&'a ContainerStatus> {
    statuses(pod).find(|status| status.name == container.name)
}

/// What each container does.
pub(super) fn states(out: &mut Explanation, pod: &Pod, now: Timestamp) {
    for status in statuses(pod) {
        let Some(state) = &status.state else { continue };
        let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let runs_to_its_end = init.any(|it| it.name == status.name && !is_sidecar(it));
        let mut line = match (&state.running, runs_to_its_end) {
            (Some(running), true) => {
                let since = running.started_at.as_ref().map(|time| format!(", started {}", ago(time, now)));
                format!("the container {}, which runs{}", status.name, since.unwrap_or_default())
            }
            _ => format!("the container {}, which {}", status.name, state_text(state, status, now)),
        };
        if status.restart_count > 0 {
            line.push_str(&format!("; restarted {}", count(status.restart_count, "time")));
        }
        out.has(line);
        if let Some(last) = status.last_state.as_ref().and_then(|last| last.terminated.as_ref()) {
            let code = last.exit_code;
            let when = last.finished_at.as_ref().map(|time| format!(" {}", ago(time, now))).unwrap_or_default();
            let why = reason_and_message(last.reason.as_ref(), last.message.as_ref());
            out.why(format!("the container {} ended{when} with the exit code {code} ({why})", status.name));
        }
    }
}

fn state_text(state: &ContainerState, status: &ContainerStatus, now: Timestamp) -> String {
    if let Some(running) = &state.running {
        let since = running.started_at.as_ref().map(|time| format!(", started {}", ago(time, now))).unwrap_or_default();
        let ready = match (status.started, status.ready) {
            (Some(false), _) => "runs but has not passed its startup probe",
            (_, true) => "runs and is ready",
            (_, false) => "runs but is not ready",
        };
        return format!("{ready}{since}");
    }
    if let Some(ended) = &state.terminated {
        let when = ended.finished_at.as_ref().map(|time| format!(" {}", ago(time, now))).unwrap_or_default();
        let why = given(ended.reason.as_ref()).map(|reason| format!(" ({reason})")).unwrap_or_default();
        return format!("ended{when} with the exit code {}{why}", ended.exit_code);
    }
    let reason = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
    format!("waits: {}", reason.unwrap_or_else(|| "nothing is said of it".to_owned()))
}

/// What the container waits for that is the next to start. Whether there is one.
pub(super) fn next(
    out: &mut Explanation,
    pod: &Pod,
    spec: &PodSpec,
    related: &Related,
    kubelet: &str,
    now: Timestamp,
) -> bool {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (place, container) in init.iter().enumerate() {
        let status = status_of(pod, container);
        let state = status.and_then(|status| status.state.as_ref());
        let is_done = match is_sidecar(container) {
            true => status.is_some_and(|status| status.started == Some(true)),
            false => state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0),
        };
        if is_done {
            continue;
        }
        let behind: Vec<&str> = init[place + 1..].iter().chain(&spec.containers).map(|it| it.name.as_str()).collect();
        out.why(format!("after {}, in this order: {}", container.name, list(&behind)));
        let before = out.next.len();
        step(out, pod, container, related, kubelet, now);
        if out.next.len() == before {
            let what = if is_sidecar(container) { "have started" } else { "end with success" };
            let waits = format!("{} to {what}", container.name);
            out.next(
                Step::new(kubelet, format!("starts {}", behind.first().unwrap_or(&"the next one"))).waits_for(waits),
            );
        }
        return true;
    }
    let before = out.next.len();
    for container in &spec.containers {
        step(out, pod, container, related, kubelet, now);
    }
    // A sidecar may fail later, too.
    for container in init.iter().filter(|container| is_sidecar(container)) {
        if status_of(pod, container).is_some_and(|status| status.state.as_ref().is_some_and(|it| it.running.is_none()))
        {
            step(out, pod, container, related, kubelet, now);
        }
    }
    out.next.len() > before
}

/// What happens next to a container that is not as it should be.
fn step(out: &mut Explanation, pod: &Pod, container: &Container, related: &Related, kubelet: &str, now: Timestamp) {
    let Some(status) = status_of(pod, container) else {
        out.next(Step::new(kubelet, format!("starts {}", container.name)));
        return;
    };
    let Some(state) = &status.state else { return };
    if let Some(waiting) = &state.waiting {
        let message = waiting.message.as_deref().unwrap_or_default();
        waits(out, pod, container, status, (waiting.reason.as_deref().unwrap_or_default(), message), related, kubelet);
    } else if state.running.is_some() {
        probes(out, pod, container, status, related, kubelet, now);
    } else if state.terminated.is_some() && pod.spec.as_ref().is_some_and(|spec| restarts(spec, state)) {
        out.next(Step::new(kubelet, format!("starts {} again", container.name)));
    }
}

fn restarts(spec: &PodSpec, state: &ContainerState) -> bool {
    let failed = state.terminated.as_ref().is_some_and(|ended| ended.exit_code != 0);
    match spec.restart_policy.as_deref() {
        Some("Never") => false,
        Some("OnFailure") => failed,
        _ => true,
    }
}

fn waits(
    out: &mut Explanation,
    pod: &Pod,
    container: &Container,
    status: &ContainerStatus,
    (reason, message): (&str, &str),
    related: &Related,
    kubelet: &str,
) {
    let (name, image) = (&container.name, container.image.as_deref().unwrap_or_default());
    let step = match reason {
        "CrashLoopBackOff" => {
            let ended = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            let ended = ended.and_then(|ended| ended.finished_at.as_ref()).map(|time| time.0);
            let until = ended.zip(back_off(message)).and_then(|(ended, delay)| ended.checked_add(delay).ok());
            let again = Step::new(kubelet, format!("starts {name} again"));
            out.why(format!("{name} ends again and again; what it printed: {}", logs(pod, name)));
            again.waits_for("the end of its back-off, which doubles with each crash").until(until)
        }
        "ImagePullBackOff" | "ErrImagePull" | "ImageInspectError" => {
            let latest = latest_event(related, "Pod", crate::meta::name(&pod.metadata), &["Failed", "Pulling"]);
            let at_latest = latest.and_then(|event| after(last_seen(&event)?, LONGEST_PULL_BACK_OFF));
            let again = Step::new(kubelet, format!("pulls {image} again for {name}"));
            let end = at_latest.map(|end| format!(": at the latest until {}", rfc3339(end))).unwrap_or_default();
            again.waits_for(format!("its back-off, which doubles up to 5m between two attempts{end}"))
        }
        "ErrImageNeverPull" => Step::new("You", format!("build or load {image}, or change the pull policy Never"))
            .waits_for(format!("{name} to find its image on the node")),
        "InvalidImageName" => Step::new("You", format!("correct the image of {name}: {image} is no name of an image")),
        "CreateContainerConfigError" => Step::new(kubelet, format!("makes {name}"))
            .waits_for("what it refers to, or a correction of its specification"),
        "CreateContainerError" | "RunContainerError" | "PostStartHookError" => {
            Step::new(kubelet, format!("tries again to start {name}"))
        }
        "ContainerCreating" => {
            let pulling = latest_event(related, "Pod", crate::meta::name(&pod.metadata), &["Pulling", "Pulled"]);
            let pulls = pulling.is_some_and(|event| {
                event.reason.as_deref() == Some("Pulling")
                    && event.message.as_deref().is_some_and(|text| !image.is_empty() && text.contains(image))
            });
            let what = if pulls { format!("pulls {image}, and then starts {name}") } else { format!("starts {name}") };
            Step::new(kubelet, what)
        }
        // The init container it waits for is said.
        "PodInitializing" => Step::new(kubelet, format!("starts {name}")),
        _ => {
            Step::new(kubelet, format!("starts {name}")).waits_for(if reason.is_empty() { "its turn" } else { reason })
        }
    };
    out.next(step);
    if !message.is_empty() {
        out.why(format!("{reason}: {message}"));
    }
}

fn logs(pod: &Pod, container: &str) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    format!("kubectl logs {} -n {namespace} -c {container} --previous", name(&pod.metadata))
}

/// The delay in `back-off 2m40s restarting failed container=...`.
fn back_off(message: &str) -> Option<SignedDuration> {
    message.strip_prefix("back-off ")?.split(' ').next()?.parse().ok()
}

fn probes(
    out: &mut Explanation,
    pod: &Pod,
    container: &Container,
    status: &ContainerStatus,
    related: &Related,
    kubelet: &str,
    now: Timestamp,
) {
    let (which, probe) = match (status.started, status.ready) {
        (Some(false), _) => ("startup", container.startup_probe.as_ref()),
        (_, false) => ("readiness", container.readiness_probe.as_ref()),
        (_, true) => return,
    };
    let Some(probe) = probe else { return };
    let step =
        Step::new(kubelet, format!("asks the {which} probe of {} again every {}s", container.name, period(probe)));
    let needed = probe.success_threshold.unwrap_or(1);
    let first = status.state.as_ref().and_then(|state| state.running.as_ref()).and_then(|it| it.started_at.as_ref());
    let first = first.and_then(|time| after(time.0, i64::from(probe.initial_delay_seconds.unwrap_or(0))));
    let step = step.waits_for(format!(
        "{} to succeed {needed} time{} in a row",
        probe_text(probe),
        if needed == 1 { "" } else { "s" }
    ));
    out.next(step.until(first.filter(|first| *first > now)));
    if which == "startup" {
        let failures = probe.failure_threshold.unwrap_or(3);
        out.why(format!(
            "after {failures} failures of its startup probe in a row, {} is started again",
            container.name
        ));
    }
    if let Some(event) = latest_event(related, "Pod", name(&pod.metadata), &["Unhealthy"]) {
        out.why(event.message.unwrap_or_default());
    }
}

fn period(probe: &Probe) -> i32 {
    probe.period_seconds.unwrap_or(10)
}

/// What a probe asks.
fn probe_text(probe: &Probe) -> String {
    if let Some(http) = &probe.http_get {
        let scheme = http.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        return format!("GET {scheme}://:{}{}", written(&http.port), http.path.as_deref().unwrap_or("/"));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return format!("a connection to port {}", written(&tcp.port));
    }
    if let Some(grpc) = &probe.grpc {
        return format!("the gRPC health check on port {}", grpc.port);
    }
    let command = probe.exec.as_ref().and_then(|exec| exec.command.clone()).unwrap_or_default();
    format!("`{}`", command.join(" "))
}

/// In a few words, which container is not as it should be.
pub(super) fn problem(pod: &Pod) -> Option<String> {
    let mut quiet = None;
    for status in statuses(pod) {
        let Some(state) = &status.state else { continue };
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or("Waiting");
            let text = format!(
                "its container {} waits: {}",
                status.name,
                reason_and_message(waiting.reason.as_ref(), waiting.message.as_ref())
            );
            // That one is in line says less than what it waits for.
            if reason != "PodInitializing" {
                return Some(text);
            }
            quiet = quiet.or(Some(text));
        } else if state.running.is_some() && status.started == Some(false) {
            return Some(format!("its container {} has not passed its startup probe", status.name));
        } else if state.running.is_some() && !status.ready {
            // An init container that runs is not ready either.
            return Some(format!("its container {} runs and is not ready", status.name));
        } else if let Some(ended) = state.terminated.as_ref().filter(|ended| ended.exit_code != 0) {
            return Some(format!("its container {} ended with the exit code {}", status.name, ended.exit_code));
        }
    }
    quiet
}
