//! The `proxy` subresource: any request, passed on to a pod, a pod of a service, or a node.
//!
//! The name may say more: `[SCHEME:]NAME[:PORT]`, where a service's port may be a name. At its kubelet's port a node answers
//! itself, without the network between; its other ports are reached like everybody's.
//!
//! Redirects and the links of HTML pages within what is proxied lead back to the proxy ([`links`]).

mod forward;
mod links;
mod target;

use http::header::LOCATION;
use http::{HeaderValue, Method, Response, StatusCode};
use machinery::status::ApiError;

use self::target::Place;
use super::{Call, Connections};
use crate::body::{RequestBody, ResponseBody};
use crate::forward::is_upgrade;
use crate::kubelet_routes;
use crate::respond::Answer;

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
            let node = target::get(&call, "Node", place.name).await?;
            if target::is_kubelet(&node, &place) {
                let kubelet = connections.connect(place.name).await?;
                return Ok(kubelet_routes::serve(kubelet, &connections.lifecycle, &inner, call.parts).await);
            }
            target::node(node, &place)?
        }
        "Service" => target::service(&call, &name).await?,
        _ => target::pod(&call, &name).await?,
    };
    forward::forward(call, &connections.lifecycle, &place, &inner, prefix, body).await
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
