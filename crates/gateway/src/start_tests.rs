//! All of it against a scripted API server: objects in, answers on the network and statuses out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use informer::{Informers, Recorder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::testing::api::{TestApi, until};
use crate::testing::slice;
use crate::{Config, GATEWAY_CONTROLLER, Handle, INGRESS_CONTROLLER as CONTROLLER, start};

/// A backend that answers every request with its name.
pub(crate) async fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// What is answered to a request: the body, or the status where that is not 200.
pub(crate) async fn ask(address: SocketAddr, host: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address).await else { return "refused".to_owned() };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).await.is_err() || stream.read_to_string(&mut answer).await.is_err() {
        return "reset".to_owned();
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { body.to_owned() } else { status.to_owned() }
}

/// Asks until that is answered.
pub(crate) async fn until_answered(address: impl Fn() -> Option<SocketAddr>, host: &str, path: &str, expected: &str) {
    let mut last = String::new();
    for _ in 0..3000 {
        last = match address() {
            Some(address) => ask(address, host, path).await,
            None => "closed".to_owned(),
        };
        if last == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{host}{path}: {last} instead of {expected} for 30 s");
}

/// Adds a Service with one port and its only endpoint.
pub(crate) fn add_service(api: &TestApi, namespace: &str, name: &str, endpoint: SocketAddr) {
    api.put(
        "services",
        json!({
            "metadata": { "namespace": namespace, "name": name }, "spec": { "ports": [{ "port": 80 }] },
        }),
    );
    set_endpoint(api, namespace, name, endpoint);
}

pub(crate) fn set_endpoint(api: &TestApi, namespace: &str, name: &str, endpoint: SocketAddr) {
    let address = endpoint.ip().to_string();
    api.put("endpointslices", slice(namespace, name, ("", endpoint.port()), &[address.as_str()]));
}

/// Starts it at loopback, on ports that are free.
pub(crate) fn start_with(api: &TestApi, change: impl FnOnce(&mut Config)) -> (Handle, Informers) {
    let client = api.client();
    let informers = Informers::new(client.clone(), CancellationToken::new());
    let recorder = Recorder::new(client.clone(), "gateway", None);
    let mut config = Config {
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        http_ports: vec![0],
        https_ports: vec![0],
        published: vec!["192.0.2.1".to_owned(), "example.org".to_owned()],
        ..Config::default()
    };
    change(&mut config);
    (start(client, &informers, recorder, config), informers)
}

pub(crate) fn http(handle: &Handle) -> Option<SocketAddr> {
    handle.listening().borrow().http.map(|port| SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), port))
}

fn ingress(class: &str, service: &str) -> Value {
    let backend = json!({ "service": { "name": service, "port": { "number": 80 } } });
    json!({
        "metadata": { "namespace": "a", "name": "web", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "ingressClassName": class,
            "rules": [{ "host": "foo.com", "http": { "paths": [{ "pathType": "Prefix", "path": "/", "backend": backend }] } }],
        },
    })
}

#[tokio::test]
async fn ingresses_are_followed() {
    let api = TestApi::default();
    api.put("ingressclasses", json!({ "metadata": { "name": "coracle" }, "spec": { "controller": CONTROLLER } }));
    add_service(&api, "a", "web", backend("one").await);
    let (handle, informers) = start_with(&api, |_| ());
    // Nobody asks for a port yet.
    until("it has begun", || !informers.reconciles().latest("gateway").is_empty()).await;
    assert_eq!(http(&handle), None);

    api.put("ingresses", ingress("coracle", "web"));
    until_answered(|| http(&handle), "foo.com", "/", "one").await;
    until_answered(|| http(&handle), "bar.com", "/", "404").await;
    assert_eq!(handle.uncertified().borrow().iter().collect::<Vec<_>>(), ["foo.com"]);
    until("the status is written", || api.patches("ingresses", "a/web") > 0).await;
    let listening = *handle.listening().borrow();
    let ports = json!([
        { "port": listening.http.unwrap(), "protocol": "TCP" }, { "port": listening.https.unwrap(), "protocol": "TCP" },
    ]);
    let expected = json!({ "loadBalancer": { "ingress": [
        { "ip": "192.0.2.1", "ports": ports }, { "hostname": "example.org", "ports": ports },
    ] } });
    assert_eq!(api.get("ingresses", "a/web")["status"], expected);

    // Endpoints are followed, of Services that rules lead to and of no others.
    set_endpoint(&api, "a", "web", backend("two").await);
    until_answered(|| http(&handle), "foo.com", "/", "two").await;
    add_service(&api, "a", "other", backend("three").await);
    assert_eq!(api.patches("ingresses", "a/web"), 1, "the status is written once");

    // A backend that is missing is told of, and served as soon as it comes.
    api.put("ingresses", ingress("coracle", "late"));
    until_answered(|| http(&handle), "foo.com", "/", "503").await;
    let (http_port, https_port) = (listening.http.unwrap(), listening.https.unwrap());
    let reached = format!("Reached at http://192.0.2.1:{http_port} and https://192.0.2.1:{https_port}");
    until("both events are written", || api.events().len() == 2).await;
    let expected =
        [format!("web Listening: {reached}"), "web ServiceNotFound: Service a/late does not exist".to_owned()];
    assert_eq!(api.events(), expected);
    add_service(&api, "a", "late", backend("late").await);
    until_answered(|| http(&handle), "foo.com", "/", "late").await;
    let causes = format!(
        "{:?}",
        informers.reconciles().latest("gateway").iter().map(|one| one.causes.clone()).collect::<Vec<_>>()
    );
    assert!(!causes.contains("other"), "what leads nowhere is looked at: {causes}");

    // One that is another's is left alone, and its port with it.
    api.put("ingresses", ingress("other", "web"));
    until("the ports are closed", || http(&handle).is_none()).await;
    api.put("ingresses", ingress("coracle", "web"));
    until_answered(|| http(&handle), "foo.com", "/", "two").await;
    let address = http(&handle).unwrap();
    handle.shutdown().await;
    assert_eq!(ask(address, "foo.com", "/").await, "refused");
}

#[tokio::test]
async fn a_port_that_nobody_can_have_is_told() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let api = TestApi::default();
    api.put("ingressclasses", json!({ "metadata": { "name": "coracle" }, "spec": { "controller": CONTROLLER } }));
    api.put("ingresses", ingress("coracle", "web"));
    let (handle, informers) =
        start_with(&api, |config| (config.http_ports, config.https_ports) = (vec![port], vec![port]));
    let why = "cannot listen for port 80 at 127.0.0.1: Address already in use";
    until("it is told", || informers.reconciles().latest("gateway").iter().any(|sync| sync.to_string().contains(why)))
        .await;
    assert_eq!(http(&handle), None);
    let status = api.get("ingresses", "a/web")["status"].clone();
    assert_eq!(status["loadBalancer"]["ingress"], Value::Null, "nobody is answered: {status}");
    handle.shutdown().await;
}

#[tokio::test]
async fn default_certificates_are_checked() {
    let (handle, _) = start_with(&TestApi::default(), |_| ());
    let (chain, key) = crate::testing::certificate("foo.com");
    handle.set_default_certificate(&chain, &key).unwrap();
    let other = crate::testing::certificate("foo.com").1;
    let refused = handle.set_default_certificate(&chain, &other).unwrap_err();
    assert!(refused.to_string().starts_with("the default certificate cannot be used: "), "{refused}");
    handle.shutdown().await;
}

#[tokio::test]
async fn the_gateway_api_is_followed_while_it_is_there() {
    let api = TestApi::default();
    let kinds = ["gatewayclasses", "gateways", "httproutes", "referencegrants"];
    kinds.iter().for_each(|kind| api.set_served(kind, false));
    add_service(&api, "a", "web", backend("one").await);
    api.put("gateways", json!({
        "metadata": { "namespace": "a", "name": "gw", "generation": 1 },
        "spec": { "gatewayClassName": "coracle", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] },
    }));
    let route = |service: &str, generation: u64| {
        json!({
            "metadata": { "namespace": "a", "name": "web", "generation": generation },
            "spec": { "parentRefs": [{ "name": "gw" }], "rules": [{ "backendRefs": [{ "name": service, "port": 80 }] }] },
        })
    };
    api.put("httproutes", route("web", 1));
    let (handle, informers) = start_with(&api, |_| ());
    until("it has begun", || !informers.reconciles().latest("gateway").is_empty()).await;
    assert_eq!(http(&handle), None);

    // The definitions come, and are served a moment later.
    for kind in kinds {
        api.put(
            "customresourcedefinitions",
            json!({ "metadata": { "name": format!("{kind}.gateway.networking.k8s.io") } }),
        );
    }
    kinds.iter().for_each(|kind| api.set_served(kind, true));
    until_answered(|| http(&handle), "foo.com", "/", "one").await;
    until("the route's status is written", || api.patches("httproutes", "a/web") > 0).await;
    let conditions = api.get("httproutes", "a/web")["status"]["parents"][0]["conditions"].clone();
    assert_eq!((&conditions[0]["type"], &conditions[0]["status"]), (&json!("Accepted"), &json!("True")));
    until("the Gateway's status is written", || api.patches("gateways", "a/gw") > 0).await;
    let status = api.get("gateways", "a/gw")["status"].clone();
    assert_eq!(status["listeners"][0]["attachedRoutes"], 1, "{status}");
    until("the class's status is written", || api.patches("gatewayclasses", "/coracle") > 0).await;
    assert_eq!(api.get("gatewayclasses", "/coracle")["spec"]["controllerName"], GATEWAY_CONTROLLER, "it was made");

    // A status of the last change alone is written, and of this route alone.
    let changed = route("gone", 2);
    let status = api.get("httproutes", "a/web")["status"].clone();
    api.put("httproutes", {
        let mut changed = changed;
        changed["status"] = status;
        changed
    });
    until_answered(|| http(&handle), "foo.com", "/", "500").await;
    until("the route's status is written", || api.patches("httproutes", "a/web") == 2).await;
    let conditions = api.get("httproutes", "a/web")["status"]["parents"][0]["conditions"].clone();
    assert_eq!(
        (&conditions[1]["reason"], &conditions[1]["observedGeneration"]),
        (&json!("BackendNotFound"), &json!(2))
    );
    assert_eq!((api.patches("gateways", "a/gw"), api.patches("gatewayclasses", "/coracle")), (1, 1));
    add_service(&api, "a", "gone", backend("back").await);
    until_answered(|| http(&handle), "foo.com", "/", "back").await;

    // They go with their definitions, and come again.
    api.delete("customresourcedefinitions", "/gateways.gateway.networking.k8s.io");
    until("the port is closed", || http(&handle).is_none()).await;
    api.put("customresourcedefinitions", json!({ "metadata": { "name": "gateways.gateway.networking.k8s.io" } }));
    until_answered(|| http(&handle), "foo.com", "/", "back").await;
    handle.shutdown().await;
}

#[tokio::test]
async fn gateways_have_addresses_of_their_own() {
    let api = TestApi::default();
    for kind in ["gatewayclasses", "gateways", "httproutes"] {
        api.put(
            "customresourcedefinitions",
            json!({ "metadata": { "name": format!("{kind}.gateway.networking.k8s.io") } }),
        );
    }
    // Ports are those of the listener: one that is free a moment ago.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    api.put(
        "gatewayclasses",
        json!({ "metadata": { "name": "coracle" }, "spec": { "controllerName": GATEWAY_CONTROLLER } }),
    );
    for (name, endpoint) in [("one", backend("one").await), ("two", backend("two").await)] {
        add_service(&api, "a", name, endpoint);
        api.put("gateways", json!({
            "metadata": { "namespace": "a", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "gatewayClassName": "coracle", "listeners": [{ "name": "http", "port": port, "protocol": "HTTP" }] },
        }));
        api.put("httproutes", json!({
            "metadata": { "namespace": "a", "name": name },
            "spec": { "parentRefs": [{ "name": name }], "rules": [{ "backendRefs": [{ "name": name, "port": 80 }] }] },
        }));
    }
    let own = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
    let (handle, _) = start_with(&api, |config| config.gateway_addresses = own.map(IpAddr::from).to_vec());
    for (ip, name) in own.into_iter().zip(["one", "two"]) {
        until_answered(|| Some(SocketAddr::new(ip.into(), port)), "foo.com", "/", name).await;
        let said = || api.get("gateways", &format!("a/{name}"))["status"]["addresses"][0]["value"] == ip.to_string();
        until("its address is said", said).await;
    }
    assert_eq!(http(&handle), None, "the addresses of Ingresses are left alone");
    handle.shutdown().await;
}
