//! `coracle service`: the URL under which a service of type NodePort is reached from this machine.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use machinery::well_known::SERVICE_NAME;
use serde::Serialize;

use super::{ask, require_running};
use crate::cli::{Format, Services};
use crate::{cli, listening, output};

const LOOPBACK: &str = "127.0.0.1";
/// How often it is looked whether a pod behind a service is ready.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn run(profile: &Profile, wanted: &cli::Service) -> Result<ExitCode> {
    require_running(profile)?;
    let namespace = wanted.namespace.as_deref().unwrap_or("default");
    let services = match &wanted.name {
        Some(Services::List) => return list(profile, wanted),
        Some(Services::Named(name)) => vec![named(profile, namespace, name)?],
        None => all(profile, Some(namespace))?.into_iter().filter(has_node_port).collect(),
    };
    if services.is_empty() {
        bail!("no service in the namespace {namespace} has a node port; see: coracle service list");
    }
    let deadline = Instant::now() + wanted.wait;
    let mut unserved = Vec::new();
    for service in &services {
        let name = name(service);
        let serves = ask(profile, async |client| wait_for_endpoint(client, namespace, name, deadline).await)?;
        let urls = reachable(profile, service, wanted.https)?;
        for url in &urls {
            output::line(url)?;
        }
        if !serves {
            unserved.push(name);
        } else if !wanted.url && !open(&urls[0]) {
            output::note("No browser was found to open it.");
        }
    }
    if !unserved.is_empty() {
        bail!(
            "no pod behind {} is ready, so nothing answers there; see: kubectl get pods -n {namespace}, or wait with --wait 2m",
            unserved.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn named(profile: &Profile, namespace: &str, name: &str) -> Result<Service> {
    let service = ask(profile, async |client| {
        let api: Api<Service> = Api::namespaced(client, namespace);
        api.get_opt(name).await?.with_context(|| {
            format!("there is no service {name} in the namespace {namespace}; see: kubectl get services -A")
        })
    })?;
    if !has_node_port(&service) {
        bail!(
            "the service {name} has no node port; make it one of type NodePort, or use: kubectl port-forward service/{name} LOCAL:REMOTE"
        );
    }
    Ok(service)
}

/// The services of a namespace, or of all.
fn all(profile: &Profile, namespace: Option<&str>) -> Result<Vec<Service>> {
    ask(profile, async |client| {
        let api: Api<Service> = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        Ok(api.list(&ListParams::default()).await.context("cannot list the services")?.items)
    })
}

fn has_node_port(service: &Service) -> bool {
    node_ports(service).next().is_some()
}

fn name(service: &Service) -> &str {
    service.metadata.name.as_deref().unwrap_or_default()
}

/// Waits until a pod behind the service is ready; false if none is by the deadline.
async fn wait_for_endpoint(client: Client, namespace: &str, name: &str, deadline: Instant) -> Result<bool> {
    let api: Api<EndpointSlice> = Api::namespaced(client, namespace);
    let params = ListParams::default().labels(&format!("{SERVICE_NAME}={name}"));
    loop {
        if has_endpoint(&api.list(&params).await.context("cannot list the endpoint slices")?.items) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether one of the endpoints is ready. One that does not say so is (discovery.k8s.io/v1).
fn has_endpoint(slices: &[EndpointSlice]) -> bool {
    let is_ready = |ready: Option<bool>| ready != Some(false);
    let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints).flatten();
    endpoints.any(|endpoint| is_ready(endpoint.conditions.as_ref().and_then(|conditions| conditions.ready)))
}

/// The URLs of a service: on loopback, or on the node's address where somebody else has a port on loopback.
fn reachable(profile: &Profile, service: &Service, https: bool) -> Result<Vec<String>> {
    if !is_of_another(profile, service) {
        return Ok(urls(service, LOOPBACK, https));
    }
    output::note(format!(
        "A node port of {} is another program's on {LOOPBACK}; the node's own address leads to the service.",
        name(service)
    ));
    Ok(urls(service, &super::ip::address(profile)?, https))
}

/// A service in the list.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    /// `NAME/PORT`, or the number alone.
    target_ports: Vec<String>,
    /// None without a node port.
    urls: Vec<String>,
}

fn list(profile: &Profile, wanted: &cli::Service) -> Result<ExitCode> {
    let services = all(profile, wanted.namespace.as_deref())?;
    let rows = services.iter().map(|service| {
        Ok(row(service, if has_node_port(service) { reachable(profile, service, wanted.https)? } else { Vec::new() }))
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    match wanted.output {
        Format::Json => output::json(&rows)?,
        Format::Text => table(&rows).iter().try_for_each(output::line)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn row(service: &Service, urls: Vec<String>) -> Row {
    let ports = service.spec.iter().flat_map(|spec| &spec.ports).flatten();
    let target = |port: &ServicePort| match &port.name {
        Some(name) => format!("{name}/{}", port.port),
        None => port.port.to_string(),
    };
    Row {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: name(service).to_owned(),
        target_ports: ports.map(target).collect(),
        urls,
    }
}

fn table(rows: &[Row]) -> Vec<String> {
    let ports = |row: &Row| if row.target_ports.is_empty() { "-".to_owned() } else { row.target_ports.join(",") };
    let width = |of: &dyn Fn(&Row) -> usize, head: &str| rows.iter().map(of).max().unwrap_or_default().max(head.len());
    let namespace = width(&|row| row.namespace.len(), "NAMESPACE");
    let name = width(&|row| row.name.len(), "NAME");
    let target = width(&|row| ports(row).len(), "TARGET PORT");
    let line =
        |cells: [&str; 4]| format!("{:<namespace$} {:<name$} {:<target$} {}", cells[0], cells[1], cells[2], cells[3]);
    let head = line(["NAMESPACE", "NAME", "TARGET PORT", "URL"]);
    let rows = rows.iter().map(|row| {
        let urls = if row.urls.is_empty() { "no node port".to_owned() } else { row.urls.join(" ") };
        line([&row.namespace, &row.name, &ports(row), &urls])
    });
    std::iter::once(head).chain(rows).collect()
}

/// Whether somebody else has one of the node ports on loopback: another cluster, perhaps. The node's own address still leads
/// to the service.
fn is_of_another(profile: &Profile, service: &Service) -> bool {
    let Some(daemon) = profile.daemon() else { return false };
    let mut numbers = node_ports(service).filter_map(|(_, number)| u16::try_from(number).ok());
    numbers.any(|number| listening::is_listening(daemon.pid, number) == Some(false))
}

/// The TCP ports that have a node port, and which.
fn node_ports(service: &Service) -> impl Iterator<Item = (&ServicePort, i32)> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports.into_iter().flatten().filter_map(|port| {
        let tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        Some((port, port.node_port.filter(|_| tcp)?))
    })
}

/// One URL for each TCP port that has a node port.
fn urls(service: &Service, host: &str, https: bool) -> Vec<String> {
    let url = |(port, number): (&ServicePort, i32)| {
        let secure = https || port.port == 443 || port.name.as_deref() == Some("https");
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{host}:{number}")
    };
    node_ports(service).map(url).collect()
}

/// Opens `url` as the desktop does; false if there is none.
fn open(url: &str) -> bool {
    let browser = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    Command::new(browser)
        .arg(url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_tcp_node_ports() {
        let check = |ports: serde_json::Value, expected: &[&str]| {
            let service = serde_json::json!({ "spec": { "ports": ports } });
            let service: Service = serde_json::from_value(service).expect("a service");
            assert_eq!(urls(&service, LOOPBACK, false), expected);
        };
        check(serde_json::json!([]), &[]);
        check(serde_json::json!([{ "port": 80 }]), &[]);
        check(
            serde_json::json!([
                { "port": 80, "nodePort": 30080 },
                { "port": 443, "nodePort": 30443, "protocol": "TCP" },
                { "port": 53, "nodePort": 30053, "protocol": "UDP" },
            ]),
            &["http://127.0.0.1:30080", "https://127.0.0.1:30443"],
        );
    }

    #[test]
    fn a_service_is_served_by_ready_endpoints() {
        let check = |endpoints: serde_json::Value, expected: bool| {
            let slice = serde_json::json!({ "addressType": "IPv4", "endpoints": endpoints });
            let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
            assert_eq!(has_endpoint(&[slice]), expected);
        };
        assert!(!has_endpoint(&[]));
        check(serde_json::json!([]), false);
        check(serde_json::json!([{ "addresses": ["10.0.0.1"] }]), true);
        check(serde_json::json!([{ "addresses": ["10.0.0.1"], "conditions": { "ready": false } }]), false);
        check(
            serde_json::json!([
                { "addresses": ["10.0.0.1"], "conditions": { "ready": false } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": true } },
            ]),
            true,
        );
    }

    #[test]
    fn the_table_says_which_services_have_urls() {
        let service = |value: serde_json::Value| -> Service { serde_json::from_value(value).expect("a service") };
        let web = service(serde_json::json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "ports": [{ "name": "http", "port": 443, "nodePort": 30443 }, { "port": 81 }] },
        }));
        let dns = service(serde_json::json!({ "metadata": { "name": "kube-dns", "namespace": "kube-system" } }));
        let rows = [row(&web, urls(&web, LOOPBACK, true)), row(&dns, Vec::new())];
        assert_eq!(
            table(&rows),
            [
                "NAMESPACE   NAME     TARGET PORT URL",
                "default     web      http/443,81 https://127.0.0.1:30443",
                "kube-system kube-dns -           no node port",
            ]
        );
        assert_eq!(urls(&web, "h", false), ["https://h:30443"]);
    }
}
