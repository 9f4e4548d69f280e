//! The aggregation layer, with another API server behind a Service: a small one, over TLS, in this process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use registry::Registry;
use registry::decode::Report;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use store::{Attributes, Encoded, Key, Op, Precondition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::network::{Served, TEST_TIMEOUT};
use super::support::Reply;
use crate::aggregator::registration::AUTOMANAGED;
use crate::pki::Pki;
use crate::{Limits, RequestLimits, User};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "wardle.example.com";
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What the other server was asked, latest last.
type Asked = Arc<Mutex<Vec<Value>>>;
type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// Another API server.
struct Other {
    address: SocketAddr,
    certificate_pem: String,
    asked: Asked,
}

impl Other {
    /// Starts one that lets in who shows a certificate of the front proxy's authority, and nobody else.
    async fn start(pki: &Pki) -> Self {
        let own = rcgen::generate_simple_self_signed(vec!["wardle.default.svc".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        let authority = pki.front_proxy_authority_pem();
        roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other =
            Self { address: listener.local_addr().unwrap(), certificate_pem: own.cert.pem(), asked: Asked::default() };
        let (acceptor, asked) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&other.asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| answer(request, Arc::clone(&asked)));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        other
    }

    /// What it was asked last about objects.
    fn last(&self) -> Value {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

async fn answer(mut request: Request<Incoming>, asked: Asked) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let document = match path.as_str() {
        "/apis/wardle.example.com/v1" => Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1",
            "resources": [
                {
                    "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                    "verbs": ["create", "get", "list", "watch", "praise"], "shortNames": ["fl"],
                },
                { "name": "flunders/scale", "namespaced": true, "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"] },
            ],
        })),
        "/openapi/v3" => Some(json!({ "paths": {
            "apis/wardle.example.com/v1": { "serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1?hash=ABC" },
            "apis/apps/v1": { "serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=EVIL" },
        } })),
        "/openapi/v2" => Some(json!({
            "paths": {
                "/apis/wardle.example.com/v1/flunders": { "get": { "schema": { "$ref": "#/definitions/com.example.Flunder" } } },
                "/apis/apps/v1/deployments": {},
            },
            "definitions": { "com.example.Flunder": { "type": "object" } },
        })),
        _ => None,
    };
    if let Some(document) = document {
        return Ok(Response::new(Full::new(Bytes::from(document.to_string())).boxed_unsync()));
    }
    let headers: serde_json::Map<String, Value> = request
        .headers()
        .keys()
        .map(|name| {
            let values = request.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
            (name.to_string(), json!(values.collect::<Vec<_>>()))
        })
        .collect();
    let mut seen = json!({ "method": request.method().as_str(), "uri": request.uri().to_string(), "headers": headers });
    if path.ends_with("/attach") {
        asked.lock().unwrap().push(seen);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            word.reverse();
            stream.write_all(&word).await.unwrap();
        });
        let mut response = Response::new(Full::default().boxed_unsync());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "reverse".parse().unwrap());
        return Ok(response);
    }
    if request.uri().query() == Some("watch=1") {
        asked.lock().unwrap().push(seen);
        let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("first\n")))]);
        let stream = futures::StreamExt::chain(first, futures::stream::pending());
        return Ok(Response::new(http_body_util::StreamBody::new(stream).boxed_unsync()));
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    seen["body"] = String::from_utf8_lossy(&body).into();
    asked.lock().unwrap().push(seen.clone());
    let mut response = Response::new(Full::new(Bytes::from(seen.to_string())).boxed_unsync());
    response.headers_mut().insert("x-served-by", "wardle".parse().unwrap());
    Ok(response)
}

/// Says where the Service is: at an address that nobody could write, since it is this machine's own.
async fn plant_slice(registry: &Registry, address: SocketAddr) {
    let body = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "wardle-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "wardle" }, "resourceVersion": "" },
        "endpoints": [{ "addresses": [address.ip().to_string()] }],
        "ports": [{ "name": "", "port": address.port(), "protocol": "TCP" }],
    });
    let resources = registry.resources();
    let resource = resources.get("discovery.k8s.io", "v1", "endpointslices").unwrap();
    let object = resource.decode(body.to_string().as_bytes(), &mut Report::ignore()).unwrap();
    let mut bytes = Vec::new();
    resource.encode(object.as_ref(), &mut bytes).unwrap();
    let revision = registry::scan::find(&bytes, &["metadata", "resourceVersion"]).unwrap();
    let attributes = Attributes::new([("kubernetes.io/service-name", "wardle")], [("", ""); 0]);
    let key = Key::new("discovery.k8s.io/endpointslices", "default", "wardle-1");
    let value = Encoded::new(bytes, revision.start + 1);
    registry.store().commit(vec![Op::Put { key, value, attributes, precondition: Precondition::Any }]).await.unwrap();
}

fn api_service(other: &Other) -> Value {
    json!({
        "metadata": { "name": format!("v1.{GROUP}") },
        "spec": {
            "group": GROUP, "version": "v1", "groupPriorityMinimum": 17_850, "versionPriority": 10,
            "caBundle": BASE64_STANDARD.encode(&other.certificate_pem),
            "service": { "name": "wardle", "namespace": "default" },
        },
    })
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// The condition of an APIService: its status and reason.
async fn condition(served: &Served, name: &str) -> String {
    let reply = served.fixture.ask(&format!("GET {API_SERVICES}/{name}"), &[], "").await;
    let condition = reply.json()["status"]["conditions"][0].clone();
    format!("{} {}", condition["status"].as_str().unwrap_or_default(), condition["reason"].as_str().unwrap_or_default())
}

async fn until_condition(served: &Served, expect: &str) {
    let name = format!("v1.{GROUP}");
    eventually(expect, async || condition(served, &name).await == expect).await;
}

/// A server with another one behind it that can be reached.
async fn aggregated() -> (Served, Other) {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let other = Other::start(&served.pki).await;
    let fixture = &served.fixture;
    fixture.json(&format!("POST {API_SERVICES}"), 201, &api_service(&other)).await;
    until_condition(&served, "False ServiceNotFound").await;
    let service = json!({ "metadata": { "name": "wardle" }, "spec": { "ports": [{ "port": 443 }] } });
    fixture.json("POST /api/v1/namespaces/default/services", 201, &service).await;
    until_condition(&served, "False EndpointsNotFound").await;
    plant_slice(&fixture.registry, other.address).await;
    until_condition(&served, "True Passed").await;
    (served, other)
}

async fn get(served: &Served, line: &str, headers: &[(&str, &str)]) -> Reply {
    served.fixture.ask(line, headers, "").await
}

#[tokio::test]
async fn requests_are_passed_on_in_the_name_of_who_asks() {
    let (served, other) = aggregated().await;
    let headers = [
        ("authorization", "Bearer secret"),
        ("x-remote-user", "somebody-else"),
        ("x-remote-extra-scopes", "all"),
        ("keep-alive", "1"),
        ("accept", "application/json"),
    ];
    let line = format!("POST /apis/{GROUP}/v1/namespaces/n/flunders?fieldManager=me");
    let reply = served.fixture.ask(&line, &headers, "{\"a\":1}").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-served-by")), (200, "wardle"), "{}", reply.text);
    let seen = other.last();
    assert_eq!((&seen["method"], &seen["body"]), (&json!("POST"), &json!("{\"a\":1}")));
    assert_eq!(seen["uri"], *line.split_once(' ').unwrap().1);
    assert_eq!(seen["headers"]["x-remote-user"], json!(["kubernetes-admin"]));
    assert_eq!(seen["headers"]["x-remote-group"], json!(["system:masters", "system:authenticated"]));
    for gone in ["authorization", "x-remote-extra-scopes", "keep-alive"] {
        assert!(seen["headers"][gone].is_null(), "{gone}: {seen}");
    }
    assert_eq!(seen["headers"]["accept"], json!(["application/json"]));

    // What this server does not know the other may.
    let deep = format!("GET /apis/{GROUP}/v1/namespaces/n/flunders/x/portforward/22/tcp");
    assert_eq!(get(&served, &deep, &[]).await.status.as_u16(), 200);
    // Rights are asked for here, before anything is passed on.
    let before = other.asked.lock().unwrap().len();
    let refused = served.fixture.ask_as(Some(User::new("jane", &[])), &line, &[], "{}").await;
    assert_eq!(refused.status.as_u16(), 403, "{}", refused.text);
    assert!(refused.text.contains("flunders.wardle.example.com is forbidden"), "{}", refused.text);
    assert_eq!(other.asked.lock().unwrap().len(), before);
    // Somebody who cannot be named is not passed on as somebody else.
    let strange = Some(User::master("jane\nX-Remote-Group: system:masters"));
    assert_eq!(served.fixture.ask_as(strange, &deep, &[], "").await.status.as_u16(), 400);
}

#[tokio::test]
async fn discovery_and_openapi_list_what_the_other_server_has() {
    let (served, _other) = aggregated().await;
    let groups = served.fixture.json("GET /apis", 200, &Value::Null).await;
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", GROUP, "apps"], "by their priorities");
    let classic = served.fixture.json(&format!("GET /apis/{GROUP}/v1"), 200, &Value::Null).await;
    assert_eq!(classic["resources"][0]["verbs"][4], "praise", "it is passed on as it is");

    let aggregated = get(&served, "GET /apis", &[("accept", ACCEPT)]).await.json();
    let group = aggregated["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == GROUP).unwrap();
    let version = &group["versions"][0];
    assert_eq!(version["freshness"], "Current");
    assert_eq!(version["resources"][0]["shortNames"], json!(["fl"]));
    assert_eq!(version["resources"][0]["verbs"], json!(["create", "get", "list", "watch"]));
    let scale = &version["resources"][0]["subresources"][0];
    assert_eq!(scale["responseKind"], json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" }));

    let index = served.fixture.json("GET /openapi/v3", 200, &Value::Null).await;
    let url = |name: &str| index["paths"][name]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(url(&format!("apis/{GROUP}/v1")), format!("/openapi/v3/apis/{GROUP}/v1?hash=ABC"));
    assert!(!url("apis/apps/v1").contains("EVIL"), "what is not its own it does not describe");
    let document = served.fixture.json(&format!("GET {}", url(&format!("apis/{GROUP}/v1"))), 200, &Value::Null).await;
    assert_eq!(document["uri"], format!("/openapi/v3/apis/{GROUP}/v1?hash=ABC"));
    let whole = served.fixture.json("GET /openapi/v2", 200, &Value::Null).await;
    assert!(whole["definitions"]["com.example.Flunder"].is_object());
    assert!(whole["paths"]["/apis/wardle.example.com/v1/flunders"].is_object());
    assert_ne!(whole["paths"]["/apis/apps/v1/deployments"], json!({}));
}

#[tokio::test]
async fn a_server_that_is_gone_leaves_its_version_stale() {
    let (served, _other) = aggregated().await;
    let slice = "DELETE /apis/discovery.k8s.io/v1/namespaces/default/endpointslices/wardle-1";
    served.fixture.json(slice, 200, &Value::Null).await;
    until_condition(&served, "False EndpointsNotFound").await;
    let reply = get(&served, &format!("GET /apis/{GROUP}/v1/flunders"), &[]).await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (503, "service unavailable\n"));
    let aggregated = get(&served, "GET /apis", &[("accept", ACCEPT)]).await.json();
    let group = aggregated["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == GROUP).unwrap();
    assert_eq!(group["versions"][0]["freshness"], "Stale");
    assert_eq!(group["versions"][0]["resources"][0]["resource"], "flunders", "what it had it may well have again");

    let metrics = get(&served, "GET /metrics", &[]).await.text;
    for line in [
        "aggregator_unavailable_apiservice{name=\"v1.wardle.example.com\"} 1\n",
        "aggregator_unavailable_apiservice{name=\"v1.apps\"} 0\n",
        "aggregator_unavailable_apiservice_total{name=\"v1.wardle.example.com\",reason=\"EndpointsNotFound\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    // Nobody listens there any more.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    plant_slice(&served.fixture.registry, free).await;
    until_condition(&served, "False FailedDiscoveryCheck").await;
    let object = served.fixture.json(&format!("GET {API_SERVICES}/v1.{GROUP}"), 200, &Value::Null).await;
    let expect = format!(
        "failing or missing response from https://{free}/apis/{GROUP}/v1: Get \"https://{free}/apis/{GROUP}/v1\": dial tcp {free}: connect: connection refused"
    );
    assert_eq!(object["status"]["conditions"][0]["message"], expect);

    served.fixture.json(&format!("DELETE {API_SERVICES}/v1.{GROUP}"), 200, &Value::Null).await;
    let path = format!("GET /apis/{GROUP}/v1/flunders");
    eventually("the version is gone", async || get(&served, &path, &[]).await.status.as_u16() == 404).await;
    let metrics = get(&served, "GET /metrics", &[]).await.text;
    assert!(!metrics.contains("wardle"), "nothing is counted of what is gone: {metrics}");
}

#[tokio::test]
async fn who_has_another_certificate_is_not_trusted() {
    let (served, _other) = aggregated().await;
    let imposter = Other::start(&served.pki).await;
    plant_slice(&served.fixture.registry, imposter.address).await;
    until_condition(&served, "False FailedDiscoveryCheck").await;
    let object = served.fixture.json(&format!("GET {API_SERVICES}/v1.{GROUP}"), 200, &Value::Null).await;
    let message = object["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.ends_with("x509: certificate signed by unknown authority"), "{message}");
    let patch = json!({ "spec": { "caBundle": null, "insecureSkipTLSVerify": true } }).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let reply = served.fixture.ask(&format!("PATCH {API_SERVICES}/v1.{GROUP}"), &headers, patch).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
    until_condition(&served, "True Passed").await;
}

#[tokio::test]
async fn watches_and_upgrades_are_streams() {
    let (served, other) = aggregated().await;
    let admin = served.pki.admin().unwrap();
    let mut stream = served.tls(Some(&admin), b"http/1.1").await;
    let watch = format!("GET /apis/{GROUP}/v1/flunders?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(watch.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains("first\n") {
        let mut chunk = [0; 1024];
        let count = tokio::time::timeout(TEST_TIMEOUT, stream.read(&mut chunk)).await.unwrap().unwrap();
        assert_ne!(count, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }

    let mut stream = served.tls(Some(&admin), b"http/1.1").await;
    let upgrade = format!(
        "GET /apis/{GROUP}/v1/namespaces/n/flunders/x/attach HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: reverse\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(TEST_TIMEOUT, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"abcd").await.unwrap();
    let mut word = [0; 4];
    tokio::time::timeout(TEST_TIMEOUT, stream.read_exact(&mut word)).await.unwrap().unwrap();
    assert_eq!(&word, b"dcba");
    assert_eq!(other.last()["headers"]["upgrade"], json!(["reverse"]));
}

#[tokio::test]
async fn local_api_services_come_and_go_with_what_they_are_about() {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let fixture = &served.fixture;
    let find = async |name: &str| fixture.ask(&format!("GET {API_SERVICES}/{name}"), &[], "").await;
    for (name, priority) in [("v1.", 18_000), ("v1.apps", 17_800), ("v1.authentication.k8s.io", 17_700)] {
        eventually(name, async || find(name).await.status.as_u16() == 200).await;
        let object = find(name).await.json();
        assert_eq!(object["metadata"]["labels"][AUTOMANAGED], "onstart");
        assert_eq!(object["spec"]["groupPriorityMinimum"], priority);
        assert_eq!(condition(&served, name).await, "True Local");
    }
    assert_eq!(find("v1.apiregistration.k8s.io").await.status.as_u16(), 404);

    let crd = json!({
        "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } }],
        },
    });
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    fixture.json(&format!("POST {crds}"), 201, &crd).await;
    let (name, path) = ("v1.example.com", format!("DELETE {API_SERVICES}/v1.example.com"));
    eventually("it is there", async || find(name).await.status.as_u16() == 200).await;
    let first = find(name).await.json();
    assert_eq!(first["metadata"]["labels"][AUTOMANAGED], "true");
    fixture.json(&path, 200, &Value::Null).await;
    eventually("it is made again", async || {
        let again = find(name).await;
        again.status.as_u16() == 200 && again.json()["metadata"]["uid"] != first["metadata"]["uid"]
    })
    .await;
    let patch = json!({ "spec": { "versions": [{
        "name": "v1", "served": false, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } },
    }] } });
    let headers = [("content-type", "application/merge-patch+json")];
    let reply = fixture.ask(&format!("PATCH {crds}/things.example.com"), &headers, patch.to_string()).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
    eventually("it is gone", async || find(name).await.status.as_u16() == 404).await;
}
