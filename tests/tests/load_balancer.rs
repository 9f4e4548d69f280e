//! Services of type LoadBalancer: an address at once, for whom it is there, and when it goes.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use coracle_tests::{BUSYBOX, Cluster, http_get};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: server, labels: { app: server } }
spec:
  containers:
  - name: main
    image: IMAGE
    command: [nc, -ll, -p, "8080", -e, echo, hello]
    readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Pod
metadata: { name: client, labels: { app: client } }
spec: { containers: [{ name: main, image: IMAGE, command: [sleep, "1000"] }] }
"#;

fn service(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{type: LoadBalancer, selector: {{app: server}}, \
         ports: [{{port: 80, targetPort: 8080}}]{more}}}}}"
    )
}

fn address(cluster: &Cluster, name: &str) -> String {
    let path = "{.status.loadBalancer.ingress[0].ip}";
    cluster.wait("an address", || {
        Some(cluster.field(&format!("service/{name}"), path)).filter(|address| !address.is_empty())
    })
}

#[test]
fn load_balancers_have_addresses() {
    let cluster = Cluster::start();
    cluster.apply(&PODS.replace("IMAGE", BUSYBOX));
    let written = cluster.kubectl_with_input(&["apply", "-f", "-"], &service("one", ""));
    assert!(!written.stderr.contains("Warning"), "{}", written.stderr);
    cluster.apply(&service("two", ", externalTrafficPolicy: Local"));
    cluster.apply(&service("theirs", ", loadBalancerClass: example.com/theirs"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/server", "pod/client"]).ok();
    let (one, two) = (address(&cluster, "one"), address(&cluster, "two"));
    let ips = cluster.kubectl(&["get", "services", "-A", "-o", "jsonpath={.items[*].spec.clusterIP}"]).ok();
    let ips: BTreeSet<&str> = ips.split_whitespace().chain([&*one, &*two]).collect();
    assert_eq!(ips.len(), 7, "kubernetes, kube-dns and three with two addresses, all different: {ips:?}");
    assert!(cluster.kubectl(&["get", "service", "one"]).ok().contains(&one));
    assert!(cluster.kubectl(&["get", "service", "theirs"]).ok().contains("<pending>"));

    // The machine and the pods.
    let from_pod = |address: &str| cluster.said_to_client("default", address, "80").contains("hello");
    cluster.wait("the first answers", || (from_host(&one) && from_pod(&one)).then_some(()));
    cluster.wait("the second answers", || from_host(&two).then_some(()));

    // No other Service gets the address, whoever writes it.
    let status = format!(r#"{{"status": {{"loadBalancer": {{"ingress": [{{"ip": "{one}"}}]}}}}}}"#);
    let refused = cluster.kubectl(&["patch", "service", "two", "--subresource=status", "--type=merge", "-p", &status]);
    let why = refused.fails();
    assert!(why.contains("status.loadBalancer.ingress[0].ip") && why.contains("already allocated"), "{why}");

    // Whom it lets in.
    let pods = cluster.field("pod/client", "{.status.podIP}");
    let ranges = |ranges: &str| {
        let patch = format!(r#"{{"spec": {{"loadBalancerSourceRanges": [{ranges}]}}}}"#);
        cluster.kubectl(&["patch", "service", "one", "--type=merge", "-p", &patch]).ok();
    };
    ranges(&format!(r#""{pods}/32""#));
    cluster.wait("only one pod comes in", || (from_pod(&one) && !from_host(&one)).then_some(()));
    ranges("");
    cluster.wait("everybody comes in again", || (from_pod(&one) && from_host(&one)).then_some(()));

    // Its health check.
    let port = cluster.field("service/two", "{.spec.healthCheckNodePort}");
    let health = cluster.wait("a health check", || http_get(&format!("127.0.0.1:{port}"), "/healthz"));
    assert!(health.contains(r#""localEndpoints": 1"#), "{health}");
    cluster.kubectl(&["delete", "pod", "server", "--now"]).ok();
    cluster.wait("no endpoint is left", || http_get(&format!("127.0.0.1:{port}"), "/healthz").is_none().then_some(()));

    // It is none any more.
    cluster.kubectl(&["patch", "service", "one", "-p", r#"{"spec": {"type": "ClusterIP"}}"#]).ok();
    cluster.wait_for("service/one", "{.status.loadBalancer}", "{}");
}

/// Whether the server answers this machine: what is dropped does not answer in a moment.
fn from_host(address: &str) -> bool {
    let address = format!("{address}:80").parse().expect("an address");
    let mut answer = Vec::new();
    TcpStream::connect_timeout(&address, Duration::from_millis(500))
        .is_ok_and(|mut stream| stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"hello"))
}

#[test]
fn addresses_can_be_left_to_others() {
    let cluster = Cluster::new();
    cluster.coracle(&["start", "--no-load-balancer"]).ok();
    cluster.apply(&service("one", ""));
    // What follows it in the same queue of the API is done, so this would be, too.
    cluster.wait("endpoints", || {
        (!cluster.kubectl(&["get", "endpointslices", "-o", "name"]).ok().is_empty()).then_some(())
    });
    assert!(cluster.kubectl(&["get", "service", "one"]).ok().contains("<pending>"));
}
