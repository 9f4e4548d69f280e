//! The cluster under test, as raw requests: what is measured is the server, so answers are not decoded.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::AsyncBufReadExt;
use futures::future::try_join_all;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// The namespace that everything happens in.
pub(crate) const NAMESPACE: &str = "coracle-bench";

/// A cluster, and how to make clients of it.
pub(crate) struct Cluster {
    config: kube::Config,
    client: Client,
}

impl Cluster {
    /// The current context of `kubeconfig`.
    pub(crate) async fn connect(kubeconfig: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.read_timeout = None;
        Ok(Self { client: Client::try_from(config.clone())?, config })
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    pub(crate) async fn create_namespace(&self) -> Result<()> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        create(&self.client, "/api/v1/namespaces", namespace.to_string()).await
    }

    /// Deletes the namespace and waits until it is gone.
    pub(crate) async fn delete_namespace(&self) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}");
        self.client.request_text(Request::delete(&path).body(Vec::new())?).await?;
        self.until("the namespace is gone", async || Ok(get(&self.client, &path).await.is_err())).await
    }

    /// Reads an object.
    pub(crate) async fn object(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&get(&self.client, path).await?)?)
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Result<String> {
        Ok(self.client.request_text(request).await?)
    }

    /// Waits until `reached` holds.
    pub(crate) async fn until(&self, what: &str, mut reached: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(180);
        while !reached().await? {
            if tokio::time::Instant::now() > deadline {
                bail!("{what}: not within three minutes");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// Creates an object.
pub(crate) async fn create(client: &Client, path: &str, body: String) -> Result<()> {
    let request = Request::post(path).header("content-type", "application/json").body(body.into_bytes())?;
    client.request_text(request).await?;
    Ok(())
}

/// Reads whatever is at `path`.
pub(crate) async fn get(client: &Client, path: &str) -> Result<String> {
    Ok(client.request_text(Request::get(path).body(Vec::new())?).await?)
}

/// Reads whatever is at `path` to its end, and keeps none of it: to put it together would cost as much as to serve it.
pub(crate) async fn drain(client: &Client, path: &str) -> Result<()> {
    let response = client.send(Request::get(path).body(kube::client::Body::empty())?).await?;
    if !response.status().is_success() {
        bail!("{path}: {}", response.status());
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// The lines of a watch.
pub(crate) async fn watch(client: &Client, path: &str) -> Result<impl futures::AsyncBufRead + Unpin + use<>> {
    let stream = client.request_stream(Request::get(path).body(Vec::new())?).await?;
    Ok(Box::pin(stream))
}

/// Reads lines until `wanted` of them have come; when each came.
pub(crate) async fn arrivals(
    mut stream: impl futures::AsyncBufRead + Unpin,
    wanted: usize,
) -> Result<Vec<(String, std::time::Instant)>> {
    let mut arrivals = Vec::with_capacity(wanted);
    while arrivals.len() < wanted {
        let mut line = String::new();
        let length = stream.read_line(&mut line).await.context("the watch broke")?;
        if length == 0 {
            bail!("the watch ended after {} of {wanted} events", arrivals.len());
        }
        arrivals.push((line, std::time::Instant::now()));
    }
    Ok(arrivals)
}

/// Does `count` operations, shared out among so many clients; returns how long each took, and all of them.
pub(crate) async fn parallel(
    cluster: &Cluster,
    clients: usize,
    count: usize,
    operation: impl AsyncFn(&kube::Client, usize) -> Result<()>,
) -> Result<(Vec<Duration>, Duration)> {
    let clients: Vec<kube::Client> = (0..clients).map(|_| cluster.client()).collect::<Result<_>>()?;
    // Connections are made before the clock starts.
    try_join_all(clients.iter().map(|client| get(client, "/version"))).await?;
    let started = Instant::now();
    let work = clients.iter().enumerate().map(async |(first, client)| {
        let mut latencies = Vec::with_capacity(count / clients.len() + 1);
        for number in (first..count).step_by(clients.len()) {
            let begun = Instant::now();
            operation(client, number).await?;
            latencies.push(begun.elapsed());
        }
        Ok::<_, anyhow::Error>(latencies)
    });
    let latencies = try_join_all(work).await?;
    Ok((latencies.into_iter().flatten().collect(), started.elapsed()))
}
