//! The `proxy` subresource: any request, passed on to a pod, a pod of a service, or a node.
//!
//! The name may say more: `[SCHEME:]NAME[:PORT]`, where a service's port may be a name. A node itself answers for its
//! statistics; its other ports are reached over the network like everybody's.
//!
//! Redirects and the links of HTML pages within what is proxied lead back to the proxy ([`links`]).

mod forward;
mod links;
mod target;

use http::header::LOCATION;
use http::{HeaderValue, Method, Response, StatusCode};
use machinery::status::ApiError;

use self::target::Place;
use super::node::failed;
use super::{Call, Connections};
use crate::body::{RequestBody, ResponseBody};
use crate::forward::is_upgrade;
use crate::respond::{self, Answer};

/// The port of a kubelet's own API.
const KUBELET_PORT: &str = "10250";

/// Answers; `rest` is the path behind `proxy`, without slashes at its ends, and `admitted` where admission lets it lead.
pub(super) async fn proxy(
    call: Call<'_>,
    connections: &Connections,
    rest: &str,
    admitted: &str,
    body: RequestBody,
) -> Result<Answer, ApiError> {
    let path = call.parts.uri.path();
    let reads = matches!(call.parts.method, Method::GET | Method::HEAD);
    if rest.is_empty() && !path.ends_with('/') && reads && !is_upgrade(&call.parts) {
        // Relative links in the page are to lead somewhere. Upstream: `proxyRedirectsforRootPath` in
        // `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.
        return Ok(to_folder(path, call.parts.uri.query()));
    }
    let slash = if path.ends_with('/') && !rest.is_empty() { "/" } else { "" };
    let prefix = path.strip_suffix(slash).unwrap_or(path);
    let prefix = prefix.strip_suffix(rest).unwrap_or(prefix).trim_end_matches('/').to_owned();
    let inner = format!("/{}", admitted.trim_start_matches('/'));
    let kind = call.resource().info().kind.clone();
    let name = call.target.name.clone();
    let place = match &*kind {
        "Node" => {
            let place =
                Place::parse(&name).ok_or_else(|| ApiError::bad_request(format!("invalid node request {name:?}")))?;
            if place.port.is_empty() || place.port == KUBELET_PORT {
                return kubelet(&call, connections, &place, inner.trim_matches('/')).await;
            }
            target::node(&call, &place).await?
        }
        "Service" => target::service(&call, &name).await?,
        _ => target::pod(&call, &name).await?,
    };
    forward::forward(call, &connections.lifecycle, &place, &inner, prefix, body).await
}

/// What a kubelet serves over HTTP, as far as it does here.
async fn kubelet(
    call: &Call<'_>,
    connections: &Connections,
    place: &Place<'_>,
    rest: &str,
) -> Result<Answer, ApiError> {
    let _: serde::de::IgnoredAny = target::get(call, "Node", place.name).await?;
    let node = connections.connect(place.name).await?;
    match rest {
        "stats/summary" | "stats" => {
            let summary = node.stats().await.map_err(failed)?;
            let json = serde_json::to_vec(&summary).map_err(ApiError::internal)?;
            Ok(respond::with_type(StatusCode::OK, "application/json", bytes::Bytes::from(json)))
        }
        "metrics/resource" => {
            let summary = node.stats().await.map_err(failed)?;
            let text = bytes::Bytes::from(summary.metrics());
            Ok(respond::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
        }
        "healthz" => Ok(respond::text(StatusCode::OK, "ok")),
        _ => Ok(respond::page_not_found()),
    }
}

fn to_folder(path: &str, query: Option<&str>) -> Answer {
    let place = match query {
        Some(query) => format!("{path}/?{query}"),
        None => format!("{path}/"),
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}
