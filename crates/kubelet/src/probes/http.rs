//! HTTP probes and hooks.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use k8s_openapi::api::core::v1::HTTPHeader;

use super::{AttemptResult, SHOWN, shown};

/// Upstream's clients follow so many redirects.
const REDIRECTS: usize = 10;

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HttpRequest {
    /// `https` or `http`.
    pub(crate) tls: bool,
    /// Where to connect.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) path: String,
    /// Headers to add; `Host` replaces the host.
    pub(crate) headers: Vec<HTTPHeader>,
    /// `User-Agent`, unless a header says otherwise.
    pub(crate) user_agent: String,
}

impl HttpRequest {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let authority = self.authority();
        format!("{scheme}://{authority}{}", self.path)
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Makes a request and judges the answer: statuses from 200 to 399 are well. Redirects within the host are followed; one
/// that leads elsewhere is well, with a warning.
pub(crate) async fn get(request: &HttpRequest, timeout: Duration) -> AttemptResult {
    match tokio::time::timeout(timeout, follow(request)).await {
        Ok(outcome) => outcome,
        Err(_) => AttemptResult::Failure(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            request.url()
        )),
    }
}

async fn follow(request: &HttpRequest) -> AttemptResult {
    let mut request = request.clone();
    for _ in 0..REDIRECTS {
        let (status, location, body) = match send(&request).await {
            Ok(answer) => answer,
            Err(error) => {
                let url = request.url();
                return AttemptResult::Failure(format!("Get \"{url}\": {error}"));
            }
        };
        let target = location.as_deref().and_then(|location| redirect(&request, location));
        if !status.is_redirection() {
            return match status.is_success() {
                true => AttemptResult::Success,
                false => {
                    let code = status.as_u16();
                    AttemptResult::Failure(format!("HTTP probe failed with statuscode: {code}"))
                }
            };
        }
        match target {
            None => return AttemptResult::Success,
            Some(target) if target.host == request.host => request = target,
            Some(_) => {
                let body = shown(&body);
                return AttemptResult::Warning(format!("Probe terminated redirects, Response body: {body}"));
            }
        }
    }
    let url = request.url();
    AttemptResult::Failure(format!("Get \"{url}\": stopped after {REDIRECTS} redirects"))
}

/// Where a redirect leads.
fn redirect(from: &HttpRequest, location: &str) -> Option<HttpRequest> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let Some(host) = uri.host() else {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        return Some(HttpRequest { path, ..from.clone() });
    };
    let tls = uri.scheme_str() == Some("https");
    Some(HttpRequest {
        tls,
        host: host.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        path: path.to_owned(),
        ..from.clone()
    })
}

type Answer = (StatusCode, Option<String>, Bytes);

async fn send(request: &HttpRequest) -> Result<Answer, String> {
    let stream = http_client::dial(&request.host, request.port).await?;
    let answer = if request.tls {
        let stream = http_client::handshake(stream, &request.host, http_client::trusting()).await?;
        http_client::send(stream, build(request)?).await?
    } else {
        http_client::send(stream, build(request)?).await?
    };
    let status = answer.response.status();
    let location = answer.response.headers().get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok()).map(str::to_owned);
    // What is longer than anybody reads is not read.
    let body = answer.read(SHOWN).await.unwrap_or_default();
    Ok((status, location, body))
}

fn build(request: &HttpRequest) -> Result<Request<Empty<Bytes>>, String> {
    let path = match request.path.starts_with('/') {
        true => request.path.clone(),
        false => format!("/{}", request.path),
    };
    let mut built = Request::get(path).body(Empty::new()).map_err(|error| error.to_string())?;
    let headers = built.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    headers.insert(HOST, value(&request.authority())?);
    headers.insert(USER_AGENT, value(&request.user_agent)?);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for header in &request.headers {
        let name: HeaderName =
            header.name.parse().map_err(|_| format!("net/http: invalid header field name \"{}\"", header.name))?;
        let new = value(&header.value)?;
        // The first of a name replaces the default, further ones are added.
        let own = [HOST, USER_AGENT, ACCEPT, CONNECTION].contains(&name);
        if own {
            headers.insert(name, new);
        } else {
            headers.append(name, new);
        }
    }
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that answers the first requests with `answers`, whatever is asked.
    async fn check(answers: Vec<String>) -> (AttemptResult, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                requests.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        let request = HttpRequest {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port,
            path: "/healthz?full".to_owned(),
            headers: vec![HTTPHeader { name: "X-Probe".to_owned(), value: "1".to_owned() }],
            user_agent: "kube-probe/1.36".to_owned(),
        };
        let outcome = get(&request, Duration::from_secs(5)).await;
        let requests = tokio::time::timeout(Duration::from_secs(5), server).await;
        (outcome, requests.unwrap().unwrap())
    }

    fn answer(head: &str) -> String {
        format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    }

    #[tokio::test]
    async fn statuses() {
        for (head, expect) in [
            ("200 OK", AttemptResult::Success),
            ("204 No Content", AttemptResult::Success),
            ("304 Not Modified", AttemptResult::Success),
            ("404 Not Found", AttemptResult::Failure("HTTP probe failed with statuscode: 404".to_owned())),
            ("500 Oops", AttemptResult::Failure("HTTP probe failed with statuscode: 500".to_owned())),
        ] {
            let (outcome, requests) = check(vec![answer(head)]).await;
            assert_eq!(outcome, expect, "{head}");
            assert!(requests[0].starts_with("GET /healthz?full HTTP/1.1\r\n"));
            assert!(requests[0].contains("x-probe: 1\r\n"));
            assert!(requests[0].contains("user-agent: kube-probe/1.36\r\n"));
        }
    }

    #[tokio::test]
    async fn redirects() {
        let (outcome, requests) = check(vec![answer("302 Found\r\nLocation: /elsewhere"), answer("200 OK")]).await;
        assert_eq!(outcome, AttemptResult::Success);
        assert!(requests[1].starts_with("GET /elsewhere "));
        let (outcome, _) = check(vec![answer("302 Found\r\nLocation: http://example.com/x")]).await;
        let expect = "Probe terminated redirects, Response body: hi";
        assert_eq!(outcome, AttemptResult::Warning(expect.to_owned()));
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let request = HttpRequest {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port,
            path: "/".to_owned(),
            headers: Vec::new(),
            user_agent: String::new(),
        };
        let expect =
            format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
        let outcome = get(&request, Duration::from_secs(5)).await;
        assert_eq!(outcome, AttemptResult::Failure(expect));
    }
}
