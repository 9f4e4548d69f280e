//! gRPC probes: the standard health service, `grpc.health.v1.Health/Check`.

use std::time::Duration;

use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::AttemptResult;

/// Asks the health service at `address` about `service`; empty asks about the server as a whole.
pub(super) async fn check(address: &str, service: &str, timeout: Duration) -> AttemptResult {
    let late = |stage: &str| {
        let timeout = crate::time::go_duration(timeout);
        AttemptResult::Failure(format!(
            "timeout: failed to {stage} \"{address}\" within {timeout}: context deadline exceeded"
        ))
    };
    let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => endpoint,
        Err(error) => return AttemptResult::Error(error.to_string()),
    };
    let deadline = tokio::time::Instant::now() + timeout;
    // Upstream's dialer goes on trying until its time is over; the verdict is the same.
    let Ok(Ok(channel)) = tokio::time::timeout_at(deadline, endpoint.connect()).await else {
        return late("connect service");
    };
    let mut client = HealthClient::new(channel);
    let call = client.check(Request::new(HealthCheckRequest { service: service.to_owned() }));
    let Ok(response) = tokio::time::timeout_at(deadline, call).await else {
        return late("health check");
    };
    match response {
        Ok(response) => match ServingStatus::try_from(response.into_inner().status) {
            Ok(ServingStatus::Serving) => AttemptResult::Success,
            status => {
                let status = status.unwrap_or(ServingStatus::Unknown).as_str_name();
                AttemptResult::Failure(format!("service unhealthy (responded with \"{status}\")"))
            }
        },
        Err(status) => match status.code() {
            Code::Unimplemented => AttemptResult::Failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            )),
            Code::DeadlineExceeded => late("health check"),
            _ => AttemptResult::Failure(format!("error: health rpc failed: {}", status.message())),
        },
    }
}
