//! What a specification may say about Windows. Nodes run Linux, where it is ignored; what makes no sense is refused
//! nevertheless, as upstream does (`pkg/apis/core/validation/validation.go`, `validateWindowsHostProcessPod`, `validateLinux`).

use k8s_openapi::api::core::v1::{PodSpec, SecurityContext};
use machinery::field::{ErrorList, Path};

use super::warnings;
use crate::check::Report;
use crate::common::list;

/// Validates the options for Windows of a pod and of its containers.
pub(super) fn validate(errors: &mut ErrorList, path: &Path, spec: &PodSpec) {
    let of_pod = spec.security_context.as_ref().and_then(|context| context.windows_options.as_ref());
    let is_linux = spec.os.as_ref().is_some_and(|os| os.name == "linux");
    let mut options = |path: Path, is_set: bool| {
        if is_linux && is_set {
            errors.forbidden(&path, "windows options cannot be set for a linux pod");
        }
    };
    let place = |path: &Path| path.child("securityContext").child("windowsOptions");
    options(place(path), of_pod.is_some());
    let containers: Vec<(Path, Option<&SecurityContext>)> = containers(path, spec).collect();
    for (path, context) in &containers {
        options(place(path), context.is_some_and(|context| context.windows_options.is_some()));
    }
    let of_pod = of_pod.and_then(|options| options.host_process);
    let mut host_processes = 0;
    for (path, context) in &containers {
        let own = context.and_then(|context| context.windows_options.as_ref()).and_then(|options| options.host_process);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.invalid(&place(path).child("hostProcess"), own, detail);
        }
        host_processes += usize::from(own.or(of_pod) == Some(true));
    }
    if host_processes == 0 {
        return;
    }
    if host_processes != containers.len() {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", detail);
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, detail);
    }
}

/// The security contexts of all containers, with the places of the containers.
fn containers<'a>(path: &'a Path, spec: &'a PodSpec) -> impl Iterator<Item = (Path, Option<&'a SecurityContext>)> {
    let others = warnings::containers(spec)
        .map(|(field, index, container)| (path.child(field).index(index), container.security_context.as_ref()));
    let ephemeral = list(&spec.ephemeral_containers).iter().enumerate().map(|(index, container)| {
        (path.child("ephemeralContainers").index(index), container.security_context.as_ref())
    });
    others.chain(ephemeral)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::pod::Pod;
    use crate::testing::errors;

    #[test]
    fn what_makes_no_sense_on_windows() {
        let container = |host: Option<bool>| match host {
            Some(host) => {
                json!({"name": "c", "image": "x", "securityContext": {"windowsOptions": {"hostProcess": host}}})
            }
            None => json!({"name": "d", "image": "x"}),
        };
        let of_pod = |host: bool| json!({"windowsOptions": {"hostProcess": host}});
        for (spec, expect) in [
            (
                json!({"hostNetwork": true, "securityContext": of_pod(true), "containers": [container(Some(true)), container(None)]}),
                vec![],
            ),
            (json!({"containers": [container(Some(false))]}), vec![]),
            (
                json!({"securityContext": of_pod(true), "containers": [container(None)]}),
                vec![
                    "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
                ],
            ),
            (
                json!({"hostNetwork": true, "containers": [container(Some(true)), container(None)]}),
                vec![
                    "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers",
                ],
            ),
            (
                json!({"hostNetwork": true, "securityContext": of_pod(false), "containers": [container(Some(true))]}),
                vec![
                    "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: true: pod hostProcess value must be identical if both are specified, was false",
                ],
            ),
            (
                json!({"os": {"name": "linux"}, "securityContext": of_pod(false), "containers": [container(Some(false))]}),
                vec![
                    "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                    "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                ],
            ),
        ] {
            assert_eq!(
                errors::<Pod>(json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})),
                expect,
                "{spec}"
            );
        }
    }
}
