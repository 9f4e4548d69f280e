//! Discovery, OpenAPI and what else is no resource.

use anyhow::Result;
use http::Method;

use crate::Comparison;
use crate::cluster::Request;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_BETA: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// Paths without a resource.
const PATHS: [&str; 20] = [
    "/",
    "/api",
    "/apis",
    "/api/v1",
    "/api/v2",
    "/apis/apps",
    "/apis/none.example.com",
    "/apis/apps/v2",
    "/api/v1/nones",
    "/api/v1/namespaces/default/nones/x",
    "/api/v1/namespaces/default/pods/x/none",
    "/none",
    "/healthz",
    "/livez/ping",
    "/readyz?verbose",
    "/livez?exclude=none",
    "/version",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/api/v1/watch/namespaces/default/pods?timeoutSeconds=1",
];

pub(super) async fn send(comparison: &mut Comparison) -> Result<()> {
    for path in PATHS {
        comparison.send(&Request::get(path)).await?;
    }
    for path in ["/api", "/apis"] {
        for accept in [AGGREGATED, AGGREGATED_BETA] {
            comparison.send(&Request::get(path).accept(accept)).await?;
        }
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::HEAD] {
        for path in
            ["/api", "/version", "/healthz", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/pods/x"]
        {
            comparison.send(&Request::new(method.clone(), path)).await?;
        }
    }
    let groups = comparison.theirs.json("/apis").await?;
    for group in groups["groups"].as_array().into_iter().flatten() {
        for version in group["versions"].as_array().into_iter().flatten() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap_or_default());
            comparison.send(&Request::get(path)).await?;
        }
    }
    Ok(())
}
