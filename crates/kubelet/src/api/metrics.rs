//! `/metrics`: what the kubelet tells of itself (upstream: `pkg/kubelet/metrics/metrics.go`).

use runtime::ContainerState;
use streaming::exposition::{Family, family, labels};

use crate::pod::View;
use crate::types::observed::Observed;

const ACTIVE_PODS: Family = (
    "kubelet_active_pods",
    "gauge",
    "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods. \
     static is true if the pod is not from the apiserver.",
);
const DESIRED_PODS: Family = (
    "kubelet_desired_pods",
    "gauge",
    "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
);
const NODE_NAME: Family = ("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
const RUNNING_CONTAINERS: Family =
    ("kubelet_running_containers", "gauge", "[ALPHA] Number of containers currently running");
const RUNNING_PODS: Family =
    ("kubelet_running_pods", "gauge", "[ALPHA] Number of pods that have a running pod sandbox");
const BUILD_INFO: Family = (
    "kubernetes_build_info",
    "gauge",
    "[ALPHA] A metric with a constant '1' value labeled by major, minor and git version.",
);

/// The metrics of the node `name`, of whose pods `views` is what workers know, and `observed` what the runtime has.
pub(super) fn metrics<'a>(
    name: &str,
    version: &str,
    views: &[View],
    observed: impl IntoIterator<Item = &'a Observed>,
) -> String {
    // No pod comes from anywhere but the API.
    let by_origin =
        |count: usize| [(labels(&[("static", "")]), number(count)), (labels(&[("static", "true")]), number(0))];
    let desired = || views.iter().filter(|view| !view.desired.gone);
    let active = desired().filter(|view| !view.desired.ended() && !view.ending).count();
    let (mut pods, mut containers) = (0, [("created", 0), ("exited", 0), ("running", 0), ("unknown", 0)]);
    for pod in observed {
        pods += usize::from(pod.sandboxes().iter().any(|sandbox| sandbox.ready));
        for container in pod.containers() {
            containers[match container.state {
                ContainerState::Created => 0,
                ContainerState::Running { .. } => 2,
                ContainerState::Unknown => 3,
                ContainerState::Exited { .. } => 1,
            }]
            .1 += 1;
        }
    }
    let mut out = String::new();
    family(&mut out, ACTIVE_PODS, by_origin(active));
    family(&mut out, DESIRED_PODS, by_origin(desired().count()));
    family(&mut out, NODE_NAME, [(labels(&[("node", name)]), number(1))]);
    let states = containers.into_iter().filter(|(_, count)| *count > 0);
    let states = states.map(|(state, count)| (labels(&[("container_state", state)]), number(count)));
    family(&mut out, RUNNING_CONTAINERS, states);
    family(&mut out, RUNNING_PODS, [(String::new(), number(pods))]);
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let build = labels(&[("git_version", version), ("major", major), ("minor", minor)]);
    family(&mut out, BUILD_INFO, [(build, number(1))]);
    out
}

#[expect(clippy::cast_precision_loss, reason = "nothing here is counted in more than millions")]
fn number(count: usize) -> (f64, Option<jiff::Timestamp>) {
    (count as f64, None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::testing::World;

    #[test]
    fn what_runs_is_counted() {
        let mut world = World::new(json!({ "containers": [{ "name": "main" }, { "name": "side" }] }));
        world
            .sandbox(0, true)
            .container("main", 0, "exited 1")
            .container("main", 1, "running")
            .container("side", 0, "running");
        let view = View {
            desired: Arc::clone(&world.state.desired),
            runtime: Arc::clone(&world.state.runtime),
            status: Arc::default(),
            ending: false,
            torn_down: false,
        };
        let ending = View { ending: true, ..view.clone() };
        let text = metrics("n", "v1.36.0", &[view, ending], [&*world.state.runtime]);
        for line in [
            "kubelet_active_pods{static=\"\"} 1",
            "kubelet_desired_pods{static=\"\"} 2",
            "kubelet_node_name{node=\"n\"} 1",
            "kubelet_running_containers{container_state=\"exited\"} 1",
            "kubelet_running_containers{container_state=\"running\"} 2",
            "kubelet_running_pods 1",
            "kubernetes_build_info{git_version=\"v1.36.0\",major=\"1\",minor=\"36\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
        }
    }
}
