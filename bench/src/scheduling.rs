//! Many pods on many nodes, none of which exist: fake nodes, by KWOK's convention, so that any cluster with KWOK can
//! be measured the same way.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::AsyncBufReadExt;
use http::Request;
use serde::Deserialize;
use serde_json::json;

use crate::api::{Cluster, NAMESPACE, create, parallel, watch};
use crate::report::Report;

const CLIENTS: usize = 32;
const NODES: usize = 1_000;
const PODS: usize = 3_000;
const DEPLOYMENTS: usize = 1_000;
const REPLICAS: i64 = 10;
/// Nodes of the benchmark, and the pods for them.
const LABEL: &str = "coracle-bench";

/// Schedules pods, and rolls Deployments out, on fake nodes.
pub(crate) async fn scheduling(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let names = [
        "schedule 3,000 pods on 1,000 nodes",
        "1,000 Deployments x 10: to all Ready",
        "1,000 Deployments x 10: to all gone",
    ];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    parallel(cluster, CLIENTS, NODES, async |client, number| create(client, "/api/v1/nodes", node(number)).await)
        .await?;
    let result = async {
        if report.wants(names[0]) {
            let meter = report.meter()?;
            let rate = PODS as f64 / pods(cluster).await?.as_secs_f64();
            report.add_metered(names[0], (rate, "/s"), "creation by 32 clients included", (&meter, PODS))?;
            empty(cluster, "/api/v1", "pods").await?;
        }
        if report.wants(names[1]) || report.wants(names[2]) {
            let meter = report.meter()?;
            let ready = deployments(cluster).await?.as_secs_f64();
            report.add_metered(names[1], (ready, "s"), "creation by 32 clients included", (&meter, 1))?;
            let meter = report.meter()?;
            let started = Instant::now();
            empty(cluster, "/apis/apps/v1", "deployments").await?;
            report.add_metered(names[2], (started.elapsed().as_secs_f64(), "s"), "", (&meter, 1))?;
        }
        Ok(())
    }
    .await;
    let nodes = format!("/api/v1/nodes?labelSelector={LABEL}");
    cluster.send(Request::delete(nodes).body(Vec::new())?).await?;
    result
}

/// From the first creation to the last binding.
async fn pods(cluster: &Cluster) -> Result<Duration> {
    #[derive(Deserialize)]
    struct Pod {
        metadata: Meta,
        spec: Spec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        node_name: Option<String>,
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let bound = until(cluster, &path, PODS, |pod: Pod| pod.spec.node_name.map(|_| pod.metadata.name)).await?;
    let started = Instant::now();
    parallel(cluster, CLIENTS, PODS, async |client, number| create(client, &path, pod(number)).await).await?;
    bound.await??;
    Ok(started.elapsed())
}

/// From the first creation until all replicas of all Deployments are Ready.
async fn deployments(cluster: &Cluster) -> Result<Duration> {
    #[derive(Deserialize)]
    struct Deployment {
        metadata: Meta,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        ready_replicas: Option<i64>,
    }
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let ready = until(cluster, &path, DEPLOYMENTS, |deployment: Deployment| {
        (deployment.status.ready_replicas == Some(REPLICAS)).then_some(deployment.metadata.name)
    })
    .await?;
    let started = Instant::now();
    parallel(cluster, CLIENTS, DEPLOYMENTS, async |client, number| create(client, &path, deployment(number)).await)
        .await?;
    ready.await??;
    Ok(started.elapsed())
}

#[derive(Deserialize)]
struct Meta {
    name: String,
}

/// Starts to watch; the task ends when so many objects have been seen for which `reached` gave a name.
async fn until<T: for<'de> Deserialize<'de> + Send + 'static>(
    cluster: &Cluster,
    path: &str,
    wanted: usize,
    reached: impl Fn(T) -> Option<String> + Send + 'static,
) -> Result<tokio::task::JoinHandle<Result<()>>> {
    #[derive(Deserialize)]
    struct Event<T> {
        object: T,
    }
    let list = cluster.object(&format!("{path}?limit=1")).await?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?;
    let watched = format!("{path}?watch=true&resourceVersion={revision}");
    let mut stream = watch(&cluster.client()?, &watched).await?;
    Ok(tokio::spawn(async move {
        let mut seen = HashSet::new();
        let mut line = String::new();
        while seen.len() < wanted {
            line.clear();
            let read = tokio::time::timeout(Duration::from_secs(180), stream.read_line(&mut line));
            if read.await.context("nothing happens any more")?? == 0 {
                bail!("the watch ended after {} of {wanted}", seen.len());
            }
            if let Some(name) = serde_json::from_str::<Event<T>>(&line).ok().and_then(|event| reached(event.object)) {
                seen.insert(name);
            }
        }
        Ok(())
    }))
}

/// Deletes all objects of a resource, and waits until the last pod is gone.
async fn empty(cluster: &Cluster, api: &str, resource: &str) -> Result<()> {
    let path = format!("{api}/namespaces/{NAMESPACE}/{resource}?propagationPolicy=Background");
    cluster.send(Request::delete(path).body(Vec::new())?).await?;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1");
    cluster
        .until("the pods are gone", async || {
            let gone = cluster.object(&pods).await?["items"].as_array().is_some_and(Vec::is_empty);
            if !gone {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(gone)
        })
        .await
}

fn node(number: usize) -> String {
    let offered = json!({ "cpu": "32", "memory": "256Gi", "pods": "110" });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": format!("{LABEL}-{number}"),
            "labels": { LABEL: "node", "kubernetes.io/hostname": format!("{LABEL}-{number}") },
            "annotations": { "kwok.x-k8s.io/node": "fake" },
        },
        "status": { "capacity": offered, "allocatable": offered },
    })
    .to_string()
}

fn spec() -> serde_json::Value {
    json!({
        "nodeSelector": { LABEL: "node" },
        "containers": [{ "name": "c", "image": "nginx", "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } } }],
    })
}

fn pod(number: usize) -> String {
    let meta = json!({ "name": format!("scheduled-{number}"), "labels": { "app": "scheduled" } });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec() }).to_string()
}

fn deployment(number: usize) -> String {
    let name = format!("load-{number}");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": spec() },
        },
    })
    .to_string()
}
