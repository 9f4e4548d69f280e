//! What the kubelet answers to `logs`, `exec`, `attach`, `port-forward`, and to questions for its pods, its configuration and
//! its metrics.

mod configuration;
mod metrics;
mod pods;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use runtime::Error;
use serde_json::Value;
use streaming::stats::Summary;
use streaming::{
    CommandOptions, Duplex, LogChunks, LogOptions, NodeApi, NodeError, NodeMetrics, NodePod, PodRef, Streams,
};

use crate::pod::View;
use crate::pods::Pods;
use crate::shared::Shared;
use crate::stats::{Statistics, cadvisor};
use crate::types::observed::Observed;
use crate::types::waiting::WaitingReason;

/// The kubelet's answers.
pub(crate) struct Api {
    shared: Arc<Shared>,
    pods: Arc<Pods>,
    statistics: Statistics,
}

impl Api {
    /// Answers for `pods`.
    pub(crate) fn new(shared: Arc<Shared>, pods: Arc<Pods>) -> Self {
        Self { shared, pods, statistics: Statistics::default() }
    }

    fn view(&self, pod: &PodRef) -> Result<View, NodeError> {
        self.pods.view(&pod.uid).ok_or_else(|| {
            let name = &pod.name;
            let namespace = &pod.namespace;
            NodeError::NotFound(format!("pod \"{name}_{namespace}\" does not exist"))
        })
    }

    /// The id of a running container; the error is what `absent` says of one that does not run.
    fn running(&self, pod: &PodRef, name: &str, absent: impl FnOnce() -> String) -> Result<String, NodeError> {
        let view = self.view(pod)?;
        let latest = view.runtime.latest(name);
        match latest.filter(|container| container.state.is_running()) {
            Some(container) => Ok(container.id.clone()),
            None => Err(refused_upgrade(&absent())),
        }
    }
}

/// Upstream's kubelet refuses the upgrade, and its API server passes on what failed in those words.
fn refused_upgrade(why: &str) -> NodeError {
    NodeError::Internal(format!("unable to upgrade connection: {why}"))
}

#[async_trait]
impl NodeApi for Api {
    async fn logs(&self, pod: &PodRef, container: &str, options: LogOptions) -> Result<LogChunks, NodeError> {
        let view = self.view(pod)?;
        let statuses = [
            &view.status.init_container_statuses,
            &view.status.container_statuses,
            &view.status.ephemeral_container_statuses,
        ];
        let status =
            statuses.into_iter().flat_map(|statuses| statuses.iter().flatten()).find(|status| status.name == container);
        let id = log_source(&pod.name, container, status, options.previous).map_err(NodeError::BadRequest)?;
        self.shared.runtime.logs(&id, &options).await.map_err(failed)
    }

    async fn exec(
        &self,
        pod: &PodRef,
        container: &str,
        command: Vec<String>,
        options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, NodeError> {
        let id = self.running(pod, container, || format!("container not found (\"{container}\")"))?;
        let exec = self.shared.runtime.exec(&id, command, options, streams);
        exec.await.map_err(failed)
    }

    async fn attach(
        &self,
        pod: &PodRef,
        container: &str,
        options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, NodeError> {
        let absent = || format!("container {container} not found in pod {}_{}", pod.name, pod.namespace);
        let view = self.view(pod)?;
        let latest =
            view.runtime.latest(container).filter(|latest| !matches!(latest.state, runtime::ContainerState::Created));
        // What has ended may have left something for whoever attaches late: the runtime knows.
        let Some(latest) = latest else {
            return Err(refused_upgrade(&absent()));
        };
        match self.shared.runtime.attach(&latest.id, options, streams).await {
            Err(Error::Conflict(_) | Error::NotFound(_)) => Err(refused_upgrade(&absent())),
            answer => answer.map_err(failed),
        }
    }

    async fn port_forward(&self, pod: &PodRef, port: u16, io: Box<dyn Duplex>) -> Result<(), NodeError> {
        let view = self.view(pod)?;
        let Some(sandbox) = view.runtime.ready_sandbox() else {
            let pod = view.desired.describe();
            return Err(NodeError::NotFound(format!("not found pod sandbox for pod \"{pod}\"")));
        };
        let forward = self.shared.runtime.port_forward(&sandbox.id, port, io);
        forward.await.map_err(failed)
    }

    async fn stats(&self) -> Result<Summary, NodeError> {
        Ok(self.statistics.summary(&self.shared).await)
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<NodePod> {
        let views = self.pods.views();
        let bound = views.iter().map(|view| &view.desired).filter(|desired| !desired.gone);
        let named = bound.filter(|pod| pod.identity.namespace == namespace && pod.identity.name == name);
        // Of two, the one that is not on its way out is meant.
        named.min_by_key(|pod| pod.deleting()).map(|desired| pods::node_pod(desired))
    }

    fn pods(&self) -> Result<Vec<Value>, NodeError> {
        pods::bound(&self.pods.views())
    }

    fn running_pods(&self) -> Result<Vec<Value>, NodeError> {
        let pleg = &self.shared.pleg;
        Ok(pleg.pods().iter().filter_map(|pod| pods::running(pod, &pleg.observed(&pod.uid))).collect())
    }

    fn configuration(&self) -> Result<Value, NodeError> {
        Ok(configuration::configuration(&self.shared.config))
    }

    async fn metrics(&self, which: NodeMetrics) -> Result<String, NodeError> {
        Ok(match which {
            NodeMetrics::Kubelet => {
                let (config, pleg) = (&self.shared.config, &self.shared.pleg);
                let observed: Vec<Arc<Observed>> = pleg.pods().iter().map(|pod| pleg.observed(&pod.uid)).collect();
                let observed = observed.iter().map(Arc::as_ref);
                metrics::metrics(&config.node_name, &config.kubelet_version, &self.pods.views(), observed)
            }
            NodeMetrics::Cadvisor => cadvisor::metrics(&self.shared).await,
            NodeMetrics::Resource => self.stats().await?.metrics(),
            NodeMetrics::Probes => self.shared.probe_counts.metrics(),
        })
    }
}

fn failed(error: Error) -> NodeError {
    match error {
        Error::NotFound(message) => NodeError::NotFound(message),
        Error::Invalid(message) | Error::Conflict(message) => NodeError::BadRequest(message),
        error => NodeError::Internal(error.to_string()),
    }
}

/// The id of the container whose log is meant; else upstream's words for why there is none.
fn log_source(pod: &str, name: &str, status: Option<&ContainerStatus>, previous: bool) -> Result<String, String> {
    let place = format!("container \"{name}\" in pod \"{pod}\"");
    let Some(status) = status else {
        return Err(format!("{place} is not available"));
    };
    let state = status.state.clone().unwrap_or_default();
    let ended = |state: Option<&ContainerState>| {
        let ended = state.and_then(|state| state.terminated.as_ref());
        ended.map(|ended| bare(ended.container_id.as_deref()))
    };
    let last = ended(status.last_state.as_ref());
    if previous {
        return last.flatten().ok_or_else(|| format!("previous terminated {place} not found"));
    }
    if state.running.is_some() {
        return bare(status.container_id.as_deref())
            .ok_or_else(|| format!("{place} is waiting to start - no logs yet"));
    }
    let own = ended(Some(&state));
    if own.is_some() || last.is_some() {
        return own.flatten().or(last.flatten()).ok_or_else(|| format!("{place} is terminated"));
    }
    Err(match state.waiting {
        Some(waiting) => {
            let reason = waiting.reason.unwrap_or_default();
            let why = match WaitingReason::parse(&reason) {
                Some(WaitingReason::ErrImagePull) => "image can't be pulled",
                Some(WaitingReason::ImagePullBackOff) => "trying and failing to pull image",
                _ => &reason,
            };
            format!("{place} is waiting to start: {why}")
        }
        None => format!("{place} is waiting to start - no logs yet"),
    })
}

/// `docker://ID` → `ID`.
fn bare(id: Option<&str>) -> Option<String> {
    let (_, id) = id?.split_once("://")?;
    Some(id.to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn which_log() {
        let check = |status: Value, previous: bool, expect: Result<&str, &str>| {
            let mut status = status;
            for (field, value) in [
                ("name", json!("c")),
                ("image", json!("")),
                ("imageID", json!("")),
                ("ready", json!(false)),
                ("restartCount", json!(0)),
            ] {
                status[field] = value;
            }
            let status: ContainerStatus = serde_json::from_value(status).unwrap();
            let result = log_source("p", "c", Some(&status), previous);
            assert_eq!(result, expect.map(str::to_owned).map_err(str::to_owned));
        };
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        check(json!({"containerID": "docker://a", "state": {"running": {}}}), false, Ok("a"));
        check(json!({"state": ended("docker://a")}), false, Ok("a"));
        check(
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended("docker://b")}),
            false,
            Ok("b"),
        );
        check(json!({"state": {"running": {}}, "lastState": ended("docker://b")}), true, Ok("b"));
        check(
            json!({"state": {"running": {}}}),
            true,
            Err("previous terminated container \"c\" in pod \"p\" not found"),
        );
        check(
            waiting("ContainerCreating"),
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
        );
        check(
            waiting("ErrImagePull"),
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
        );
        check(
            waiting("ImagePullBackOff"),
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
        );
        assert_eq!(log_source("p", "x", None, false), Err("container \"x\" in pod \"p\" is not available".to_owned()));
    }
}
