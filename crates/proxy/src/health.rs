//! The health checks of load balancers (`healthCheckNodePort`): whether a node has endpoints of a Service whose external
//! traffic policy is `Local`, as upstream's `pkg/proxy/healthcheck/service_health.go` answers it.
//!
//! Answered on loopback, where node ports are; a load balancer elsewhere reaches neither. All nodes that run containers are
//! this machine, so all ready endpoints are local.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use informer::ObjectKey;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::accept;
use crate::service::ready;

/// More connections to one port than this at a time wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to say what it asks for.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    service: Named,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Named {
    namespace: String,
    name: String,
}

/// What is asked for of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    /// Where it is answered.
    pub(crate) port: u16,
    /// The number of ready endpoints.
    pub(crate) endpoints: usize,
}

impl HealthCheck {
    /// The health check of a Service with these slices, if its kind has one.
    pub(crate) fn of(service: &Service, slices: impl FnOnce() -> Vec<Arc<EndpointSlice>>) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let has = |field: &Option<String>, value| field.as_deref() == Some(value);
        let asked = has(&spec.type_, "LoadBalancer") && has(&spec.external_traffic_policy, "Local");
        let port = u16::try_from(spec.health_check_node_port.filter(|_| asked)?).ok().filter(|port| *port > 0)?;
        Some(Self { port, endpoints: ready(&slices()) })
    }
}

/// All health checks that are answered.
#[derive(Default)]
pub(crate) struct HealthChecks {
    servers: HashMap<ObjectKey, Server>,
    tasks: TaskTracker,
}

struct Server {
    port: u16,
    state: watch::Sender<Health>,
    cancel: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl HealthChecks {
    /// Begins, changes or ends the answers for a Service.
    ///
    /// # Errors
    /// The port cannot be opened.
    pub(crate) async fn set(
        &mut self,
        key: &ObjectKey,
        check: Option<HealthCheck>,
        is_proxy_healthy: bool,
    ) -> io::Result<()> {
        let Some(check) = check else {
            self.servers.remove(key);
            return Ok(());
        };
        let health = Health {
            service: Named { namespace: key.namespace.clone(), name: key.name.clone() },
            local_endpoints: check.endpoints,
            service_proxy_healthy: is_proxy_healthy,
        };
        if let Some(server) = self.servers.get(key).filter(|server| server.port == check.port) {
            server.state.send_replace(health);
            return Ok(());
        }
        self.servers.remove(key);
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, check.port))).await?;
        let (state, seen) = watch::channel(health);
        let cancel = CancellationToken::new();
        self.tasks.spawn(serve(listener, seen, cancel.clone()));
        self.servers.insert(key.clone(), Server { port: check.port, state, cancel });
        Ok(())
    }

    /// Tells all of them how the proxy is.
    pub(crate) fn tell(&self, is_proxy_healthy: bool) {
        for server in self.servers.values() {
            server.state.send_modify(|health| health.service_proxy_healthy = is_proxy_healthy);
        }
    }

    /// Closes everything and waits until it is closed.
    pub(crate) async fn close(mut self) {
        self.servers.clear();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn serve(listener: TcpListener, health: watch::Receiver<Health>, cancel: CancellationToken) {
    let answer_to = |client| answer(client, health.clone());
    accept::serve(listener, CONNECTIONS, cancel, answer_to).await;
}

/// Whatever is asked for, the answer is the same.
async fn answer(client: TcpStream, health: watch::Receiver<Health>) {
    let service = service_fn(|_: Request<Incoming>| {
        let health = health.borrow().clone();
        async move { Ok::<_, Infallible>(response(&health)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(client), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection to a health check ended badly");
    }
}

fn response(health: &Health) -> Response<String> {
    // Plain data, which cannot fail to be written.
    let body = serde_json::to_string_pretty(health).unwrap_or_default();
    let mut response = Response::new(body);
    if health.local_endpoints == 0 || !health.service_proxy_healthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", health.local_endpoints.into());
    response
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::service::tests::service;

    #[test]
    fn which_services_have_one() {
        let check = |spec: Value, expect: Option<u16>| {
            let found = HealthCheck::of(&service("web", spec.clone()), Vec::new);
            assert_eq!(found.map(|check| check.port), expect, "{spec}");
        };
        let spec = |kind: &str, policy: &str, port: Value| json!({ "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port });
        check(spec("LoadBalancer", "Local", json!(31000)), Some(31000));
        check(spec("LoadBalancer", "Cluster", json!(31000)), None);
        check(spec("NodePort", "Local", json!(31000)), None);
        check(spec("LoadBalancer", "Local", json!(null)), None);
        check(spec("LoadBalancer", "Local", json!(0)), None);
    }

    async fn ask(port: u16) -> io::Result<(String, Value)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Ok((head.to_lowercase(), serde_json::from_str(body).unwrap()))
    }

    #[tokio::test]
    async fn the_answer_follows_the_service() {
        let mut checks = HealthChecks::default();
        let key = ObjectKey::new("default", "web");
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = probe.local_addr().unwrap().port();
        let check = |endpoints| Some(HealthCheck { port, endpoints });
        assert_eq!(checks.set(&key, check(2), true).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(probe);
        checks.set(&key, check(2), true).await.unwrap();
        let (head, body) = ask(port).await.unwrap();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("x-load-balancing-endpoint-weight: 2"), "{head}");
        let expect = json!({
            "service": { "namespace": "default", "name": "web" }, "localEndpoints": 2, "serviceProxyHealthy": true,
        });
        assert_eq!(body, expect);
        checks.set(&key, check(0), true).await.unwrap();
        assert!(ask(port).await.unwrap().0.starts_with("http/1.1 503"));
        checks.set(&key, check(1), true).await.unwrap();
        checks.tell(false);
        let (head, body) = ask(port).await.unwrap();
        assert!(head.starts_with("http/1.1 503") && body["serviceProxyHealthy"] == false, "{head} {body}");
        checks.set(&key, None, true).await.unwrap();
        checks.close().await;
        assert!(ask(port).await.is_err());
    }
}
