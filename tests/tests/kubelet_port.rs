//! The kubelet's own port, as Prometheus asks it: by the address and the port that the node tells, with the token of a pod's
//! service account, and the cluster's authority to verify the certificate.

use coracle_tests::{Cluster, Ran};
use serde_json::Value;

/// An image with curl.
const CURL: &str = "nginx:1.21.0";

/// What a pod finds of its account.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn a_pod_scrapes_the_kubelet_as_its_account() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: scraper }}\nspec:\n  containers:\n  - name: main\n    image: '{CURL}'\n    \
         imagePullPolicy: Never\n    command: [sh, -c, 'echo spoken; exec nginx -g \"daemon off;\"']\n    \
         readinessProbe: {{ tcpSocket: {{ port: 80 }}, periodSeconds: 1 }}\n"
    ));
    kubectl(&["wait", "--for=condition=Ready", "pod/scraper", "--timeout=60s"]);

    // `kubernetes_sd_configs` with `role: node` puts the address together like this.
    let node = cluster.get(&["node", &cluster.profile]);
    let addresses = node["status"]["addresses"].as_array().expect("addresses");
    let address = addresses.iter().find(|address| address["type"] == "InternalIP").expect("an address");
    let port = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
    assert!(port.as_u64() > Some(0), "{node}");
    let address = format!("{}:{port}", address["address"].as_str().unwrap_or_default());

    let curl = |path: &str, arguments: &str| -> Ran {
        let script =
            format!("curl -sS -m 10 -w '%{{http_code}}' --cacert {MOUNT}/ca.crt {arguments} 'https://{address}{path}'");
        cluster.kubectl(&["exec", "scraper", "--", "sh", "-c", &script])
    };
    let token = format!("-H \"Authorization: Bearer $(cat {MOUNT}/token)\"");
    let scrape = |path: &str| curl(path, &token).ok();
    assert_eq!(curl("/metrics", "").ok(), "Unauthorized401");
    assert_eq!(
        scrape("/metrics/cadvisor"),
        "Forbidden (user=system:serviceaccount:default:default, verb=get, resource=nodes, subresource(s)=[metrics])\n403"
    );

    kubectl(&["create", "clusterrole", "scraper", "--verb=get", "--resource=nodes/metrics"]);
    kubectl(&["create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount=default:default"]);
    let text = cluster.wait("the container's memory is told", || {
        Some(scrape("/metrics/cadvisor")).filter(|text| text.contains("container=\"main\""))
    });
    let used = format!("container_memory_working_set_bytes{{container=\"main\",image=\"{CURL}\",name=\"");
    assert!(text.contains(&used) && text.contains("namespace=\"default\",pod=\"scraper\"}"), "{text}");
    assert!(text.contains("container_network_receive_bytes_total{") && text.ends_with("200"), "{text}");
    let own = scrape("/metrics");
    assert!(own.contains(&format!("kubelet_node_name{{node=\"{}\"}} 1", cluster.profile)), "{own}");
    let probes = scrape("/metrics/probes");
    assert!(probes.contains("probe_type=\"Readiness\",result=\"successful\"}"), "{probes}");
    assert!(
        scrape("/metrics/resource").contains("pod_memory_working_set_bytes{namespace=\"default\",pod=\"scraper\"}")
    );
    // A right to metrics is none to pods, or to run something in one.
    for path in
        ["/pods", "/configz", "/containerLogs/default/scraper/main", "/exec/default/scraper/main?command=ls&output=1"]
    {
        assert!(scrape(path).ends_with("403"), "{path}");
    }

    // The same through the API, for whoever may.
    let raw = |path: &str| kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/{path}", cluster.profile)]);
    let json = |path: &str| -> Value { serde_json::from_str(&raw(path)).expect("JSON") };
    for path in ["pods", "runningpods/"] {
        let pods = json(path);
        let names = pods["items"].as_array().expect("a list").iter().map(|pod| &pod["metadata"]["name"]);
        assert!(names.into_iter().any(|name| name == "scraper"), "{pods}");
    }
    assert_eq!(&json("configz")["kubeletconfig"]["port"], port);
    assert!(raw("metrics/cadvisor").contains("pod=\"scraper\""));
    assert_eq!(raw("containerLogs/default/scraper/main"), "spoken\n");
    assert_eq!(raw("healthz"), "ok");
}
