//! One attempt of a probe, whatever its kind.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::{Error, Runtime};

use super::http::{HttpRequest, get};
use super::{AttemptResult, grpc, shown};
use crate::time::go_duration;

/// Where a container is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its id.
    pub(crate) id: String,
    /// Its specification.
    pub(crate) container: Arc<Container>,
    /// The pod's address.
    pub(crate) ip: IpAddr,
    /// `User-Agent` of HTTP requests.
    pub(crate) user_agent: String,
}

impl Target {
    /// The number of a port, which may be given by name.
    pub(crate) fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let mut ports = self.container.ports.iter().flatten();
                match ports.find(|port| port.name.as_deref() == Some(name)) {
                    Some(port) => port.container_port,
                    None => name.parse().map_err(|_| format!("couldn't find port: \"{name}\""))?,
                }
            }
        };
        u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
    }

    /// The request that an action describes.
    pub(crate) fn request(&self, action: &HTTPGetAction) -> Result<HttpRequest, String> {
        let host = action.host.clone().filter(|host| !host.is_empty());
        let path = action.path.clone().unwrap_or_default();
        Ok(HttpRequest {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host: host.unwrap_or_else(|| self.ip.to_string()),
            port: self.port(&action.port)?,
            path: match path.starts_with('/') {
                true => path,
                false => format!("/{path}"),
            },
            headers: action.http_headers.clone().unwrap_or_default(),
            user_agent: self.user_agent.clone(),
        })
    }
}

/// Makes one attempt.
pub(crate) async fn attempt(
    runtime: &Arc<dyn Runtime>,
    target: &Target,
    probe: &Probe,
    timeout: Duration,
) -> AttemptResult {
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return exec(runtime, target, command, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return match target.request(action) {
            Ok(request) => get(&request, timeout).await,
            Err(message) => AttemptResult::Error(message),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let port = match target.port(&action.port) {
            Ok(port) => port,
            Err(message) => return AttemptResult::Error(message),
        };
        let host = action.host.clone().filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| target.ip.to_string());
        return match tokio::time::timeout(timeout, http_client::dial(&host, port)).await {
            Ok(Ok(_)) => AttemptResult::Success,
            Ok(Err(message)) => AttemptResult::Failure(message),
            Err(_) => AttemptResult::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = match target.port(&IntOrString::Int(action.port)) {
            Ok(port) => port,
            Err(message) => return AttemptResult::Error(message),
        };
        let address = std::net::SocketAddr::new(target.ip, port).to_string();
        let service = action.service.as_deref().unwrap_or_default();
        return grpc::check(&address, service, timeout).await;
    }
    AttemptResult::Error("missing probe handler".to_owned())
}

async fn exec(runtime: &Arc<dyn Runtime>, target: &Target, command: Vec<String>, timeout: Duration) -> AttemptResult {
    let words: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
    match runtime.exec_sync(&target.id, command, timeout).await {
        Ok(output) if output.exit_code == 0 => AttemptResult::Success,
        Ok(output) => AttemptResult::Failure(shown(&output.output)),
        Err(Error::Timeout(_)) => {
            let timeout = go_duration(timeout);
            let command = words.join(" ");
            AttemptResult::Failure(format!("command timed out: {command} timed out after {timeout}"))
        }
        Err(error) => AttemptResult::Error(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target() -> Target {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        Target {
            id: "id".to_owned(),
            container: Arc::new(serde_json::from_value(container).unwrap()),
            ip: "10.0.0.2".parse().unwrap(),
            user_agent: "kube-probe/1.36".to_owned(),
        }
    }

    #[test]
    fn ports() {
        let name = |name: &str| IntOrString::String(name.to_owned());
        for (port, expect) in [
            (IntOrString::Int(80), Ok(80)),
            (name("web"), Ok(8080)),
            (name("81"), Ok(81)),
            (name("none"), Err("couldn't find port: \"none\"".to_owned())),
            (IntOrString::Int(0), Err("invalid port number: 0".to_owned())),
            (IntOrString::Int(65_536), Err("invalid port number: 65536".to_owned())),
        ] {
            assert_eq!(target().port(&port), expect, "{port:?}");
        }
    }

    #[test]
    fn requests() {
        let action = json!({"path": "healthz", "port": "web", "scheme": "HTTPS",
            "httpHeaders": [{"name": "Host", "value": "example.com"}]});
        let request = target().request(&serde_json::from_value(action).unwrap()).unwrap();
        assert_eq!(
            (request.tls, request.host.as_str(), request.port, request.path.as_str()),
            (true, "10.0.0.2", 8080, "/healthz")
        );
    }
}
