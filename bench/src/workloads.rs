//! What is measured: single requests first, whole rollouts then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Request;
use serde_json::{Value, json};

use crate::api::{Cluster, NAMESPACE, arrivals, create, drain, get, parallel, watch};
use crate::report::Report;

/// Clients at once, each on a connection of its own.
const CLIENTS: usize = 16;
const CONFIG_MAPS: usize = 2_000;
const PODS: usize = 3_000;
const READS: usize = 32_000;
const LISTS: usize = 10;
const WATCHERS: usize = 50;
const EVENTS: usize = 500;

/// Creations by one client, each on disk before the next begins.
pub(crate) async fn creations(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let name = "create configmap, 1 KB, one client";
    if report.wants(name) {
        let meter = report.meter()?;
        let (mut latencies, elapsed) = tokio::task::block_in_place(|| in_sequence(cluster))?;
        report.add_rate(name, &mut latencies, elapsed, &meter)?;
    }
    Ok(())
}

/// Pods created, read and listed.
pub(crate) async fn pods(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let names = ["create pod, 16 clients", "get pod, 16 clients", "list 3,000 pods"];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let meter = report.meter()?;
    let (mut latencies, elapsed) =
        parallel(cluster, CLIENTS, PODS, async |client, number| create(client, &path("pods"), pod(number)).await)
            .await?;
    report.add_rate(names[0], &mut latencies, elapsed, &meter)?;
    if report.wants(names[1]) {
        let meter = report.meter()?;
        let (mut latencies, elapsed) = parallel(cluster, CLIENTS, READS, async |client, number| {
            get(client, &format!("{}/pod-{}", path("pods"), number % PODS)).await.map(drop)
        })
        .await?;
        report.add_rate(names[1], &mut latencies, elapsed, &meter)?;
    }
    if report.wants(names[2]) {
        let client = cluster.client()?;
        let mut latencies = Vec::new();
        let meter = report.meter()?;
        for _ in 0..LISTS {
            let begun = Instant::now();
            drain(&client, &path("pods")).await?;
            latencies.push(begun.elapsed());
        }
        latencies.sort_unstable();
        let median = latencies[LISTS / 2].as_secs_f64() * 1_000.0;
        report.add_metered(names[2], (median, "ms"), format!("median of {LISTS}"), (&meter, LISTS))?;
    }
    cluster.send(Request::delete(path("pods")).body(Vec::new())?).await?;
    Ok(())
}

/// Many watchers see the same events.
pub(crate) async fn watches(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let name = "watch, 50 watchers x 500 events";
    if !report.wants(name) {
        return Ok(());
    }
    let list = cluster.object(&path("configmaps?limit=1")).await?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?;
    let from = path(&format!("configmaps?watch=true&resourceVersion={revision}"));
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let stream = watch(&cluster.client()?, &from).await?;
        watchers.push(tokio::spawn(arrivals(stream, EVENTS)));
    }
    let meter = report.meter()?;
    let started = Instant::now();
    let (_, _) = parallel(cluster, CLIENTS, EVENTS, async |client, number| {
        create(client, &path("configmaps"), config_map("watched", number)).await
    })
    .await?;
    let mut last = started;
    for watcher in watchers {
        let seen = watcher.await??;
        last = last.max(seen.last().map_or(started, |(_, at)| *at));
    }
    let events = WATCHERS * EVENTS;
    let rate = events as f64 / last.duration_since(started).as_secs_f64();
    report.add_metered(name, (rate, "events/s"), "creations by 16 clients included", (&meter, events))
}

/// One client, on a thread of its own: a request that waits for the one before gains nothing from a second thread, and
/// would be charged for the way there and back.
fn in_sequence(cluster: &Cluster) -> Result<(Vec<Duration>, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let requests = async {
        let client = cluster.client()?;
        get(&client, "/version").await?;
        let mut latencies = Vec::with_capacity(CONFIG_MAPS);
        let started = Instant::now();
        for number in 0..CONFIG_MAPS {
            let begun = Instant::now();
            create(&client, &path("configmaps"), config_map("one", number)).await?;
            latencies.push(begun.elapsed());
        }
        Ok((latencies, started.elapsed()))
    };
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(requests)).join())
        .unwrap_or_else(|_| bail!("the client panicked"))
}

/// A Deployment of nginx: rolled out, scaled, updated, deleted, with real containers.
pub(crate) async fn rollouts(cluster: &Cluster, image: &str, update: &str, report: &mut Report) -> Result<()> {
    let names = ["nginx, 2 replicas: applied to rolled out", "scale 2 to 20", "rolling update of 20", "delete 20"];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let deployments = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let meter = report.meter()?;
    let started = Instant::now();
    cluster.send(json_request(Request::post(&deployments), "application/json", &deployment(image))?).await?;
    rolled_out(cluster, 2).await?;
    report.add_metered(names[0], (started.elapsed().as_secs_f64(), "s"), "", (&meter, 1))?;

    let meter = report.meter()?;
    let started = Instant::now();
    patch(cluster, &json!({ "spec": { "replicas": 20 } })).await?;
    rolled_out(cluster, 20).await?;
    report.add_metered(names[1], (started.elapsed().as_secs_f64(), "s"), "", (&meter, 1))?;

    let meter = report.meter()?;
    let started = Instant::now();
    let container = json!({ "name": "nginx", "image": update });
    patch(cluster, &json!({ "spec": { "template": { "spec": { "containers": [container] } } } })).await?;
    rolled_out(cluster, 20).await?;
    report.add_metered(names[2], (started.elapsed().as_secs_f64(), "s"), "", (&meter, 1))?;

    let meter = report.meter()?;
    let started = Instant::now();
    let deployment = format!("{deployments}/nginx");
    cluster.send(Request::delete(&deployment).body(Vec::new())?).await?;
    cluster
        .until("all pods are gone", async || {
            let pods = cluster.object(&path("pods?labelSelector=app%3Dnginx")).await?;
            Ok(pods["items"].as_array().is_some_and(Vec::is_empty))
        })
        .await?;
    report.add_metered(names[3], (started.elapsed().as_secs_f64(), "s"), "", (&meter, 1))
}

/// Waits until the Deployment is rolled out, by the rule of `kubectl rollout status`.
async fn rolled_out(cluster: &Cluster, replicas: i64) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/nginx");
    cluster
        .until("the rollout", async || {
            let object = cluster.object(&path).await?;
            let status = |field: &str| object["status"][field].as_i64().unwrap_or(0);
            Ok(status("observedGeneration") >= object["metadata"]["generation"].as_i64().unwrap_or(0)
                && status("replicas") == replicas
                && status("updatedReplicas") == replicas
                && status("availableReplicas") == replicas)
        })
        .await
}

async fn patch(cluster: &Cluster, patch: &Value) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/nginx");
    let kind = "application/strategic-merge-patch+json";
    cluster.send(json_request(Request::patch(path), kind, patch)?).await?;
    Ok(())
}

fn json_request(builder: http::request::Builder, kind: &str, body: &Value) -> Result<Request<Vec<u8>>> {
    Ok(builder.header("content-type", kind).body(body.to_string().into_bytes())?)
}

fn path(resource: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{resource}")
}

fn config_map(name: &str, number: usize) -> String {
    let data = "x".repeat(1_024);
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": format!("{name}-{number}") },
        "data": { "data": data },
    })
    .to_string()
}

/// A pod that no scheduler takes: only the API server has work with it.
fn pod(number: usize) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{number}"), "labels": { "app": "bench" } },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{ "name": "c", "image": "nginx", "ports": [{ "containerPort": 80 }],
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } } }],
        },
    })
    .to_string()
}

fn deployment(image: &str) -> Value {
    let container = json!({ "name": "nginx", "image": image, "imagePullPolicy": "IfNotPresent",
        "ports": [{ "containerPort": 80 }] });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "nginx" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "nginx" } },
            "template": { "metadata": { "labels": { "app": "nginx" } }, "spec": { "containers": [container] } },
        },
    })
}
