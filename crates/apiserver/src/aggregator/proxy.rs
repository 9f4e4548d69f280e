//! Passing requests on to aggregated API servers.
//!
//! Upstream: kube-aggregator `pkg/apiserver/handler_proxy.go`. Who asks is said in headers that the other server believes
//! because of the certificate shown; what the client says there itself never arrives.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, IF_NONE_MATCH, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use http_client::Trust;
use machinery::status::ApiError;
use registry::user::User;
use rustls::ClientConfig;
use streaming::Duplex;

use super::{Aggregator, Remote, Target};
use crate::authn::request_header;
use crate::body::RequestBody;
use crate::forward::{self, Outgoing};
use crate::respond::{self, Answer};

/// An address of an API server, and how errors name it.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// An endpoint of its Service.
    Address(SocketAddr),
    /// The host that a Service of type ExternalName stands for.
    Host(String, u16),
}

impl Aggregator {
    /// Passes a request on, on behalf of `user`.
    ///
    /// # Errors
    /// 400 when what the user is called cannot be said in a header. Whatever else goes wrong is an answer in plain text, as
    /// upstream's.
    pub(crate) async fn proxy(
        &self,
        remote: &Remote,
        parts: Parts,
        user: &User,
        body: RequestBody,
    ) -> Result<Answer, ApiError> {
        if !remote.is_available {
            return Ok(unavailable("service unavailable"));
        }
        let place = match remote.target.resolve(self) {
            Ok(place) => place,
            Err(error) => {
                tracing::debug!(%error, service = remote.target.name, "cannot resolve an APIService");
                return Ok(unavailable("service unavailable"));
            }
        };
        let mut headers = forward::headers(&parts);
        let illegal = |error| ApiError::bad_request(format!("the user cannot be named in a header: {error}"));
        request_header::set(&mut headers, user).map_err(illegal)?;
        headers.insert(HOST, HeaderValue::from_str(&place.to_string()).map_err(ApiError::internal)?);
        let uri = parts.uri.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
        let outgoing = Outgoing { parts, uri, headers, body };
        let answer = forward::send(&self.lifecycle, remote.target.connect(&place), outgoing).await;
        Ok(answer.unwrap_or_else(|error| unavailable(&format!("error trying to reach service: {error}"))))
    }
}

impl Target {
    /// Where the Service is reached now.
    pub(super) fn resolve(&self, aggregator: &Aggregator) -> Result<Place, String> {
        let spec = aggregator.registry.service(&self.namespace, &self.service).and_then(|service| service.spec);
        if let Some(spec) = spec.filter(|spec| spec.type_.as_deref() == Some("ExternalName")) {
            let host = spec.external_name.unwrap_or_default();
            let port = u16::try_from(self.port).map_err(|error| error.to_string())?;
            return Ok(Place::Host(host, port));
        }
        aggregator.registry.endpoint(&self.namespace, &self.service, self.port).map(Place::Address)
    }

    /// Opens a connection to the server, whose certificate has to be for `SERVICE.NAMESPACE.svc`.
    pub(super) async fn connect(&self, place: &Place) -> Result<Box<dyn Duplex>, String> {
        let config = self.tls.get_or_try_init(|| self.client()).await?;
        let stream = match place {
            Place::Address(address) => http_client::dial_address(*address).await?,
            Place::Host(host, port) => http_client::dial(host, *port).await?,
        };
        let name = format!("{}.{}.svc", self.service, self.namespace);
        Ok(Box::new(http_client::handshake(stream, &name, Arc::clone(config)).await?))
    }

    async fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let trust = if self.insecure { Trust::Anybody } else { Trust::Authorities(&self.ca_bundle) };
        match (self.credential.as_ref().and_then(|credential| credential.to_der()), trust) {
            (Some((chain, key)), trust) => http_client::authenticated(trust, chain, key).await,
            (None, Trust::Anybody) => Ok(http_client::trusting()),
            (None, Trust::Authorities(bundle)) => http_client::verifying(bundle).await,
        }
    }

    /// Asks for a document on the server's own account, as somebody who may see it. The answer is its code, its ETag, and
    /// at most `limit` bytes.
    pub(super) async fn get(&self, place: &Place, path: &str, tag: &str, limit: usize) -> Result<Document, String> {
        let mut request = Request::get(path)
            .header(HOST, place.to_string())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "kube-aggregator");
        if !tag.is_empty() {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let mut request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        // Upstream: `setAuthProxyHeaders` in `pkg/controllers/status/remote/remote_available_controller.go`.
        let user = User { groups: vec!["system:masters".to_owned()], ..named("system:kube-aggregator") };
        request_header::set(request.headers_mut(), &user).map_err(|error| error.to_string())?;
        let answer = http_client::send(self.connect(place).await?, request).await?;
        let status = answer.response.status();
        let tag = answer.response.headers().get(http::header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        Ok(Document { status, tag, bytes: answer.read(limit).await? })
    }
}

/// An answer to [`Target::get`].
pub(super) struct Document {
    pub(super) status: StatusCode,
    pub(super) tag: String,
    pub(super) bytes: Bytes,
}

fn named(name: &str) -> User {
    User { name: name.to_owned(), ..User::default() }
}

fn unavailable(why: &str) -> Answer {
    respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}
