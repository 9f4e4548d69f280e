//! The cluster's DNS: how many questions it answers, and how soon a new endpoint has its record.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::api::{Cluster, NAMESPACE, create};
use crate::report::Report;

/// Clients at once, each with one question under way.
const CLIENTS: usize = 16;
const QUESTIONS: usize = 200_000;
/// How often a new endpoint is waited for.
const ENDPOINTS: usize = 50;
/// A question without an answer for so long is lost.
const LOST: Duration = Duration::from_secs(2);

/// Measures the server behind the Service `kube-dns`.
pub(crate) async fn measure(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let names = ["dns answers, 16 clients", "dns record after its endpoint"];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let server = server(cluster).await?;
    if report.wants(names[0]) {
        let meter = report.meter()?;
        let started = Instant::now();
        let clients = (0..CLIENTS).map(|_| ask_many(server, QUESTIONS / CLIENTS));
        let mut latencies: Vec<Duration> = try_join_all(clients).await?.into_iter().flatten().collect();
        report.add_rate(names[0], &mut latencies, started.elapsed(), &meter)?;
    }
    if report.wants(names[1]) {
        let mut latencies = Vec::with_capacity(ENDPOINTS);
        let client = cluster.client()?;
        let socket = socket(server).await?;
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "dns-bench" },
            "spec": { "clusterIP": "None" } });
        create(&client, &format!("/api/v1/namespaces/{NAMESPACE}/services"), service.to_string()).await?;
        for number in 0..ENDPOINTS {
            let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": format!("dns-bench-{number}"), "labels": { "kubernetes.io/service-name": "dns-bench" } },
                "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"], "hostname": format!("pod-{number}") }] });
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
            create(&client, &path, slice.to_string()).await?;
            let begun = Instant::now();
            let name = format!("pod-{number}.dns-bench.{NAMESPACE}.svc.cluster.local");
            while ask(&socket, &question(&name)).await? == 0 {
                ensure!(begun.elapsed() < LOST, "no record for {name}");
            }
            latencies.push(begun.elapsed());
        }
        latencies.sort_unstable();
        let most = latencies.last().map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0);
        let median = latencies[ENDPOINTS / 2].as_secs_f64() * 1_000.0;
        report.add(names[1], median, "ms", format!("median of {ENDPOINTS}; at most {most:.2} ms"));
    }
    Ok(())
}

/// Where the cluster's DNS answers by UDP.
async fn server(cluster: &Cluster) -> Result<SocketAddr> {
    let path = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices?labelSelector=kubernetes.io/service-name%3Dkube-dns";
    let slices = cluster.object(path).await?;
    let slice = &slices["items"][0];
    let ports = slice["ports"].as_array().context("kube-dns has ports")?;
    let port = ports.iter().find(|port| port["protocol"] == "UDP").context("kube-dns answers by UDP")?;
    let address = slice["endpoints"][0]["addresses"][0].as_str().context("kube-dns has an endpoint")?;
    let port = port["port"].as_u64().context("a port is a number")?;
    Ok(SocketAddr::new(address.parse()?, u16::try_from(port)?))
}

async fn socket(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

async fn ask_many(server: SocketAddr, count: usize) -> Result<Vec<Duration>> {
    let socket = socket(server).await?;
    let question = question("kubernetes.default.svc.cluster.local");
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        ensure!(ask(&socket, &question).await? == 1, "the API server has one address");
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Asks, and returns how many records the answer has.
async fn ask(socket: &UdpSocket, question: &[u8]) -> Result<u16> {
    socket.send(question).await?;
    let mut answer = [0; 1500];
    let length = timeout(LOST, socket.recv(&mut answer)).await.context("a question was lost")??;
    let [_, _, _, _, _, _, high, low, ..] = answer[..length] else {
        anyhow::bail!("an answer is shorter than its header");
    };
    Ok(u16::from_be_bytes([high, low]))
}

/// A question for the IPv4 address of a name, as RFC 1035 writes it.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}
