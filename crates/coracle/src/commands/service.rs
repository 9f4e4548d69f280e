//! `coracle service`: the URL under which a service of type NodePort is reached from this machine.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::Api;

use super::{ask, require_running};
use crate::{cli, listening, output};

const LOOPBACK: &str = "127.0.0.1";

pub(crate) fn run(profile: &Profile, wanted: &cli::Service) -> Result<ExitCode> {
    require_running(profile)?;
    let service = ask(profile, async |client| {
        let api: Api<Service> = Api::namespaced(client, &wanted.namespace);
        api.get_opt(&wanted.name).await?.with_context(|| {
            format!(
                "there is no service {} in the namespace {}; see: kubectl get services -A",
                wanted.name, wanted.namespace
            )
        })
    })?;
    let mut urls = urls(&service, LOOPBACK);
    if urls.is_empty() {
        bail!(
            "the service {} has no node port; make it one of type NodePort, or use: kubectl port-forward service/{0} LOCAL:REMOTE",
            wanted.name
        );
    }
    if is_of_another(profile, &service) {
        urls = self::urls(&service, &super::ip::address(profile)?);
    }
    for url in &urls {
        output::line(url)?;
    }
    if !wanted.url && !open(&urls[0]) {
        output::note("No browser was found to open it.");
    }
    Ok(ExitCode::SUCCESS)
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
fn urls(service: &Service, host: &str) -> Vec<String> {
    let url = |(port, number): (&ServicePort, i32)| {
        let secure = port.port == 443 || port.name.as_deref() == Some("https");
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
            assert_eq!(urls(&service, LOOPBACK), expected);
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
}
