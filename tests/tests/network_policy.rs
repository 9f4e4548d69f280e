//! NetworkPolicies, as pods feel them: who reaches whom, by address and through a service.

use coracle_tests::{BUSYBOX, Cluster};

/// A server with two ports, which is probed, in a namespace with a client; and a client of the same labels in another.
const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: { name: other, labels: { team: friends } }
---
apiVersion: v1
kind: Service
metadata: { name: server }
spec:
  selector: { app: server }
  ports: [{ name: web, port: 80, targetPort: web }, { name: more, port: 90, targetPort: 9000 }]
---
apiVersion: v1
kind: Pod
metadata: { name: server, labels: { app: server } }
spec:
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "nc -ll -p 9000 -e echo hello & exec nc -ll -p 8080 -e echo hello"]
    ports: [{ name: web, containerPort: 8080 }]
    readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1, failureThreshold: 1 }
---
apiVersion: v1
kind: Pod
metadata: { name: client, labels: { app: client } }
spec: { containers: [{ name: main, image: IMAGE, command: [sleep, "1000"] }] }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: other, labels: { app: client } }
spec: { containers: [{ name: main, image: IMAGE, command: [sleep, "1000"] }] }
"#;

/// A policy of the pods with this label; what follows is the rest of its spec.
fn policy(name: &str, app: &str, rest: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}}}, spec: {{podSelector: \
         {{matchLabels: {{app: {app}}}}}, {rest}}}}}"
    )
}

#[test]
fn policies_are_enforced() {
    let cluster = Cluster::start();
    cluster.apply(&PODS.replace("IMAGE", BUSYBOX));
    for (namespace, pods) in [("default", &["pod/server", "pod/client"][..]), ("other", &["pod/client"])] {
        let wait = ["wait", "--for=condition=Ready", "--timeout=60s", "--namespace", namespace];
        cluster.kubectl(&[&wait[..], pods].concat()).ok();
    }
    let server = cluster.field("pod/server", "{.status.podIP}");
    let service = cluster.field("service/server", "{.spec.clusterIP}");
    // Whether the client of a namespace gets an answer.
    let reaches =
        |namespace: &str, address: &str, port: &str| cluster.said_to_client(namespace, address, port).contains("hello");
    // Whom the two clients reach: the port with a name and the other one, and both through the service.
    let seen = || {
        let ask = |namespace| {
            let ports = [(&server, "8080"), (&server, "9000"), (&service, "80"), (&service, "90")];
            ports.map(|(address, port)| reaches(namespace, address, port))
        };
        (ask("default"), ask("other"))
    };
    let comes_to = |what: &str, own: [bool; 4], other: [bool; 4]| {
        cluster.wait(what, || (seen() == (own, other)).then_some(()));
    };
    let (all, none, web) = ([true; 4], [false; 4], [true, false, true, false]);
    comes_to("everybody reaches the server", all, all);

    let written =
        cluster.kubectl_with_input(&["apply", "-f", "-"], &policy("deny", "server", "policyTypes: [Ingress]"));
    assert!(!written.stderr.contains("Warning"), "{}", written.stderr);
    comes_to("nobody reaches the server", none, none);
    // Its node still does: it is probed once a second, and one failure would make it unready.
    let ready = cluster.field("pod/server", "{.status.conditions[?(@.type=='Ready')].status}");
    assert_eq!(ready, "True");

    let from_pods = "ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: web}]}]";
    cluster.apply(&policy("web", "server", from_pods));
    comes_to("the own client reaches the named port", web, none);
    let from_namespace = "ingress: [{from: [{namespaceSelector: {matchLabels: {team: friends}}}]}]";
    cluster.apply(&policy("friends", "server", from_namespace));
    comes_to("the client of the other namespace reaches all ports", web, all);

    // A block with all pods but for the own client.
    cluster.kubectl(&["delete", "networkpolicy", "web", "friends"]).ok();
    let client = cluster.field("pod/client", "{.status.podIP}");
    let block = format!("ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [{client}/32]}}}}]}}]");
    cluster.apply(&policy("block", "server", &block));
    comes_to("the own client is excepted", none, all);
    cluster.kubectl(&["delete", "networkpolicy", "deny", "block"]).ok();
    comes_to("everybody reaches the server again", all, all);

    // Egress, with names to be looked up.
    let dns = "policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}]";
    cluster.apply(&policy("out", "client", dns));
    comes_to("the own client reaches nobody", none, all);
    let name = "server.default.svc.cluster.local";
    let looked_up = cluster.kubectl(&["exec", "client", "--", "nslookup", "-type=a", name]);
    assert!(looked_up.stdout.contains(&format!("Address: {service}")), "{} {}", looked_up.stdout, looked_up.stderr);
    cluster.kubectl(&["delete", "networkpolicy", "out"]).ok();
    comes_to("everybody reaches the server at last", all, all);
}
