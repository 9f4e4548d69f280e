//! Ingresses and the Gateway API: pages of pods by their hosts, with nothing set up before.

use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_tests::{BUSYBOX, Cluster, Ran, run};

const SERVERS: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: NAME, labels: { app: NAME } }
spec:
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "mkdir -p /www/sub && echo NAME | tee /www/index.html > /www/sub/index.html && exec httpd -f -p 8080 -h /www"]
    readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: NAME }
spec: { selector: { app: NAME }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
"#;

const INGRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: web }
spec:
  rules:
  - host: one.localhost
    http:
      paths:
      - { path: /, pathType: Prefix, backend: { service: { name: one, port: { number: 80 } } } }
      - { path: /sub, pathType: Prefix, backend: { service: { name: two, port: { name: http } } } }
"#;

const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: entry }
spec: { gatewayClassName: coracle, listeners: [{ name: http, port: 80, protocol: HTTP }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: both }
spec:
  parentRefs: [{ name: entry }]
  hostnames: [route.localhost]
  rules:
  - matches: [{ headers: [{ name: x-canary, value: "yes" }] }]
    backendRefs: [{ name: two, port: 80 }]
  - matches: [{ path: { type: PathPrefix, value: /moved } }]
    filters: [{ type: RequestRedirect, requestRedirect: { hostname: elsewhere.localhost, statusCode: 302 } }]
  - backendRefs: [{ name: one, port: 80 }]
"#;

/// Held by tests of clusters that listen at port 80, which one of them has at a time.
fn port_80() -> MutexGuard<'static, ()> {
    static PORT_80: Mutex<()> = Mutex::new(());
    PORT_80.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_servers(cluster: Cluster) -> Cluster {
    for name in ["one", "two"] {
        cluster.apply(&SERVERS.replace("IMAGE", BUSYBOX).replace("NAME", name));
    }
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/one", "pod/two"]).ok();
    cluster
}

/// Where the Ingress says that it is reached: a port for HTTP and one for HTTPS.
fn ports(cluster: &Cluster) -> (String, String) {
    let path = "{.status.loadBalancer.ingress[0].ports[*].port}";
    let ports =
        cluster.wait("an address", || Some(cluster.field("ingress/web", path)).filter(|ports| ports.contains(' ')));
    let (http, https) = ports.split_once(' ').expect("two ports");
    (http.to_owned(), https.to_owned())
}

/// Asks for a URL whose host is this machine.
fn curl(scheme: &str, host: &str, port: &str, path: &str, more: &[&str]) -> Ran {
    let resolve = format!("{host}:{port}:127.0.0.1");
    let url = format!("{scheme}://{host}:{port}{path}");
    run(
        "curl",
        &[&["-sS", "-m", "10", "--noproxy", "*", "-w", "%{http_code}", "--resolve", &resolve, &url], more].concat(),
    )
}

#[test]
fn ingresses_lead_to_pods() {
    let _alone = port_80();
    let cluster = with_servers(Cluster::start());
    let written = cluster.kubectl_with_input(&["apply", "-f", "-"], INGRESS);
    assert!(!written.stderr.contains("Warning"), "{}", written.stderr);
    assert_eq!(cluster.field("ingress/web", "{.spec.ingressClassName}"), "coracle", "there is a default");
    let (http, https) = ports(&cluster);
    let get = |host: &str, path: &str| curl("http", host, &http, path, &[]).stdout;
    cluster.wait("a page", || (get("one.localhost", "/") == "one\n200").then_some(()));
    assert_eq!(get("one.localhost", "/sub/"), "two\n200", "the longer path wins");
    assert!(get("other.localhost", "/").ends_with("404"), "a host of nobody");
    let described = cluster.kubectl(&["describe", "ingress", "web"]).ok();
    assert!(described.contains(&format!("http://127.0.0.1:{http}")), "{described}");

    // Names without a certificate have one of the cluster's.
    let authority = cluster.home().join("ca.pem");
    let pem = cluster.kubectl(&["get", "configmap", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}"]).ok();
    std::fs::write(&authority, pem).expect("written");
    let trusted = ["--cacert", authority.to_str().expect("a path")];
    cluster.wait("a certificate", || {
        (curl("https", "one.localhost", &https, "/", &trusted).stdout == "one\n200").then_some(())
    });
    let refused = curl("https", "other.localhost", &https, "/", &trusted).fails();
    assert!(refused.contains("certificate") || refused.contains("SSL"), "{refused}");

    // One of its own comes from a Secret.
    let key = rcgen::generate_simple_self_signed(["one.localhost".to_owned()]).expect("a certificate");
    let (own, secret) = (cluster.home().join("own.pem"), cluster.home().join("own.key"));
    std::fs::write(&own, key.cert.pem()).expect("written");
    std::fs::write(&secret, key.signing_key.serialize_pem()).expect("written");
    let (own, secret) = (own.to_str().expect("a path"), secret.to_str().expect("a path"));
    cluster.kubectl(&["create", "secret", "tls", "own", "--cert", own, "--key", secret]).ok();
    let tls = r#"{"spec": {"tls": [{"hosts": ["one.localhost"], "secretName": "own"}]}}"#;
    cluster.kubectl(&["patch", "ingress", "web", "-p", tls]).ok();
    cluster.wait("the own certificate", || {
        (curl("https", "one.localhost", &https, "/", &["--cacert", own]).stdout == "one\n200").then_some(())
    });

    // Pods reach it at the node's address.
    let node = cluster.field("pod/two", "{.status.hostIP}");
    let header = "Host: one.localhost";
    let request = format!("GET / HTTP/1.1\\r\\n{header}\\r\\nConnection: close\\r\\n\\r\\n");
    // To a proxy, who says that nothing more comes has gone.
    let ask = format!("(printf '{request}'; sleep 1) | nc -w 5 {node} {http}");
    let said = cluster.kubectl(&["exec", "two", "--", "sh", "-c", &ask]).stdout;
    assert!(said.ends_with("one\n"), "{said}");

    // A Service whose pods are gone is said to be unavailable; without an Ingress nothing listens.
    cluster.kubectl(&["delete", "pod", "one", "--now"]).ok();
    cluster.wait("503", || get("one.localhost", "/").ends_with("503").then_some(()));
    cluster.kubectl(&["delete", "ingress", "web"]).ok();
    cluster.wait("a closed port", || (curl("http", "one.localhost", &http, "/", &[]).code != 0).then_some(()));
}

#[test]
fn an_ingress_of_somebody_elses_class_is_left_alone() {
    let cluster = Cluster::start();
    cluster.apply(&format!("{INGRESS}  ingressClassName: theirs\n"));
    cluster.apply(&INGRESS.replace("name: web", "name: ours"));
    cluster.wait("ours has an address", || {
        Some(cluster.field("ingress/ours", "{.status.loadBalancer.ingress[0].ip}")).filter(|ip| ip == "127.0.0.1")
    });
    assert_eq!(cluster.field("ingress/web", "{.status.loadBalancer}"), "{}");
}

#[test]
fn gateways_and_routes_lead_to_pods() {
    let _alone = port_80();
    let cluster = with_servers(Cluster::start_with(&["gateway-api"]));
    cluster.wait("a class", || {
        let path = r#"{.status.conditions[?(@.type=="Accepted")].status}"#;
        (cluster.kubectl(&["get", "gatewayclass", "coracle", "-o", &format!("jsonpath={path}")]).stdout == "True")
            .then_some(())
    });
    // What cannot be is refused where it stands, and nothing is made of it.
    let bad_host = GATEWAY.replace("[route.localhost]", "[Route_localhost]");
    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], &bad_host).fails();
    assert!(refused.contains("spec.hostnames[0]: Invalid value: \"Route_localhost\""), "{refused}");
    let both = "requestRedirect: { hostname: elsewhere.localhost, statusCode: 302 }, urlRewrite: {} }";
    let both = GATEWAY.replace("requestRedirect: { hostname: elsewhere.localhost, statusCode: 302 } }", both);
    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], &both).fails();
    assert!(refused.contains("spec.rules[1].filters[0].urlRewrite: Invalid value"), "{refused}");
    assert_ne!(cluster.kubectl(&["get", "httproute/both"]).code, 0);
    cluster.apply(GATEWAY);
    cluster.kubectl(&["wait", "--for=condition=Programmed", "--timeout=60s", "gateway/entry"]).ok();
    let accepted = r#"{.status.parents[0].conditions[?(@.type=="Accepted")].status}"#;
    cluster.wait_for("httproute/both", accepted, "True");
    // What was left out is there, in each version; the short name and the columns are the project's.
    let path = "{.spec.rules[2].matches[0].path.type} {.spec.rules[2].backendRefs[0].weight}";
    assert_eq!(cluster.field("httproutes.v1beta1.gateway.networking.k8s.io/both", path), "PathPrefix 1");
    let listed = cluster.kubectl(&["get", "gtw"]).ok();
    let head: Vec<&str> = listed.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head, ["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"]);
    // An Ingress shares the address, and tells the port.
    cluster.apply(INGRESS);
    let (http, _) = ports(&cluster);
    let get = |path: &str, more: &[&str]| curl("http", "route.localhost", &http, path, more).stdout;
    cluster.wait("a page", || (get("/", &[]) == "one\n200").then_some(()));
    assert_eq!(get("/", &["-H", "X-Canary: yes"]), "two\n200");
    let moved = get("/moved", &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]);
    assert!(moved.starts_with("302 http://elsewhere.localhost"), "{moved}");
}
