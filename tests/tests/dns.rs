//! Names, as pods see them: by the resolver that their own `/etc/resolv.conf` names.

use coracle_tests::{BUSYBOX, Cluster};

/// Two pods with names of their own below a headless service, one of them never ready, and a pod to ask from; and a service
/// without a selector, whose endpoints are kept by hand.
const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: peers }
spec:
  clusterIP: None
  selector: { app: peer }
  ports: [{ name: talk, port: 7000 }]
---
apiVersion: v1
kind: Service
metadata: { name: front }
spec:
  selector: { app: peer }
  ports: [{ name: talk, port: 70, targetPort: 7000 }]
---
apiVersion: v1
kind: Service
metadata: { name: alias }
spec: { type: ExternalName, externalName: front.default.svc.cluster.local }
---
apiVersion: v1
kind: Service
metadata: { name: elsewhere }
spec: { clusterIP: None, ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: elsewhere }
subsets: [{ addresses: [{ ip: 192.0.2.7 }], ports: [{ port: 80 }] }]
---
apiVersion: v1
kind: Pod
metadata: { name: peer-0, labels: { app: peer } }
spec:
  hostname: peer-0
  subdomain: peers
  containers:
  - { name: main, image: IMAGE, command: [sleep, "1000"] }
---
apiVersion: v1
kind: Pod
metadata: { name: peer-1, labels: { app: peer } }
spec:
  hostname: peer-1
  subdomain: peers
  containers:
  - name: main
    image: IMAGE
    command: [sleep, "1000"]
    readinessProbe: { exec: { command: ["false"] }, periodSeconds: 1 }
"#;

#[test]
fn names_of_services_and_pods() {
    let cluster = Cluster::start();
    cluster.apply(&MANIFEST.replace("IMAGE", BUSYBOX));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/peer-0", "--timeout=60s"]).ok();
    cluster.wait_for("pod/peer-1", "{.status.phase}", "Running");
    let address = |pod: &str| cluster.field(&format!("pod/{pod}"), "{.status.podIP}");
    let look_up = |kind: &str, name: &str| {
        let ran = cluster.kubectl(&["exec", "peer-0", "--", "nslookup", &format!("-type={kind}"), name]);
        // Why there is no answer is on standard error.
        ran.stdout + &ran.stderr
    };

    let resolv_conf = cluster.kubectl(&["exec", "peer-0", "--", "cat", "/etc/resolv.conf"]).ok();
    let service = ["get", "service", "kube-dns", "--namespace=kube-system", "-o", "jsonpath={.spec.clusterIP}"];
    let server = cluster.kubectl(&service).ok();
    assert!(resolv_conf.contains(&format!("nameserver {server}\n")), "{resolv_conf}");
    assert!(resolv_conf.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{resolv_conf}");

    // The ready one by the service's name and by its own; the other one not at all.
    let name = "peer-0.peers.default.svc.cluster.local";
    let ready = address("peer-0");
    cluster.wait("the pod has a record", || look_up("a", name).contains(&format!("Address: {ready}")).then_some(()));
    let all = look_up("a", "peers.default.svc.cluster.local");
    assert!(all.contains(&format!("Address: {ready}")) && !all.contains(&address("peer-1")), "{all}");
    let unready = look_up("a", "peer-1.peers.default.svc.cluster.local");
    assert!(unready.contains("NXDOMAIN"), "{unready}");
    // A name without a record of the type is another thing than no name.
    let nothing = look_up("aaaa", name);
    assert!(!nothing.contains("NXDOMAIN"), "{nothing}");

    let ip = cluster.field("service/front", "{.spec.clusterIP}");
    assert!(look_up("a", "front.default.svc.cluster.local").contains(&format!("Address: {ip}")));
    assert!(look_up("a", "alias.default.svc.cluster.local").contains(&format!("Address: {ip}")));
    let port = look_up("srv", "_talk._tcp.peers.default.svc.cluster.local");
    assert!(port.contains("7000") && port.contains(name), "{port}");
    let mut reversed: Vec<&str> = ready.split('.').collect();
    reversed.reverse();
    let pointer = look_up("ptr", &format!("{}.in-addr.arpa", reversed.join(".")));
    assert!(pointer.contains(name), "{pointer}");

    let elsewhere = || look_up("a", "elsewhere.default.svc.cluster.local");
    cluster.wait("the hand-made record", || elsewhere().contains("Address: 192.0.2.7").then_some(()));
    cluster.kubectl(&["delete", "endpoints", "elsewhere"]).ok();
    cluster.wait("the hand-made record goes", || (!elsewhere().contains("192.0.2.7")).then_some(()));

    // By the search list; and gone with the pod.
    assert!(look_up("a", "front").contains(&format!("Address: {ip}")));
    cluster.kubectl(&["delete", "pod", "peer-0", "peer-1", "--now", "--wait=false"]).ok();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: asker}}, spec: {{containers: [{{name: main, image: {BUSYBOX}, \
         command: [sleep, '1000']}}]}}}}"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/asker", "--timeout=60s"]).ok();
    cluster.wait("the record goes with the pod", || {
        let ran = cluster.kubectl(&["exec", "asker", "--", "nslookup", "-type=a", name]);
        ran.stdout.contains("NXDOMAIN").then_some(())
    });
}
