//! gRPC probes: the standard health service, `grpc.health.v1.Health/Check`.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::Outcome;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Asks the health service at `address` about `service`; empty asks about the server as a whole.
pub(super) async fn check(address: &str, service: &str, timeout: Duration) -> Outcome {
    let late = |stage: &str| {
        let timeout = crate::time::go_duration(timeout);
        Outcome::Failure(format!(
            "timeout: failed to {stage} \"{address}\" within {timeout}: context deadline exceeded"
        ))
    };
    let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => endpoint,
        Err(error) => return Outcome::Error(error.to_string()),
    };
    let deadline = tokio::time::Instant::now() + timeout;
    // Upstream's dialer goes on trying until its time is over; the verdict is the same.
    let Ok(Ok(channel)) = tokio::time::timeout_at(deadline, endpoint.connect()).await else {
        return late("connect service");
    };
    let mut client = Grpc::new(channel);
    let call = async {
        client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let request = Request::new(HealthCheckRequest { service: service.to_owned() });
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        client.unary(request, path, codec).await
    };
    let Ok(response) = tokio::time::timeout_at(deadline, call).await else {
        return late("health check");
    };
    match response {
        Ok(response) => match ServingStatus::try_from(response.into_inner().status) {
            Ok(ServingStatus::Serving) => Outcome::Success,
            status => {
                let status = match status {
                    Ok(ServingStatus::NotServing) => "NOT_SERVING",
                    Ok(ServingStatus::ServiceUnknown) => "SERVICE_UNKNOWN",
                    _ => "UNKNOWN",
                };
                Outcome::Failure(format!("service unhealthy (responded with \"{status}\")"))
            }
        },
        Err(status) => match status.code() {
            Code::Unimplemented => Outcome::Failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            )),
            Code::DeadlineExceeded => late("health check"),
            _ => Outcome::Failure(format!("error: health rpc failed: {}", status.message())),
        },
    }
}
