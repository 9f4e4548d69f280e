//! What is about no objects, or about what lies under them, and can only be read: health, metrics, what flow control is at, the
//! store's keys, the version, discovery, OpenAPI, and how others check tokens.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use machinery::status::ApiError;
use registry::Registry;
use registry::user::MASTERS;

use crate::aggregator::Aggregator;
use crate::authn::User;
use crate::body::{RequestBody, ResponseBody};
use crate::documents::{Document, DocumentKey, Documents};
use crate::flowcontrol::FlowControl;
use crate::lifecycle::Lifecycle;
use crate::metrics::{self, Metrics};
use crate::negotiate::{self, Encoding, Offer, Shape};
use crate::path::Route;
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::tokens::Tokens;
use crate::{discovery, health, keyspace, openapi, past, version};

/// The handlers of these paths, and what they work with.
pub(crate) struct NonResource {
    pub(crate) documents: Documents,
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) flow_control: Arc<FlowControl>,
}

impl NonResource {
    /// Answers a request that was found to be allowed.
    pub(crate) async fn serve(
        &self,
        route: &Route<'_>,
        parts: &Parts,
        query: &Query<'_>,
        user: &User,
    ) -> Result<Answer, ApiError> {
        if matches!(route, Route::Unknown | Route::Resource(_)) {
            return Ok(respond::page_not_found());
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(respond::method_not_allowed());
        }
        let remote = match *route {
            Route::GroupVersion { group, version } => self.aggregator.find(group, version),
            Route::OpenApiV3Document(name) => {
                let version = match name.strip_prefix("api/") {
                    Some(version) => Some(("", version)),
                    None => name.strip_prefix("apis/").and_then(|name| name.split_once('/')),
                };
                version.and_then(|(group, version)| self.aggregator.find(group, version))
            }
            _ => None,
        };
        if let Some(remote) = remote {
            let body = RequestBody::Whole(Bytes::new());
            return self.aggregator.proxy(&remote, parts.clone(), user, body).await;
        }
        let headers = &parts.headers;
        let plain = |key, offer| self.plain(headers, query, key, offer);
        match *route {
            Route::Health { endpoint, check } => {
                let state = health::State {
                    stopping: self.lifecycle.is_stopping(),
                    store: self.registry.store().health(),
                    with_reasons: user.is_in(MASTERS),
                };
                let answer = health::answer(endpoint, check, query, &state);
                Ok(match answer {
                    None => respond::page_not_found(),
                    // A check alone that succeeds says so in fewer words (apiserver: `pkg/server/healthz/healthz.go`).
                    Some((StatusCode::OK, text)) if !check.is_empty() => respond::text(StatusCode::OK, text),
                    Some((status, text)) => respond::plain_text(status, text),
                })
            }
            Route::Root => plain(DocumentKey::Paths, Offer::Document),
            Route::OpenIdConfiguration => {
                Ok(openid("application/json", self.tokens.configuration(self.documents.address())))
            }
            Route::OpenIdKeys => Ok(openid("application/jwk-set+json", self.tokens.key_set())),
            Route::Version => {
                let output = negotiate::output(headers, Offer::Document)?;
                respond::json(StatusCode::OK, output.encoding, query.flag("pretty"), version::document().into())
            }
            Route::Past => {
                let document = past::document(self.registry.store(), query, jiff::Timestamp::now()).await?;
                respond::json(StatusCode::OK, Encoding::Json, true, document.to_string().into())
            }
            Route::Keyspace(what) => {
                let document = keyspace::document(what, &self.registry, &self.lifecycle, query).await?;
                respond::json(StatusCode::OK, Encoding::Json, query.flag("pretty"), document)
            }
            Route::Metrics => {
                Ok(respond::with_type(StatusCode::OK, metrics::CONTENT_TYPE, Bytes::from(self.metrics.text())))
            }
            Route::DumpFlowControl(dump) => {
                let details = !query.text("includeRequestDetails").is_empty();
                Ok(respond::text(StatusCode::OK, self.flow_control.dump(dump, details)))
            }
            Route::Api | Route::Apis => {
                let core = matches!(route, Route::Api);
                let output = negotiate::output(headers, Offer::Discovery)?;
                if let Shape::Discovery(version) = output.shape {
                    let content_type = discovery::content_type(output.encoding, version);
                    let key = DocumentKey::Aggregated { core, version };
                    let mut response = self.tagged(headers, key, output.encoding, &content_type)?;
                    // The same for everybody (apiserver `pkg/endpoints/discovery/aggregated/handler.go`).
                    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
                    return Ok(response);
                }
                plain(if core { DocumentKey::CoreVersions } else { DocumentKey::Groups }, Offer::Discovery)
            }
            Route::Group(group) => plain(DocumentKey::Group(group.to_owned()), Offer::Answer { custom: false }),
            Route::GroupVersion { group, version } => {
                self.documents.refresh(group, version).await;
                let key = DocumentKey::Resources { group: group.to_owned(), version: version.to_owned() };
                if self.documents.get(key.clone()).is_none() && self.documents.is_built_in(group) {
                    return Err(ApiError::no_such_resource());
                }
                plain(key, Offer::Answer { custom: false })
            }
            Route::OpenApiV2 => {
                let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
                if openapi::PROTOBUF_V2.iter().any(|kind| accept.contains(kind)) {
                    let key = DocumentKey::OpenApiV2Protobuf;
                    return self.tagged(headers, key, Encoding::Json, openapi::PROTOBUF_V2_TYPE);
                }
                negotiate::output(headers, Offer::Document)?;
                self.tagged(headers, DocumentKey::OpenApiV2, Encoding::Json, Encoding::Json.content_type())
            }
            Route::OpenApiV3 => {
                negotiate::output(headers, Offer::Document)?;
                self.tagged(headers, DocumentKey::OpenApiV3Index, Encoding::Json, Encoding::Json.content_type())
            }
            Route::OpenApiV3Document(name) => {
                negotiate::output(headers, Offer::Document)?;
                match self.documents.get(DocumentKey::OpenApiV3(name.to_owned())) {
                    Some(document) => versioned(headers, document, name, query.text("hash")),
                    None => Ok(respond::page_not_found()),
                }
            }
            Route::Resource(_) | Route::Unknown => Ok(respond::page_not_found()),
        }
    }

    /// A document as it was asked for.
    fn plain(
        &self,
        headers: &HeaderMap,
        query: &Query<'_>,
        key: DocumentKey,
        offer: Offer,
    ) -> Result<Answer, ApiError> {
        let Some(document) = self.documents.get(key) else { return Ok(respond::page_not_found()) };
        let output = negotiate::output(headers, offer)?;
        respond::json(StatusCode::OK, output.encoding, query.flag("pretty"), document.bytes)
    }

    fn tagged(
        &self,
        headers: &HeaderMap,
        key: DocumentKey,
        encoding: Encoding,
        content_type: &str,
    ) -> Result<Answer, ApiError> {
        match self.documents.get(key) {
            Some(document) => tagged(headers, document, encoding, content_type),
            None => Ok(respond::page_not_found()),
        }
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
