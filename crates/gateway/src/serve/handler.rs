//! A request: which rule it meets, which backend answers it, and what comes of that.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, LOCATION, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Proxy;
use super::body::ProxyBody;
use super::connection::Connection;
use super::headers::{self, Host, Origin};
use super::pool::Failure;
use super::redirect::{self, location};
use crate::backend::{Endpoints, Protocol};
use crate::route::{Action, Filters, Redirect, Target, Wanted, WeightedBackend};
use crate::table::Place;

/// How many endpoints are tried until one takes the connection.
const ATTEMPTS: usize = 3;

/// Why a request is answered here.
#[derive(Debug)]
struct Refusal(StatusCode, &'static str);

impl Refusal {
    fn response(&self) -> Response<ProxyBody> {
        let mut response = Response::new(ProxyBody::Text(Bytes::from(format!("{}: {}\n", self.0, self.1))));
        *response.status_mut() = self.0;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(_) => Self(StatusCode::BAD_GATEWAY, "no endpoint takes the connection"),
            Failure::Broken(_) => Self(StatusCode::BAD_GATEWAY, "the backend gave no valid response"),
            Failure::ConnectTimeout | Failure::Timeout => {
                Self(StatusCode::GATEWAY_TIMEOUT, "the backend takes too long")
            }
        }
    }
}

impl Connection {
    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>, is_tls: bool) -> Response<ProxyBody> {
        self.forward(request, is_tls).await.unwrap_or_else(|refusal| refusal.response())
    }

    async fn forward(&self, request: Request<Incoming>, is_tls: bool) -> Result<Response<ProxyBody>, Refusal> {
        let host = headers::host(request.uri(), request.headers(), request.version());
        let host = host.map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?;
        if request.method() == Method::CONNECT {
            return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "no tunnels are made here"));
        }
        if headers::has_dot_segments(request.uri().path()) {
            return Err(Refusal(
                StatusCode::BAD_REQUEST,
                "the path has elements that are to be resolved by the client",
            ));
        }
        let action = self.find(&request, &host)?;
        let action = action.ok_or(Refusal(StatusCode::NOT_FOUND, "there is no rule for this host and path"))?;
        if let Some(redirect) = &action.filters.redirect {
            return self.redirected(&request, &host, is_tls, &action, redirect);
        }
        let backend = action.choose(rand::random());
        let backend = backend.ok_or(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the rule has no backend"))?;
        if let Some(redirect) = &backend.filters.redirect {
            return self.redirected(&request, &host, is_tls, &action, redirect);
        }
        let endpoints = match &backend.target {
            Target::Endpoints(endpoints) => endpoints,
            Target::Invalid(status) => return Err(Refusal(*status, "the backend does not exist or cannot be used")),
        };
        if endpoints.addresses.is_empty() {
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "no endpoint of the backend is ready"));
        }
        let permit = Arc::clone(&self.proxy.requests).try_acquire_owned();
        let permit = permit.map_err(|_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time"))?;
        let origin = Origin { peer: self.peer.ip(), is_tls, host: &host, port: self.port };
        let mut response = self.exchange(request, origin, &action, backend, endpoints, permit).await?;
        action.filters.response_headers.apply(response.headers_mut());
        backend.filters.response_headers.apply(response.headers_mut());
        Ok(response)
    }

    fn find(&self, request: &Request<Incoming>, host: &Host) -> Result<Option<Arc<Action>>, Refusal> {
        let wanted = Wanted {
            host: &host.name,
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            headers: request.headers(),
        };
        let table = self.proxy.table.load();
        let Some(entry) = table.entry_points.get(&self.place) else { return Ok(None) };
        if self.server_name.as_deref().is_some_and(|name| entry.is_misdirected(name, &host.name)) {
            return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, "another listener answers for this host"));
        }
        Ok(entry.find(&wanted).cloned())
    }

    fn redirected(
        &self,
        request: &Request<Incoming>,
        host: &Host,
        is_tls: bool,
        action: &Action,
        redirect: &Redirect,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let port = |port| self.proxy.port(Place { port, ..self.place }).unwrap_or(port);
        let from = redirect::From {
            is_tls,
            host: &host.name,
            path: request.uri().path(),
            query: request.uri().query(),
            port: self.port,
            http: port(80),
            https: port(443),
        };
        let malformed = |_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the rule redirects to no valid URL");
        let location = HeaderValue::from_str(&location(redirect, from)).map_err(malformed)?;
        let mut response = Response::new(ProxyBody::Empty);
        *response.status_mut() = redirect.status;
        response.headers_mut().insert(LOCATION, location);
        action.filters.response_headers.apply(response.headers_mut());
        Ok(response)
    }

    /// Has an endpoint answer.
    async fn exchange(
        &self,
        mut request: Request<Incoming>,
        origin: Origin<'_>,
        action: &Action,
        backend: &WeightedBackend,
        endpoints: &Endpoints,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let proxy = &self.proxy;
        let started = Instant::now();
        let is_grpc = headers::is_grpc(request.version(), request.headers());
        let protocol = if is_grpc { Protocol::H2c } else { endpoints.protocol };
        let upgrade = headers::upgrade(request.version(), request.headers()).filter(|_| protocol == Protocol::Http);
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let until = action.timeouts.request.map(|limit| started + limit);
        let mut body = ProxyBody::pass(body, proxy.limits.stall, until, None);
        if upgrade.is_none() {
            for mirror in action.mirrors.iter().filter(|mirror| mirror.is_drawn(rand::random())) {
                self.mirror(&parts, &mut body, is_grpc, origin, action, &mirror.endpoints);
            }
        }
        let filters = [&action.filters, &backend.filters];
        let outgoing = outgoing(parts, body, protocol, upgrade.as_ref(), origin, &filters)?;

        let answered = proxy.send(endpoints, protocol, outgoing, action.timeouts.backend_request);
        let last = started + proxy.limits.response;
        let answered = tokio::time::timeout_at(until.map_or(last, |until| until.min(last)), answered).await;
        let mut response = answered.unwrap_or(Err(Failure::Timeout)).map_err(|failure| {
            tracing::debug!(backend = endpoints.name, %failure, "a request failed");
            Refusal::from(failure)
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let client = client.ok_or(Refusal(StatusCode::BAD_GATEWAY, "the backend switches protocols unasked"))?;
            let switched = response.headers().get(UPGRADE).or(upgrade.as_ref()).cloned();
            let backend = hyper::upgrade::on(&mut response);
            self.join(client, backend, permit);
            let (mut parts, _) = response.into_parts();
            headers::clean(&mut parts.headers);
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.extend(switched.map(|protocol| (UPGRADE, protocol)));
            return Ok(Response::from_parts(parts, ProxyBody::Empty));
        }
        let (mut parts, body) = response.into_parts();
        headers::clean(&mut parts.headers);
        parts.version = Version::default();
        let held: Box<dyn Any + Send> = Box::new(permit);
        Ok(Response::from_parts(parts, ProxyBody::pass(body, proxy.limits.response, until, Some(held))))
    }

    /// Sends a copy of a request to other endpoints, whose response nobody waits for.
    fn mirror(
        &self,
        parts: &Parts,
        body: &mut ProxyBody,
        is_grpc: bool,
        origin: Origin<'_>,
        action: &Action,
        endpoints: &Arc<Endpoints>,
    ) {
        let Ok(permit) = Arc::clone(&self.proxy.requests).try_acquire_owned() else { return };
        let (mut copy, ()) = Request::new(()).into_parts();
        copy.method.clone_from(&parts.method);
        copy.uri.clone_from(&parts.uri);
        copy.version = parts.version;
        copy.headers.clone_from(&parts.headers);
        let protocol = if is_grpc { Protocol::H2c } else { endpoints.protocol };
        // What is wrong with it is wrong with the request itself.
        let Ok(request) = outgoing(copy, body.copied(), protocol, None, origin, &[&action.filters]) else { return };
        let (proxy, endpoints) = (Arc::clone(&self.proxy), Arc::clone(endpoints));
        self.proxy.clients.spawn(async move {
            let _permit = permit;
            let answered = async {
                let mut body = proxy.send(&endpoints, protocol, request, None).await?.into_body();
                // The connection is of use again when all has been read.
                while let Some(Ok(_)) = body.frame().await {}
                Ok::<_, Failure>(())
            };
            let answered = tokio::time::timeout(proxy.limits.response, answered);
            if let Some(Ok(Err(failure))) = proxy.killed.run_until_cancelled(answered).await {
                tracing::debug!(backend = endpoints.name, %failure, "the copy of a request failed");
            }
        });
    }

    /// Joins both sides once each has switched protocols.
    fn join(&self, client: OnUpgrade, backend: OnUpgrade, permit: OwnedSemaphorePermit) {
        let held = (Arc::clone(&self.slot), permit);
        let joined = async move {
            let _held = held;
            let (client, backend) = tokio::try_join!(client, backend).map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
        };
        let killed = self.proxy.killed.clone();
        self.proxy.clients.spawn(async move {
            if let Some(Err(error)) = killed.run_until_cancelled(joined).await {
                tracing::debug!(%error, "an upgraded connection ended early");
            }
        });
    }
}

/// The request to the backend.
fn outgoing(
    parts: Parts,
    body: ProxyBody,
    protocol: Protocol,
    upgrade: Option<&HeaderValue>,
    origin: Origin<'_>,
    filters: &[&Filters],
) -> Result<Request<ProxyBody>, Refusal> {
    let Parts { method, uri, version, mut headers, .. } = parts;
    headers::to_backend(&mut headers, upgrade, origin);
    headers.insert(HOST, origin.host.authority.clone());
    let malformed = Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the rule makes of this request none that is valid");
    let mut target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    for filters in filters {
        filters.request_headers.apply(&mut headers);
        let Some(rewrite) = &filters.rewrite else { continue };
        if let Some(hostname) = &rewrite.hostname {
            let Ok(hostname) = HeaderValue::from_str(hostname) else { return Err(malformed) };
            headers.insert(HOST, hostname);
        }
        if let Some(path) = &rewrite.path {
            let query = target.query().map_or_else(String::new, |query| format!("?{query}"));
            let Ok(rewritten) = format!("{}{query}", path.apply(target.path())).parse() else { return Err(malformed) };
            target = rewritten;
        }
    }
    if version == Version::HTTP_2 && protocol == Protocol::Http {
        headers::join_cookies(&mut headers);
    }
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.version_mut() = match protocol {
        Protocol::Http => Version::HTTP_11,
        Protocol::H2c => Version::HTTP_2,
    };
    let mut uri = Uri::from(target).into_parts();
    if protocol == Protocol::H2c {
        // What is the header `Host` elsewhere is a part of the URI there.
        let host = headers.remove(HOST).filter(|host| !host.is_empty());
        let authority = host.map_or(Ok(Authority::from_static("localhost")), |host| host.as_bytes().try_into());
        let Ok(authority) = authority else { return Err(malformed) };
        uri.authority = Some(authority);
        uri.scheme = Some(http::uri::Scheme::HTTP);
    }
    let Ok(uri) = Uri::from_parts(uri) else { return Err(malformed) };
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

impl Proxy {
    /// Sends a request to an endpoint: to the next where one does not take the connection, and anew where a connection that was
    /// kept has ended in the meantime.
    async fn send(
        &self,
        endpoints: &Endpoints,
        protocol: Protocol,
        mut request: Request<ProxyBody>,
        limit: Option<std::time::Duration>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut last = Failure::ConnectTimeout;
        for endpoint in endpoints.in_turn().take(ATTEMPTS) {
            let mut may_reuse = true;
            loop {
                let connection = match self.pool.get(endpoint, protocol, may_reuse).await {
                    Ok(connection) => connection,
                    Err(failure) => {
                        tracing::debug!(backend = endpoints.name, %endpoint, %failure, "an endpoint cannot be reached");
                        last = failure;
                        break;
                    }
                };
                let is_reused = connection.is_reused;
                let copy = if is_reused { copy(&request) } else { None };
                let answered = self.pool.send(connection, request);
                let answered = match limit {
                    Some(limit) => {
                        let answered = tokio::time::timeout(limit, answered).await;
                        answered.map_err(|_| Failure::Timeout)?
                    }
                    None => answered.await,
                };
                let (failure, unsent) = match answered {
                    Ok(response) => return Ok(response),
                    Err(unanswered) => (unanswered.failure, unanswered.unsent),
                };
                let Some(again) = unsent.or(copy) else { return Err(failure) };
                request = again;
                if !is_reused {
                    last = failure;
                    break;
                }
                may_reuse = false;
            }
        }
        Err(last)
    }
}

/// The same request again, where it may be sent twice and has no body.
fn copy(request: &Request<ProxyBody>) -> Option<Request<ProxyBody>> {
    if !headers::is_safe(request.method()) || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(ProxyBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
