//! Calls admission webhooks: one HTTPS request each, to a URL or to an endpoint of a service.

use std::fmt::Write as _;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use registry::{WebhookCall, WebhookClient};
use url::Url;

/// The most an answer may have, in bytes; upstream's figure.
const MAX_ANSWER: usize = 3 * 1024 * 1024;

/// A [`WebhookClient`] that speaks HTTPS.
pub(crate) struct Caller;

impl WebhookClient for Caller {
    fn call(&self, call: WebhookCall) -> BoxFuture<'_, Result<Bytes, String>> {
        post(call).boxed()
    }
}

async fn post(call: WebhookCall) -> Result<Bytes, String> {
    let mut url = Url::parse(&call.url).map_err(|error| error.to_string())?;
    url.query_pairs_mut().append_pair("timeout", &format!("{}s", call.timeout.as_secs()));
    let host = url.host_str().ok_or_else(|| "no Host in request URL".to_owned())?.to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let config = http_client::verifying(&call.ca_bundle).await?;
    let stream = match call.address {
        Some(address) => http_client::dial_address(address).await?,
        None => http_client::dial(name, port).await?,
    };
    let stream = http_client::handshake(stream, name, config).await?;
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let request = Request::post(path)
        .header(HOST, format!("{host}:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(call.body))
        .map_err(|error| error.to_string())?;
    let answer = http_client::send(stream, request).await?;
    let status = answer.response.status();
    let body = answer.read(MAX_ANSWER).await?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let mut why = format!("the server responded with the status code {}", status.as_u16());
    if !body.is_empty() {
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let _ = write!(why, ": {}", text.trim());
    }
    Err(why)
}
