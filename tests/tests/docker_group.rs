//! A cluster of somebody who is not root, but may use Docker.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use coracle_tests::{BUSYBOX, Cluster, http_get, run};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A pod that serves its name, a service in front of it, and a pod to ask from.
const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web } }
spec:
  containers:
  - { name: main, image: IMAGE, command: [sh, -c, "echo hello > /tmp/name; exec httpd -f -p 8080 -h /tmp"] }
---
apiVersion: v1
kind: Pod
metadata: { name: client }
spec:
  containers:
  - { name: main, image: IMAGE, command: [sleep, "1000"] }
"#;

/// The address of a service.
fn cluster_ip(cluster: &Cluster, service: &str) -> String {
    cluster.wait("the service has an address", || {
        let address = cluster.field(&format!("service/{service}"), "{.spec.clusterIP}");
        (!address.is_empty()).then_some(address)
    })
}

/// What the client's pod gets at this URL.
fn asked_by_pod(cluster: &Cluster, url: &str) -> Option<String> {
    let ran = cluster.kubectl(&["exec", "client", "--", "timeout", "5", "wget", "-q", "-O", "-", url]);
    (ran.code == 0).then_some(ran.stdout)
}

#[test]
fn services_work_without_root() {
    let cluster = Cluster::of_docker_group();
    let started = cluster.coracle(&["start"]);
    assert!(!started.stderr.contains("Warning"), "{started}");
    started.ok();
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid())).expect("the daemon runs");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim);
    assert_eq!(effective, Some("0000000000000000"), "the daemon has no privilege");
    let condition = "{.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
    cluster.wait_for(&format!("node/{}", cluster.profile), condition, "False");

    cluster.apply(&MANIFEST.replace("IMAGE", BUSYBOX));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=60s"]).ok();
    let address = cluster_ip(&cluster, "web");
    // By address and by name; from a pod, from the pod itself, and from the machine.
    for url in [format!("http://{address}/name"), "http://web.default.svc.cluster.local/name".to_owned()] {
        let answer = cluster.wait(&url, || asked_by_pod(&cluster, &url));
        assert_eq!(answer, "hello\n", "{url}");
    }
    let own =
        ["exec", "web", "--", "timeout", "5", "wget", "-q", "-O", "-", "http://web.default.svc.cluster.local/name"];
    cluster.wait("a pod reaches itself", || (cluster.kubectl(&own).stdout == "hello\n").then_some(()));
    let answer = cluster.wait("the machine reaches it", || http_get(&format!("{address}:80"), "/name"));
    assert!(answer.ends_with("hello\n"), "{answer}");

    // What is nobody's is refused here, and asked of nobody elsewhere.
    let [a, b, ..] = address.parse::<std::net::Ipv4Addr>().expect("an address").octets();
    let unused = format!("{a}.{b}.255.254");
    let socket: SocketAddr = format!("{unused}:80").parse().expect("an address");
    let refused = TcpStream::connect_timeout(&socket, TIMEOUT).expect_err("nobody is there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let way = run("ip", &["-4", "route", "get", &unused]).ok();
    assert!(way.contains("dev co"), "it goes to the bridge: {way}");

    // Somebody removes the container that changes the network: what is there works on, and so does what comes.
    run("docker", &["rm", "-f", &format!("coracle-{}-helper", cluster.profile)]).ok();
    let again = MANIFEST.split("---").next().unwrap_or_default().replace("name: web }\nspec", "name: again }\nspec");
    cluster.apply(&again);
    let address = cluster_ip(&cluster, "again");
    let url = format!("http://{address}/name");
    cluster.wait("a new service", || asked_by_pod(&cluster, &url));

    cluster.coracle(&["stop"]).ok();
    let range = format!("{a}.{b}.0.0/16");
    assert!(!run("ip", &["-4", "route"]).ok().contains(&range), "the route is gone");
    let label = format!("label=io.coracle.helper={}", cluster.profile);
    assert_eq!(run("docker", &["ps", "-aq", "--filter", &label]).ok(), "", "the helper is gone");
}
