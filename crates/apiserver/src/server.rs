//! The server without its sockets: takes a request and who sent it, answers.
//!
//! The steps of a request, in order: path → who (401) → may they (403) → what is there (404, 405) → the handler. Whatever
//! comes in, over TLS or from the in-process client, takes them all.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use machinery::Verb;
use machinery::status::ApiError;
use prometheus_client::collector::Collector;
use registry::Registry;
use registry::user::{MASTERS, UNAUTHENTICATED};
use streaming::NodeApi;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aggregated_api::{AggregatedApi, AggregatedApis};
use crate::authn::User;
use crate::authz::{self, Attributes, Authorizer, Decision, Target};
use crate::body::{RequestBody, ResponseBody};
use crate::catalog::{self, Document, Documents};
use crate::metrics::{self, Labels, Metrics};
use crate::negotiate::{self, Encoding, Offer, Shape};
use crate::path::Route;
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::tokens::Tokens;
use crate::{authn, discovery, health, openapi, protobuf, resource, version};

/// Finds the kubelet of a node, for logs, exec, attach and port-forward.
#[async_trait]
pub trait NodeConnector: Send + Sync + 'static {
    /// The node of that name, or `None` when it cannot be reached.
    async fn connect(&self, node: &str) -> Option<Arc<dyn NodeApi>>;
}

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
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) registry: Registry,
    pub(crate) nodes: Arc<dyn NodeConnector>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) tokens: Tokens,
    pub(crate) extensions: AggregatedApis,
    pub(crate) metrics: Metrics,
    documents: Documents,
    /// What protobuf lists may hold for slow clients.
    pub(crate) encoded_lists: protobuf::Budget,
    /// Where clients reach us, for discovery; set once a listener is there.
    pub(crate) address: OnceLock<String>,
    /// Cancelled when watches and streams are to end.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when what has not ended is dropped.
    pub(crate) killed: CancellationToken,
    /// Connections and streams.
    pub(crate) tasks: TaskTracker,
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, private");

impl ApiServer {
    /// A server nobody can connect to yet: it answers [`ApiServer::client`]s.
    #[must_use]
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies { registry, nodes, authorizer, extensions } = dependencies;
        let metrics = Metrics::new(registry.store());
        let tokens = Tokens::new(&registry);
        Self(Arc::new(Inner {
            registry,
            nodes,
            authorizer,
            tokens,
            extensions: AggregatedApis::new(extensions),
            metrics,
            documents: Documents::default(),
            encoded_lists: protobuf::Budget::default(),
            address: OnceLock::new(),
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
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
    ) -> Response<ResponseBody> {
        let started = Instant::now();
        let _in_flight = self.0.metrics.begin();
        let audit_id = audit_id(request.headers());
        let mut labels = Labels { verb: method_verb(request.method()), resource: None, subresource: "", code: 200 };
        let errors = negotiate::error_encoding(request.headers());
        let outcome = AssertUnwindSafe(self.dispatch(request, user, &mut labels)).catch_unwind().await;
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => respond::error(&error, errors),
            Err(panic) => {
                self.0.metrics.panicked();
                tracing::error!(verb = %labels.verb, resource = ?labels.resource, panic = respond::panic_text(&*panic), "a request handler panicked");
                let error = ApiError::internal("this request caused apiserver to panic. Look in the logs for details.");
                respond::error(&error, errors)
            }
        };
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, audit_id);
        headers.entry(CACHE_CONTROL).or_insert(NO_CACHE);
        labels.code = response.status().as_u16();
        self.0.metrics.answered(&labels, started.elapsed());
        response
    }

    async fn dispatch(
        &self,
        request: Request<RequestBody>,
        user: Option<Arc<User>>,
        labels: &mut Labels,
    ) -> Result<Answer, ApiError> {
        let (parts, body) = request.into_parts();
        // A second handle on the same bytes, since the parts move on.
        let uri = parts.uri.clone();
        let path = uri.path();
        let route = Route::parse(path);
        let query = Query::parse(uri.query());

        // Somebody who says nothing is somebody, too; a lie is not.
        let user = self.who(&parts.headers, user.ok_or_else(ApiError::unauthorized)?)?;
        let Route::Resource(place) = &route else {
            let verb = method_verb(&parts.method);
            self.permit(&Attributes { user: &user, verb, target: Target::Path(path) })?;
            if let Route::GroupVersion { group, version } = route {
                self.0.extensions.refresh(group, version).await;
            }
            return self.about(&route, &parts, &query, &user);
        };
        let Some(verb) = resource::verb(&parts.method, place, &query) else {
            return Err(method_not_allowed());
        };
        labels.verb = verb;
        let name = resource::authorized_name(place, &query, verb);
        self.permit(&Attributes {
            user: &user,
            verb,
            target: Target::Resource {
                group: place.group,
                version: place.version,
                resource: place.resource,
                subresource: place.subresource,
                namespace: &place.namespace,
                name: &name,
            },
        })?;
        resource::serve(resource::Request { server: self, place, verb, query: &query, parts, user }, body, labels).await
    }

    /// Whom the request comes from, given what the connection says.
    fn who(&self, headers: &HeaderMap, user: Arc<User>) -> Result<Arc<User>, ApiError> {
        let user = match authn::bearer(headers).filter(|_| user.is_in(UNAUTHENTICATED)) {
            Some(token) => {
                self.0
                    .tokens
                    .authenticate(token, &[], jiff::Timestamp::now())
                    .map_err(|error| {
                        tracing::debug!(%error, "a token was not accepted");
                        ApiError::unauthorized()
                    })?
                    .0
            }
            None => user,
        };
        Ok(authn::impersonation::impersonated(headers, &user, &*self.0.authorizer)?.unwrap_or(user))
    }

    fn permit(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        match self.0.authorizer.authorize(attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) => {
                let error = authz::forbidden(attributes, &reason);
                if attributes.user.name.starts_with("system:kube-") || attributes.user.as_node().is_some() {
                    // One of our own: its right is missing in the policy, and it may not be able to say so itself.
                    tracing::warn!(%error, "a component was refused");
                }
                Err(error)
            }
        }
    }

    /// Everything that is not about objects, and can only be read.
    fn about(&self, route: &Route<'_>, parts: &Parts, query: &Query<'_>, user: &User) -> Result<Answer, ApiError> {
        if matches!(route, Route::Unknown) {
            return Ok(respond::page_not_found());
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(method_not_allowed());
        }
        let resources = self.0.registry.resources();
        let documents = &self.0.documents;
        let extensions = self.0.extensions.listing();
        documents.renew(&extensions);
        let plain = |document: Option<Document>, offer: Offer| match document {
            Some(document) => {
                let output = negotiate::output(&parts.headers, offer)?;
                respond::json(StatusCode::OK, output.encoding, query.flag("pretty"), document.bytes)
            }
            None => Ok(respond::page_not_found()),
        };
        let listed = |name: &str, build: &dyn Fn(&[catalog::Served<'_>]) -> Option<Vec<u8>>| {
            let document = documents
                .get(&resources, name, |resources| build(&catalog::with(resources, &extensions)).unwrap_or_default());
            (!document.bytes.is_empty()).then_some(document)
        };
        match *route {
            Route::Health { endpoint, check } => {
                let state = health::State {
                    stopping: self.is_stopping(),
                    store: self.0.registry.store().health(),
                    with_reasons: user.is_in(MASTERS),
                };
                let answer = health::answer(endpoint, check, query, &state);
                Ok(answer.map_or_else(respond::page_not_found, |(status, text)| respond::text(status, text)))
            }
            Route::Root => plain(listed("/", &|served| Some(discovery::paths(served))), Offer::Document),
            Route::OpenIdConfiguration => {
                let address = self.0.address.get().map_or("", String::as_str);
                Ok(openid("application/json", self.0.tokens.configuration(address)))
            }
            Route::OpenIdKeys => Ok(openid("application/jwk-set+json", self.0.tokens.key_set())),
            Route::Version => plain(Some(Document::new(version::document())), Offer::Document),
            Route::Metrics => {
                Ok(respond::with_type(StatusCode::OK, metrics::CONTENT_TYPE, bytes::Bytes::from(self.0.metrics.text())))
            }
            Route::Api | Route::Apis => {
                let core = matches!(route, Route::Api);
                let output = negotiate::output(&parts.headers, Offer::Discovery)?;
                match output.shape {
                    Shape::Discovery(version) => {
                        let name = format!("aggregated {core} {version}");
                        let document = documents.get(&resources, &name, |resources| {
                            discovery::aggregated(&catalog::with(resources, &extensions), core, version)
                        });
                        let content_type = discovery::content_type(output.encoding, version);
                        tagged(&parts.headers, document, output.encoding, &content_type)
                    }
                    _ if core => {
                        let address = self.0.address.get().map_or("", String::as_str);
                        plain(
                            listed("/api", &|served| Some(discovery::core_versions(served, address))),
                            Offer::Discovery,
                        )
                    }
                    _ => plain(listed("/apis", &|served| Some(discovery::group_list(served))), Offer::Discovery),
                }
            }
            Route::Group(group) => {
                let document = listed(&format!("/apis/{group}"), &|served| discovery::group(served, group));
                plain(document, Offer::Answer { custom: false })
            }
            Route::GroupVersion { group, version } => {
                let build = |served: &[catalog::Served<'_>]| discovery::resource_list(served, group, version);
                plain(listed(&format!("/apis/{group}/{version}"), &build), Offer::Answer { custom: false })
            }
            Route::OpenApiV2 => {
                let accept =
                    parts.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
                if openapi::PROTOBUF_V2.iter().any(|kind| accept.contains(kind)) {
                    let document = documents.get(&resources, "openapi v2 protobuf", openapi::v2_protobuf);
                    return tagged(&parts.headers, document, Encoding::Json, openapi::PROTOBUF_V2_TYPE);
                }
                negotiate::output(&parts.headers, Offer::Document)?;
                let document = documents.get(&resources, "openapi v2", openapi::v2);
                tagged(&parts.headers, document, Encoding::Json, Encoding::Json.content_type())
            }
            Route::OpenApiV3 => {
                negotiate::output(&parts.headers, Offer::Document)?;
                let document = documents.get(&resources, "openapi v3", |table| {
                    // Only the hashes are kept: of all these documents a client reads one or two.
                    openapi::v3_index(openapi::v3_names(table).into_iter().map(|name| {
                        let hash = documents.hash_of_version(&resources, &name, |table| openapi::v3(table, &name));
                        (name, hash.to_string())
                    }))
                });
                tagged(&parts.headers, document, Encoding::Json, Encoding::Json.content_type())
            }
            Route::OpenApiV3Document(name) => {
                negotiate::output(&parts.headers, Offer::Document)?;
                if !openapi::v3_names(&resources).iter().any(|known| known == name) {
                    return Ok(respond::page_not_found());
                }
                let document = documents.of_version(&resources, name, |resources| openapi::v3(resources, name));
                versioned(&parts.headers, document, name, query.text("hash"))
            }
            Route::Resource(_) | Route::Unknown => Ok(respond::page_not_found()),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }
}

/// A document of OpenID Connect, which may be kept for an hour.
fn openid(content_type: &'static str, document: Option<Vec<u8>>) -> Answer {
    let Some(document) = document else { return respond::page_not_found() };
    let mut response = respond::with_type(StatusCode::OK, content_type, bytes::Bytes::from(document));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// A document with its `ETag`, which is the same in every encoding, as upstream's; 304 to who has it already.
fn tagged(headers: &HeaderMap, document: Document, encoding: Encoding, content_type: &str) -> Result<Answer, ApiError> {
    let tag = format!("\"{}\"", document.hash);
    let known = headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = respond::json(StatusCode::OK, encoding, false, document.bytes)?;
        let content_type = HeaderValue::from_str(content_type).map_err(ApiError::internal)?;
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// An OpenAPI document. Under its present hash it may be kept for ever; under any other the client is sent there.
fn versioned(headers: &HeaderMap, document: Document, name: &str, hash: &str) -> Result<Answer, ApiError> {
    if !hash.is_empty() && hash != &*document.hash {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(place) = HeaderValue::from_str(&format!("/openapi/v3/{name}?hash={}", document.hash)) {
            response.headers_mut().insert(LOCATION, place);
        }
        return Ok(response);
    }
    let mut response = tagged(headers, document, Encoding::Json, Encoding::Json.content_type())?;
    if !hash.is_empty() {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    Ok(response)
}

pub(crate) fn method_not_allowed() -> ApiError {
    let mut error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED.as_u16(),
        machinery::status::Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    );
    error.details = Some(Box::default());
    error
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
