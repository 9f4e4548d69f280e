//! The server without its sockets: takes a request and who sent it, answers.
//!
//! The steps of a request, in order: path → who (401) → may they (403) → its body → is it their turn (429) → what is there (404,
//! 405) → the handler. Whatever comes in over TLS takes them all; for the in-process client it is always its turn.

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use machinery::Verb;
use machinery::selector::FieldSelector;
use machinery::status::ApiError;
use prometheus_client::collector::Collector;
use registry::Registry;

use crate::aggregated_api::{AggregatedApi, AggregatedApis};
use crate::aggregator::{Aggregator, AggregatorMetrics};
use crate::audit::{self, Audit, Recording};
use crate::authn::{Authenticator, User};
use crate::authz::{self, Attributes, Authorizer, Target};
use crate::body::{BodyBudget, RequestBody, ResponseBody, panic_text};
use crate::documents::Documents;
use crate::flowcontrol::{Flow, FlowControl, ListOptions, Seat};
use crate::keyspace;
use crate::lifecycle::{self, Lifecycle};
use crate::limits::RequestLimits;
use crate::metrics::{Labels, Metrics};
use crate::negotiate;
use crate::non_resource::NonResource;
use crate::past;
use crate::path::Route;
use crate::protobuf;
use crate::query::Query;
use crate::resource::{self, Handlers, NodeConnector};
use crate::respond::{self, Answer};
use crate::reviews::Reviewer;
use crate::tokens::Tokens;

/// What the server works with.
#[derive(Clone)]
pub struct Dependencies {
    /// The objects.
    pub registry: Registry,
    /// The nodes.
    pub nodes: Arc<dyn NodeConnector>,
    /// Who may do what; [`Rbac`](crate::authz::Rbac) usually.
    pub authorizer: Arc<dyn Authorizer>,
    /// APIs that others in the process answer.
    pub extensions: Vec<AggregatedApi>,
    /// What requests may take.
    pub limits: RequestLimits,
    /// Where requests are noted, if they are.
    pub audit: Option<Audit>,
}

/// On whose behalf a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody's, over the network.
    Client,
    /// A component of this process.
    Component,
}

/// What is known of a request once it is answered.
struct Report {
    labels: Labels,
    /// None of a request that does not wait for its turn.
    flow: Option<Flow>,
    /// None of a request that is not noted.
    recording: Option<Recording>,
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Inner>);

/// The parts of the server, each of which holds what it needs and no more.
pub(crate) struct Inner {
    pub(crate) registry: Registry,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) non_resource: NonResource,
    pub(crate) aggregator: Arc<Aggregator>,
    authenticator: Authenticator,
    authorizer: Arc<dyn Authorizer>,
    pub(crate) flow_control: Arc<FlowControl>,
    pub(crate) bodies: Arc<BodyBudget>,
    limits: RequestLimits,
    handlers: Handlers,
    metrics: Arc<Metrics>,
    pub(crate) audit: Option<Audit>,
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, private");

impl ApiServer {
    /// A server nobody can connect to yet: it answers [`ApiServer::client`]s.
    #[must_use]
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies { registry, nodes, authorizer, extensions, limits, audit } = dependencies;
        let store = registry.store().clone();
        let metrics = Arc::new(Metrics::new(&store));
        let flow_control = Arc::new(FlowControl::new(&store, limits.seats));
        metrics.register(flow_control.collector());
        let tokens = Arc::new(Tokens::new(&registry));
        let aggregated = AggregatedApis::new(extensions);
        let lifecycle = Lifecycle::default();
        let aggregator = Arc::new(Aggregator::new(registry.clone(), lifecycle.clone()));
        metrics.register(Box::new(AggregatorMetrics(Arc::clone(&aggregator))));
        if let Some(audit) = &audit {
            metrics.register(audit.metrics());
        }
        Self(Arc::new(Inner {
            authenticator: Authenticator { tokens: Arc::clone(&tokens), authorizer: Arc::clone(&authorizer) },
            non_resource: NonResource {
                documents: Documents::new(registry.clone(), aggregated.clone(), Arc::clone(&aggregator)),
                aggregator: Arc::clone(&aggregator),
                tokens: Arc::clone(&tokens),
                metrics: Arc::clone(&metrics),
                registry: registry.clone(),
                lifecycle: lifecycle.clone(),
                flow_control: Arc::clone(&flow_control),
            },
            handlers: Handlers {
                registry: registry.clone(),
                aggregated,
                aggregator: Arc::clone(&aggregator),
                reviewer: Reviewer { authorizer: Arc::clone(&authorizer), tokens: Arc::clone(&tokens) },
                tokens: Arc::clone(&tokens),
                encoded_lists: protobuf::Portions::default(),
                watches: resource::Watches {
                    metrics: Arc::clone(&metrics),
                    lifecycle: lifecycle.clone(),
                    slots: resource::WatchSlots::new(&limits),
                },
                large: resource::Turns::default(),
                connections: resource::Connections { nodes, lifecycle: lifecycle.clone() },
            },
            aggregator,
            authorizer,
            flow_control,
            bodies: Arc::new(BodyBudget::new(limits.body_bytes)),
            limits,
            registry,
            tokens,
            lifecycle,
            metrics,
            audit,
        }))
    }

    /// How long a request may take that does not last.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.0.limits.timeout
    }

    /// Whom a request comes from, given what its connection says.
    ///
    /// # Errors
    /// 401 for a token that is not good.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, user: Arc<User>) -> Result<Arc<User>, ApiError> {
        self.0.authenticator.authenticate(headers, user)
    }

    /// Who may do what.
    pub(crate) fn authorizer(&self) -> &dyn Authorizer {
        &*self.0.authorizer
    }

    /// Serves the metrics of another component beside the server's own.
    pub fn register_metrics(&self, collector: Box<dyn Collector>) {
        self.0.metrics.register(collector);
    }

    /// Answers one request. Never fails and never panics: whatever goes wrong is in the response.
    pub(crate) async fn handle(
        &self,
        request: Request<RequestBody>,
        user: Option<Arc<User>>,
        caller: Caller,
    ) -> Response<ResponseBody> {
        let started = Instant::now();
        let _in_flight = self.0.metrics.begin();
        let audit_id = audit_id(request.headers());
        let labels = Labels { verb: method_verb(request.method()), resource: None, subresource: "", code: 200 };
        let mut report = Report { labels, flow: None, recording: None };
        let errors = negotiate::error_encoding(request.headers());
        let answered = self.dispatch(request, user, caller, &audit_id, &mut report);
        let outcome = AssertUnwindSafe(answered).catch_unwind().await;
        let Report { mut labels, flow, recording } = report;
        let mut response = match outcome {
            Ok(Ok(response)) => audit::answered(recording, response),
            Ok(Err(error)) => audit::failed(recording, &error, respond::error(&error, errors)),
            Err(panic) => {
                audit::panicked(recording, panic_text(&*panic));
                self.0.metrics.panicked();
                tracing::error!(verb = %labels.verb, resource = ?labels.resource, panic = panic_text(&*panic), "a request handler panicked");
                let error = ApiError::internal("this request caused apiserver to panic. Look in the logs for details.");
                respond::error(&error, errors)
            }
        };
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, audit_id);
        headers.entry(CACHE_CONTROL).or_insert(NO_CACHE);
        if let Some(flow) = flow {
            flow.set_headers(headers);
        }
        labels.code = response.status().as_u16();
        self.0.metrics.answered(&labels, started.elapsed());
        response
    }

    async fn dispatch(
        &self,
        request: Request<RequestBody>,
        user: Option<Arc<User>>,
        caller: Caller,
        audit_id: &HeaderValue,
        report: &mut Report,
    ) -> Result<Answer, ApiError> {
        let (mut parts, body) = past::translate(request)?.into_parts();
        // A second handle on the same bytes, since the parts move on.
        let uri = parts.uri.clone();
        let path = uri.path();
        let route = Route::parse(path);
        let query = Query::parse(uri.query());
        let mut selector = None;
        let (verb, target) = match &route {
            Route::Resource(place) => {
                // Without a verb, nothing can be asked about it but who asks.
                let verb = resource::verb(&parts.method, place, &query).unwrap_or(method_verb(&parts.method));
                selector = resource::field_selector(place, &query, verb);
                (verb, resource::target(place, resource::authorized_name(place, selector.as_ref())))
            }
            _ => (method_verb(&parts.method), Target::Path(path)),
        };

        // Somebody who says nothing is somebody, too; a lie is not.
        let user = user.ok_or_else(ApiError::unauthorized);
        let user = user.and_then(|user| self.0.authenticator.authenticate(&parts.headers, user));
        if let Some(audit) = &self.0.audit {
            report.recording = audit.begin(user.as_ref().ok(), verb, target, &parts, audit_id);
        }
        let mut user = user?;
        if let Some(other) = self.0.authenticator.impersonated(&mut parts.headers, &user)? {
            user = other;
            if let Some(recording) = &mut report.recording {
                recording.acts_as(&user);
            }
        }
        let annotations = report.recording.as_ref().map(Recording::annotations);
        let field_selector = selector.as_ref();
        let asked = Asked { route: &route, verb, target, field_selector, query: &query, user, caller };
        match annotations {
            // In a box, so that requests that are not noted need no room for it.
            Some(annotations) => annotations.scope(Box::pin(self.answer(asked, parts, body, report))).await,
            None => self.answer(asked, parts, body, report).await,
        }
    }

    /// Answers what is allowed, when it is its turn.
    async fn answer(
        &self,
        asked: Asked<'_>,
        parts: Parts,
        body: RequestBody,
        report: &mut Report,
    ) -> Result<Answer, ApiError> {
        let Asked { route, verb, target, field_selector, query, user, caller } = asked;
        let may_last = match target {
            Target::Resource { subresource, .. } => verb == Verb::Watch || resource::lasts(subresource),
            Target::Path(_) => false,
        };
        // What lasts may have the parameter for somebody else: the backend of a proxy (upstream: apiserver
        // `pkg/endpoints/filters/request_deadline.go`).
        let timeout = if may_last { self.request_timeout() } else { self.timeout(query)? };
        // A component of this process waits as long as it takes. What it may wait for has bounds of its own: a webhook its
        // timeout, and the store answers or refuses.
        let deadline = (caller == Caller::Client).then(|| Instant::now() + timeout);
        let attributes = Attributes { user: &user, verb, target, field_selector };
        let authorize = |attributes: &Attributes<'_>| authz::authorize(&*self.0.authorizer, attributes);
        let Route::Resource(place) = route else {
            let answered = pin!(async {
                report.flow = self.flow(caller, &attributes)?;
                authorize(&attributes)?;
                if matches!(route, Route::Keyspace(_)) {
                    // Objects of all kinds lie there.
                    authorize(&keyspace::everything(&user))?;
                }
                // The documents are there already: once they are found, the seat is free.
                let _seat = self.seat(report, &attributes, &ListOptions::default(), timeout).await?;
                let answer = self.0.non_resource.serve(route, &parts, query, &user).await?;
                Ok(answer.map(|body| body.ending(deadline)))
            });
            return within(deadline, answered).await;
        };
        if resource::verb(&parts.method, place, query).is_none() {
            return Err(respond::method_not_allowed());
        }
        report.labels.verb = verb;
        let lasts = resource::lasts(place.subresource);
        let answered = pin!(async {
            let options = ListOptions {
                limit: query.integer("limit").ok().flatten().and_then(|limit| limit.try_into().ok()).unwrap_or(0),
                send_initial_events: query.flag("sendInitialEvents"),
            };
            // Upstream, too, lets what lasts pass, but for the beginning of a watch.
            report.flow = if lasts { None } else { self.flow(caller, &attributes)? };
            authorize(&attributes)?;
            if verb != Verb::Create && resource::connects(place) {
                // A WebSocket begins with a GET, and is no less than what SPDY begins with a POST (upstream:
                // `pkg/registry/core/pod/rest/authorize.go`).
                authorize(&Attributes { verb: Verb::Create, ..attributes })?;
            }
            let is_exempt = report.flow.as_ref().is_some_and(Flow::is_exempt);
            let mut body = if lasts { body } else { body.arrive(verb, is_exempt).await? };
            if let Some(recording) = &mut report.recording {
                body = recording.read(&parts, body).await?;
            }
            let seat = self.seat(report, &attributes, &options, timeout).await?;
            let user = Arc::clone(&user);
            let request = resource::Request { place, verb, query, parts, user };
            let answer = self.0.handlers.serve(request, body, &mut report.labels).await?;
            // What is left of what lasts is waiting for something.
            Ok(if may_last { answer } else { answer.map(|body| body.holding(seat).ending(deadline)) })
        });
        if may_last {
            lifecycle::set_lasts(caller == Caller::Client || lifecycle::lasts());
            return answered.await;
        }
        within(deadline, answered).await
    }

    /// How long a request may take: as long as its client says, but no longer than any.
    fn timeout(&self, query: &Query<'_>) -> Result<Duration, ApiError> {
        let most = self.request_timeout();
        Ok(query.timeout()?.map_or(most, |asked| asked.min(most)))
    }

    /// The flow of a request that has to wait for its turn.
    fn flow(&self, caller: Caller, attributes: &Attributes<'_>) -> Result<Option<Flow>, ApiError> {
        match caller {
            Caller::Client => self.0.flow_control.classify(attributes).map(Some),
            Caller::Component => Ok(None),
        }
    }

    /// Waits until it is the turn of a request, for a quarter of its time at most (upstream: `requestWaitLimit` in apiserver
    /// `pkg/server/options/recommended.go`).
    async fn seat(
        &self,
        report: &Report,
        attributes: &Attributes<'_>,
        options: &ListOptions,
        timeout: Duration,
    ) -> Result<Option<Seat>, ApiError> {
        let Some(flow) = &report.flow else { return Ok(None) };
        self.0.flow_control.acquire(flow, attributes, options, timeout / 4).await.map(Some)
    }
}

/// The answer to a request that does not last, if it comes in time (upstream: apiserver `pkg/server/filters/timeout.go`).
async fn within(
    deadline: Option<Instant>,
    answered: Pin<&mut impl Future<Output = Result<Answer, ApiError>>>,
) -> Result<Answer, ApiError> {
    let Some(deadline) = deadline else { return answered.await };
    let too_late = |_| ApiError::timeout("request did not complete within the allotted timeout", 0);
    tokio::time::timeout_at(deadline.into(), answered).await.map_err(too_late)?
}

/// What somebody asks for.
struct Asked<'a> {
    route: &'a Route<'a>,
    verb: Verb<'static>,
    target: Target<'a>,
    field_selector: Option<&'a FieldSelector>,
    query: &'a Query<'a>,
    user: Arc<User>,
    caller: Caller,
}

/// The client's own id, if it sent one that is fit for a header, else a new one in the form of a UUID.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    if let Some(id) = headers.get(&AUDIT_ID).filter(|id| id.len() <= 64) {
        return id.clone();
    }
    let mut bytes: [u8; 16] = rand::random();
    // RFC 9562: version 4, variant 10.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A method as authorizers and metrics call it.
fn method_verb(method: &Method) -> Verb<'static> {
    match *method {
        Method::GET => Verb::Get,
        Method::HEAD => Verb::Head,
        Method::POST => Verb::Post,
        Method::PUT => Verb::Put,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        Method::OPTIONS => Verb::Options,
        _ => Verb::Other("other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_ids() {
        let fresh = audit_id(&HeaderMap::new());
        let text = fresh.to_str().unwrap();
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{text}");
        assert_ne!(fresh, audit_id(&HeaderMap::new()));

        let mut headers = HeaderMap::new();
        headers.insert(AUDIT_ID, HeaderValue::from_static("mine"));
        assert_eq!(audit_id(&headers), "mine");
        headers.insert(AUDIT_ID, HeaderValue::from_str(&"x".repeat(65)).unwrap());
        assert_ne!(audit_id(&headers).len(), 65);
    }
}
